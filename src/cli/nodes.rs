//! `throng core` and `throng gateway`: one node from its configuration, until it is told to stop.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use throng_core::{CoreConfig, CoreError, CoreNode, InitialShards, PeerConfig, Storage};
use throng_gateway::{
    ClientTlsFiles, ClusterTlsFiles, CoreAddress, Gateway, GatewayConfig, GatewayError, GatewayLimits,
};
use throng_protocol::cluster::PeerId;
use throng_protocol::ids::{EdgeId, NodeId};
use tokio::time::Instant;

use super::config::{CORE_EXAMPLE, CoreFile, GATEWAY_EXAMPLE, GatewayFile, NodeEntry, Overlay, load};
use super::failure::{Exit, Failure};
use super::server_api;
use super::signals::Signals;
use super::tell;
use super::tls;

/// How long a drain may take; a second signal ends it at once.
const DRAIN: Duration = Duration::from_secs(8);

/// The same under `up`, which drains edges and core nodes one after the other.
const DRAIN_SUPERVISED: Duration = Duration::from_secs(3);

/// How long a supervised node waits for what its predecessor held: after a `kill -9` of `up` the old
/// processes end by themselves, a moment later.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// Between two attempts to take over.
const TAKE_OVER_PAUSE: Duration = Duration::from_millis(50);

/// The arguments of both.
#[derive(Debug, Clone, clap::Args)]
pub struct NodeArgs {
    /// The configuration; `throng config` prints an example
    #[arg(long)]
    config: PathBuf,
    /// Which of the nodes in the configuration this process is
    #[arg(long)]
    id: Option<u64>,
    /// A setting over file and environment
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// End when stdin closes (used by `throng up`)
    #[arg(long, hide = true)]
    supervised: bool,
}

impl NodeArgs {
    fn load<T: DeserializeOwned>(&self, prefix: &str, example: &str) -> Result<T, Failure> {
        let mut overlay = Overlay::environment(prefix, example, std::env::vars());
        overlay.flags(&self.settings)?;
        if let Some(id) = self.id {
            overlay.flag("id", &id.to_string());
        }
        load(&self.config, example, &overlay)
    }

    fn take_over(&self) -> Duration {
        if self.supervised {
            PREDECESSOR
        } else {
            Duration::ZERO
        }
    }

    fn drain(&self) -> Duration {
        if self.supervised { DRAIN_SUPERVISED } else { DRAIN }
    }
}

/// Runs a core node.
pub async fn core(args: NodeArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::listen(args.supervised)?;
    let file: CoreFile = args.load("THRONG_CORE", CORE_EXAMPLE)?;
    let config = core_config(&file)?;
    // Before the node: one that cannot have its port takes no part in the cluster.
    let port = match own(&file)?.server_api {
        Some(addr) => Some(server_api::listen(&file.tls, addr, args.take_over()).await?),
        None => None,
    };
    let until = Instant::now() + args.take_over();
    let node = loop {
        match CoreNode::start(config.clone()).await {
            Ok(node) => break node,
            Err(CoreError::Locked { .. } | CoreError::AddressInUse { .. }) if Instant::now() < until => {
                tokio::time::sleep(TAKE_OVER_PAUSE).await;
            }
            Err(error) => return Err(core_failure(&error)),
        }
    };
    let back_ends = port.map(|port| server_api::serve(port, node.back_ends()));
    say_ready();
    tokio::select! {
        () = signals.next() => {}
        () = node.wait() => {}
    }
    let drained = async {
        // Together: what back ends have asked for the node still answers, and a slow one holds nothing up.
        let served = async {
            if let Some(serving) = back_ends {
                serving.stop().await;
            }
        };
        tokio::join!(served, node.drain(args.drain()));
    };
    tokio::select! {
        () = drained => {}
        () = signals.next() => {}
    }
    Ok(Exit::Holds)
}

/// Runs an edge.
pub async fn gateway(args: NodeArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::listen(args.supervised)?;
    let file: GatewayFile = args.load("THRONG_GATEWAY", GATEWAY_EXAMPLE)?;
    let config = gateway_config(&file)?;
    let until = Instant::now() + args.take_over();
    let gateway = loop {
        match Gateway::start(config.clone()).await {
            Ok(gateway) => break gateway,
            Err(GatewayError::AddressInUse { .. }) if Instant::now() < until => {
                tokio::time::sleep(TAKE_OVER_PAUSE).await;
            }
            Err(error) => return Err(gateway_failure(&error)),
        }
    };
    say_ready();
    signals.next().await;
    tokio::select! {
        _ = gateway.drain(args.drain()) => {}
        () = signals.next() => {}
    }
    Ok(Exit::Holds)
}

