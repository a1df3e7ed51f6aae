//! What all parts of a running node share: its replicas, what it knows of the cluster, and ways to
//! other nodes. Holds no logic of its own beyond looking things up.

use std::collections::BTreeMap;
use std::sync::Arc;

use throng_protocol::cluster::{NodeStatus, Refusal, ShardStatus};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, GroupId, NodeId, ShardId};
use throng_protocol::placement::{PlacementKey, Plane};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::beats::Beats;
use crate::clock::SharedClock;
use crate::cluster_state::{ClusterState, ClusterWatch};
use crate::dispatch::refused;
use crate::feed::FeedRegistry;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::replica::Replica;

/// What all parts of a running node share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) node: NodeId,
    pub(crate) clock: SharedClock,
    pub(crate) replicas: BTreeMap<ShardId, Arc<Replica>>,
    /// Shards whose replica here could not be opened, and why; the others serve.
    pub(crate) damaged: BTreeMap<ShardId, String>,
    pub(crate) cluster: ClusterWatch,
    pub(crate) peers: Arc<Peers>,
    pub(crate) beats: Beats,
    pub(crate) feeds: Arc<FeedRegistry>,
    pub(crate) metrics: Metrics,
    /// Cancelled when the node stops taking requests.
    pub(crate) draining: CancellationToken,
    /// Requests under way.
    pub(crate) requests: TaskTracker,
}

impl Core {
    /// This node.
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// Now, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    pub fn feeds(&self) -> &FeedRegistry {
        &self.feeds
    }

    /// This node's replicas, ascending by shard.
    pub fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.replicas.values()
    }

    /// What this node hosts, ascending by shard; what could not be opened with its reason.
    pub fn status(&self) -> NodeStatus {
        let damaged = self.damaged.iter().map(|(shard, reason)| ShardStatus {
            shard: *shard,
            leader: None,
            term: 0,
            last_log: 0,
            applied: 0,
            failed: Some(reason.clone()),
        });
        let mut shards: Vec<ShardStatus> = self
            .replicas()
            .map(|replica| replica.status())
            .chain(damaged)
            .collect();
        shards.sort_by_key(|status| status.shard);
        NodeStatus {
            node: self.id(),
            shards,
        }
    }

    /// The map and the keys; refused before the cluster has begun.
    pub fn cluster(&self) -> Result<Arc<ClusterState>, Refusal> {
        let state = self.cluster.current();
        state.ok_or_else(|| refused(Code::Unavailable, "the cluster is starting and has no map yet"))
    }

    /// The shard that holds a key.
    pub fn shard_of(&self, key: PlacementKey<'_>) -> Result<ShardId, Refusal> {
        let state = self.cluster()?;
        let shard = state.map.shard_of(key);
        shard.map(|shard| shard.id).ok_or_else(|| {
            refused(
                Code::Unavailable,
                format!("plane {:?} has no shards", key.plane()),
            )
        })
    }

    /// This node's replica of a shard; without one, who has one.
    pub fn replica(&self, shard: ShardId) -> Result<Arc<Replica>, Refusal> {
        if let Some(replica) = self.replicas.get(&shard) {
            return Ok(Arc::clone(replica));
        }
        if let Some(reason) = self.damaged.get(&shard) {
            let text = format!("this node's replica of shard {shard} cannot be opened: {reason}");
            return Err(refused(Code::StoreFailed, text));
        }
        match self.cluster.voters(shard).first() {
            Some(node) => Err(Refusal::NotLeader { leader: Some(*node) }),
            None => Err(refused(Code::InvalidField, format!("there is no shard {shard}"))),
        }
    }

    /// This node's replica of a shard that must be of a plane.
    pub fn replica_of(&self, shard: ShardId, plane: Plane) -> Result<Arc<Replica>, Refusal> {
        let replica = self.replica(shard)?;
        if replica.plane() == plane {
            return Ok(replica);
        }
        Err(refused(
            Code::InvalidField,
            format!("shard {shard} is not of plane {plane:?}"),
        ))
    }

    /// This node's replica of the shard that holds a group's management.
    pub fn group_replica(&self, app: &AppId, group: &GroupId) -> Result<Arc<Replica>, Refusal> {
        self.replica(self.shard_of(PlacementKey::Group(app, group))?)
    }

    /// The leader of a shard, if this node hosts it and knows.
    pub fn known_leader(&self, shard: ShardId) -> Option<NodeId> {
        self.replicas.get(&shard)?.handle().leadership().leader
    }

    /// The voters of a shard in turn, for a caller that knows no leader.
    pub fn voter(&self, shard: ShardId, turn: usize) -> Option<NodeId> {
        let mut voters = self.cluster.voters(shard);
        if voters.is_empty() {
            voters = self.replicas.get(&shard)?.voters().to_vec();
        }
        voters.get(turn % voters.len().max(1)).copied()
    }
}
