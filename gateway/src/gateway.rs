//! A running edge: started from its settings, drained, stopped.

use std::net::SocketAddr;
use std::sync::Arc;

use throng_protocol::cluster::PeerId;
use throng_protocol::code::Code;
use throng_transport::{ClusterEndpoint, ClusterPool, ClusterTls, ServerEndpoint, ServerPort, ServerTls};
use tokio::net::TcpListener;
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::channels::Channels;
use crate::clock::{self, Clock};
use crate::config::GatewayConfig;
use crate::directory::Directory;
use crate::error::GatewayError;
use crate::limits::FAREWELL;
use crate::metrics::Metrics;
use crate::observe;
use crate::shared::{DrainNotice, Shared};
use crate::upstream::Upstream;
use crate::workers::{Serving, Workers};

/// A running edge. Dropping it stops it at once; [`Self::drain`] lets clients leave first.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    cluster: Arc<ClusterEndpoint>,
    clients: TaskTracker,
    stop: CancellationToken,
    listen: SocketAddr,
    observe: Option<SocketAddr>,
    edges: Arc<[String]>,
}

/// Where an edge listens for clients.
#[derive(Debug)]
pub enum ClientSide {
    /// An endpoint of the runtime that the edge is started in.
    Endpoint(ServerEndpoint),
    /// A port, each worker of which gets a thread.
    Port(ServerPort),
}

impl ClientSide {
    fn bind(config: &GatewayConfig, tls: &ServerTls) -> Result<Self, GatewayError> {
        let (listen, limits) = (config.listen, config.limits.of_endpoint());
        Ok(match config.workers() {
            1 => Self::Endpoint(ServerEndpoint::bind(listen, tls, limits)?),
            workers => Self::Port(ServerPort::bind(listen, tls, limits, workers)?),
        })
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Endpoint(endpoint) => endpoint.local_addr(),
            Self::Port(port) => Ok(port.local_addr()),
        }
    }

    fn serve(self, serving: Serving) -> Result<Workers, GatewayError> {
        match self {
            Self::Endpoint(endpoint) => Ok(Workers::here(endpoint, serving)),
            Self::Port(port) => Workers::on_threads(port, &serving),
        }
    }
}

/// What an edge stands on: its clock and its networks.
#[derive(Debug)]
pub struct GatewayParts {
    /// What the machine's clock says now, Unix milliseconds; from here on only passed time counts.
    pub now_ms: u64,
    /// Where it listens for clients.
    pub clients: ClientSide,
    /// Where it connects to core nodes from.
    pub cluster: ClusterEndpoint,
    /// Where it serves HTTP, if it does.
    pub observe: Option<TcpListener>,
}

