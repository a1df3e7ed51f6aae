//! What a node knows of the cluster: the map and the keys that seal grants.
//!
//! Read from this node's own replica of the meta shard and read again whenever it has applied
//! something. May be behind the leader's by a moment; nothing that must be linearizable is judged
//! by it.

use std::sync::Arc;

use throng_protocol::ids::NodeId;
use throng_protocol::placement::ClusterMap;
use throng_state::command::ClusterKey;
use throng_state::query;
use throng_state::{ApplyError, View};
use tokio::sync::watch;

/// The map and the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterState {
    /// The map.
    pub map: ClusterMap,
    /// The keys that seal grants, the newest last.
    pub keys: Vec<ClusterKey>,
}

impl ClusterState {
    /// What a replica of the meta shard holds; `None` before the cluster was bootstrapped.
    pub fn read(view: &dyn View) -> Result<Option<Self>, ApplyError> {
        let Some(map) = query::cluster_map(view)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            map,
            keys: query::cluster_keys(view)?,
        }))
    }

    /// The key that seals new grants.
    pub fn sealing_key(&self) -> Option<&ClusterKey> {
        self.keys.last()
    }
}

/// The state, as it changes.
#[derive(Debug)]
pub(crate) struct ClusterWatch {
    sender: watch::Sender<Option<Arc<ClusterState>>>,
}

impl ClusterWatch {
    pub fn new(state: Option<ClusterState>) -> Self {
        Self {
            sender: watch::Sender::new(state.map(Arc::new)),
        }
    }

    /// The state now; `None` before the cluster was bootstrapped.
    pub fn current(&self) -> Option<Arc<ClusterState>> {
        self.sender.borrow().clone()
    }

    /// Follows the state.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<ClusterState>>> {
        self.sender.subscribe()
    }

    /// Takes over what was read; tells whether it is new.
    pub fn set(&self, state: ClusterState) -> bool {
        self.sender.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&state);
            if changed {
                *current = Some(Arc::new(state));
            }
            changed
        })
    }

    /// The voters of a shard in the map.
    pub fn voters(&self, shard: throng_protocol::ids::ShardId) -> Vec<NodeId> {
        let state = self.current();
        let info = state.as_ref().and_then(|state| state.map.shard(shard));
        info.map(|info| info.voters.clone()).unwrap_or_default()
    }
}
