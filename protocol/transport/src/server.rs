//! The port clients connect to, and the endpoints of its workers.
//!
//! A port has as many workers as threads are to serve it; each takes clients in for itself, and what may
//! begin is decided for all of them together.
//!
//! Accepting only takes first packets; each handshake is finished by its own task, so a slow one
//! never stands before the others. Who may begin one is decided in `admission`. Links are told
//! apart by ALPN, so that further carriers can share the port.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rand::RngCore;
use ring::hkdf;
use throng_protocol::message;

#[cfg(any(test, feature = "bare"))]
use crate::ack_frequency::Acks;
use crate::admission::{Admission, Decision, HandshakeCounts, OpenHandshake};
use crate::carrier::{Carrier, Established};
use crate::link::{Link, LinkClosed};
use crate::quic::QuicCarrier;
use crate::settings::{INCOMING_BUFFER, INCOMING_BUFFER_TOTAL, Limits, server_transport};
use crate::socket::{self, BindError, ResetSecret};
use crate::tls::{self, Identity, TlsError};
use crate::tls_session::ServerCrypto;
use crate::worker::{HandedCounts, Seat, WorkerCarrier};

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

    /// The same with acknowledgements asked for in this way.
    #[cfg(any(test, feature = "bare"))]
    pub(crate) fn with_acks(&self, acks: Acks) -> Self {
        Self {
            crypto: Arc::new(self.crypto.with_acks(acks)),
            secret: self.secret.clone(),
        }
    }

    #[cfg(any(test, feature = "bare"))]
    pub(crate) fn fresh_config(&self, limits: &Limits) -> quinn::ServerConfig {
        self.config(limits, &RetryKey::random(), 1)
    }

    /// For one of so many workers of a port, which share its bounds.
    fn config(&self, limits: &Limits, retries: &RetryKey, workers: usize) -> quinn::ServerConfig {
        let mut config = quinn::ServerConfig::with_crypto(self.crypto.clone());
        config
            .token_key(retries.0.clone())
            .transport_config(server_transport())
            .migration(true)
            .max_incoming(limits.incoming_max.div_ceil(workers))
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL / workers as u64);
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

/// Workers of one port at most: more threads than any socket's traffic is worth, and few enough that
/// ids of connections are found in as many tries.
pub const WORKERS_MAX: usize = if cfg!(target_os = "linux") { 64 } else { 1 };

/// What the workers of a port share: who may begin a handshake is decided for the whole port.
#[derive(Debug)]
struct Gate {
    limits: Limits,
    admission: Admission,
    refusing: AtomicBool,
    retries: RetryKey,
}

impl Gate {
    fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            admission: Admission::new(limits),
            refusing: AtomicBool::new(false),
            retries: RetryKey::random(),
        })
    }
}

/// One UDP port that clients connect to, before anybody serves it.
#[derive(Debug)]
pub struct ServerPort {
    addr: SocketAddr,
    workers: Vec<PortWorker>,
}

impl ServerPort {
    /// Takes an address for as many workers, at most [`WORKERS_MAX`]. `[::]` takes IPv4 as well; port 0 is
    /// any free port.
    pub fn bind(
        addr: SocketAddr,
        tls: &ServerTls,
        limits: Limits,
        workers: usize,
    ) -> Result<Self, BindError> {
        let workers = workers.clamp(1, WORKERS_MAX);
        let sockets = socket::bind_many(addr, workers)?;
        let addr = sockets.first().map_or(Ok(addr), UdpSocket::local_addr);
        let addr = addr.map_err(|source| BindError::new(socket::unspecified(), source))?;
        let (gate, open) = (Gate::new(limits), Arc::default());
        let workers = Seat::all(workers).zip(sockets).map(|(seat, socket)| PortWorker {
            socket,
            seat,
            tls: tls.clone(),
            gate: Arc::clone(&gate),
            open: Arc::clone(&open),
        });
        Ok(Self {
            addr,
            workers: workers.collect(),
        })
    }

    /// Where the port is.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its workers, each to be taken to the thread that serves it.
    pub fn into_workers(self) -> Vec<PortWorker> {
        self.workers
    }
}

