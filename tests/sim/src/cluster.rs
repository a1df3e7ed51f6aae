//! The system under test on its hosts: core nodes on simulated disks, and edges.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use throng_core::{
    CoreConfig, CoreNode, CoreParts, InitialShards, PeerConfig, Progress, Storage, Timings, TlsFiles,
};
use throng_gateway::{
    ClientSide, ClientTlsFiles, ClusterTlsFiles, CoreAddress, Gateway, GatewayConfig, GatewayLimits,
    GatewayParts,
};
use throng_protocol::cluster::PeerId;
use throng_protocol::ids::{EdgeId, NodeId, ShardId};
use throng_raft_store::{NodeStore, SimDisk};
use throng_transport::cluster::node_name;
use throng_transport::{ClusterEndpoint, Limits, ServerEndpoint};

use crate::carrier::{Role, SimCarrier};
use crate::host::Host;
use crate::net::{Network, Us};

/// Core nodes.
pub const CORES: u8 = 3;
/// Edges.
pub const EDGES: u8 = 2;
/// The cluster's name.
pub const CLUSTER: &str = "sim";
/// The name on the certificates of edges.
pub const SERVER_NAME: &str = "edge.sim";
/// Where core nodes listen.
const CORE_PORT: u16 = 7_001;
/// Where edges listen.
const EDGE_PORT: u16 = 7_100;

/// Elections take a fraction of a second, so that a run of some seconds sees several.
const TIMINGS: Timings = Timings {
    heartbeat_ms: 150,
    election_min_ms: 400,
    election_max_ms: 700,
};
/// Snapshots and purges happen every second or two, and a node that was away for some seconds needs
/// a snapshot.
const STORAGE: Storage = Storage {
    mib_max: 64,
    snapshot_every: 40,
    log_keep: 10,
};
const SHARDS: InitialShards = InitialShards {
    management: 1,
    message: 2,
    replicas: CORES as usize,
};

/// A core node: its host, its disk, and the node while it runs.
#[derive(Debug)]
pub struct Core {
    /// Its id.
    pub id: u8,
    /// Its host.
    pub host: Host,
    /// Its disk, which outlives its crashes.
    pub disk: SimDisk,
    node: Arc<Mutex<Slot<CoreNode>>>,
}

/// An edge: its host, and the gateway while it runs.
#[derive(Debug)]
pub struct Edge {
    /// Its id.
    pub id: u8,
    /// Its host.
    pub host: Host,
    gateway: Arc<Mutex<Slot<Gateway>>>,
}

/// A process on its host.
#[derive(Debug)]
enum Slot<T> {
    Starting,
    Running(T),
    /// It does not start, and why.
    Failed(String),
}

/// The address of a core node, whose hosts are the first of the network.
pub fn core_address(id: u8) -> SocketAddr {
    Network::address(crate::net::HostId(usize::from(id) - 1), CORE_PORT)
}

/// The address of an edge, whose hosts come behind those of the core nodes.
pub fn edge_address(id: u8) -> SocketAddr {
    Network::address(crate::net::HostId(usize::from(CORES + id) - 1), EDGE_PORT)
}

impl Core {
    /// A core node with an empty disk, down.
    pub fn new(net: &Network, id: u8, seed: u64) -> Self {
        Self {
            id,
            host: Host::new(net),
            disk: SimDisk::new(seed.wrapping_mul(31).wrapping_add(u64::from(id))),
            node: Arc::new(Mutex::new(Slot::Starting)),
        }
    }

