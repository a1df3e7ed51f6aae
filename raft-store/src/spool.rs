//! Where snapshots wait while they travel, and where work that blocks is done: in unlinked files
//! and on tokio's threads for blocking work, or in memory and at once, for a node whose disk is
//! simulated. It refuses to know what a snapshot is.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use throng_protocol::ids::ShardId;

/// The place of a node's spooled snapshots.
#[derive(Debug, Clone)]
pub(crate) enum Spool {
    /// A folder of temporary files.
    Folder(Arc<Path>),
    /// Nothing but memory, and no thread.
    Memory,
}

/// One spooled snapshot; gone when its last handle is.
#[derive(Debug, Clone)]
pub(crate) enum SpoolFile {
    File(Arc<File>),
    Memory(Arc<RwLock<Vec<u8>>>),
}

impl Spool {
    /// A spool in a folder, which is emptied, and created if need be.
    pub fn folder(path: &Path) -> io::Result<Self> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(path)?;
        Ok(Self::Folder(path.into()))
    }

    /// An empty file.
    pub fn create(&self, shard: ShardId) -> io::Result<SpoolFile> {
        match self {
            Self::Folder(folder) => Ok(SpoolFile::File(Arc::new(temporary(shard, folder)?))),
            Self::Memory => Ok(SpoolFile::Memory(Arc::default())),
        }
    }

    /// Runs work that blocks.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Folder(_) => blocking(work).await,
            Self::Memory => work(),
        }
    }
}

impl SpoolFile {
    /// Runs work on this file.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::File(_) => blocking(work).await,
            Self::Memory(_) => work(),
        }
    }

    /// A reader and writer at the beginning; each has a position of its own.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            file: self.clone(),
            at: 0,
        }
    }

    /// Exactly `len` bytes.
    pub fn read_exact_at(&self, len: usize, at: u64) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(len);
        let mut cursor = self.cursor();
        cursor.at = at;
        cursor.read_exact(&mut bytes)?;
        Ok(bytes.freeze())
    }

    /// Writes all bytes.
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all_at(bytes, at),
            Self::Memory(memory) => {
                let mut memory = memory.write();
                let from = usize::try_from(at).map_err(io::Error::other)?;
                let end = from + bytes.len();
                if memory.len() < end {
                    memory.resize(end, 0);
                }
                memory[from..end].copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_at(buf, at),
            Self::Memory(memory) => {
                let memory = memory.read();
                let from = usize::try_from(at).unwrap_or(usize::MAX).min(memory.len());
                (&memory[from..]).read(buf)
            }
        }
    }
}

/// A position in a spooled file.
#[derive(Debug)]
pub(crate) struct Cursor {
    file: SpoolFile,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buf, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Cursor {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(buf, self.at)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is gone when its last handle is.
fn temporary(shard: ShardId, spool: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = spool.join(format!("{shard}-{}-{number}.snapshot", std::process::id()));
    let file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Runs file work off the runtime's workers.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_memory_hold_the_same_bytes() {
        let dir = tempfile::TempDir::new().unwrap();
        for spool in [Spool::folder(&dir.path().join("spool")).unwrap(), Spool::Memory] {
            let file = spool.create(ShardId(1)).unwrap();
            file.write_all_at(b"world", 6).unwrap();
            file.write_all_at(b"hello ", 0).unwrap();
            assert_eq!(&file.read_exact_at(11, 0).unwrap()[..], b"hello world");
            assert_eq!(&file.read_exact_at(3, 8).unwrap()[..], b"rld");
            let short = file.read_exact_at(4, 8).unwrap_err();
            assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
            assert!(file.read_exact_at(1, 99).is_err());

            let (mut to, mut from) = (file.cursor(), file.cursor());
            to.write_all(b"HELLO").unwrap();
            let mut text = String::new();
            from.read_to_string(&mut text).unwrap();
            assert_eq!(text, "HELLO world", "positions are apart");
        }
    }

    #[test]
    fn a_folder_holds_nothing_that_outlives_its_process() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = dir.path().join("spool");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("left"), "over").unwrap();
        let spool = Spool::folder(&folder).unwrap();
        let file = spool.create(ShardId(1)).unwrap();
        file.write_all_at(b"bytes", 0).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }
}
