//! The one writer of a node: a FIFO of batches, drained round by round, one commit per round.
//!
//! All shards of the node share a commit and therefore a sync: that is the group commit. After a
//! failed commit the queue refuses to go on: what a disk did with an unsynced page after an error is
//! unknown, so retrying could acknowledge what is not there.
//!
//! The queue knows neither threads nor disks. Who drains it is a driver's business: [`Writer`] is a
//! thread that commits to a [`Medium`], for real disks; the simulated disk drains the same queue
//! with a task.

mod thread;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::metrics::StoreMetrics;
use crate::store::{Batch, OnDurable, Op, StoreFailure, closed};

pub use thread::{Medium, Writer};

/// Bytes in one transaction at most (one batch is never split). Bounds how long a small batch
/// waits behind large ones: 4 MiB are written and synced in a few milliseconds.
pub const TXN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes queued at most before [`Store::room`](crate::Store::room) makes producers wait; exceeded
/// by no more than one batch per producer. Sixteen transactions ahead keep the disk busy; more
/// would only be memory and latency.
pub const QUEUE_BYTES_MAX: usize = 16 * TXN_BYTES_MAX;

/// How long batches that [linger](Batch::lingering) wait for one that does not. Long enough that the
/// applied state of a shard with ten writes a second never costs a sync of its own; short enough that
/// a restart applies no more than the last moment again, and that a snapshot, which waits for the
/// state to be durable, is not noticed to wait.
pub const LINGER: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(Batch, OnDurable)>,
    /// Bytes of `waiting` and of the round being committed.
    bytes: usize,
    /// Somebody waits for one of `waiting`, or a round left it behind.
    pressing: bool,
    /// The driver waits without an end: also a batch that lingers must wake it.
    dozes: bool,
    closed: bool,
}

/// What the driver does next.
enum Next {
    Commit(Round),
    /// Waits for a batch that does not linger, until [`LINGER`] is over.
    Linger,
    /// Waits for any batch.
    Doze,
    End,
}

impl Jobs {
    /// `lingered`: the driver has just waited for [`LINGER`].
    fn next(&mut self, lingered: bool) -> Next {
        let due = self.pressing || self.closed || lingered || self.bytes >= TXN_BYTES_MAX;
        self.dozes = false;
        if self.waiting.is_empty() {
            if self.closed {
                return Next::End;
            }
            if !lingered {
                return Next::Linger;
            }
            self.dozes = true;
            return Next::Doze;
        }
        if due {
            Next::Commit(take_round(self))
        } else {
            Next::Linger
        }
    }
}

/// How the driver is told that there is something to do.
enum Wake {
    Thread(Condvar),
    Task(Notify),
}

/// Batches that share one transaction.
pub(crate) struct Round {
    jobs: Vec<(Batch, OnDurable)>,
    bytes: usize,
}

impl Round {
    /// The changes of all batches, in order.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.jobs.iter().flat_map(|(batch, _)| batch.ops())
    }

    /// The batches, in order.
    pub fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.jobs.iter().map(|(batch, _)| batch)
    }
}

/// The queue of a writer.
pub(crate) struct WriteQueue {
    jobs: Mutex<Jobs>,
    wake: Wake,
    room: Notify,
    failure: watch::Sender<Option<StoreFailure>>,
    metrics: Arc<StoreMetrics>,
}

impl WriteQueue {
    /// A queue that is drained by a thread.
    pub fn for_thread(metrics: Arc<StoreMetrics>) -> Self {
        Self::new(Wake::Thread(Condvar::new()), metrics)
    }

    /// A queue that is drained by a task.
    pub fn for_task(metrics: Arc<StoreMetrics>) -> Self {
        Self::new(Wake::Task(Notify::new()), metrics)
    }

    fn new(wake: Wake, metrics: Arc<StoreMetrics>) -> Self {
        Self {
            jobs: Mutex::default(),
            wake,
            room: Notify::new(),
            failure: watch::Sender::new(None),
            metrics,
        }
    }

    /// Queues a batch, see [`Store::submit`](crate::Store::submit).
    pub fn submit(&self, batch: Batch, on_durable: OnDurable) {
        let mut jobs = self.jobs.lock();
        jobs.bytes += batch.bytes();
        self.show_bytes(&jobs);
        jobs.pressing |= !batch.lingers();
        let wakes = jobs.pressing || jobs.dozes || jobs.bytes >= TXN_BYTES_MAX;
        jobs.waiting.push_back((batch, on_durable));
        drop(jobs);
        if wakes {
            self.wake();
        }
    }

