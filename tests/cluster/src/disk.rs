//! A disk that can be held and filled from outside: a preloaded library between a node and its
//! system calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The library's source.
const SOURCE: &str = include_str!("../interposer/disk.c");

/// Builds the library into a folder; takes a C compiler, which throng needs anyway.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("disk.c"), folder.join("disk.so"));
    fs::write(&source, SOURCE).context("writing the interposer's source")?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .status()
        .with_context(|| format!("running {}", compiler.display()))?;
    ensure!(status.success(), "the interposer does not compile: {status}");
    Ok(library)
}

/// The switches of one node's disk.
#[derive(Debug, Clone)]
pub struct Disk {
    library: PathBuf,
    hold: PathBuf,
    full: PathBuf,
}

impl Disk {
    /// Switches in a folder, both off.
    pub fn new(library: &Path, folder: &Path, name: &str) -> Self {
        let file = |what: &str| folder.join(format!("{name}.{what}"));
        Self {
            library: library.to_owned(),
            hold: file("hold"),
            full: file("full"),
        }
    }

    /// Puts a command under this disk.
    pub fn preload(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library);
        command
            .env("THRONG_DISK_HOLD", &self.hold)
            .env("THRONG_DISK_FULL", &self.full);
    }

    /// Every sync waits from now on.
    pub fn hold(&self) -> Result<()> {
        fs::write(&self.hold, "").context("holding the disk")
    }

    /// Syncs go on.
    pub fn release(&self) -> Result<()> {
        fs::remove_file(&self.hold).context("releasing the disk")
    }

    /// Every write finds no space from now on.
    pub fn fill(&self) -> Result<()> {
        fs::write(&self.full, "").context("filling the disk")
    }

    /// There is space again.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(&self.full).context("freeing the disk")
    }
}
