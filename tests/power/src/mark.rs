//! What the load says about itself, in the same record as its writes: so that it is known at each
//! write what had been promised before.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::record::{HEAD, MARK};

/// A mark. Those that begin something are written before the store is asked, those that promise
/// something after the store has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// An entry is about to be appended, or to arrive inside a snapshot.
    Issue {
        /// The shard.
        shard: u32,
        /// The entry's term.
        term: u64,
        /// The entry's index.
        index: u64,
        /// Its command.
        command: Vec<u8>,
    },
    /// Entries were reported durable.
    Durable {
        /// The shard.
        shard: u32,
        /// Their term.
        term: u64,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The log is about to be cut: entries from here on are promised no longer.
    Cut {
        /// The shard.
        shard: u32,
        /// The first entry that goes.
        from: u64,
    },
    /// A vote is about to be saved.
    Voting {
        /// The shard.
        shard: u32,
        /// Its term.
        term: u64,
        /// Whether a quorum granted it.
        committed: bool,
    },
    /// The vote begun last was reported durable.
    Voted {
        /// The shard.
        shard: u32,
    },
    /// Entries up to this one are about to be applied.
    Applying {
        /// The shard.
        shard: u32,
        /// The last of them.
        upto: u64,
    },
    /// A snapshot up to this entry is about to be installed.
    Installing {
        /// The shard.
        shard: u32,
        /// Its last entry.
        index: u64,
    },
    /// The snapshot begun last was reported installed.
    Installed {
        /// The shard.
        shard: u32,
    },
}

/// Appends marks to the record.
#[derive(Debug, Clone)]
pub struct Marks {
    record: Arc<File>,
}

impl Marks {
    /// Marks for a record.
    pub fn open(record: &Path) -> io::Result<Self> {
        let record = File::options().append(true).create(true).open(record)?;
        Ok(Self {
            record: Arc::new(record),
        })
    }

    /// Appends one, whole: it stands behind everything that happened before the call.
    pub fn put(&self, mark: &Mark) -> io::Result<()> {
        let data = postcard::to_stdvec(mark).map_err(io::Error::other)?;
        let mut bytes = vec![0; HEAD];
        bytes[0] = MARK;
        bytes[24..32].copy_from_slice(&(data.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&data);
        let written = (&*self.record).write(&bytes)?;
        if written != bytes.len() {
            return Err(io::Error::other("a mark was written in part"));
        }
        Ok(())
    }
}
