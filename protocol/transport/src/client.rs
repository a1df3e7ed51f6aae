//! The endpoint a client connects from.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::CertificateDer;
use throng_protocol::message;

use crate::carrier::{Carrier, ConnectFailure};
use crate::link::{Link, LinkClosed};
use crate::quic::QuicCarrier;
use crate::settings::{CLIENT_CONNECT_TIMEOUT, client_transport};
use crate::socket::{self, BindError};
use crate::tls::{self, TlsError};

/// Whom a client trusts. Make one per process and clone it: clones share session tickets.
#[derive(Clone)]
pub struct Trust {
    crypto: Arc<QuicClientConfig>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    /// Trusts the CA certificates of a PEM file, and no others.
    pub fn ca_file(path: &Path) -> Result<Self, TlsError> {
        Self::with_alpn(tls::load_roots(path)?, &[message::ALPN])
    }

    /// Trusts CA certificates in DER; those that cannot serve as a CA are left out, and it is an
    /// error if none is left.
    pub fn roots(certificates: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, TlsError> {
        let mut roots = rustls::RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(certificates.into_iter().map(CertificateDer::from));
        if taken == 0 {
            return Err(TlsError::Config("no CA certificate was given".to_owned()));
        }
        Self::with_alpn(roots, &[message::ALPN])
    }

    /// Trusts nobody: for whoever is given an endpoint, which brings its own trust.
    pub fn nobody() -> Result<Self, TlsError> {
        Self::with_alpn(rustls::RootCertStore::empty(), &[message::ALPN])
    }

    #[cfg(any(test, feature = "bare"))]
    pub(crate) fn crypto(&self) -> Arc<QuicClientConfig> {
        self.crypto.clone()
    }

    pub(crate) fn with_alpn(roots: rustls::RootCertStore, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        Ok(Self {
            crypto: Arc::new(tls::client_config(roots, alpn)?),
        })
    }
}

/// Why a client could not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address or the server's name cannot be used, or the endpoint is closed.
    #[error("cannot connect to {addr}: {reason}")]
    Start {
        /// The address.
        addr: SocketAddr,
        /// What the carrier said.
        reason: String,
    },
    /// Nobody answered in time.
    #[error("no answer from {addr}; is the server running, and is UDP let through?")]
    Timeout {
        /// The address.
        addr: SocketAddr,
    },
    /// The handshake failed.
    #[error("cannot connect to {addr}: {reason}")]
    Closed {
        /// The address.
        addr: SocketAddr,
        /// How it ended.
        reason: LinkClosed,
    },
}

/// A UDP socket that links are connected from; one carries many.
#[derive(Debug)]
pub struct ClientEndpoint {
    carrier: Arc<dyn Carrier>,
}

impl ClientEndpoint {
    /// Opens a socket on a free port. Must be called inside a tokio runtime. Links are silent while
    /// nothing is sent, apart from the pings of their sessions: a phone's radio sleeps meanwhile.
    pub fn new(trust: &Trust) -> Result<Self, BindError> {
        Self::open(socket::bind_any()?, trust, None)
    }

    /// [`Self::new`] at an address, for machines with several; port 0 stands for a free one.
    pub fn bind(addr: SocketAddr, trust: &Trust) -> Result<Self, BindError> {
        Self::open(socket::bind(addr)?, trust, None)
    }

    /// [`Self::new`], with a probe on every link that was silent for a time. For clients on mains
    /// power, which learn so within that time that an edge they only listen to is gone.
    pub fn with_keep_alive(trust: &Trust, interval: Duration) -> Result<Self, BindError> {
        Self::open(socket::bind_any()?, trust, Some(interval))
    }

    fn open(socket: UdpSocket, trust: &Trust, keep_alive: Option<Duration>) -> Result<Self, BindError> {
        let endpoint = socket::endpoint(socket, None, None)?;
        let mut config = quinn::ClientConfig::new(trust.crypto.clone());
        config.transport_config(client_transport(keep_alive));
        Ok(Self::over(Arc::new(QuicCarrier::new(endpoint, Some(config)))))
    }

    /// Connects over a carrier, which brings its trust and its times with it.
    pub fn over(carrier: Arc<dyn Carrier>) -> Self {
        Self { carrier }
    }

    /// Connects to a server and checks that its certificate is for `server_name`. Gives up after
    /// [`CLIENT_CONNECT_TIMEOUT`]; wrap it in a shorter timeout where that is too long.
    pub async fn connect(&self, addr: SocketAddr, server_name: &str) -> Result<Arc<dyn Link>, ConnectError> {
        let connecting = self.carrier.connect(addr, server_name);
        match tokio::time::timeout(CLIENT_CONNECT_TIMEOUT, connecting).await {
            Err(_) | Ok(Err(ConnectFailure::Closed(LinkClosed::TimedOut))) => {
                Err(ConnectError::Timeout { addr })
            }
            Ok(Err(ConnectFailure::Start(reason))) => Err(ConnectError::Start { addr, reason }),
            Ok(Err(ConnectFailure::Closed(reason))) => Err(ConnectError::Closed { addr, reason }),
            Ok(Ok(established)) => Ok(established.link),
        }
    }

    /// Moves all links to a new UDP socket, as a phone does that changes networks. Links go on; on
    /// an error the old socket stays.
    pub fn rebind(&self) -> Result<SocketAddr, BindError> {
        self.carrier.rebind()
    }

    /// The socket's address now.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.carrier.local_addr()
    }

    /// Closes all links.
    pub fn close(&self, code: u32, reason: &str) {
        self.carrier.close(code, reason);
    }

    /// Waits until all links are gone, so that peers have heard of the close.
    pub async fn wait_idle(&self) {
        self.carrier.wait_idle().await;
    }
}
