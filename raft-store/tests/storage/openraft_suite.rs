//! openraft's own suite for storage, on LMDB.

use crate::support;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use throng_raft_store::{LogStore, StateMachine, TypeConfig};

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
