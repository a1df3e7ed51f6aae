//! The settings of an edge.
//!
//! Plain data: reading files, environment and flags is the command line's. Unknown keys are refused.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_fanout::{RING_BYTES_MAX, RING_FRAMES_MAX, RingLimits};
use throng_protocol::ids::{EdgeId, NodeId};
use throng_protocol::rate::Rate;
use throng_transport::{Limits, NetworkLimits, WORKERS_MAX};

/// The settings of an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// This edge's id, as its certificate on the cluster wire has it: unique in the cluster.
    pub id: EdgeId,
    /// The name clients are told; `edge-<id>` if not given.
    #[serde(default)]
    pub name: Option<String>,
    /// The cluster's name, as all its certificates have it.
    pub cluster: String,
    /// Where this edge listens for clients (UDP).
    pub listen: SocketAddr,
    /// Loopback address of the HTTP endpoints `/healthz`, `/readyz` and `/metrics`; none without it.
    #[serde(default)]
    pub observe: Option<SocketAddr>,
    /// Core nodes to learn the cluster's map from; one that is up is enough.
    pub cores: Vec<CoreAddress>,
    /// The certificate clients see.
    pub tls: ClientTlsFiles,
    /// Certificates of the cluster wire.
    pub cluster_tls: ClusterTlsFiles,
    /// Other edges, `host:port`, which clients are told when this one drains.
    #[serde(default)]
    pub edges: Vec<String>,
    /// Threads that serve clients, each with a socket of its own, at most [`WORKERS_MAX`]; as many as there
    /// are processors if not given.
    #[serde(default)]
    pub workers: Option<usize>,
    /// Bounds of this edge.
    #[serde(default)]
    pub limits: GatewayLimits,
}

/// A core node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreAddress {
    /// Its id.
    pub id: NodeId,
    /// Where it listens, `host:port`.
    pub address: String,
}

/// Certificate files for clients, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTlsFiles {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Certificate files of the cluster wire, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterTlsFiles {
    /// The certificate authority of the cluster.
    pub ca: PathBuf,
    /// This edge's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Client connections of an edge unless it is set: 2 GiB of memory when all of them are idle.
pub const CONNECTIONS_MAX: usize = 100_000;

/// Bounds of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayLimits {
    /// Most client connections at once; further ones are refused in their handshake.
    pub connections_max: usize,
    /// What the edge takes of handshakes.
    pub handshakes: HandshakeLimits,
    /// Bytes of frames kept per followed channel.
    pub ring_bytes_max: usize,
    /// Frames kept per followed channel.
    pub ring_frames_max: usize,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            handshakes: HandshakeLimits::default(),
            ring_bytes_max: RING_BYTES_MAX,
            ring_frames_max: RING_FRAMES_MAX,
        }
    }
}

/// What an edge takes of handshakes. A *network* is an IPv4 /24 or an IPv6 /56; to *prove* an
/// address costs its client a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HandshakeLimits {
    /// Most open at once; further ones are refused.
    pub open_max: usize,
    /// Milliseconds one may take.
    pub timeout_ms: u64,
    /// Open ones above which clients prove their addresses first.
    pub retry_above: usize,
    /// Handshakes a second above which clients prove their addresses first.
    pub unproven_per_second: u32,
    /// Most open ones of a network; further ones are refused.
    pub network_open_max: usize,
    /// Open ones of a network above which its clients prove their addresses first.
    pub network_retry_above: usize,
    /// Handshakes a second of a network in the long run; further ones are refused, and not answered
    /// if they do not cease.
    pub network_per_second: u32,
    /// Handshakes of a network at once after a pause.
    pub network_burst: u32,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            open_max: 1_024,
            timeout_ms: 5_000,
            retry_above: limits.retry_above,
            unproven_per_second: limits.unproven_per_second,
            network_open_max: limits.network.handshakes_max,
            network_retry_above: limits.network.retry_above,
            network_per_second: limits.network.rate.per_second,
            network_burst: limits.network.rate.burst,
        }
    }
}

