//! A disk that can be crashed, filled, slowed and broken at will, for deterministic tests: a
//! [`Store`] whose bytes are in memory and whose time is that of the tokio runtime it runs on.
//!
//! ```text
//! submit ─► WriteQueue ─► commit being synced ─► image ─► reads
//!           (production)   (fate open in a crash)  (durable)
//! ```
//!
//! The queue, its rounds and its failure are those of production; the driver is a task instead of
//! a thread, and the medium is an [`Image`] instead of LMDB. A commit takes a seeded latency, and is
//! visible when it is durable. A crash cuts the opened store off and decides by the seed what has
//! survived of the commit being synced: nothing, whole batches of it from its beginning, or all.
//! LMDB keeps all or nothing; the contract of [`Store`] promises no more than whole batches in their
//! order, so that is what is simulated. Bytes that are torn inside a record, which no store may
//! show, come only from [`SimDisk::crash_torn`] and [`SimDisk::flip_bit`].
//!
//! The module refuses to start threads, to touch files, and to read any clock but the runtime's.

mod image;
mod store;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::metrics::StoreMetrics;
use crate::random::Random;
use crate::store::{Batch, FailureKind, Op, Store, StoreFailure, Table, closed};

pub use image::Image;
use store::SimStore;

/// The range a disk's own usual latency of a sync is drawn from: an NVMe with a write cache that
/// is safe, to a cloud volume.
const SYNC_MICROS: (u64, u64) = (100, 1_500);

/// One sync in so many takes [`STALL_MICROS`] instead: the tail that real disks have.
const STALL_ONE_IN: u64 = 64;
/// How long a stalled sync takes.
const STALL_MICROS: (u64, u64) = (5_000, 40_000);

/// A simulated disk. A cheap handle: clones are the same disk. It outlives the runtimes of the
/// host that it belongs to.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

/// What a crash did with the commit that was being synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crashed {
    /// Batches whose fate was open.
    pub unsynced: usize,
    /// How many of them, from the first, are durable now.
    pub kept: usize,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Writers that have not ended.
    writers: watch::Sender<usize>,
    /// Tells a sync that waits for a slow disk that the disk's pace has changed.
    pace: Notify,
}

struct Inner {
    durable: Arc<Image>,
    /// The commit that is being synced, or that failed to: in a crash its fate is open.
    unsynced: Vec<Batch>,
    /// The store that may write; the ones before it are cut off.
    opening: u64,
    random: Random,
    sync_micros: u64,
    full: bool,
    failing: bool,
    slow: Duration,
    commits: u64,
    journal: Option<Vec<Vec<Batch>>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.shared.inner.lock();
        f.debug_struct("SimDisk")
            .field("opening", &inner.opening)
            .field("commits", &inner.commits)
            .finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk. Latencies and what survives crashes are functions of the seed.
    pub fn new(seed: u64) -> Self {
        Self::with_image(seed, Image::default())
    }

    /// A disk that holds something already.
    pub fn with_image(seed: u64, image: Image) -> Self {
        let mut random = Random::new(seed);
        let sync_micros = random.between(SYNC_MICROS);
        Self {
            shared: Arc::new(Shared {
                inner: Mutex::new(Inner {
                    durable: Arc::new(image),
                    unsynced: Vec::new(),
                    opening: 0,
                    random,
                    sync_micros,
                    full: false,
                    failing: false,
                    slow: Duration::ZERO,
                    commits: 0,
                    journal: None,
                }),
                writers: watch::Sender::new(0),
                pace: Notify::new(),
            }),
        }
    }

    /// Opens the store, as a process that has just started does: it finds what is durable. A store
    /// that was open before is cut off as by [`Self::crash`]. Must be called on the tokio runtime
    /// that is to run the writer; the writer ends when the last handle is dropped and everything
    /// queued is written, or with the runtime.
    pub fn store(&self) -> Arc<dyn Store> {
        self.crash();
        let opening = self.shared.inner.lock().opening;
        Arc::new(SimStore::open(
            self.clone(),
            opening,
            Arc::new(StoreMetrics::default()),
        ))
    }

