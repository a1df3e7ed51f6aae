//! The suite of the `Store` trait on LMDB and on the simulated disk.

use std::future::Future;
use std::sync::Arc;

use crate::support::{MAP, simulated};
use tempfile::TempDir;
use throng_raft_store::store::suite::{self, Stage};
use throng_raft_store::{HeedStore, OpenError, SimDisk, Store};
use tokio::runtime::{Builder, Runtime};

struct Lmdb {
    runtime: Runtime,
    folder: TempDir,
}

impl Stage for Lmdb {
    fn fresh(&mut self) -> Arc<dyn Store> {
        self.folder = TempDir::new().unwrap();
        self.reopen()
    }

    fn reopen(&mut self) -> Arc<dyn Store> {
        // When the last handle went inside a callback, the writer's thread frees the folder a
        // moment later; the lock is all that tells.
        loop {
            match HeedStore::open(self.folder.path(), MAP) {
                Err(OpenError::Locked { .. }) => std::thread::yield_now(),
                opened => return Arc::new(opened.unwrap()),
            }
        }
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

#[test]
fn lmdb_passes_the_suite() {
    suite::run_all(&mut Lmdb {
        runtime: Builder::new_current_thread().build().unwrap(),
        folder: TempDir::new().unwrap(),
    });
}

struct Simulated {
    runtime: Runtime,
    seed: u64,
    disk: SimDisk,
}

impl Stage for Simulated {
    fn fresh(&mut self) -> Arc<dyn Store> {
        self.seed += 1;
        self.disk = SimDisk::new(self.seed);
        self.reopen()
    }

    fn reopen(&mut self) -> Arc<dyn Store> {
        self.runtime.block_on(self.disk.closed());
        let _inside = self.runtime.enter();
        self.disk.store()
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

#[test]
fn the_simulated_disk_passes_the_suite() {
    suite::run_all(&mut Simulated {
        runtime: simulated(),
        seed: 0,
        disk: SimDisk::new(0),
    });
}