impl HandshakeLimits {
    fn check(&self) -> Result<(), String> {
        let counts = [self.open_max, self.network_open_max];
        let rates = [self.network_per_second, self.network_burst];
        if counts.contains(&0) || rates.contains(&0) || self.timeout_ms == 0 {
            return Err(
                "limits.handshakes: open_max, timeout_ms, network_open_max, network_per_second and \
                 network_burst are 1 or more"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

impl GatewayLimits {
    pub(crate) fn of_endpoint(&self) -> Limits {
        let handshakes = &self.handshakes;
        Limits {
            retry_above: handshakes.retry_above,
            unproven_per_second: handshakes.unproven_per_second,
            handshakes_max: handshakes.open_max,
            connections_max: self.connections_max,
            network: NetworkLimits {
                retry_above: handshakes.network_retry_above,
                handshakes_max: handshakes.network_open_max,
                rate: Rate {
                    per_second: handshakes.network_per_second,
                    burst: handshakes.network_burst,
                },
            },
            ..Limits::default()
        }
    }

    pub(crate) fn ring(&self) -> RingLimits {
        RingLimits {
            bytes_max: self.ring_bytes_max,
            frames_max: self.ring_frames_max,
        }
    }
}

impl GatewayConfig {
    /// The name clients are told.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("edge-{}", self.id))
    }

    /// How many threads serve clients.
    pub fn workers(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.workers.unwrap_or_else(processors).clamp(1, WORKERS_MAX)
    }

    /// What cannot work, before anything is opened.
    pub fn check(&self) -> Result<(), String> {
        if self.cores.is_empty() {
            return Err("cores names no core node; at least one is needed".to_owned());
        }
        let mut ids: Vec<NodeId> = self.cores.iter().map(|core| core.id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two core nodes have the id {}", pair[0]));
        }
        if self.limits.connections_max == 0 {
            return Err("limits.connections_max is 1 or more".to_owned());
        }
        if self
            .workers
            .is_some_and(|workers| !(1..=WORKERS_MAX).contains(&workers))
        {
            return Err(format!("workers is between 1 and {WORKERS_MAX} on this system"));
        }
        self.limits.handshakes.check()?;
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

    fn config(cores: &[u64]) -> GatewayConfig {
        GatewayConfig {
            id: EdgeId(1),
            name: None,
            cluster: "test".to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            observe: None,
            cores: cores
                .iter()
                .map(|id| CoreAddress {
                    id: NodeId(*id),
                    address: format!("127.0.0.1:{}", 7000 + id),
                })
                .collect(),
            tls: ClientTlsFiles {
                cert: "c".into(),
                key: "k".into(),
            },
            cluster_tls: ClusterTlsFiles {
                ca: "a".into(),
                cert: "c".into(),
                key: "k".into(),
            },
            edges: vec![],
            workers: None,
            limits: GatewayLimits::default(),
        }
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        assert_eq!(config(&[1, 2]).check(), Ok(()));
        assert_eq!(config(&[1]).name(), "edge-1");
        assert!(config(&[]).check().unwrap_err().contains("cores"));
        assert!(config(&[2, 2]).check().unwrap_err().contains("id 2"));
        let mut open = config(&[1]);
        open.observe = Some(([0, 0, 0, 0], 9000).into());
        assert!(open.check().unwrap_err().contains("loopback"));
        let mut closed = config(&[1]);
        closed.limits.connections_max = 0;
        assert!(closed.check().unwrap_err().contains("connections_max"));
        let mut closed = config(&[1]);
        closed.limits.handshakes.network_burst = 0;
        assert!(closed.check().unwrap_err().contains("network_burst"));
        for workers in [0, WORKERS_MAX + 1] {
            let mut odd = config(&[1]);
            odd.workers = Some(workers);
            assert!(odd.check().unwrap_err().contains("workers"));
        }
    }
}
