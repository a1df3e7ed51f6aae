//! The settings of a core node.
//!
//! Plain data: reading files, environment and flags is the command line's. Unknown keys are refused.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use throng_protocol::ids::NodeId;
use throng_protocol::placement::{ClusterMap, NodeInfo};
use throng_raft_store::ShardTiming;
use throng_raft_store::heed_store::MAP_BYTES;

const MIB: usize = 1024 * 1024;

/// Smallest store: below it not even an empty cluster fits.
const STORE_MIB_MIN: usize = 4;

/// The settings of a core node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreConfig {
    /// This node's id, as its certificate has it: unique in the cluster, and the same for ever.
    pub id: NodeId,
    /// The cluster's name, as all its certificates have it.
    pub cluster: String,
    /// Where this node listens for other nodes (UDP).
    pub listen: SocketAddr,
    /// Where other nodes and edges reach this node, `host:port`; `listen` if not given.
    #[serde(default)]
    pub advertise: Option<String>,
    /// The folder of this node's data; only one process at a time may use it.
    pub data: PathBuf,
    /// Loopback address of the HTTP endpoints `/healthz`, `/readyz` and `/metrics`; none without it.
    #[serde(default)]
    pub observe: Option<SocketAddr>,
    /// Certificate files.
    pub tls: TlsFiles,
    /// The other core nodes of a new cluster.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
    /// The shards of a new cluster; read at the very first start only, and the same on all nodes.
    #[serde(default)]
    pub shards: InitialShards,
    /// Timings of elections.
    #[serde(default)]
    pub timings: Timings,
    /// Bounds of what is kept on disk.
    #[serde(default)]
    pub storage: Storage,
}

/// Bounds of what a node keeps on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Mebibytes to which the store may grow; when it is full, the node stops serving. The default
    /// of 1 TiB is address space, not disk.
    pub mib_max: usize,
    /// Log entries of a shard between snapshots.
    pub snapshot_every: u64,
    /// Log entries of a shard kept behind a snapshot, for replicas that are a little late.
    pub log_keep: u64,
}

impl Default for Storage {
    fn default() -> Self {
        let timing = ShardTiming::default();
        Self {
            mib_max: MAP_BYTES / MIB,
            snapshot_every: timing.snapshot_every,
            log_keep: timing.log_keep,
        }
    }
}

/// Certificate files of a node, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate authority of the cluster.
    pub ca: PathBuf,
    /// This node's certificate.
    pub cert: PathBuf,
    /// The key of this node's certificate.
    pub key: PathBuf,
}

/// Another core node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Its id.
    pub id: NodeId,
    /// Where it listens, `host:port`.
    pub address: String,
}

/// The shards of a new cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InitialShards {
    /// Management shards.
    pub management: u32,
    /// Message shards; 8 to 16 for each node serve best.
    pub message: u32,
    /// Replicas of each shard.
    pub replicas: usize,
}

impl Default for InitialShards {
    fn default() -> Self {
        Self {
            management: 4,
            message: 8,
            replicas: 3,
        }
    }
}

/// Timings of elections, in milliseconds. A leader is replaced after `election_max_ms` and a random
/// time between the two election timeouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timings {
    /// Between two beats of a node; the heartbeats of a group come each second beat or so.
    pub heartbeat_ms: u64,
    /// Shortest election timeout; above the heartbeat.
    pub election_min_ms: u64,
    /// Longest election timeout, which is also how long followers stand by a silent leader.
    pub election_max_ms: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            // A leader that is killed is replaced within 1.0 to 1.2 s, so that with an edge's attempt that
            // went to it a gap in service stays below 2 s. Two beats fit into the shortest timeout, and two
            // heartbeats of a group, of 300 ms, into the longest, which is the leader's lease.
            heartbeat_ms: 150,
            election_min_ms: 400,
            election_max_ms: 600,
        }
    }
}

impl CoreConfig {
    /// Bytes to which the store may grow.
    pub(crate) fn store_bytes_max(&self) -> usize {
        self.storage.mib_max.saturating_mul(MIB)
    }

    /// When a shard's group elects and snapshots.
    pub(crate) fn shard_timing(&self) -> ShardTiming {
        ShardTiming {
            heartbeat: Duration::from_millis(self.timings.heartbeat_ms),
            election_min: Duration::from_millis(self.timings.election_min_ms),
            election_max: Duration::from_millis(self.timings.election_max_ms),
            snapshot_every: self.storage.snapshot_every,
            log_keep: self.storage.log_keep,
        }
    }

    /// The address others reach this node at.
    pub fn address(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }

