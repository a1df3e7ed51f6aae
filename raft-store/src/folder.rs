//! The folder of a store: who may use it, and whether this build can read it.
//!
//! `LOCK` carries an exclusive lock for as long as the store is open; `FORMAT` names the format of
//! everything beside it. Nothing else is decided here.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The format this build writes and the newest it reads.
pub const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const FORMAT_PREFIX: &str = "throng-store ";
const LOCK_FILE: &str = "LOCK";

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{dir} is in use by another process")]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A newer build wrote it.
    #[error("{dir} has format {found}; this build reads up to {known}")]
    NewerFormat {
        /// The folder.
        dir: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this build reads.
        known: u32,
    },
    /// Its format file does not read as one.
    #[error("{dir} is not a store: its FORMAT file reads {found:?}")]
    NotAStore {
        /// The folder.
        dir: PathBuf,
        /// What the file holds.
        found: String,
    },
    /// The system refused.
    #[error("{path}: {error}")]
    Io {
        /// What was opened.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// LMDB refused.
    #[error("{path}: {reason}")]
    Lmdb {
        /// The environment's folder.
        path: PathBuf,
        /// What LMDB said.
        reason: String,
    },
    /// A shard's records cannot be read.
    #[error("shard {shard}: {reason}")]
    Shard {
        /// The shard.
        shard: u32,
        /// What is wrong.
        reason: String,
    },
}

impl OpenError {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            error,
        }
    }

    pub(crate) fn heed(path: &Path, error: &heed::Error) -> Self {
        Self::Lmdb {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }
}

/// The exclusive lock of a folder; dropping it lets others in.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

/// Locks a folder, creating it, and checks its format, writing it into a new one.
pub(crate) fn lock_and_check(dir: &Path) -> Result<FolderLock, OpenError> {
    let io_error = |error| OpenError::io(dir, error);
    create_dir_durably(dir).map_err(io_error)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK_FILE))
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            return Err(OpenError::Locked { dir: dir.to_owned() });
        }
        Err(fs::TryLockError::Error(error)) => return Err(io_error(error)),
    }
    check_format(dir)?;
    Ok(FolderLock { _file: file })
}

fn check_format(dir: &Path) -> Result<(), OpenError> {
    let text = match fs::read(dir.join(FORMAT_FILE)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return write_format(dir).map_err(|error| OpenError::io(dir, error));
        }
        Err(error) => return Err(OpenError::io(dir, error)),
    };
    let number = text
        .strip_prefix(FORMAT_PREFIX)
        .and_then(|rest| rest.trim_end().parse::<u32>().ok());
    match number {
        Some(found) if found > FORMAT => Err(OpenError::NewerFormat {
            dir: dir.to_owned(),
            found,
            known: FORMAT,
        }),
        Some(1..) => Ok(()),
        _ => Err(OpenError::NotAStore {
            dir: dir.to_owned(),
            found: text.chars().take(64).collect(),
        }),
    }
}

/// Writes the format file so that a crash leaves either none or a whole one.
fn write_format(dir: &Path) -> io::Result<()> {
    let fresh = dir.join("FORMAT.new");
    let mut file = File::create(&fresh)?;
    writeln!(file, "{FORMAT_PREFIX}{FORMAT}")?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(FORMAT_FILE))?;
    sync_dir(dir)
}

/// Creates a folder and those above it, and makes the entries durable that lead to it: without them a
/// power cut takes the folder away with everything that was synced inside.
///
/// Folders that exist are synced as well, since whoever made them may have been killed before it did.
/// Those of others, which may not be read, were not made here.
fn create_dir_durably(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let dir = std::path::absolute(dir)?;
    for above in dir.ancestors().skip(1) {
        match sync_dir(above) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            // Some file systems cannot sync a folder that nobody can change anyway.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
