//! What the store counts, as plain atomics; whoever serves `/metrics` reads them. It refuses to
//! know any metrics format.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one node's store. All but [`queued_bytes`](Self::queued_bytes) only grow.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Transactions committed, each with one full sync.
    pub commits: AtomicU64,
    /// Batches made durable by them; `batches / commits` is what group commit saves.
    pub batches: AtomicU64,
    /// Bytes of keys and values in those batches.
    pub bytes: AtomicU64,
    /// Time spent in commits, in microseconds.
    pub commit_micros: AtomicU64,
    /// The longest commit, in microseconds.
    pub commit_micros_max: AtomicU64,
    /// Batches refused because the store has failed.
    pub failed_batches: AtomicU64,
    /// Bytes submitted and not durable yet (a gauge).
    pub queued_bytes: AtomicU64,
    /// Records whose checksum or shape was wrong when they were read.
    pub corrupt_records: AtomicU64,
}

impl StoreMetrics {
    /// Counts one commit.
    pub(crate) fn committed(&self, batches: usize, bytes: usize, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.batches.fetch_add(batches as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.commit_micros.fetch_add(micros, Ordering::Relaxed);
        self.commit_micros_max.fetch_max(micros, Ordering::Relaxed);
    }
}
