//! A core node from start to drain.

mod assembly;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use throng_protocol::cluster::{Answer, NodeStatus, PeerId, Request};
use throng_protocol::code::{CLOSE_NORMAL, Code};
use throng_protocol::ids::{NodeId, ShardId};
use throng_protocol::placement::{ClusterMap, META_SHARD, Plane};
use throng_raft_store::{NodeStore, StoreOptions};
use throng_transport::{ClusterEndpoint, ClusterPool, ClusterTls};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{SharedClock, SystemClock};
use crate::config::CoreConfig;
use crate::core::Core;
use crate::dispatch::refused;
use crate::error::CoreError;
use crate::limits::{HAND_OVER_ROUNDS, HAND_OVER_TIMEOUT};
use crate::listen::Listener;
use crate::metrics::Metrics;
use crate::outbox;
use crate::peers::Peers;
use crate::raft::RaftServer;
use crate::replica::{Progress, Replica};
use crate::{beats, bootstrap, calls, clocks, observe};

use assembly::Assembly;

/// The folder of the store inside a node's data folder.
const STORE_FOLDER: &str = "store";

/// How long another node may take to become the leader in a transfer.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long peers may take to hear of the end of this node.
const GOODBYE: Duration = Duration::from_millis(500);

/// A running core node. Dropping it stops it without handing anything over, like a crash that
/// leaves the disk in order; [`Self::drain`] is the kind way.
#[derive(Debug)]
pub struct CoreNode {
    core: Arc<Core>,
    endpoint: Arc<ClusterEndpoint>,
    address: SocketAddr,
    observe: Option<SocketAddr>,
    tasks: TaskTracker,
    stop: CancellationToken,
    stopped: CancellationToken,
}

/// What a node stands on: its clock, disk and network.
#[derive(Debug)]
pub struct CoreParts {
    /// What the node proposes as "now".
    pub clock: SharedClock,
    /// Where its replicas are kept.
    pub store: NodeStore,
    /// Where it listens for other nodes and connects from.
    pub endpoint: ClusterEndpoint,
    /// Where it serves HTTP, if it does.
    pub observe: Option<TcpListener>,
}

impl CoreNode {
    /// Starts a node. Done when it listens; the shards have leaders a moment later, see
    /// [`Self::ready`]. Must be called inside a multi-threaded tokio runtime.
    pub async fn start(config: CoreConfig) -> Result<Self, CoreError> {
        throng_raft_store::align_ticks(config.shard_timing());
        Self::start_with_clock(config, Arc::new(SystemClock)).await
    }

    /// [`Self::start`] with another clock.
    pub async fn start_with_clock(config: CoreConfig, clock: SharedClock) -> Result<Self, CoreError> {
        config.check().map_err(CoreError::Config)?;
        let tls = load_tls(&config)?;
        let store = open_store(&config).await?;
        let endpoint = ClusterEndpoint::bind(config.listen, &tls)?;
        let observe = match config.observe {
            Some(address) => Some(observe_at(address).await?),
            None => None,
        };
        let parts = CoreParts {
            clock,
            store,
            endpoint,
            observe,
        };
        Self::start_on(config, parts).await
    }

    /// [`Self::start`] on parts that are there already; of the settings, those that say where they
    /// would come from are not read.
    pub async fn start_on(config: CoreConfig, parts: CoreParts) -> Result<Self, CoreError> {
        config.check().map_err(CoreError::Config)?;
        let CoreParts {
            clock,
            store,
            endpoint,
            observe,
        } = parts;
        let endpoint = Arc::new(endpoint);
        if endpoint.me() != PeerId::Core(config.id) {
            return Err(CoreError::OtherIdentity {
                expected: config.id.0,
                found: endpoint.me(),
            });
        }
        let address = endpoint.local_addr().map_err(|error| CoreError::Listen {
            address: config.listen,
            reason: error.to_string(),
        })?;
        let pool = ClusterPool::new(Arc::clone(&endpoint));
        let initial = config.initial_map();
        let (draining, metrics) = (CancellationToken::new(), Metrics::default());
        let assembly = Assembly {
            peers: Arc::new(Peers::new(pool, &initial)),
            feeds: Arc::default(),
            raft: RaftServer::new(draining.clone(), metrics.clone()),
            metrics,
            draining,
            config,
            clock,
            store,
        };
        assembly.assemble(initial, endpoint, address, observe).await
    }

    /// Where the node listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the node serves HTTP.
    pub fn observe_address(&self) -> Option<SocketAddr> {
        self.observe
    }