    /// Resolves when no opened store writes any more: what was queued when the last handle was
    /// dropped is durable, as after the orderly end of a process.
    pub async fn closed(&self) {
        let mut writers = self.shared.writers.subscribe();
        // The sender lives in `self`.
        let _ = writers.wait_for(|writers| *writers == 0).await;
    }

    /// The power is gone. The opened store neither reads nor writes from now on, and no callback of
    /// it hears of anything durable; the seed decides what has survived of the commit being synced.
    pub fn crash(&self) -> Crashed {
        let kept = {
            let mut inner = self.shared.inner.lock();
            let unsynced = inner.unsynced.len() as u64;
            // Whole batches from the beginning; nothing and everything, which is all that LMDB does,
            // are as likely together as what lies between.
            match inner.random.below(4) {
                0 => 0,
                1 => unsynced,
                _ => inner.random.below(unsynced + 1),
            }
        };
        self.crash_keeping(usize::try_from(kept).unwrap_or(usize::MAX))
    }

    /// [`Self::crash`] with a given number of batches that survive of the commit being synced.
    pub fn crash_keeping(&self, batches: usize) -> Crashed {
        let crashed = self.shared.inner.lock().crash(batches);
        // A sync under way ends at once, without effect.
        self.shared.pace.notify_waiters();
        crashed
    }

    /// A crash that no sound store survives so: whole batches of the commit being synced are kept,
    /// and of the first record of the next one only the beginning of its value. Names that record;
    /// `None` if no record was being written.
    pub fn crash_torn(&self) -> Option<(Table, Bytes)> {
        let mut inner = self.shared.inner.lock();
        let mut whole = 0;
        let mut torn = None;
        for (place, batch) in inner.unsynced.iter().enumerate() {
            let first = batch.ops().iter().find_map(|op| match op {
                Op::Put { table, key, value } if !value.is_empty() => {
                    Some((*table, key.clone(), value.clone()))
                }
                _ => None,
            });
            if first.is_some() {
                (whole, torn) = (place, first);
            }
        }
        inner.crash(whole);
        self.shared.pace.notify_waiters();
        let (table, key, value) = torn?;
        let len = inner.random.below(value.len() as u64);
        let value = value.slice(..usize::try_from(len).unwrap_or(0));
        let mut batch = Batch::new();
        batch.put(table, key.clone(), value);
        Arc::make_mut(&mut inner.durable).apply(&batch);
        Some((table, key))
    }

    /// Flips one bit of a durable record, as a disk that rots does, and names the record; `None` if
    /// the table is empty.
    pub fn flip_bit(&self, table: Table) -> Option<Bytes> {
        let mut inner = self.shared.inner.lock();
        let records = inner.durable.len(table) as u64;
        if records == 0 {
            return None;
        }
        let place = usize::try_from(inner.random.below(records)).unwrap_or(0);
        let (key, value) = inner.durable.records(table).nth(place)?;
        let (key, mut value) = (key.clone(), value.to_vec());
        let bit = inner.random.below(value.len() as u64 * 8);
        if let Some(byte) = value.get_mut(usize::try_from(bit / 8).unwrap_or(0)) {
            *byte ^= 1 << (bit % 8);
        }
        let mut batch = Batch::new();
        batch.put(table, key.clone(), Bytes::from(value));
        Arc::make_mut(&mut inner.durable).apply(&batch);
        Some(key)
    }

    /// While the disk is full every commit fails with [`FailureKind::Full`] and leaves nothing.
    pub fn set_full(&self, full: bool) {
        self.shared.inner.lock().full = full;
    }

    /// While syncs fail every commit fails with [`FailureKind::Io`], and what it has left on the
    /// disk shows when the store is opened anew.
    pub fn set_failing(&self, failing: bool) {
        self.shared.inner.lock().failing = failing;
    }

    /// Every sync takes so much longer, also the one that is under way; zero ends it.
    pub fn set_slow(&self, slow: Duration) {
        self.shared.inner.lock().slow = slow;
        self.shared.pace.notify_waiters();
    }