    /// The map of a new cluster of this node and its peers: the same on every node whose settings
    /// name the same nodes.
    pub fn initial_map(&self) -> ClusterMap {
        let mut nodes: Vec<NodeInfo> = self
            .peers
            .iter()
            .filter(|peer| peer.id != self.id)
            .map(|peer| NodeInfo {
                id: peer.id,
                address: peer.address.clone(),
            })
            .collect();
        nodes.push(NodeInfo {
            id: self.id,
            address: self.address(),
        });
        nodes.sort_by_key(|node| node.id);
        let InitialShards {
            management,
            message,
            replicas,
        } = self.shards;
        ClusterMap::initial(nodes, management, message, replicas)
    }

    /// What cannot work, before anything is opened.
    pub fn check(&self) -> Result<(), String> {
        let InitialShards {
            management,
            message,
            replicas,
        } = self.shards;
        if management == 0 || message == 0 || replicas == 0 {
            return Err("shards.management, shards.message and shards.replicas are 1 or more".to_owned());
        }
        if management > 100 {
            return Err(format!(
                "shards.management is {management}, at most 100 are possible"
            ));
        }
        let mut ids: Vec<NodeId> = self.peers.iter().map(|peer| peer.id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two peers have the id {}", pair[0]));
        }
        let nodes = ids.iter().filter(|id| **id != self.id).count() + 1;
        if nodes > replicas {
            // A node without a replica of the meta shard would know neither map nor keys.
            return Err(format!(
                "{nodes} nodes with shards.replicas = {replicas}: so far every node holds every shard; \
                 set shards.replicas to {nodes} or leave peers out"
            ));
        }
        let Storage {
            mib_max,
            snapshot_every,
            ..
        } = self.storage;
        if !(STORE_MIB_MIN..=usize::MAX / MIB).contains(&mib_max) || snapshot_every == 0 {
            return Err(format!(
                "storage.mib_max is {STORE_MIB_MIN} or more, and storage.snapshot_every 1 or more"
            ));
        }
        let Timings {
            heartbeat_ms,
            election_min_ms,
            election_max_ms,
        } = self.timings;
        if heartbeat_ms == 0 || election_min_ms <= heartbeat_ms || election_max_ms <= election_min_ms {
            return Err(
                "timings must ascend: 0 < heartbeat_ms < election_min_ms < election_max_ms".to_owned(),
            );
        }
        match self.observe {
            Some(address) if !address.ip().is_loopback() => Err(format!(
                "observe is {address}, but metrics are served on a loopback address only"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(id: u64, peers: &[u64]) -> CoreConfig {
        CoreConfig {
            id: NodeId(id),
            cluster: "test".to_owned(),
            listen: ([127, 0, 0, 1], 7000 + u16::try_from(id).unwrap()).into(),
            advertise: None,
            data: PathBuf::from("data"),
            observe: None,
            tls: TlsFiles {
                ca: "ca".into(),
                cert: "cert".into(),
                key: "key".into(),
            },
            peers: peers
                .iter()
                .map(|id| PeerConfig {
                    id: NodeId(*id),
                    address: format!("127.0.0.1:{}", 7000 + id),
                })
                .collect(),
            shards: InitialShards::default(),
            timings: Timings::default(),
            storage: Storage::default(),
        }
    }

    #[test]
    fn two_heartbeats_of_a_group_fit_into_a_lease() {
        let mut node = config(1, &[1]);
        let fits = |node: &CoreConfig| {
            let timing = node.shard_timing();
            2 * timing.heartbeat * timing.beats_per_heartbeat() <= timing.election_max
        };
        assert!(fits(&node));
        assert_eq!(node.shard_timing().beats_per_heartbeat(), 2);
        node.timings.heartbeat_ms = 10;
        assert!(fits(&node));
        // Where not even two beats do, each carries the heartbeats.
        node.timings.heartbeat_ms = 390;
        assert_eq!(node.shard_timing().beats_per_heartbeat(), 1);
    }

    #[test]
    fn all_nodes_of_a_new_cluster_make_the_same_map() {
        let map = config(1, &[2, 3]).initial_map();
        assert_eq!(map, config(2, &[3, 1]).initial_map());
        // A node that lists itself among its peers means the same.
        assert_eq!(map, config(3, &[1, 2, 3]).initial_map());
        assert_eq!(map.nodes.len(), 3);
        assert_eq!(map.shards.len(), 1 + 4 + 8);
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        assert_eq!(config(1, &[2, 3]).check(), Ok(()));
        assert!(config(1, &[2, 2]).check().unwrap_err().contains("id 2"));
        let mut open = config(1, &[]);
        open.observe = Some(([0, 0, 0, 0], 9000).into());
        assert!(open.check().unwrap_err().contains("loopback"));
        let many = config(1, &[2, 3, 4]);
        assert!(many.check().unwrap_err().contains("replicas"));
        let mut slow = config(1, &[]);
        slow.timings.heartbeat_ms = 600;
        assert!(slow.check().unwrap_err().contains("ascend"));
    }
}
