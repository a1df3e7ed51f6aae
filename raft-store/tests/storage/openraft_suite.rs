//! openraft's own suite for storage, on LMDB and on the simulated disk.

use crate::support;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use throng_raft_store::{LogStore, SimDisk, StateMachine, TypeConfig};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let shard = support::shard(&support::heed(dir.path()), dir.path()).await;
        Ok((dir, shard.log, shard.state_machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_storage_does_what_openraft_expects() {
    Suite::test_all(Builder).await.unwrap();
}

struct Simulated;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, SimDisk> for Simulated {
    async fn build(&self) -> Result<(SimDisk, LogStore, StateMachine), StorageError<TypeConfig>> {
        let disk = SimDisk::new(1);
        let shard = support::shard_in_memory(&disk.store()).await;
        Ok((disk, shard.log, shard.state_machine))
    }
}

#[tokio::test(start_paused = true)]
async fn the_storage_does_what_openraft_expects_on_a_simulated_disk() {
    Suite::test_all(Simulated).await.unwrap();
}