    /// Syncs that were completed since the disk exists.
    pub fn commits(&self) -> u64 {
        self.shared.inner.lock().commits
    }

    /// What would be found after a crash that loses all that is not durable.
    pub fn durable(&self) -> Arc<Image> {
        Arc::clone(&self.shared.inner.lock().durable)
    }

    /// Keeps a copy of every commit from now on, for [`Self::journal`]. Grows without a bound: for
    /// tests that look at every crash point of a short run.
    pub fn keep_journal(&self) {
        self.shared.inner.lock().journal.get_or_insert_default();
    }

    /// The commits since [`Self::keep_journal`], each as its batches. The first `n` of them make
    /// the image that a crash after the `n`th sync leaves.
    pub fn journal(&self) -> Vec<Vec<Batch>> {
        self.shared.inner.lock().journal.clone().unwrap_or_default()
    }

    /// Writes and syncs a round for an opened store.
    async fn commit(&self, opening: u64, batches: Vec<Batch>) -> Result<(), StoreFailure> {
        for op in batches.iter().flat_map(Batch::ops) {
            image::check(op)?;
        }
        if batches.iter().all(Batch::is_empty) {
            // LMDB, too, writes nothing for a transaction without changes.
            return Ok(());
        }
        let latency = {
            let mut inner = self.shared.inner.lock();
            inner.check_open(opening)?;
            if inner.full {
                return Err(StoreFailure::new(FailureKind::Full, "the simulated disk is full"));
            }
            inner.unsynced = batches;
            inner.latency()
        };
        self.wait(opening, Instant::now() + latency).await;
        let mut inner = self.shared.inner.lock();
        inner.check_open(opening)?;
        if inner.failing {
            return Err(StoreFailure::new(
                FailureKind::Io,
                "a sync of the simulated disk has failed",
            ));
        }
        inner.keep_unsynced(usize::MAX);
        inner.commits += 1;
        Ok(())
    }

    /// Waits until a sync is through: until `due`, and longer as long as the disk is slow.
    async fn wait(&self, opening: u64, due: Instant) {
        loop {
            let changed = self.shared.pace.notified();
            tokio::pin!(changed);
            // Registered before the pace is read, so that a change in between is not missed.
            changed.as_mut().enable();
            let due = {
                let inner = self.shared.inner.lock();
                if inner.opening != opening {
                    return;
                }
                due + inner.slow
            };
            if timeout_at(due, changed).await.is_err() {
                return;
            }
        }
    }

    /// What an opened store reads.
    fn live(&self, opening: u64) -> Result<Arc<Image>, StoreFailure> {
        let inner = self.shared.inner.lock();
        inner.check_open(opening)?;
        Ok(Arc::clone(&inner.durable))
    }
}

impl Inner {
    fn check_open(&self, opening: u64) -> Result<(), StoreFailure> {
        if self.opening == opening {
            Ok(())
        } else {
            Err(closed())
        }
    }

    fn crash(&mut self, kept: usize) -> Crashed {
        self.opening += 1;
        let unsynced = self.unsynced.len();
        let kept = kept.min(unsynced);
        self.keep_unsynced(kept);
        Crashed { unsynced, kept }
    }

    /// The first batches of the open commit become durable, the others are gone.
    fn keep_unsynced(&mut self, kept: usize) {
        let mut batches = std::mem::take(&mut self.unsynced);
        batches.truncate(kept);
        if batches.is_empty() {
            return;
        }
        let image = Arc::make_mut(&mut self.durable);
        for batch in &batches {
            image.apply(batch);
        }
        if let Some(journal) = &mut self.journal {
            journal.push(batches);
        }
    }

    fn latency(&mut self) -> Duration {
        let micros = if self.random.below(STALL_ONE_IN) == 0 {
            self.random.between(STALL_MICROS)
        } else {
            self.random.between((self.sync_micros / 2, self.sync_micros * 2))
        };
        Duration::from_micros(micros)
    }
}
