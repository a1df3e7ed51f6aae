//! The endpoint clients connect to.
//!
//! Accepting only takes first packets; each handshake is finished by its own task, so a slow one
//! never stands before the others. Links are told apart by ALPN, so that further carriers can
//! share the port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use quinn::crypto::rustls::QuicServerConfig;
use throng_protocol::message;

use crate::carrier::{Carrier, Established};
use crate::link::{Link, LinkClosed};
use crate::quic::QuicCarrier;
use crate::settings::{INCOMING_BUFFER, INCOMING_BUFFER_TOTAL, Limits, server_transport};
use crate::socket::{self, BindError, ResetSecret};
use crate::tls::{self, Identity, TlsError};

/// A server's certificate chain and key.
#[derive(Clone)]
pub struct ServerTls {
    crypto: Arc<QuicServerConfig>,
    secret: ResetSecret,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Loads a certificate chain and its key from PEM files.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let identity = Identity::load(cert, key)?;
        let crypto = Arc::new(tls::server_config(&identity, &[message::ALPN])?);
        Ok(Self {
            crypto,
            secret: identity.reset_secret(),
        })
    }

    fn config(&self, limits: &Limits) -> quinn::ServerConfig {
        let mut config = quinn::ServerConfig::with_crypto(self.crypto.clone());
        config
            .transport_config(server_transport())
            .migration(true)
            .max_incoming(limits.incoming_max)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
        config
    }
}

/// One UDP port that clients connect to.
#[derive(Debug)]
pub struct ServerEndpoint {
    carrier: Arc<dyn Carrier>,
    /// Takes other certificates; a carrier that is not quinn has none.
    quic: Option<quinn::Endpoint>,
    limits: Limits,
    handshakes: Arc<AtomicUsize>,
    refusing: AtomicBool,
}

impl ServerEndpoint {
    /// Listens on an address. `[::]` takes IPv4 as well; port 0 is any free port. Must be called
    /// inside a tokio runtime.
    pub fn bind(addr: SocketAddr, tls: &ServerTls, limits: Limits) -> Result<Self, BindError> {
        let socket = socket::bind(addr)?;
        let endpoint = socket::endpoint(socket, Some(&tls.secret), Some(tls.config(&limits)))?;
        let carrier = Arc::new(QuicCarrier::new(endpoint.clone(), None));
        Ok(Self {
            quic: Some(endpoint),
            ..Self::over(carrier, limits)
        })
    }

    /// Listens on a carrier, which brings its certificate and its times with it.
    pub fn over(carrier: Arc<dyn Carrier>, limits: Limits) -> Self {
        Self {
            carrier,
            quic: None,
            limits,
            handshakes: Arc::default(),
            refusing: AtomicBool::new(false),
        }
    }

    /// Where this endpoint listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.carrier.local_addr()
    }

    /// The next client; `None` when the endpoint is closed. Finish each one in a task of its own.
    /// Cancel-safe.
    pub async fn accept(&self) -> Option<Handshake> {
        loop {
            let incoming = self.carrier.accept().await?;
            let open = self.handshakes.load(Ordering::Relaxed);
            if self.refusing.load(Ordering::Relaxed)
                || open >= self.limits.handshakes_max
                || self.carrier.open_links() >= self.limits.connections_max
            {
                incoming.refuse();
                continue;
            }
            if open >= self.limits.retry_above && !incoming.is_validated() {
                incoming.retry();
                continue;
            }
            let from = incoming.remote_address();
            if let Some(connecting) = incoming.accept() {
                return Some(Handshake {
                    from,
                    connecting,
                    open: OpenHandshake::new(&self.handshakes),
                });
            }
        }
    }

    /// Uses another certificate for new connections.
    pub fn renew(&self, tls: &ServerTls) {
        if let Some(endpoint) = &self.quic {
            endpoint.set_server_config(Some(tls.config(&self.limits)));
        }
    }

    /// Refuses new connections from now on; open ones go on.
    pub fn refuse_new(&self) {
        self.refusing.store(true, Ordering::Relaxed);
    }

    /// Connections, handshakes included.
    pub fn open_connections(&self) -> usize {
        self.carrier.open_links()
    }

    /// Closes all connections and ends [`Self::accept`].
    pub fn close(&self, code: u32, reason: &str) {
        self.carrier.close(code, reason);
    }

    /// Waits until all connections are gone, so that peers have heard of the close.
    pub async fn wait_idle(&self) {
        self.carrier.wait_idle().await;
    }
}

/// Why a handshake did not become a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the handshake took longer than {0:?}")]
    Timeout(Duration),
    /// It failed.
    #[error("the handshake failed: {0}")]
    Closed(#[from] LinkClosed),
    /// The ALPN is one this endpoint offers but has no carrier for.
    #[error("no carrier for the negotiated protocol")]
    Protocol,
}

/// A connection whose handshake runs. Dropping it gives the connection up.
pub struct Handshake {
    from: SocketAddr,
    connecting: BoxFuture<'static, Result<Established, LinkClosed>>,
    open: OpenHandshake,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl Handshake {
    /// Where the client is.
    pub fn remote_address(&self) -> SocketAddr {
        self.from
    }

    /// Waits for the end of the handshake.
    pub async fn finish(self, timeout: Duration) -> Result<Arc<dyn Link>, HandshakeError> {
        let Self { connecting, open, .. } = self;
        let established = tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| HandshakeError::Timeout(timeout))?
            .map_err(HandshakeError::Closed)?;
        drop(open);
        match established.protocol.as_deref() {
            Some(message::ALPN) => Ok(established.link),
            _ => Err(HandshakeError::Protocol),
        }
    }
}

/// Counts as an open handshake while it lives.
#[derive(Debug)]
struct OpenHandshake(Arc<AtomicUsize>);

impl OpenHandshake {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for OpenHandshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