impl Gateway {
    /// Starts an edge. It listens when this returns; the core need not be there yet, requests are
    /// refused as unavailable until it is. Must be called inside a tokio runtime.
    pub async fn start(config: GatewayConfig) -> Result<Self, GatewayError> {
        config.check().map_err(GatewayError::Config)?;
        let files = &config.cluster_tls;
        let cluster_tls = ClusterTls::load(&files.ca, &files.cert, &files.key, &config.cluster)?;
        if cluster_tls.me() != PeerId::Edge(config.id) {
            return Err(GatewayError::OtherIdentity {
                expected: config.id.0,
                found: cluster_tls.me(),
            });
        }
        let tls = ServerTls::load(&config.tls.cert, &config.tls.key)?;
        let observe = match config.observe {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let parts = GatewayParts {
            now_ms: clock::machine_ms(),
            clients: ClientSide::bind(&config, &tls)?,
            cluster: ClusterEndpoint::outgoing(&cluster_tls)?,
            observe,
        };
        Self::start_on(config, parts)
    }

    /// [`Self::start`] on parts that are there already; of the settings, those that say where they
    /// would come from are not read.
    pub fn start_on(config: GatewayConfig, parts: GatewayParts) -> Result<Self, GatewayError> {
        config.check().map_err(GatewayError::Config)?;
        let cluster = Arc::new(parts.cluster);
        let listen = parts
            .clients
            .local_addr()
            .map_err(|error| GatewayError::listen(config.listen, &error))?;
        let metrics = Metrics::default();
        let clock = Clock::start_at(parts.now_ms);
        let pool = ClusterPool::new(Arc::clone(&cluster));
        let upstream = Arc::new(Upstream::new(pool, config.cores.clone(), metrics.clone()));
        let ring = config.limits.ring();
        let directory = Arc::new(Directory::new(Arc::clone(&upstream)));
        let channels = Arc::new(Channels::new(
            clock,
            ring,
            Arc::clone(&upstream),
            Arc::clone(&directory),
            metrics.clone(),
        ));
        let shared = Arc::new(Shared::new(
            config.name(),
            clock,
            upstream,
            directory,
            channels,
            metrics,
        ));
        let (clients, stop) = (TaskTracker::new(), CancellationToken::new());
        let workers = parts.clients.serve(Serving {
            shared: Arc::clone(&shared),
            clients: clients.clone(),
            stop: stop.clone(),
            handshake_timeout: Duration::from_millis(config.limits.handshakes.timeout_ms),
        })?;
        let mut gateway = Self {
            shared,
            workers: Arc::new(workers),
            cluster,
            clients,
            stop,
            listen,
            observe: None,
            edges: config.edges.clone().into(),
        };
        gateway.spawn(parts.observe);
        tracing::info!(edge = %config.id, %listen, workers = gateway.workers.count(), "the edge listens");
        Ok(gateway)
    }

    fn spawn(&mut self, observed: Option<TcpListener>) {
        if let Some(listener) = observed {
            self.observe = listener.local_addr().ok();
            tokio::spawn(observe::serve(
                listener,
                Arc::clone(&self.shared),
                Arc::clone(&self.workers),
                self.stop.clone(),
            ));
        }
        let upstream = Arc::clone(&self.shared.upstream);
        tokio::spawn(
            self.stop
                .clone()
                .run_until_cancelled_owned(async move { upstream.keep_map().await }),
        );
        let floods = Arc::clone(&self.shared.floods);
        tokio::spawn(
            self.stop
                .clone()
                .run_until_cancelled_owned(async move { floods.keep_watch().await }),
        );
    }

    /// Where clients connect to.
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }

    /// Where the HTTP endpoints are.
    pub fn observe_addr(&self) -> Option<SocketAddr> {
        self.observe
    }

    /// Why the edge is not ready for clients; `None` if it is. What `/readyz` says.
    pub fn unready(&self) -> Option<&'static str> {
        observe::unready(&self.shared)
    }

    /// Tells clients to go to other edges, takes nobody new, and waits until all have left or the
    /// time is over; then closes what is left and stops. Returns how many clients had to be closed.
    pub async fn drain(self, within: Duration) -> usize {
        let until = Instant::now() + within;
        self.workers.refuse_new();
        self.shared.drain.send_replace(Some(DrainNotice {
            until,
            reason: "the edge is stopping".to_owned(),
            edges: Arc::clone(&self.edges),
        }));
        self.clients.close();
        let all_left = timeout_at(until, self.clients.wait()).await.is_ok();
        let left = if all_left { 0 } else { self.clients.len() };
        if left > 0 {
            // Sessions end themselves at the deadline and say so to their clients.
            let _ = timeout(FAREWELL * 2, self.clients.wait()).await;
        }
        self.workers
            .close(u32::from(Code::Draining.number()), "the edge has stopped");
        let _ = timeout(FAREWELL, self.workers.wait_idle()).await;
        left
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shared.channels.stop();
        let draining = u32::from(Code::Draining.number());
        self.workers.close(draining, "the edge has stopped");
        self.cluster.close(0, "the edge has stopped");
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, GatewayError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| GatewayError::listen(address, &error))
}
