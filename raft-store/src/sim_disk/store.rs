//! A simulated disk as a process has opened it: the queue of production and the task that drains
//! it onto the disk.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::SimDisk;
use crate::metrics::StoreMetrics;
use crate::store::{Batch, OnDurable, Reads, Store, StoreFailure, StoreFuture};
use crate::writer::WriteQueue;

/// The [`Store`] of one opening.
pub(super) struct SimStore {
    disk: SimDisk,
    opening: u64,
    queue: Arc<WriteQueue>,
    metrics: Arc<StoreMetrics>,
}

impl SimStore {
    /// Starts the writer on the current runtime.
    pub fn open(disk: SimDisk, opening: u64, metrics: Arc<StoreMetrics>) -> Self {
        let queue = Arc::new(WriteQueue::for_task(Arc::clone(&metrics)));
        let writing = Writing::begin(&disk);
        tokio::spawn(write(disk.clone(), opening, Arc::clone(&queue), writing));
        Self {
            disk,
            opening,
            queue,
            metrics,
        }
    }
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStore")
            .field("disk", &self.disk)
            .field("opening", &self.opening)
            .finish_non_exhaustive()
    }
}

/// Counts a writer for as long as its task exists, also when the runtime drops it.
struct Writing(SimDisk);

impl Writing {
    fn begin(disk: &SimDisk) -> Self {
        disk.shared.writers.send_modify(|writers| *writers += 1);
        Self(disk.clone())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.shared.writers.send_modify(|writers| *writers -= 1);
    }
}

async fn write(disk: SimDisk, opening: u64, queue: Arc<WriteQueue>, _writing: Writing) {
    while let Some(round) = queue.next_round().await {
        let begun = Instant::now();
        let result = match queue.known_failure() {
            Some(failure) => Err(failure),
            None => disk.commit(opening, round.batches().cloned().collect()).await,
        };
        queue.finish(round, result, begun.elapsed());
    }
}

impl Drop for SimStore {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Store for SimStore {
    fn read(&self, work: &mut dyn FnMut(&dyn Reads) -> Result<(), StoreFailure>) -> Result<(), StoreFailure> {
        work(&*self.disk.live(self.opening)?)
    }

    fn submit(&self, batch: Batch, on_durable: OnDurable) {
        self.queue.submit(batch, on_durable);
    }

    fn room(&self) -> StoreFuture<'_> {
        Box::pin(self.queue.room())
    }

    fn failure(&self) -> watch::Receiver<Option<StoreFailure>> {
        self.queue.failure()
    }

    fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }
}
