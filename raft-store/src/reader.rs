//! Reads of a shard's applied state from outside Raft.

use std::sync::Arc;

use bytes::Bytes;
use throng_protocol::ids::ShardId;
use throng_state::{View, ViewError};

use crate::shard_state::ShardState;
use crate::snapshot::SnapshotReceiver;

/// A cheap handle that reads what a replica has applied, durable or not. It says nothing about
/// other replicas: whoever needs a linearizable answer asks Raft first.
#[derive(Debug, Clone)]
pub struct StateReader {
    state: Arc<ShardState>,
}

impl StateReader {
    pub(crate) fn new(state: Arc<ShardState>) -> Self {
        Self { state }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.state.shard
    }

    /// The index of the last applied entry; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.state
            .live
            .read()
            .applied
            .log_id
            .map_or(0, |log_id| log_id.index)
    }

    /// Several reads of one moment: `work` gets a view that stands still and the applied index it
    /// is of. `apply` of this shard waits meanwhile: keep it short.
    pub fn read<R>(&self, work: impl FnOnce(&dyn View, u64) -> R) -> R {
        self.state.with_view(|view| {
            let index = view.live.applied.log_id.map_or(0, |log_id| log_id.index);
            work(view, index)
        })
    }

    /// Why the replica has stopped because of damaged records or a failed store, if it has.
    pub fn stopped(&self) -> Option<String> {
        let damaged = self.state.health.reason().map(str::to_owned);
        damaged.or_else(|| {
            let failure = self.state.store.failure().borrow().clone();
            failure.map(|failure| failure.to_string())
        })
    }

    /// Begins to receive a snapshot of this shard from another node.
    pub fn receive_snapshot(&self) -> std::io::Result<SnapshotReceiver> {
        SnapshotReceiver::new(self.state.shard, &self.state.spool)
    }
}

impl View for StateReader {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.state.with_view(|view| view.get(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        self.state.with_view(|view| view.scan(from, to, limit))
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        self.state.with_view(|view| view.scan_back(from, to, limit))
    }
}