    /// What this node hosts.
    pub fn status(&self) -> NodeStatus {
        self.core.status()
    }

    /// The shards this node leads.
    pub fn leads(&self) -> Vec<ShardId> {
        let led = self
            .core
            .replicas()
            .filter(|replica| replica.handle().leadership().leads);
        led.map(|replica| replica.shard()).collect()
    }

    /// What carries out the requests of app back ends, here or at the node that leads the shard they are
    /// for. Ends with the node.
    pub fn back_ends(&self) -> BackEnds {
        BackEnds {
            core: Arc::clone(&self.core),
        }
    }

    /// How far the Raft groups of this node are.
    pub fn progress(&self) -> Vec<Progress> {
        self.core.replicas().map(|replica| replica.progress()).collect()
    }

    /// How many beats of other nodes this one has heard.
    pub fn beats_heard(&self) -> u64 {
        self.core.beats.heard()
    }

    /// Why the node is not ready to serve, a line for each reason; empty if it is.
    pub fn unready(&self) -> Vec<String> {
        observe::unready(&self.core)
    }

    /// Waits until the cluster has a map and every shard of this node knows its leader.
    pub async fn ready(&self) {
        let mut cluster = self.core.cluster.subscribe();
        // Fails only if the node is gone, which `self` rules out.
        let _ = cluster.wait_for(Option::is_some).await;
        for replica in self.core.replicas() {
            let mut leadership = replica.handle().watch_leadership();
            let _ = leadership.wait_for(|now| now.leader.is_some()).await;
        }
    }

    /// Hands a shard that this node leads to another voter, and waits until it has let go.
    pub async fn transfer_leader(&self, shard: ShardId, to: NodeId) -> Result<(), String> {
        let replica = self
            .core
            .replicas
            .get(&shard)
            .ok_or_else(|| format!("shard {shard} is not here"))?;
        replica.handle().transfer_leader(to).await?;
        let mut leadership = replica.handle().watch_leadership();
        let gone = tokio::time::timeout(TRANSFER_TIMEOUT, leadership.wait_for(|now| !now.leads)).await;
        match gone {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("node {to} did not take shard {shard} over")),
        }
    }

    /// Hands leadership to other nodes, lets what is under way finish, and stops. Takes at most
    /// about `limit`; what could not be handed over by then fails over.
    pub async fn drain(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.core.draining.cancel();
        for replica in self.core.replicas() {
            replica.handle().stand_for_election(false);
        }
        let handing = self
            .core
            .replicas()
            .map(|replica| hand_over(self.core.id(), replica));
        let handed = futures_util::future::join_all(handing);
        if timeout_at(deadline, handed).await.is_err() {
            tracing::warn!(shards = ?self.leads(), "leadership could not be handed over in time");
        }
        self.core.requests.close();
        let finished = self.core.requests.wait();
        let _ = timeout_at(deadline.min(Instant::now() + GOODBYE), finished).await;
        self.halt(u32::from(Code::Draining.number()), "draining").await;
    }

    /// Stops at once, handing nothing over: other nodes notice by their election timeouts.
    pub async fn stop(&self) {
        self.halt(CLOSE_NORMAL, "stopped").await;
    }

    /// Waits until the node has been drained or stopped.
    pub async fn wait(&self) {
        self.stopped.cancelled().await;
    }

    async fn halt(&self, code: u32, reason: &str) {
        // Whoever serves ends before what is served: the end of the node is not told as a failure of
        // its replicas.
        self.stop.cancel();
        self.endpoint.close(code, reason);
        let _ = tokio::time::timeout(GOODBYE, self.endpoint.wait_idle()).await;
        self.tasks.close();
        self.tasks.wait().await;
        let groups = self.core.replicas().map(|replica| replica.handle().shutdown());
        futures_util::future::join_all(groups).await;
        self.stopped.cancel();
    }
}

/// Requests of app back ends, judged by whoever hands them in: a back end speaks for its app alone.
#[derive(Debug, Clone)]
pub struct BackEnds {
    core: Arc<Core>,
}

impl BackEnds {
    /// Carries a request out. It may be carried out more than once: all that can be asked is idempotent, a
    /// kick as long as the user does not come back.
    pub async fn ask(&self, request: &Request) -> Answer {
        let under_way = self.core.requests.token();
        if self.core.draining.is_cancelled() {
            return Err(refused(Code::Draining, "the node is draining"));
        }
        let answer = calls::ask(&self.core, request).await;
        self.core.metrics().answered_back_end(&answer);
        drop(under_way);
        answer
    }
}

