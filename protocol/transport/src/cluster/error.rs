//! Why nodes did not come together, and the close codes that tell the other side.

use std::net::SocketAddr;
use std::time::Duration;

use crate::link::{Link, LinkClosed};
use crate::settings::CLUSTER_CONNECT_TIMEOUT;

/// Close codes of the connection before the hellos are through. Codes of later closes are the
/// users', and theirs are `throng_protocol::code` numbers, which end far below.
const CLOSE_VERSION: u32 = 0x1_0001;
const CLOSE_CLUSTER: u32 = 0x1_0002;
pub(super) const CLOSE_PEER: u32 = 0x1_0003;
const CLOSE_HELLO: u32 = 0x1_0004;

/// TLS alert for a certificate whose name is not the one asked for (and nothing else in rustls but
/// unreadable certificates).
const ALERT_BAD_CERTIFICATE: u8 = 42;

/// Why connecting to a node failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterConnectError {
    /// The address cannot be used, or the endpoint is closed.
    #[error("cannot connect to {addr}: {reason}")]
    Start {
        /// The address.
        addr: SocketAddr,
        /// What the carrier said.
        reason: String,
    },
    /// Nobody answered in time: the node is down, or UDP does not get through.
    #[error("no answer from {addr} within {CLUSTER_CONNECT_TIMEOUT:?}")]
    Timeout {
        /// The address.
        addr: SocketAddr,
    },
    /// Another node, or a node of another cluster, is at that address.
    #[error("{addr} is not {expected}: {reason}")]
    OtherPeer {
        /// The address.
        addr: SocketAddr,
        /// The name that was expected in the certificate.
        expected: String,
        /// What was found.
        reason: String,
    },
    /// One side's certificate is not of the other's CA, expired, or missing.
    #[error("{addr}: {reason}; both nodes need valid certificates of one CA")]
    Untrusted {
        /// The address.
        addr: SocketAddr,
        /// Which check failed.
        reason: String,
    },
    /// The peer is of another cluster, or takes this node for one.
    #[error("{addr} is of another cluster: {reason}")]
    OtherCluster {
        /// The address.
        addr: SocketAddr,
        /// What the peer said.
        reason: String,
    },
    /// No version in common: upgrade one step at a time.
    #[error("{addr} speaks no version in common: {reason}")]
    Version {
        /// The address.
        addr: SocketAddr,
        /// Which versions were offered.
        reason: String,
    },
    /// The connection ended otherwise.
    #[error("cannot connect to {addr}: {reason}")]
    Closed {
        /// The address.
        addr: SocketAddr,
        /// How it ended.
        reason: LinkClosed,
    },
}

/// Why a node that connected was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// It took too long.
    #[error("the handshake took longer than {0:?}")]
    Timeout(Duration),
    /// The TLS handshake failed, or the peer went away.
    #[error("the handshake failed: {0}")]
    Closed(#[from] LinkClosed),
    /// The certificate does not name one node of this cluster.
    #[error("{0}")]
    Peer(String),
    /// The peer is of another cluster by its hello.
    #[error("the peer says it is of cluster {0}")]
    OtherCluster(String),
    /// No version in common.
    #[error("the peer speaks versions {theirs:?}, this node {ours:?}")]
    Version {
        /// The peer's versions.
        theirs: Vec<u16>,
        /// This node's versions.
        ours: Vec<u16>,
    },
    /// The peer did not say hello as it must.
    #[error("no valid hello: {0}")]
    Hello(String),
}

pub(super) fn close_for(link: &dyn Link, error: &AcceptError) {
    let code = match error {
        AcceptError::Version { .. } => CLOSE_VERSION,
        AcceptError::OtherCluster(_) => CLOSE_CLUSTER,
        AcceptError::Peer(_) => CLOSE_PEER,
        AcceptError::Timeout(_) | AcceptError::Closed(_) | AcceptError::Hello(_) => CLOSE_HELLO,
    };
    link.close(code, &error.to_string());
}

pub(super) fn hello_error(addr: SocketAddr, error: &AcceptError) -> ClusterConnectError {
    let reason = error.to_string();
    match error {
        AcceptError::OtherCluster(_) => ClusterConnectError::OtherCluster { addr, reason },
        AcceptError::Version { .. } => ClusterConnectError::Version { addr, reason },
        _ => ClusterConnectError::Closed {
            addr,
            reason: LinkClosed::Lost(reason),
        },
    }
}

pub(super) fn connect_error(addr: SocketAddr, expected: &str, closed: LinkClosed) -> ClusterConnectError {
    match closed {
        LinkClosed::TimedOut => ClusterConnectError::Timeout { addr },
        LinkClosed::Untrusted {
            alert: ALERT_BAD_CERTIFICATE,
            text,
        } => ClusterConnectError::OtherPeer {
            addr,
            expected: expected.to_owned(),
            reason: text,
        },
        LinkClosed::Untrusted { text, .. } => ClusterConnectError::Untrusted { addr, reason: text },
        LinkClosed::Peer {
            code: CLOSE_VERSION,
            reason,
        } => ClusterConnectError::Version { addr, reason },
        LinkClosed::Peer {
            code: CLOSE_CLUSTER,
            reason,
        } => ClusterConnectError::OtherCluster { addr, reason },
        LinkClosed::Peer {
            code: CLOSE_PEER,
            reason,
        } => ClusterConnectError::Untrusted { addr, reason },
        reason => ClusterConnectError::Closed { addr, reason },
    }
}
