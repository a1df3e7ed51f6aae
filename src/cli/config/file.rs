//! The shape of the configuration files.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_core::Storage;
use throng_gateway::HandshakeLimits;

/// `throng core --config F`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreFile {
    /// Which of `nodes` this process is.
    pub id: u64,
    /// The cluster's name.
    pub cluster: String,
    /// The data folder; `{id}` stands for the id.
    pub data: String,
    /// Certificates.
    #[serde(default)]
    pub tls: TlsFiles,
    /// Shards of a new cluster.
    #[serde(default)]
    pub shards: ShardCounts,
    /// How much of the log is kept.
    #[serde(default)]
    pub storage: LogBounds,
    /// All core nodes.
    pub nodes: Vec<NodeEntry>,
}

/// `throng gateway --config F`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayFile {
    /// Which of `edges` this process is.
    pub id: u64,
    /// The cluster's name.
    pub cluster: String,
    /// Certificates.
    #[serde(default)]
    pub tls: TlsFiles,
    /// Most client connections at once.
    #[serde(default = "default_connections_max")]
    pub connections_max: usize,
    /// Threads that serve clients; as many as there are processors if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// What the edge takes of handshakes.
    #[serde(default)]
    pub handshakes: HandshakeLimits,
    /// All edges; drain notices name the others.
    pub edges: Vec<EdgeEntry>,
    /// All core nodes.
    pub nodes: Vec<NodeEntry>,
}

fn default_connections_max() -> usize {
    throng_gateway::CONNECTIONS_MAX
}

/// One core node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// The id, also in the node's certificate.
    pub id: u64,
    /// Where it listens for nodes and edges (UDP).
    pub addr: SocketAddr,
    /// Where others reach it, `host:port`, when that is another address than `addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Loopback HTTP for health and metrics; the node's own entry needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observe: Option<SocketAddr>,
    /// Where the node serves the Server API (TCP); the node's own entry needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_api: Option<SocketAddr>,
}

impl NodeEntry {
    /// Where others reach the node.
    pub fn address(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.addr.to_string())
    }
}

/// One edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeEntry {
    /// The id, also in the edge's certificate.
    pub id: u64,
    /// Where it listens for clients (UDP).
    pub listen: SocketAddr,
    /// Loopback HTTP for health and metrics; the edge's own entry needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observe: Option<SocketAddr>,
}

/// Where certificates come from: a development CA on this machine, or files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Folder of a development CA; made if absent, and everything else is issued from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub development_ca: Option<PathBuf>,
    /// The CA of the cluster wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// This node's certificate on the cluster wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The certificate that clients of an edge, or back ends at a core node, see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<PathBuf>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
}

/// Shards of a new cluster; ignored once a cluster exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardCounts {
    /// Management shards.
    pub management: u32,
    /// Message shards: 8 to 16 a node batch best (design, measurements).
    pub message: u32,
    /// Voting replicas of each shard.
    pub replicas: usize,
}

impl Default for ShardCounts {
    fn default() -> Self {
        Self {
            management: 4,
            message: 8,
            replicas: 3,
        }
    }
}

/// How much of each shard's log a node keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogBounds {
    /// Log entries of a shard between snapshots.
    pub snapshot_every: u64,
    /// Log entries of a shard kept behind a snapshot.
    pub log_keep: u64,
}

impl Default for LogBounds {
    fn default() -> Self {
        let Storage {
            snapshot_every,
            log_keep,
            ..
        } = Storage::default();
        Self {
            snapshot_every,
            log_keep,
        }
    }
}
