//! The driver of the queue over a real disk: one thread that writes and syncs, and nothing else.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::WriteQueue;
use crate::metrics::StoreMetrics;
use crate::store::{Batch, OnDurable, Op, StoreFailure};

/// Niceness of the writer thread. With busy cores a commit waits 10 ms for its turn at niceness 0
/// and less than 1 ms at -10; every acknowledgement waits for a commit.
const WRITER_NICE: i32 = -10;

/// What the writer writes to.
pub trait Medium: Send + 'static {
    /// Makes all changes durable, in order, all or none.
    fn commit(&mut self, ops: &mut dyn Iterator<Item = &Op>) -> Result<(), StoreFailure>;
}

/// The queue and its thread; dropping it writes what is queued and ends the thread.
pub struct Writer {
    queue: Arc<WriteQueue>,
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
        let queue = Arc::new(WriteQueue::for_thread(metrics));
        let thread = std::thread::Builder::new()
            .name("throng-store".to_owned())
            .spawn({
                let queue = Arc::clone(&queue);
                move || run(&queue, medium)
            })?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Queues a batch, see [`Store::submit`](crate::Store::submit).
    pub fn submit(&self, batch: Batch, on_durable: OnDurable) {
        self.queue.submit(batch, on_durable);
    }

    /// Resolves when fewer than [`QUEUE_BYTES_MAX`](super::QUEUE_BYTES_MAX) bytes are queued.
    pub async fn room(&self) {
        self.queue.room().await;
    }

    /// Tells when and why the writer has failed.
    pub fn failure(&self) -> watch::Receiver<Option<StoreFailure>> {
        self.queue.failure()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // The last handle may be dropped by a callback, on the writer's own thread.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("the store's writer thread has panicked");
            }
        }
    }
}

fn run(queue: &WriteQueue, mut medium: impl Medium) {
    if let Err(error) = rustix::process::setpriority_process(None, WRITER_NICE) {
        // Needs a privilege; without it commits are slower on busy machines, and right.
        tracing::debug!(%error, "the store's writer keeps its niceness");
    }
    while let Some(round) = queue.next_round_blocking() {
        match queue.known_failure() {
            Some(failure) => queue.finish(round, Err(failure), Duration::ZERO),
            None => {
                let begun = Instant::now();
                let result = medium.commit(&mut round.ops());
                queue.finish(round, result, begun.elapsed());
            }
        }
    }
}
