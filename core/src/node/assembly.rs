//! Putting a node together: its replicas are opened, their Raft groups started, its tasks run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use throng_protocol::ids::ShardId;
use throng_protocol::placement::{ClusterMap, META_SHARD, Plane, ShardInfo};
use throng_raft_store::{NodeStore, OpenError, Shard};
use throng_transport::ClusterEndpoint;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{CoreNode, give_up_with_store};
use crate::beats::Beats;
use crate::clock::SharedClock;
use crate::cluster_state::{ClusterState, ClusterWatch};
use crate::config::CoreConfig;
use crate::core::Core;
use crate::error::CoreError;
use crate::feed::FeedRegistry;
use crate::metrics::Metrics;
use crate::observe;
use crate::observer::ShardObserver;
use crate::outbox::OutboxSignals;
use crate::peers::Peers;
use crate::raft::{NetworkFactory, RaftServer, ShardHandle};
use crate::replica::Replica;

/// What a node is put together from.
pub(super) struct Assembly {
    pub(super) config: CoreConfig,
    pub(super) clock: SharedClock,
    pub(super) store: NodeStore,
    pub(super) peers: Arc<Peers>,
    pub(super) feeds: Arc<FeedRegistry>,
    pub(super) metrics: Metrics,
    pub(super) raft: RaftServer,
    pub(super) draining: CancellationToken,
}

/// An opened replica, before its Raft group runs.
struct Opened {
    shard: Shard,
    outbox: OutboxSignals,
    installed: Arc<AtomicU64>,
    applied: watch::Receiver<u64>,
}

impl Assembly {
    pub(super) async fn assemble(
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
            beats: Beats::default(),
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
        node.run(self.raft, initial, meta_applied, &self.config);
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
        let installed = Arc::<AtomicU64>::default();
        let (sender, applied) = watch::channel(0);
        let observer = ShardObserver {
            feeds: Arc::clone(&self.feeds),
            outbox: outbox.clone(),
            applied: sender,
            metrics: self.metrics.clone(),
            installed: Arc::clone(&installed),
        };
        let id = info.id;
        let shard = self.store.shard(id, info.plane, Arc::new(observer)).await;
        Ok(Opened {
            shard: shard.map_err(|error| match error {
                OpenError::Shard { .. } => self.shard_error(id, error),
                error => CoreError::store(&self.config.data, error),
            })?,
            outbox,
            installed,
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
            opened.installed,
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