impl Drop for CoreNode {
    fn drop(&mut self) {
        self.stop.cancel();
        self.endpoint.close(CLOSE_NORMAL, "stopped");
    }
}

impl CoreNode {
    /// Starts the node's tasks; all end with `stop`.
    fn run(
        &self,
        raft: RaftServer,
        initial: ClusterMap,
        meta_applied: watch::Receiver<u64>,
        config: &CoreConfig,
    ) {
        let core = &self.core;
        let listener = Listener {
            core: Arc::clone(core),
            raft: Arc::new(raft),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        self.spawn(listener.run(Arc::clone(&self.endpoint)));
        for replica in core.replicas() {
            self.spawn(bootstrap::form(core.id(), Arc::clone(replica)));
            self.spawn(serve_replica(Arc::clone(core), Arc::clone(replica)));
            // The one plane with outboxes so far.
            if replica.plane() == Plane::Management {
                self.spawn(outbox::run(Arc::clone(core), Arc::clone(replica)));
            }
        }
        self.spawn(beats::run(Arc::clone(core), config.shard_timing()));
        if let Some(meta) = core.replicas.get(&META_SHARD) {
            self.spawn(bootstrap::watch(Arc::clone(core), Arc::clone(meta), meta_applied));
            self.spawn(bootstrap::begin(
                Arc::clone(core),
                Arc::clone(meta),
                initial.clone(),
            ));
        }
        let others: Vec<NodeId> = initial
            .nodes
            .iter()
            .map(|node| node.id)
            .filter(|id| *id != core.id())
            .collect();
        self.spawn(clocks::run(Arc::clone(core), others));
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Ends all replicas when the store has failed, those too that nobody writes to at the moment: what
/// they lead must find leaders that can store.
async fn give_up_with_store(core: Arc<Core>, store: NodeStore) {
    let mut failure = store.watch_failure();
    let failed = failure
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|failed| failed.clone());
    let Some(failed) = failed else { return };
    for replica in core.replicas() {
        replica.give_up(&failed.to_string());
    }
}

/// Serves a replica, and tells the followers of its channels when it has stopped: silence would look
/// like quiet channels.
async fn serve_replica(core: Arc<Core>, replica: Arc<Replica>) {
    replica.serve().await;
    core.feeds().replaced(replica.shard());
}

/// Hands a shard to its other voters in turn until this node does not lead it, or none takes it.
async fn hand_over(me: NodeId, replica: &Replica) {
    let others: Vec<NodeId> = replica
        .voters()
        .iter()
        .copied()
        .filter(|node| *node != me)
        .collect();
    let mut leadership = replica.handle().watch_leadership();
    for to in others.iter().cycle().take(others.len() * HAND_OVER_ROUNDS) {
        if !leadership.borrow_and_update().leads {
            return;
        }
        if replica.handle().transfer_leader(*to).await.is_err() {
            return;
        }
        // A follower that is behind or away does not take over; another may.
        let moved = leadership.wait_for(|now| !now.leads);
        let _ = tokio::time::timeout(HAND_OVER_TIMEOUT, moved).await;
    }
}

fn load_tls(config: &CoreConfig) -> Result<ClusterTls, CoreError> {
    let files = &config.tls;
    let tls = ClusterTls::load(&files.ca, &files.cert, &files.key, &config.cluster)?;
    if tls.me() == PeerId::Core(config.id) {
        return Ok(tls);
    }
    Err(CoreError::OtherIdentity {
        expected: config.id.0,
        found: tls.me(),
    })
}

async fn open_store(config: &CoreConfig) -> Result<NodeStore, CoreError> {
    let folder = config.data.join(STORE_FOLDER);
    let options = StoreOptions {
        map_bytes: config.store_bytes_max(),
    };
    let opening = tokio::task::spawn_blocking(move || NodeStore::open(&folder, &options)).await;
    match opening {
        Ok(opened) => opened.map_err(|error| CoreError::store(&config.data, error)),
        Err(error) => Err(CoreError::Store {
            path: config.data.clone(),
            reason: error.to_string(),
        }),
    }
}

async fn observe_at(address: SocketAddr) -> Result<TcpListener, CoreError> {
    observe::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => CoreError::AddressInUse { address },
        _ => CoreError::Listen {
            address,
            reason: error.to_string(),
        },
    })
}
