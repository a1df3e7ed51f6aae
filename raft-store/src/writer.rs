//! The one writer of a node: a FIFO of batches, drained by one thread into one commit per round.
//!
//! All shards of the node share a commit and therefore a sync: that is the group commit. The
//! thread refuses to go on after a failed commit: what a disk did with an unsynced page after an
//! error is unknown, so retrying could acknowledge what is not there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use crate::metrics::StoreMetrics;
use crate::store::{Batch, OnDurable, Op, StoreFailure, closed};

/// Bytes in one transaction at most (one batch is never split). Bounds how long a small batch
/// waits behind large ones: 4 MiB are written and synced in a few milliseconds.
pub const TXN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes queued at most before [`Store::room`](crate::Store::room) makes producers wait; exceeded
/// by no more than one batch per producer. Sixteen transactions ahead keep the disk busy; more
/// would only be memory and latency.
pub const QUEUE_BYTES_MAX: usize = 16 * TXN_BYTES_MAX;

/// Niceness of the writer thread. With busy cores a commit waits 10 ms for its turn at niceness 0
/// and less than 1 ms at -10; every acknowledgement waits for a commit.
const WRITER_NICE: i32 = -10;

/// What the writer writes to.
pub trait Medium: Send + 'static {
    /// Makes all changes durable, in order, all or none.
    fn commit(&mut self, ops: &mut dyn Iterator<Item = &Op>) -> Result<(), StoreFailure>;
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Batch, OnDurable)>,
    /// Bytes of `jobs` and of the transaction being committed.
    bytes: usize,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    room: Notify,
    failure: watch::Sender<Option<StoreFailure>>,
    metrics: Arc<StoreMetrics>,
}

/// The queue and its thread; dropping it writes what is queued and ends the thread.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the thread.
    pub fn spawn(medium: impl Medium, metrics: Arc<StoreMetrics>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            room: Notify::new(),
            failure: watch::Sender::new(None),
            metrics,
        });
        let thread = std::thread::Builder::new()
            .name("throng-store".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || run(&shared, medium)
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Queues a batch, see [`Store::submit`](crate::Store::submit).
    pub fn submit(&self, batch: Batch, on_durable: OnDurable) {
        let mut queue = self.shared.queue.lock();
        queue.bytes += batch.bytes();
        self.shared
            .metrics
            .queued_bytes
            .store(queue.bytes as u64, Ordering::Relaxed);
        queue.jobs.push_back((batch, on_durable));
        drop(queue);
        self.shared.work.notify_one();
    }

    /// Resolves when fewer than [`QUEUE_BYTES_MAX`] bytes are queued.
    pub async fn room(&self) {
        loop {
            let notified = self.shared.room.notified();
            tokio::pin!(notified);
            // Registered before the check, so that a commit between check and await is not missed.
            notified.as_mut().enable();
            if self.shared.queue.lock().bytes < QUEUE_BYTES_MAX {
                return;
            }
            notified.await;
        }
    }

    /// Tells when and why the writer has failed.
    pub fn failure(&self) -> watch::Receiver<Option<StoreFailure>> {
        self.shared.failure.subscribe()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // The last handle may be dropped by a callback, on the writer's own thread.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("the store's writer thread has panicked");
            }
        }
    }
}

fn run(shared: &Shared, mut medium: impl Medium) {
    if let Err(error) = rustix::process::setpriority_process(None, WRITER_NICE) {
        // Needs a privilege; without it commits are slower on busy machines, and right.
        tracing::debug!(%error, "the store's writer keeps its niceness");
    }
    while let Some(jobs) = next_round(shared) {
        let bytes = jobs.iter().map(|(batch, _)| batch.bytes()).sum();
        let known_failure = shared.failure.borrow().clone();
        let result = match known_failure {
            Some(failure) => Err(failure),
            None => commit(shared, &mut medium, &jobs, bytes),
        };
        if result.is_err() {
            shared
                .metrics
                .failed_batches
                .fetch_add(jobs.len() as u64, Ordering::Relaxed);
        }
        for (_, on_durable) in jobs {
            on_durable(result.clone());
        }
        let mut queue = shared.queue.lock();
        queue.bytes -= bytes;
        shared
            .metrics
            .queued_bytes
            .store(queue.bytes as u64, Ordering::Relaxed);
        drop(queue);
        shared.room.notify_waiters();
    }
}

/// The jobs of the next transaction; `None` when closed and empty.
fn next_round(shared: &Shared) -> Option<Vec<(Batch, OnDurable)>> {
    let mut queue = shared.queue.lock();
    while queue.jobs.is_empty() {
        if queue.closed {
            return None;
        }
        shared.work.wait(&mut queue);
    }
    let mut round = Vec::new();
    let mut bytes = 0;
    while let Some((batch, _)) = queue.jobs.front() {
        bytes += batch.bytes();
        if bytes > TXN_BYTES_MAX && !round.is_empty() {
            break;
        }
        round.extend(queue.jobs.pop_front());
    }
    Some(round)
}

fn commit(
    shared: &Shared,
    medium: &mut impl Medium,
    jobs: &[(Batch, OnDurable)],
    bytes: usize,
) -> Result<(), StoreFailure> {
    let begun = Instant::now();
    match medium.commit(&mut jobs.iter().flat_map(|(batch, _)| batch.ops())) {
        Ok(()) => {
            shared.metrics.committed(jobs.len(), bytes, begun.elapsed());
            Ok(())
        }
        Err(failure) => {
            tracing::error!(%failure, "a commit has failed; nothing is stored from here on");
            shared.failure.send_replace(Some(failure.clone()));
            Err(failure)
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Only reached with jobs if the thread ended early.
        for (_, on_durable) in self.queue.get_mut().jobs.drain(..) {
            on_durable(Err(closed()));
        }
    }
}