    /// Resolves when fewer than [`QUEUE_BYTES_MAX`] bytes are queued.
    pub async fn room(&self) {
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            // Registered before the check, so that a commit between check and await is not missed.
            notified.as_mut().enable();
            if self.jobs.lock().bytes < QUEUE_BYTES_MAX {
                return;
            }
            notified.await;
        }
    }

    /// Tells when and why the writer has failed.
    pub fn failure(&self) -> watch::Receiver<Option<StoreFailure>> {
        self.failure.subscribe()
    }

    /// The failure so far; with one, rounds are finished with it and never committed.
    pub fn known_failure(&self) -> Option<StoreFailure> {
        self.failure.borrow().clone()
    }

    /// The queue fails for good; the first reason stays.
    pub fn fail(&self, failure: StoreFailure) {
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(failure);
            }
            first
        });
    }

    /// What is queued is still written; then the driver ends.
    pub fn close(&self) {
        self.jobs.lock().closed = true;
        self.wake();
    }

    /// Waits on this thread for the jobs of the next round; `None` when closed and empty.
    pub fn next_round_blocking(&self) -> Option<Round> {
        let Wake::Thread(work) = &self.wake else {
            unreachable!("invariant: a queue for a task is drained by a task")
        };
        let mut jobs = self.jobs.lock();
        let mut lingered = false;
        loop {
            match jobs.next(lingered) {
                Next::Commit(round) => return Some(round),
                Next::Linger => lingered = work.wait_for(&mut jobs, LINGER).timed_out(),
                Next::Doze => {
                    work.wait(&mut jobs);
                    lingered = false;
                }
                Next::End => return None,
            }
        }
    }

    /// Waits for the jobs of the next round; `None` when closed and empty.
    pub async fn next_round(&self) -> Option<Round> {
        let Wake::Task(work) = &self.wake else {
            unreachable!("invariant: a queue for a thread is drained by a thread")
        };
        let mut lingered = false;
        loop {
            let next = self.jobs.lock().next(lingered);
            // A wake-up between the look and the wait is kept by the `Notify`.
            match next {
                Next::Commit(round) => return Some(round),
                Next::Linger => lingered = tokio::time::timeout(LINGER, work.notified()).await.is_err(),
                Next::Doze => {
                    work.notified().await;
                    lingered = false;
                }
                Next::End => return None,
            }
        }
    }

    /// Tells everybody how a round ended: the callbacks, the counters, and whoever waits for room.
    pub fn finish(&self, round: Round, result: Result<(), StoreFailure>, took: Duration) {
        match &result {
            Ok(()) => self.metrics.committed(round.jobs.len(), round.bytes, took),
            Err(failure) => {
                if self.known_failure().is_none() {
                    tracing::error!(%failure, "a commit has failed; nothing is stored from here on");
                }
                self.fail(failure.clone());
                let failed = round.jobs.len() as u64;
                self.metrics.failed_batches.fetch_add(failed, Ordering::Relaxed);
            }
        }
        for (_, on_durable) in round.jobs {
            on_durable(result.clone());
        }
        let mut jobs = self.jobs.lock();
        jobs.bytes -= round.bytes;
        self.show_bytes(&jobs);
        drop(jobs);
        self.room.notify_waiters();
    }

    fn wake(&self) {
        match &self.wake {
            Wake::Thread(work) => {
                work.notify_one();
            }
            Wake::Task(work) => work.notify_one(),
        }
    }

    fn show_bytes(&self, jobs: &MutexGuard<'_, Jobs>) {
        let queued = &self.metrics.queued_bytes;
        queued.store(jobs.bytes as u64, Ordering::Relaxed);
    }
}

/// As many batches as share the next transaction.
fn take_round(jobs: &mut Jobs) -> Round {
    let mut round = Round {
        jobs: Vec::new(),
        bytes: 0,
    };
    while let Some((batch, _)) = jobs.waiting.front() {
        let bytes = round.bytes + batch.bytes();
        if bytes > TXN_BYTES_MAX && !round.jobs.is_empty() {
            break;
        }
        round.bytes = bytes;
        round.jobs.extend(jobs.waiting.pop_front());
    }
    jobs.pressing = !jobs.waiting.is_empty();
    round
}

impl Drop for WriteQueue {
    fn drop(&mut self) {
        // Only reached with jobs if the driver ended early.
        for (_, on_durable) in self.jobs.get_mut().waiting.drain(..) {
            on_durable(Err(closed()));
        }
    }
}
