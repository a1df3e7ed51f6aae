//! A running edge: started from its settings, drained, stopped.

use std::net::SocketAddr;
use std::sync::Arc;

use throng_protocol::cluster::PeerId;
use throng_protocol::code::Code;
use throng_transport::{ClusterEndpoint, ClusterPool, ClusterTls, ServerEndpoint, ServerTls};
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
use crate::shared::{DrainNotice, Shared};
use crate::upstream::Upstream;
use crate::{listener, observe};

/// A running edge. Dropping it stops it at once; [`Self::drain`] lets clients leave first.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    endpoint: Arc<ServerEndpoint>,
    cluster: Arc<ClusterEndpoint>,
    clients: TaskTracker,
    stop: CancellationToken,
    listen: SocketAddr,
    observe: Option<SocketAddr>,
    edges: Arc<[String]>,
}

/// What an edge stands on: its clock and its networks.
#[derive(Debug)]
pub struct GatewayParts {
    /// What the machine's clock says now, Unix milliseconds; from here on only passed time counts.
    pub now_ms: u64,
    /// Where it listens for clients.
    pub endpoint: ServerEndpoint,
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
            endpoint: ServerEndpoint::bind(config.listen, &tls, config.limits.of_endpoint())?,
            cluster: ClusterEndpoint::outgoing(&cluster_tls)?,
            observe,
        };
        Self::start_on(config, parts)
    }

    /// [`Self::start`] on parts that are there already; of the settings, those that say where they
    /// would come from are not read.
    pub fn start_on(config: GatewayConfig, parts: GatewayParts) -> Result<Self, GatewayError> {
        config.check().map_err(GatewayError::Config)?;
        let (endpoint, cluster) = (Arc::new(parts.endpoint), Arc::new(parts.cluster));
        let listen = endpoint
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
        let mut gateway = Self {
            shared,
            endpoint,
            cluster,
            clients: TaskTracker::new(),
            stop: CancellationToken::new(),
            listen,
            observe: None,
            edges: config.edges.clone().into(),
        };
        gateway.spawn(
            Duration::from_millis(config.limits.handshakes.timeout_ms),
            parts.observe,
        );
        tracing::info!(edge = %config.id, %listen, "the edge listens");
        Ok(gateway)
    }

    fn spawn(&mut self, handshake_timeout: Duration, observed: Option<TcpListener>) {
        if let Some(listener) = observed {
            self.observe = listener.local_addr().ok();
            tokio::spawn(observe::serve(
                listener,
                Arc::clone(&self.shared),
                Arc::clone(&self.endpoint),
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
        let shared = Arc::clone(&self.shared);
        tokio::spawn(
            self.stop
                .clone()
                .run_until_cancelled_owned(async move { shared.rounds.run().await }),
        );
        let (shared, endpoint) = (Arc::clone(&self.shared), Arc::clone(&self.endpoint));
        tokio::spawn(listener::run(
            shared,
            endpoint,
            handshake_timeout,
            self.clients.clone(),
        ));
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
        self.endpoint.refuse_new();
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
        self.endpoint
            .close(u32::from(Code::Draining.number()), "the edge has stopped");
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
        left
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shared.channels.stop();
        let draining = u32::from(Code::Draining.number());
        self.endpoint.close(draining, "the edge has stopped");
        self.cluster.close(0, "the edge has stopped");
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, GatewayError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| GatewayError::listen(address, &error))
}