/// A worker's part of a port.
pub struct PortWorker {
    socket: UdpSocket,
    seat: Seat,
    tls: ServerTls,
    gate: Arc<Gate>,
    open: Arc<AtomicUsize>,
}

impl std::fmt::Debug for PortWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortWorker").finish_non_exhaustive()
    }
}

impl PortWorker {
    /// Serves its clients in the tokio runtime that this is called in.
    pub fn listen(self) -> Result<ServerEndpoint, BindError> {
        let Self {
            socket,
            seat,
            tls,
            gate,
            open,
        } = self;
        let config = socket::config_at(&socket, &tls.secret)?;
        let server = tls.config(&gate.limits, &gate.retries, seat.workers());
        let worker = WorkerCarrier::listen(socket, config, server, seat.clone(), open);
        let worker = Arc::new(worker.map_err(|source| BindError::new(socket::unspecified(), source))?);
        Ok(ServerEndpoint {
            renewal: Some(Renewal::Worker(Arc::clone(&worker))),
            carrier: worker,
            gate,
            seat: Some(seat),
        })
    }
}

/// An endpoint that clients connect to: a whole port, or one worker of it.
#[derive(Debug)]
pub struct ServerEndpoint {
    carrier: Arc<dyn Carrier>,
    /// Takes other certificates; a carrier that brought its own has none.
    renewal: Option<Renewal>,
    gate: Arc<Gate>,
    /// A worker's seat at its port.
    seat: Option<Seat>,
}

impl ServerEndpoint {
    /// Listens on an address with one worker, see [`ServerPort::bind`]. Must be called inside a tokio
    /// runtime.
    pub fn bind(addr: SocketAddr, tls: &ServerTls, limits: Limits) -> Result<Self, BindError> {
        let port = ServerPort::bind(addr, tls, limits, 1)?;
        let worker = port.into_workers().pop();
        worker.expect("invariant: one was asked for").listen()
    }

    /// [`Self::bind`] on quinn's own endpoint: what the worker under [`Self::bind`] is compared with.
    pub fn bind_quinn(addr: SocketAddr, tls: &ServerTls, limits: Limits) -> Result<Self, BindError> {
        let socket = socket::bind(addr)?;
        let (gate, unproven) = (Gate::new(limits), Arc::default());
        let config = tls.config(&limits, &gate.retries, 1);
        let endpoint = socket::server_endpoint(socket, &tls.secret, config, &unproven)?;
        let carrier = Arc::new(QuicCarrier::listening(endpoint.clone(), unproven));
        Ok(Self {
            renewal: Some(Renewal::Quinn(endpoint)),
            carrier,
            gate,
            seat: None,
        })
    }

    /// Listens on a carrier, which brings its certificate and its times with it.
    pub fn over(carrier: Arc<dyn Carrier>, limits: Limits) -> Self {
        Self {
            carrier,
            renewal: None,
            gate: Gate::new(limits),
            seat: None,
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
            let gate = &self.gate;
            let full = gate.refusing.load(Ordering::Relaxed)
                || self.carrier.open_links() >= gate.limits.connections_max;
            match gate.admission.decide(from.ip(), incoming.is_validated(), full) {
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
        let workers = self.seat.as_ref().map_or(1, Seat::workers);
        let config = tls.config(&self.gate.limits, &self.gate.retries, workers);
        match &self.renewal {
            Some(Renewal::Worker(worker)) => worker.set_server_config(config),
            Some(Renewal::Quinn(endpoint)) => endpoint.set_server_config(Some(config)),
            None => {}
        }
    }

    /// Refuses new connections from now on, at all workers of the port; open ones go on.
    pub fn refuse_new(&self) {
        self.gate.refusing.store(true, Ordering::Relaxed);
    }

    /// What became of the port's first packets.
    pub fn handshakes(&self) -> HandshakeCounts {
        self.gate.admission.counts()
    }

    /// Datagrams at the port that came to another worker than their client's.
    pub fn handed(&self) -> HandedCounts {
        self.seat.as_ref().map(Seat::counts).unwrap_or_default()
    }

    /// Connections of all workers of the port, handshakes included.
    pub fn open_connections(&self) -> usize {
        self.carrier.open_links()
    }

    /// Closes all connections of this endpoint and ends [`Self::accept`].
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
