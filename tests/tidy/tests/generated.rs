//! The committed FlatBuffers code is what the pinned compiler makes of the schema.
//!
//! The compiler is C++ and takes minutes to build the first time. It has a workspace and a target
//! folder of its own, so it neither slows other builds nor waits for the lock of the running one.
use std::path::{Path, PathBuf};
use std::process::Command;

use throng_tidy::tree;

const SCHEMA: &str = "protocol/schema/client.fbs";
const COMMITTED: &str = "protocol/src/wire/client_generated.rs";

#[test]
fn generated_code_is_what_the_schema_gives() {
    let Some(written) = generate(&tree::root().join(SCHEMA), "whole") else {
        return;
    };
    let committed = std::fs::read_to_string(tree::root().join(COMMITTED)).unwrap();
    let line = 1 + committed
        .lines()
        .zip(written.lines())
        .take_while(|(old, new)| old == new)
        .count();
    assert!(
        committed == written,
        "{COMMITTED} differs from line {line} on from what {SCHEMA} gives; CONTRIBUTING.md says how to generate it"
    );
}

#[test]
fn another_schema_gives_other_code() {
    let text = std::fs::read_to_string(tree::root().join(SCHEMA)).unwrap();
    let folder = scratch("changed-schema");
    let changed = folder.join("client.fbs");
    std::fs::write(&changed, text.replacen("table Hello ", "table Hullo ", 1)).unwrap();
    let Some(written) = generate(&changed, "changed") else {
        return;
    };
    assert!(written != std::fs::read_to_string(tree::root().join(COMMITTED)).unwrap());
}

/// Runs the compiler on `schema`; nothing when this machine cannot build it.
fn generate(schema: &Path, name: &str) -> Option<String> {
    for tool in ["cmake", "c++"] {
        if Command::new(tool).arg("--version").output().is_err() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "`{tool}` is missing; under CI that is a failure"
            );
            eprintln!("skipped: `{tool}` is missing, so the FlatBuffers compiler cannot be built");
            return None;
        }
    }
    let out = scratch(name);
    let output = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--locked",
            "--manifest-path",
            "tools/flatc/Cargo.toml",
            "--target-dir",
        ])
        .arg(target().join("flatc"))
        .args(["--", "--rust", "-o"])
        .args([&out, schema])
        .current_dir(tree::root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "flatc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(std::fs::read_to_string(out.join("client_generated.rs")).expect("flatc wrote it"))
}

/// The target folder of the workspace, where cargo put this test's scratch folder.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("cargo puts it into the target folder")
        .to_path_buf()
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("generated")
        .join(name);
    std::fs::create_dir_all(&folder).expect("the scratch folder is ours");
    folder
}
