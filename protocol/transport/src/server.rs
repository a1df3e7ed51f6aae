//! The endpoint clients connect to.
//!
//! Accepting only takes first packets; each handshake is finished by its own task, so a slow one
//! never stands before the others. Who may begin one is decided in `admission`. Links are told
//! apart by ALPN, so that further carriers can share the port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rand::RngCore;
use ring::hkdf;
use throng_protocol::message;

use crate::admission::{Admission, Decision, HandshakeCounts, OpenHandshake};
use crate::carrier::{Carrier, Established};
use crate::link::{Link, LinkClosed};
use crate::quic::QuicCarrier;
use crate::settings::{INCOMING_BUFFER, INCOMING_BUFFER_TOTAL, Limits, server_transport};
use crate::socket::{self, BindError, ResetSecret};
use crate::tls::{self, Identity, TlsError};
use crate::tls_session::ServerCrypto;
use crate::worker::WorkerCarrier;

/// A server's certificate chain and key.
#[derive(Clone)]
pub struct ServerTls {
    crypto: Arc<ServerCrypto>,
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

    #[cfg(feature = "bare")]
    pub(crate) fn secret(&self) -> &ResetSecret {
        &self.secret
    }

    #[cfg(feature = "bare")]
    pub(crate) fn fresh_config(&self, limits: &Limits) -> quinn::ServerConfig {
        self.config(limits, &RetryKey::random())
    }

    fn config(&self, limits: &Limits, retries: &RetryKey) -> quinn::ServerConfig {
        let mut config = quinn::ServerConfig::with_crypto(self.crypto.clone());
        config
            .token_key(retries.0.clone())
            .transport_config(server_transport())
            .migration(true)
            .max_incoming(limits.incoming_max)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
        config
    }
}

/// What the proofs of addresses are made of: kept over a change of certificates, or clients whose
/// Retry is on its way would be turned away with it.
struct RetryKey(Arc<hkdf::Prk>);

impl std::fmt::Debug for RetryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetryKey").finish_non_exhaustive()
    }
}

impl RetryKey {
    fn random() -> Self {
        let mut secret = [0; 64];
        rand::rng().fill_bytes(&mut secret);
        Self(Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret)))
    }
}

/// What takes another certificate.
#[derive(Debug)]
enum Renewal {
    Worker(Arc<WorkerCarrier>),
    Quinn(quinn::Endpoint),
}

/// One UDP port that clients connect to.
#[derive(Debug)]
pub struct ServerEndpoint {
    carrier: Arc<dyn Carrier>,
    /// Takes other certificates; a carrier that brought its own has none.
    renewal: Option<(Renewal, RetryKey)>,
    limits: Limits,
    admission: Admission,
    refusing: AtomicBool,
}

impl ServerEndpoint {
    /// Listens on an address. `[::]` takes IPv4 as well; port 0 is any free port. Must be called
    /// inside a tokio runtime.
    pub fn bind(addr: SocketAddr, tls: &ServerTls, limits: Limits) -> Result<Self, BindError> {
        let socket = socket::bind(addr)?;
        let retries = RetryKey::random();
        let server = tls.config(&limits, &retries);
        let config = socket::config_at(&socket, &tls.secret)?;
        let worker = WorkerCarrier::listen(socket, config, server, Arc::default());
        let worker = Arc::new(worker.map_err(|source| BindError::new(addr, source))?);
        Ok(Self {
            renewal: Some((Renewal::Worker(Arc::clone(&worker)), retries)),
            ..Self::over(worker, limits)
        })
    }

    /// [`Self::bind`] on quinn's own endpoint: what the worker under [`Self::bind`] is compared with.
    pub fn bind_quinn(addr: SocketAddr, tls: &ServerTls, limits: Limits) -> Result<Self, BindError> {
        let socket = socket::bind(addr)?;
        let (retries, unproven) = (RetryKey::random(), Arc::default());
        let config = tls.config(&limits, &retries);
        let endpoint = socket::server_endpoint(socket, &tls.secret, config, &unproven)?;
        let carrier = Arc::new(QuicCarrier::listening(endpoint.clone(), unproven));
        Ok(Self {
            renewal: Some((Renewal::Quinn(endpoint), retries)),
            ..Self::over(carrier, limits)
        })
    }

    /// Listens on a carrier, which brings its certificate and its times with it.
    pub fn over(carrier: Arc<dyn Carrier>, limits: Limits) -> Self {
        Self {
            carrier,
            renewal: None,
            limits,
            admission: Admission::new(limits),
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
            let from = incoming.remote_address();
            let full = self.refusing.load(Ordering::Relaxed)
                || self.carrier.open_links() >= self.limits.connections_max;
            match self.admission.decide(from.ip(), incoming.is_validated(), full) {
                Decision::Begin(open) => {
                    if let Some(connecting) = incoming.accept() {
                        return Some(Handshake {
                            from,
                            connecting,
                            open,
                        });
                    }
                }
                Decision::Prove => incoming.retry(),
                Decision::Refuse => incoming.refuse(),
                Decision::Ignore => incoming.ignore(),
            }
        }
    }

    /// Uses another certificate for new connections.
    pub fn renew(&self, tls: &ServerTls) {
        match &self.renewal {
            Some((Renewal::Worker(worker), retries)) => {
                worker.set_server_config(tls.config(&self.limits, retries));
            }
            Some((Renewal::Quinn(endpoint), retries)) => {
                endpoint.set_server_config(Some(tls.config(&self.limits, retries)));
            }
            None => {}
        }
    }

    /// Refuses new connections from now on; open ones go on.
    pub fn refuse_new(&self) {
        self.refusing.store(true, Ordering::Relaxed);
    }

    /// What became of first packets.
    pub fn handshakes(&self) -> HandshakeCounts {
        self.admission.counts()
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