/// Tells a supervisor (or a test, or a person) that the node serves.
fn say_ready() {
    tell::say("ready");
}

/// The entry of the node that a configuration is for.
fn own(file: &CoreFile) -> Result<&NodeEntry, Failure> {
    file.nodes.iter().find(|node| node.id == file.id).ok_or_else(|| {
        let ids: Vec<String> = file.nodes.iter().map(|node| node.id.to_string()).collect();
        let what = format!("`id` is {}, and `nodes` has only {}", file.id, ids.join(", "));
        Failure::usage(
            what,
            "the configuration",
            "add an entry to `nodes`, or give another --id",
        )
    })
}

fn core_config(file: &CoreFile) -> Result<CoreConfig, Failure> {
    let me = own(file)?;
    let files = tls::node(&file.tls, PeerId::Core(NodeId(file.id)), &file.cluster)?;
    let others = file.nodes.iter().filter(|node| node.id != file.id);
    Ok(CoreConfig {
        id: NodeId(file.id),
        cluster: file.cluster.clone(),
        listen: me.addr,
        advertise: me.advertise.clone(),
        data: file.data.replace("{id}", &file.id.to_string()).into(),
        observe: me.observe,
        tls: throng_core::TlsFiles {
            ca: files.ca,
            cert: files.cert,
            key: files.key,
        },
        peers: others
            .map(|node| PeerConfig {
                id: NodeId(node.id),
                address: node.address(),
            })
            .collect(),
        shards: InitialShards {
            management: file.shards.management,
            message: file.shards.message,
            replicas: file.shards.replicas,
        },
        timings: Default::default(),
        storage: Storage {
            snapshot_every: file.storage.snapshot_every,
            log_keep: file.storage.log_keep,
            ..Storage::default()
        },
    })
}

fn gateway_config(file: &GatewayFile) -> Result<GatewayConfig, Failure> {
    let me = file.edges.iter().find(|edge| edge.id == file.id).ok_or_else(|| {
        let ids: Vec<String> = file.edges.iter().map(|edge| edge.id.to_string()).collect();
        let what = format!("`id` is {}, and `edges` has only {}", file.id, ids.join(", "));
        Failure::usage(
            what,
            "the configuration",
            "add an entry to `edges`, or give another --id",
        )
    })?;
    let files = tls::node(&file.tls, PeerId::Edge(EdgeId(file.id)), &file.cluster)?;
    let (cert, key) = tls::public(&file.tls)?;
    let core = |node: &NodeEntry| CoreAddress {
        id: NodeId(node.id),
        address: node.address(),
    };
    let others = file.edges.iter().filter(|edge| edge.id != file.id);
    Ok(GatewayConfig {
        id: EdgeId(file.id),
        name: None,
        cluster: file.cluster.clone(),
        listen: me.listen,
        observe: me.observe,
        cores: file.nodes.iter().map(core).collect(),
        tls: ClientTlsFiles { cert, key },
        cluster_tls: ClusterTlsFiles {
            ca: files.ca,
            cert: files.cert,
            key: files.key,
        },
        edges: others.map(|edge| edge.listen.to_string()).collect(),
        workers: file.workers,
        limits: GatewayLimits {
            connections_max: file.connections_max,
            handshakes: file.handshakes,
            ..GatewayLimits::default()
        },
    })
}

fn core_failure(error: &CoreError) -> Failure {
    match error {
        CoreError::AddressInUse { address } => Failure::port_in_use(address, "nodes.addr"),
        CoreError::Tls(error) => tls::failure(error),
        CoreError::Locked { path } => Failure::locked(path),
        CoreError::NewerFormat { path, found, known } => Failure::newer_format(path, *found, *known),
        CoreError::DiskFull { path } => Failure::disk_full(path),
        other => Failure::new(other.to_string(), "throng core", "correct it and start again"),
    }
}

fn gateway_failure(error: &GatewayError) -> Failure {
    match error {
        GatewayError::AddressInUse { address } => Failure::port_in_use(address, "edges.listen"),
        GatewayError::Tls(error) => tls::failure(error),
        other => Failure::new(other.to_string(), "throng gateway", "correct it and start again"),
    }
}
