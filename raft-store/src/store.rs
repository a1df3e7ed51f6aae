//! The narrow interface between Raft storage and a disk: ordered keys and values in three tables,
//! consistent reads, and batches that become durable in the order they were submitted.
//!
//! [`HeedStore`](crate::HeedStore) implements it over LMDB; a simulated disk implements it for the
//! deterministic tests; [`suite`] is what both must pass. The trait refuses to know shards, Raft,
//! checksums and what the bytes mean.

pub mod suite;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::metrics::StoreMetrics;

/// The longest key; LMDB takes 511 bytes.
pub const KEY_BYTES_MAX: usize = 511;

/// A table of the store. Keys of different tables never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Raft log entries.
    Log,
    /// A few small records per shard: vote, committed, purged, applied.
    Meta,
    /// The records of the state machines.
    State,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::Meta => "meta",
            Self::State => "state",
        })
    }
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a value.
    Put {
        /// The table.
        table: Table,
        /// The key, 1 to [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes a key; it may be absent.
    Delete {
        /// The table.
        table: Table,
        /// The key.
        key: Bytes,
    },
    /// Removes all keys with `from <= key < to`.
    DeleteRange {
        /// The table.
        table: Table,
        /// The first key removed.
        from: Bytes,
        /// The first key kept.
        to: Bytes,
    },
}

/// Changes that become durable together or not at all, in their order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    ops: Vec<Op>,
    bytes: usize,
    lingers: bool,
}

impl Batch {
    /// An empty batch. Submitting one is allowed: its callback runs when all earlier ones are durable.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the batch wait for company: nobody waits for it to be durable, so it rides with the next
    /// batch that somebody does wait for, and is written alone after
    /// [`LINGER`](crate::writer::LINGER). Its place in the order stays.
    #[must_use]
    pub fn lingering(mut self) -> Self {
        self.lingers = true;
        self
    }

    /// Whether the batch may wait for company.
    pub fn lingers(&self) -> bool {
        self.lingers
    }

    /// Sets a value.
    pub fn put(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.bytes += key.len() + value.len();
        self.ops.push(Op::Put { table, key, value });
    }

    /// Removes a key.
    pub fn delete(&mut self, table: Table, key: Bytes) {
        self.bytes += key.len();
        self.ops.push(Op::Delete { table, key });
    }

    /// Removes all keys with `from <= key < to`.
    pub fn delete_range(&mut self, table: Table, from: Bytes, to: Bytes) {
        self.bytes += from.len() + to.len();
        self.ops.push(Op::DeleteRange { table, from, to });
    }

    /// The changes, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no change in it.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// What kind of trouble the store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The disk, a quota or the store's map is full.
    Full,
    /// The disk or the file system reported an error, or LMDB found its file damaged.
    Io,
    /// The store was closed before the batch was durable.
    Closed,
}

/// The store could not read or write. After a failed write it stays failed until it is opened anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store has failed: {text}")]
pub struct StoreFailure {
    /// What kind of trouble.
    pub kind: FailureKind,
    /// What the system said.
    pub text: Arc<str>,
}

impl StoreFailure {
    /// A failure.
    pub fn new(kind: FailureKind, text: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

impl From<StoreFailure> for io::Error {
    fn from(failure: StoreFailure) -> Self {
        let kind = match failure.kind {
            FailureKind::Full => io::ErrorKind::StorageFull,
            FailureKind::Io | FailureKind::Closed => io::ErrorKind::Other,
        };
        Self::new(kind, failure)
    }
}

/// How much a scan returns at most. The record that reaches `bytes` is still returned, so that a
/// scan of a range that holds something is never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Records.
    pub records: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl Limit {
    /// At most so many records, of any size.
    pub fn records(records: usize) -> Self {
        Self {
            records,
            bytes: usize::MAX,
        }
    }
}

/// Records in key order.
pub type Records = Vec<(Bytes, Bytes)>;

/// Reads inside one consistent view.
pub trait Reads {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreFailure>;

    /// Records with `from <= key < to`, ascending.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: Limit) -> Result<Records, StoreFailure>;

    /// Records with `from <= key < to`, descending.
    fn scan_back(&self, table: Table, from: &[u8], to: &[u8], limit: Limit) -> Result<Records, StoreFailure>;
}

/// Runs once: with `Ok` after the batch and all before it are on the disk, or with the error that
/// made the store fail. It runs on the writer's thread, so it must be short and must not block.
pub type OnDurable = Box<dyn FnOnce(Result<(), StoreFailure>) + Send>;

/// A future of the store.
pub type StoreFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// An ordered key-value store of one node.
///
/// * Batches become durable in the order of [`submit`](Self::submit), each as a whole, and their
///   callbacks run in that order.
/// * A batch that [lingers](Batch::lingering) becomes durable with the next one that does not, or by
///   itself soon.
/// * A batch is visible to reads not before it is durable, and at the latest when its callback runs.
/// * After one failed commit nothing is ever reported durable again.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Runs `work` over one consistent view of everything durable. The view must not be held for
    /// long: pages freed meanwhile cannot be used again.
    fn read(&self, work: &mut dyn FnMut(&dyn Reads) -> Result<(), StoreFailure>) -> Result<(), StoreFailure>;

    /// Queues a batch. Never blocks; whoever produces in a loop awaits [`room`](Self::room) first.
    fn submit(&self, batch: Batch, on_durable: OnDurable);

    /// Resolves when the queue is below its bound, or the store has failed.
    fn room(&self) -> StoreFuture<'_>;

    /// Tells when and why the store has failed.
    fn failure(&self) -> watch::Receiver<Option<StoreFailure>>;

    /// The store's counters.
    fn metrics(&self) -> &StoreMetrics;

    /// [`Reads::get`] in a view of its own.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreFailure> {
        let mut found = None;
        self.read(&mut |reads| {
            found = reads.get(table, key)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// [`Reads::scan`] in a view of its own.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: Limit) -> Result<Records, StoreFailure> {
        let mut found = Records::new();
        self.read(&mut |reads| {
            found = reads.scan(table, from, to, limit)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// [`Reads::scan_back`] in a view of its own.
    fn scan_back(&self, table: Table, from: &[u8], to: &[u8], limit: Limit) -> Result<Records, StoreFailure> {
        let mut found = Records::new();
        self.read(&mut |reads| {
            found = reads.scan_back(table, from, to, limit)?;
            Ok(())
        })?;
        Ok(found)
    }
}

/// Submits a batch and waits until it is durable.
pub async fn submit_and_wait(store: &dyn Store, batch: Batch) -> Result<(), StoreFailure> {
    let (done, durable) = tokio::sync::oneshot::channel();
    store.submit(
        batch,
        Box::new(move |result| {
            // The waiter may be gone; the batch is durable all the same.
            let _ = done.send(result);
        }),
    );
    match durable.await {
        Ok(result) => result,
        Err(_) => Err(closed()),
    }
}

/// The failure of batches that a closing store did not write.
pub(crate) fn closed() -> StoreFailure {
    StoreFailure::new(FailureKind::Closed, "it was closed")
}
