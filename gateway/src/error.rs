//! Why an edge does not start. Each says what happened, where, and what to do next.

use std::net::SocketAddr;

use throng_protocol::cluster::PeerId;
use throng_transport::{BindError, TlsError};

/// Why an edge does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The settings contradict each other.
    #[error("the configuration cannot work: {0}")]
    Config(String),
    /// Another process listens there.
    #[error("{address} is in use: another process listens there; stop it or choose another address")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// A thread that serves clients does not start.
    #[error("a worker does not start: {0}; fewer `workers` may do")]
    Worker(String),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate on the cluster wire is another node's.
    #[error(
        "the certificate is that of {found:?}, but this is edge {expected}; give each edge its own certificate"
    )]
    OtherIdentity {
        /// The id of the configuration.
        expected: u64,
        /// Who the certificate names.
        found: PeerId,
    },
}

impl From<BindError> for GatewayError {
    fn from(error: BindError) -> Self {
        match error {
            BindError::InUse { addr } => Self::AddressInUse { address: addr },
            BindError::Io { addr, source } => Self::Listen {
                address: addr,
                reason: source.to_string(),
            },
        }
    }
}

impl GatewayError {
    /// A TCP address that could not be listened on.
    pub(crate) fn listen(address: SocketAddr, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            return Self::AddressInUse { address };
        }
        Self::Listen {
            address,
            reason: error.to_string(),
        }
    }
}
