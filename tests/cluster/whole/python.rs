//! The client written from SPEC and schema alone, in another language, against a running system.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::up;

/// The output of a tool, or `None` with one line where it is absent; under CI absence is a failure.
pub fn present(tool: &str, output: io::Result<Output>) -> Option<Output> {
    match output {
        Ok(output) => Some(output),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none(), "{tool} is absent");
            eprintln!("skipped: {tool} is absent");
            None
        }
        Err(error) => panic!("{tool}: {error}"),
    }
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");

/// The interpreter of a virtual environment with what the client needs, made on first use.
fn interpreter() -> Option<PathBuf> {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = place.join("bin/python3");
    let requirements = PathBuf::from(FOLDER).join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).expect("requirements");
    let stamp = place.join("installed.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Some(python);
    }
    let made = Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&place)
        .output();
    let made = present("python3", made)?;
    let installed = made.status.success().then(|| {
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "-r"])
            .arg(&requirements)
            .output()
            .expect("pip runs")
    });
    match installed {
        Some(output) if output.status.success() => {
            std::fs::write(&stamp, wanted).expect("written");
            Some(python)
        }
        failed => {
            let why = failed.map_or_else(|| made.stderr.clone(), |output| output.stderr);
            let why = String::from_utf8_lossy(&why);
            assert!(
                std::env::var_os("CI").is_none(),
                "the Python packages cannot be installed: {why}"
            );
            eprintln!("skipped: the Python packages of tests/python/requirements.txt cannot be installed");
            None
        }
    }
}

fn conformance(args: &[&str]) {
    let Some(python) = interpreter() else { return };
    let output = Command::new(python)
        .arg(format!("{FOLDER}/conformance.py"))
        .args(args)
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn another_implementation_reads_every_vector_and_talks_to_a_running_system() {
    let dir = tempfile::tempdir().expect("a folder");
    let _system = up(dir.path(), 1);
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/protocol/vectors");
    conformance(&[
        "--vectors",
        vectors,
        "--cluster",
        &dir.path().display().to_string(),
    ]);
}