    /// Starts the process.
    pub fn start(&mut self, net: &Network, now: Us) -> std::io::Result<()> {
        let clock = self.host.boot(now)?;
        let (net, host, disk, id) = (net.clone(), self.host.id, self.disk.clone(), self.id);
        // A node that was there before has died with its host.
        self.node = Arc::new(Mutex::new(Slot::Starting));
        let slot = Arc::clone(&self.node);
        self.host.spawn(async move {
            let peer = PeerId::Core(NodeId(id.into()));
            let names = vec![node_name(peer, CLUSTER)];
            let carrier = SimCarrier::bind(&net, host, Some(CORE_PORT), Role::Cluster, names);
            let started = match carrier {
                Ok(carrier) => {
                    let parts = CoreParts {
                        clock: Arc::new(clock),
                        store: NodeStore::in_memory(disk.store()),
                        endpoint: ClusterEndpoint::over(Arc::new(carrier), CLUSTER, peer),
                        observe: None,
                    };
                    let started = CoreNode::start_on(core_config(id), parts).await;
                    started.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            *slot.lock() = Slot::of(started);
        });
        Ok(())
    }

    /// The host dies, and the disk loses what it had not synced.
    pub fn crash(&mut self) {
        self.host.crash();
        self.disk.crash();
        *self.node.lock() = Slot::Starting;
    }

    /// How far its Raft groups are; nothing while it is not running.
    pub fn progress(&self) -> Vec<Progress> {
        match &*self.node.lock() {
            Slot::Running(node) => node.progress(),
            Slot::Starting | Slot::Failed(_) => Vec::new(),
        }
    }

    /// How much each of its replicas has applied; nothing while it does not run.
    pub fn applied(&self) -> Vec<(ShardId, u64)> {
        match &*self.node.lock() {
            Slot::Running(node) => {
                let shards = node.status().shards.into_iter();
                shards.map(|shard| (shard.shard, shard.applied)).collect()
            }
            Slot::Starting | Slot::Failed(_) => Vec::new(),
        }
    }

    /// Why it does not serve, if it does not.
    pub fn unready(&self) -> Option<String> {
        match &*self.node.lock() {
            Slot::Running(node) => {
                let reasons = node.unready();
                (!reasons.is_empty()).then(|| reasons.join("; "))
            }
            Slot::Starting => Some("it is not running".to_owned()),
            Slot::Failed(reason) => Some(reason.clone()),
        }
    }

    /// Whether one of its replicas has stopped, which only a restart mends.
    pub fn has_stopped(&self) -> bool {
        match &*self.node.lock() {
            Slot::Running(node) => node.status().shards.iter().any(|shard| shard.failed.is_some()),
            Slot::Starting => false,
            Slot::Failed(_) => true,
        }
    }
}

impl Edge {
    /// An edge, down.
    pub fn new(net: &Network, id: u8) -> Self {
        Self {
            id,
            host: Host::new(net),
            gateway: Arc::new(Mutex::new(Slot::Starting)),
        }
    }

    /// Starts the process.
    pub fn start(&mut self, net: &Network, now: Us) -> std::io::Result<()> {
        let clock = self.host.boot(now)?;
        let (net, host, id) = (net.clone(), self.host.id, self.id);
        self.gateway = Arc::new(Mutex::new(Slot::Starting));
        let slot = Arc::clone(&self.gateway);
        self.host.spawn(async move {
            let started = open_edge(&net, host, id, throng_core::Clock::now_ms(&clock));
            *slot.lock() = Slot::of(started);
        });
        Ok(())
    }

    /// The host dies.
    pub fn crash(&mut self) {
        self.host.crash();
        *self.gateway.lock() = Slot::Starting;
    }

    /// Why it does not serve, if it does not.
    pub fn unready(&self) -> Option<String> {
        match &*self.gateway.lock() {
            Slot::Running(gateway) => gateway.unready().map(str::to_owned),
            Slot::Starting => Some("it is not running".to_owned()),
            Slot::Failed(reason) => Some(reason.clone()),
        }
    }
}

impl<T> Slot<T> {
    fn of(started: Result<T, String>) -> Self {
        match started {
            Ok(running) => Self::Running(running),
            Err(reason) => Self::Failed(reason),
        }
    }
}

fn open_edge(net: &Network, host: crate::net::HostId, id: u8, now_ms: u64) -> Result<Gateway, String> {
    let peer = PeerId::Edge(EdgeId(id.into()));
    let text = |error: std::io::Error| error.to_string();
    let names = vec![SERVER_NAME.to_owned()];
    let clients = SimCarrier::bind(net, host, Some(EDGE_PORT), Role::Server, names).map_err(text)?;
    let names = vec![node_name(peer, CLUSTER)];
    let cluster = SimCarrier::bind(net, host, None, Role::Cluster, names).map_err(text)?;
    let parts = GatewayParts {
        now_ms,
        clients: ClientSide::Endpoint(ServerEndpoint::over(Arc::new(clients), Limits::default())),
        cluster: ClusterEndpoint::over(Arc::new(cluster), CLUSTER, peer),
        observe: None,
    };
    Gateway::start_on(edge_config(id), parts).map_err(|error| error.to_string())
}

fn core_config(id: u8) -> CoreConfig {
    let peers = (1..=CORES).map(|id| PeerConfig {
        id: NodeId(id.into()),
        address: core_address(id).to_string(),
    });
    CoreConfig {
        id: NodeId(id.into()),
        cluster: CLUSTER.to_owned(),
        listen: core_address(id),
        advertise: None,
        data: "simulated".into(),
        observe: None,
        tls: TlsFiles {
            ca: "simulated".into(),
            cert: "simulated".into(),
            key: "simulated".into(),
        },
        peers: peers.collect(),
        shards: SHARDS,
        timings: TIMINGS,
        storage: STORAGE,
    }
}

fn edge_config(id: u8) -> GatewayConfig {
    let cores = (1..=CORES).map(|id| CoreAddress {
        id: NodeId(id.into()),
        address: core_address(id).to_string(),
    });
    GatewayConfig {
        id: EdgeId(id.into()),
        name: None,
        cluster: CLUSTER.to_owned(),
        listen: edge_address(id),
        observe: None,
        cores: cores.collect(),
        tls: ClientTlsFiles {
            cert: "simulated".into(),
            key: "simulated".into(),
        },
        cluster_tls: ClusterTlsFiles {
            ca: "simulated".into(),
            cert: "simulated".into(),
            key: "simulated".into(),
        },
        edges: (1..=EDGES)
            .filter(|other| *other != id)
            .map(|other| edge_address(other).to_string())
            .collect(),
        workers: Some(1),
        limits: GatewayLimits {
            // A few frames, so that what a slow session lacks is read from the core.
            ring_frames_max: 16,
            ..GatewayLimits::default()
        },
    }
}

/// How long a request of a client is tried: short, so that clients see requests fail.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(3);
