//! Runs the load in a child process under the interposer and reads what it recorded.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Fate};
use crate::record::{self, Step};

/// The library's source, beside this crate.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interposer/capture.c");

/// LMDB's table of readers: shared memory in a file, made anew by whoever opens it first.
const SHARED_MEMORY: &str = "lock.mdb";

/// Where a record lies and what it is of.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Origin {
    root: PathBuf,
    inode: u64,
}

/// A recorded run.
#[derive(Debug)]
pub struct Recorded {
    /// Everything that happened below the root.
    pub steps: Vec<Step>,
    /// The root's inode.
    pub root: u64,
}

/// Records a run of the load into a folder: the store below `root`, the record beside it.
pub fn record(dir: &Path, rounds: u64, seed: u64) -> Result<Recorded> {
    let library = build(dir)?;
    let root = dir.join("root");
    fs::create_dir(&root).context("the root")?;
    let origin = Origin {
        inode: fs::metadata(&root)?.ino(),
        root: root.clone(),
    };
    fs::write(dir.join("origin.json"), serde_json::to_vec(&origin)?).context("the origin")?;
    let status = Command::new(std::env::current_exe()?)
        .args(["power-cut", "--load"])
        .arg(dir)
        .args(["--rounds", &rounds.to_string(), "--seed", &seed.to_string()])
        .env("LD_PRELOAD", &library)
        .env("THRONG_CAPTURE_ROOT", &root)
        .env("THRONG_CAPTURE_RECORD", dir.join("record"))
        .status()
        .context("running the load")?;
    ensure!(status.success(), "the load ended with {status}");
    let recorded = read(dir)?;
    verify(&recorded, &root)?;
    Ok(recorded)
}

/// Reads a record made before.
pub fn read(dir: &Path) -> Result<Recorded> {
    let origin = fs::read(dir.join("origin.json")).context("the origin")?;
    let origin: Origin = serde_json::from_slice(&origin)?;
    let bytes = fs::read(dir.join("record")).context("the record")?;
    Ok(Recorded {
        steps: record::parse(Bytes::from(bytes), &origin.root)?,
        root: origin.inode,
    })
}

fn build(dir: &Path) -> Result<PathBuf> {
    let library = dir.join("capture.so");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .args([SOURCE, "-ldl", "-lpthread"])
        .status()
        .with_context(|| format!("running {}", compiler.display()))?;
    ensure!(status.success(), "the interposer does not compile: {status}");
    Ok(library)
}

/// A record that misses a write proves nothing: with all of it carried out, every file must be what
/// the run left.
fn verify(recorded: &Recorded, root: &Path) -> Result<()> {
    let mut disk = Disk::new(recorded.root, true);
    for step in &recorded.steps {
        disk.begin(step)?;
        disk.finish(step)?;
    }
    let image = disk.image(Fate::Everything, &mut StdRng::seed_from_u64(0));
    let data = image
        .files
        .iter()
        .filter(|(path, _)| !path.ends_with(SHARED_MEMORY));
    let mut files = 0;
    for (path, bytes) in data {
        let found = fs::read(root.join(path)).with_context(|| path.display().to_string())?;
        ensure!(
            found == *bytes,
            "{}: the record does not lead to what the file holds",
            path.display()
        );
        files += 1;
    }
    ensure!(files > 0, "the record leads to no file");
    Ok(())
}
