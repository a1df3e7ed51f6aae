//! A core node from start to drain.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use throng_protocol::cluster::{NodeStatus, PeerId};
use throng_protocol::code::{CLOSE_NORMAL, Code};
use throng_protocol::ids::{NodeId, ShardId};
use throng_protocol::placement::{ClusterMap, META_SHARD, Plane, ShardInfo};
use throng_raft_store::{NodeStore, OpenError, Shard, StoreOptions};
use throng_transport::{ClusterEndpoint, ClusterPool, ClusterTls};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{SharedClock, SystemClock};
use crate::cluster_state::{ClusterState, ClusterWatch};
use crate::config::CoreConfig;
use crate::core::Core;
use crate::error::CoreError;
use crate::feed::FeedRegistry;
use crate::limits::{HAND_OVER_ROUNDS, HAND_OVER_TIMEOUT};
use crate::listen::Listener;
use crate::metrics::Metrics;
use crate::observer::ShardObserver;
use crate::outbox::{self, OutboxSignals};
use crate::peers::Peers;
use crate::raft::{NetworkFactory, RaftServer, ShardHandle};
use crate::replica::Replica;
use crate::{bootstrap, clocks, observe};

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

/// What a node is put together from.
struct Parts {
    config: CoreConfig,
    clock: SharedClock,
    store: NodeStore,
    peers: Arc<Peers>,
    feeds: Arc<FeedRegistry>,
    metrics: Metrics,
    raft: RaftServer,
    draining: CancellationToken,
}

/// An opened replica, before its Raft group runs.
struct Opened {
    shard: Shard,
    outbox: OutboxSignals,
    applied: watch::Receiver<u64>,
}

impl CoreNode {
    /// Starts a node. Done when it listens; the shards have leaders a moment later, see
    /// [`Self::ready`]. Must be called inside a multi-threaded tokio runtime.
    pub async fn start(config: CoreConfig) -> Result<Self, CoreError> {
        Self::start_with_clock(config, Arc::new(SystemClock)).await
    }

    /// [`Self::start`] with another clock.
    pub async fn start_with_clock(config: CoreConfig, clock: SharedClock) -> Result<Self, CoreError> {
        config.check().map_err(CoreError::Config)?;
        let tls = load_tls(&config)?;
        let store = open_store(&config).await?;
        let endpoint = Arc::new(ClusterEndpoint::bind(config.listen, &tls)?);
        let address = endpoint.local_addr().map_err(|error| CoreError::Listen {
            address: config.listen,
            reason: error.to_string(),
        })?;
        let observe = match config.observe {
            Some(address) => Some(observe_at(address).await?),
            None => None,
        };
        let pool = ClusterPool::new(Arc::clone(&endpoint));
        let initial = config.initial_map();
        let (draining, metrics) = (CancellationToken::new(), Metrics::default());
        let parts = Parts {
            peers: Arc::new(Peers::new(pool, &initial)),
            feeds: Arc::default(),
            raft: RaftServer::new(draining.clone(), metrics.clone()),
            metrics,
            draining,
            config,
            clock,
            store,
        };
        parts.assemble(initial, endpoint, address, observe).await
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
        self.stop.cancel();
        let groups = self.core.replicas().map(|replica| replica.handle().shutdown());
        futures_util::future::join_all(groups).await;
        self.endpoint.close(code, reason);
        let _ = tokio::time::timeout(GOODBYE, self.endpoint.wait_idle()).await;
        self.tasks.close();
        self.tasks.wait().await;
        self.stopped.cancel();
    }
}

impl Drop for CoreNode {
    fn drop(&mut self) {
        self.stop.cancel();
        self.endpoint.close(CLOSE_NORMAL, "stopped");
    }
}

