//! One connection per node, made when it is needed and made anew when it is lost.
//!
//! Callers get cached [`RpcClient`]s. A failed attempt is remembered for a short time, so that
//! callers fail fast and go elsewhere instead of queueing at a dead node. Requests are not retried
//! here: that is the business of exactly one layer above.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;
use throng_protocol::cluster::PeerId;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::cluster::{ClusterConnectError, ClusterConnection, ClusterEndpoint};
use crate::link::LinkClosed;
use crate::rpc::RpcClient;

/// How long the first failure of a node is remembered; doubled with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// How long a failure is remembered at most: a node that is back is found within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Code with which a connection to a former address of a node is closed.
const CLOSE_MOVED: u32 = 0;

/// Why there is no way to a node now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Connecting failed, now or a moment ago.
    #[error("{0}")]
    Connect(#[from] ClusterConnectError),
    /// The connection ended while a lane was opened.
    #[error("the lane could not be opened: {0}")]
    Lane(#[from] LinkClosed),
    /// The runtime shuts down.
    #[error("shutting down")]
    ShuttingDown,
}

/// The connections of one node to others. Clones share them. Its size is that of the cluster: nodes
/// are added by need and leave by [`ClusterPool::forget`].
#[derive(Debug, Clone)]
pub struct ClusterPool {
    endpoint: Arc<ClusterEndpoint>,
    peers: Arc<Mutex<HashMap<PeerId, Arc<Peer>>>>,
    runtime: Handle,
}

#[derive(Debug, Default)]
struct Peer {
    /// Lanes ready for use; looked at on every request.
    lanes: Mutex<Lanes>,
    /// Held while connecting, so that one attempt serves all who wait.
    attempt: tokio::sync::Mutex<Attempt>,
}

#[derive(Debug, Default)]
struct Lanes {
    addr: Option<SocketAddr>,
    clients: HashMap<u8, RpcClient>,
}

#[derive(Debug, Default)]
struct Attempt {
    connection: Option<(SocketAddr, ClusterConnection)>,
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    addr: SocketAddr,
    error: ClusterConnectError,
    until: Instant,
    backoff: Duration,
}

impl ClusterPool {
    /// A pool that connects from an endpoint. Connections live in the runtime this is called in, whoever
    /// asks for them.
    pub fn new(endpoint: Arc<ClusterEndpoint>) -> Self {
        Self {
            endpoint,
            peers: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// A client for a lane of a kind to a node, connecting if need be. All callers of a node and
    /// kind share one lane. Cancel-safe: an attempt goes on for the others who want that node.
    pub async fn rpc(&self, peer: PeerId, addr: SocketAddr, lane_kind: u8) -> Result<RpcClient, PoolError> {
        let entry = self.peers.lock().entry(peer).or_default().clone();
        if let Some(client) = entry.ready(addr, lane_kind) {
            return Ok(client);
        }
        let endpoint = self.endpoint.clone();
        let opening = self
            .runtime
            .spawn(async move { entry.open(&endpoint, peer, addr, lane_kind).await });
        opening.await.map_err(|_| PoolError::ShuttingDown)?
    }

    /// The connection to a node, connecting if need be: for lanes that are not requests and
    /// answers.
    pub async fn connection(&self, peer: PeerId, addr: SocketAddr) -> Result<ClusterConnection, PoolError> {
        let entry = self.peers.lock().entry(peer).or_default().clone();
        let endpoint = self.endpoint.clone();
        let opening = self.runtime.spawn(async move {
            let mut attempt = entry.attempt.lock().await;
            Ok(attempt.connection(&endpoint, peer, addr).await?)
        });
        opening.await.map_err(|_| PoolError::ShuttingDown)?
    }

    /// Forgets a node and closes its connection once nobody uses it any more.
    pub fn forget(&self, peer: PeerId) {
        self.peers.lock().remove(&peer);
    }
}

impl Peer {
    fn ready(&self, addr: SocketAddr, kind: u8) -> Option<RpcClient> {
        let lanes = self.lanes.lock();
        let client = lanes.clients.get(&kind).filter(|client| !client.is_lost());
        client.filter(|_| lanes.addr == Some(addr)).cloned()
    }

    async fn open(
        &self,
        endpoint: &ClusterEndpoint,
        peer: PeerId,
        addr: SocketAddr,
        kind: u8,
    ) -> Result<RpcClient, PoolError> {
        let mut attempt = self.attempt.lock().await;
        // Somebody else may have opened it in the meantime.
        if let Some(client) = self.ready(addr, kind) {
            return Ok(client);
        }
        let connection = attempt.connection(endpoint, peer, addr).await?;
        let (writer, reader) = connection.open_lane(kind).await?;
        let client = RpcClient::new(writer, reader);
        let mut lanes = self.lanes.lock();
        if lanes.addr != Some(addr) {
            *lanes = Lanes {
                addr: Some(addr),
                clients: HashMap::new(),
            };
        }
        lanes.clients.insert(kind, client.clone());
        Ok(client)
    }
}

impl Attempt {
    async fn connection(
        &mut self,
        endpoint: &ClusterEndpoint,
        peer: PeerId,
        addr: SocketAddr,
    ) -> Result<ClusterConnection, ClusterConnectError> {
        match self.connection.take() {
            Some((at, connection)) if at == addr && !connection.is_closed() => {
                self.connection = Some((at, connection.clone()));
                return Ok(connection);
            }
            Some((_, connection)) => connection.close(CLOSE_MOVED, "the node has moved"),
            None => {}
        }
        let failed = self.failed.take().filter(|failed| failed.addr == addr);
        if let Some(failed) = &failed
            && Instant::now() < failed.until
        {
            let error = failed.error.clone();
            self.failed = Some(Failed {
                error: error.clone(),
                ..*failed
            });
            return Err(error);
        }
        match endpoint.connect(addr, peer).await {
            Ok(connection) => {
                self.connection = Some((addr, connection.clone()));
                Ok(connection)
            }
            Err(error) => {
                let backoff = failed.map_or(BACKOFF_MIN, |failed| (failed.backoff * 2).min(BACKOFF_MAX));
                // Jitter, so that nodes do not try a node that comes back all at once.
                let wait = backoff.mul_f64(rand::rng().random_range(0.75..=1.0));
                self.failed = Some(Failed {
                    addr,
                    error: error.clone(),
                    until: Instant::now() + wait,
                    backoff,
                });
                Err(error)
            }
        }
    }
}
