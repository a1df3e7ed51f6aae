//! A node's store: the folder, the one writer, and the shards opened on it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use throng_protocol::ids::ShardId;
use throng_protocol::placement::Plane;
use tokio::sync::watch;

use crate::folder::OpenError;
use crate::health::Health;
use crate::heed_store::{HeedStore, MAP_BYTES};
use crate::log_store::LogStore;
use crate::metrics::StoreMetrics;
use crate::reader::StateReader;
use crate::shard_state::ShardState;
use crate::spool::Spool;
use crate::state_machine::{Observer, StateMachine};
use crate::store::{Store, StoreFailure};

/// How a node's store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Size of the memory map: how large the store can grow. [`MAP_BYTES`] unless a test wants the
    /// disk to be full.
    pub map_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { map_bytes: MAP_BYTES }
    }
}

/// The store of a node. The folder stays locked until this and all handles of its shards are gone.
#[derive(Debug, Clone)]
pub struct NodeStore {
    store: Arc<dyn Store>,
    spool: Spool,
}

/// The three handles of one shard's replica.
#[derive(Debug)]
pub struct Shard {
    /// For openraft.
    pub log: LogStore,
    /// For openraft.
    pub state_machine: StateMachine,
    /// For everybody else.
    pub reader: StateReader,
}

impl NodeStore {
    /// Opens the store in a folder, creating it if need be. Blocks for file work.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Self, OpenError> {
        let store = Arc::new(HeedStore::open(dir, options.map_bytes)?);
        Self::over(store, &dir.join("spool")).map_err(|error| OpenError::io(dir, error))
    }

    /// A node's store over any [`Store`]; `spool` is a folder for temporary files, emptied here.
    pub fn over(store: Arc<dyn Store>, spool: &Path) -> io::Result<Self> {
        Ok(Self {
            store,
            spool: Spool::folder(spool)?,
        })
    }

    /// A node's store over any [`Store`], without files and threads: snapshots that travel wait in
    /// memory, and reads run where they are asked for. For stores whose disk is simulated.
    pub fn in_memory(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            spool: Spool::Memory,
        }
    }

    /// Opens one shard, and cleans up after an interrupted install. Each shard is opened once at a
    /// time: two state machines on the same records would overwrite each other.
    pub async fn shard(
        &self,
        shard: ShardId,
        plane: Plane,
        observer: Arc<dyn Observer>,
    ) -> Result<Shard, OpenError> {
        let shard_error = |error: io::Error| OpenError::Shard {
            shard: shard.0,
            reason: error.to_string(),
        };
        let (store, spool) = (Arc::clone(&self.store), self.spool.clone());
        let load = move || {
            let health = Arc::new(Health::default());
            let log = LogStore::load(shard, Arc::clone(&store), Arc::clone(&health))?;
            let state = ShardState::load(shard, plane, store, health, spool)?;
            Ok((log, Arc::new(state)))
        };
        let (log, state) = self.spool.run(load).await.map_err(shard_error)?;
        state.clear_leftovers().await.map_err(shard_error)?;
        Ok(Shard {
            log,
            state_machine: StateMachine::new(Arc::clone(&state), observer),
            reader: StateReader::new(state),
        })
    }

    /// Why the store has failed, if it has.
    pub fn failure(&self) -> Option<StoreFailure> {
        self.store.failure().borrow().clone()
    }

    /// Tells when the store fails.
    pub fn watch_failure(&self) -> watch::Receiver<Option<StoreFailure>> {
        self.store.failure()
    }

    /// The store's counters.
    pub fn metrics(&self) -> &StoreMetrics {
        self.store.metrics()
    }
}