impl Parts {
    async fn assemble(
        mut self,
        initial: ClusterMap,
        endpoint: Arc<ClusterEndpoint>,
        address: SocketAddr,
        observe: Option<TcpListener>,
    ) -> Result<CoreNode, CoreError> {
        let mut opened = BTreeMap::new();
        let meta_info = ShardInfo {
            id: META_SHARD,
            plane: Plane::Meta,
            voters: Vec::new(),
        };
        opened.insert(META_SHARD, self.open(&meta_info).await?);
        let known = opened[&META_SHARD]
            .shard
            .reader
            .read(|view, _| ClusterState::read(view));
        let known = known.map_err(|error| self.shard_error(META_SHARD, error))?;
        let map = known.as_ref().map_or(&initial, |state| &state.map).clone();
        self.peers.update(&map);
        let me = self.config.id;
        let hosted: Vec<ShardInfo> = map
            .shards
            .iter()
            .filter(|shard| shard.voters.contains(&me))
            .cloned()
            .collect();
        let meta_applied = opened[&META_SHARD].applied.clone();
        let (mut replicas, mut damaged) = (BTreeMap::new(), BTreeMap::new());
        for info in hosted {
            let (id, found) = (info.id, opened.remove(&info.id));
            match self.host(info, found).await {
                Ok(replica) => drop(replicas.insert(id, Arc::new(replica))),
                // Without the meta shard the node knows nothing of the cluster; any other is one less.
                Err(error @ CoreError::Shard { .. }) if id != META_SHARD => {
                    tracing::error!(shard = %id, %error, "this replica cannot be opened; the others serve");
                    damaged.insert(id, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let observe_address = observe.as_ref().and_then(|listener| listener.local_addr().ok());
        let core = Arc::new(Core {
            node: me,
            clock: self.clock,
            replicas,
            damaged,
            cluster: ClusterWatch::new(known),
            peers: self.peers,
            feeds: self.feeds,
            metrics: self.metrics,
            draining: self.draining,
            requests: TaskTracker::new(),
        });
        let node = CoreNode {
            core,
            endpoint,
            address,
            observe: observe_address,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
        };
        node.run(self.raft, initial, meta_applied);
        node.spawn(give_up_with_store(Arc::clone(&node.core), self.store.clone()));
        if let Some(listener) = observe {
            node.spawn(observe::serve(
                listener,
                Arc::clone(&node.core),
                self.store,
                node.stop.clone(),
            ));
        }
        Ok(node)
    }

    async fn open(&self, info: &ShardInfo) -> Result<Opened, CoreError> {
        let outbox = OutboxSignals::default();
        let (sender, applied) = watch::channel(0);
        let observer = ShardObserver {
            feeds: Arc::clone(&self.feeds),
            outbox: outbox.clone(),
            applied: sender,
            metrics: self.metrics.clone(),
        };
        let (store, id, plane) = (self.store.clone(), info.id, info.plane);
        let opening = tokio::task::spawn_blocking(move || store.shard(id, plane, Arc::new(observer)));
        let shard = opening.await.map_err(|error| self.shard_error(id, error))?;
        Ok(Opened {
            shard: shard.map_err(|error| match error {
                OpenError::Shard { .. } => self.shard_error(id, error),
                error => CoreError::store(&self.config.data, error),
            })?,
            outbox,
            applied,
        })
    }

    async fn host(&mut self, info: ShardInfo, opened: Option<Opened>) -> Result<Replica, CoreError> {
        let opened = match opened {
            Some(opened) => opened,
            None => self.open(&info).await?,
        };
        self.replica(info, opened).await
    }

    async fn replica(&mut self, info: ShardInfo, opened: Opened) -> Result<Replica, CoreError> {
        let Shard {
            log,
            state_machine,
            reader,
        } = opened.shard;
        let (me, timing) = (self.config.id, self.config.shard_timing());
        let network = NetworkFactory::new(info.id, me, Arc::clone(&self.peers));
        let handle = ShardHandle::start(info.id, me, timing, network, log, state_machine).await;
        let handle = handle.map_err(|error| self.shard_error(info.id, error))?;
        self.raft.add(&handle, reader.clone());
        Ok(Replica::new(
            info,
            handle,
            reader,
            opened.outbox,
            self.metrics.clone(),
        ))
    }

    fn shard_error(&self, shard: ShardId, error: impl ToString) -> CoreError {
        CoreError::Shard {
            shard: shard.0,
            reason: error.to_string(),
        }
    }
}

impl CoreNode {
    /// Starts the node's tasks; all end with `stop`.
    fn run(&self, raft: RaftServer, initial: ClusterMap, meta_applied: watch::Receiver<u64>) {
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
