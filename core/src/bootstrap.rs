//! Beginning a cluster, and keeping this node's knowledge of it fresh.
//!
//! Every node of a new cluster derives the same first map from its settings and starts its replicas
//! by it. The first voter of each shard forms the group; the meta shard's leader then commits the
//! map and the first cluster key. All of it is idempotent, so it runs at every start.

use std::sync::Arc;
use std::time::Duration;

use throng_protocol::ids::NodeId;
use throng_protocol::placement::ClusterMap;
use throng_state::Reply;
use throng_state::command::{ClusterKey, Command, MetaCommand};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::cluster_state::ClusterState;
use crate::core::Core;
use crate::replica::Replica;

/// The first cluster key.
const FIRST_KEY: u32 = 1;

/// Pause before a step that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Forms a shard's group if this node is the one to do it: the first voter of the map, which differs
/// from shard to shard, so that leadership begins spread over the nodes.
pub(crate) async fn form(me: NodeId, replica: Arc<Replica>) {
    if replica.voters().first() != Some(&me) {
        return;
    }
    // Fails only when the group has stopped, and then for good.
    if let Err(error) = replica.handle().initialize(replica.voters()).await {
        tracing::error!(shard = %replica.shard(), error, "the shard's group was not formed");
    }
}

/// Commits the first map and key whenever this node leads the meta shard and there are none.
pub(crate) async fn begin(core: Arc<Core>, meta: Arc<Replica>, map: ClusterMap) {
    let mut leadership = meta.handle().watch_leadership();
    while leadership.wait_for(|now| now.leads).await.is_ok() {
        match commit(&core, &meta, &map).await {
            Ok(()) => return,
            Err(reason) => {
                tracing::warn!(reason, "the cluster has not begun yet");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn commit(core: &Core, meta: &Replica, map: &ClusterMap) -> Result<(), String> {
    let text = |refusal| format!("{refusal:?}");
    meta.linearize().await.map_err(text)?;
    if refresh(core, meta) {
        return Ok(());
    }
    let command = MetaCommand::Bootstrap {
        map: map.clone(),
        cluster_key: ClusterKey {
            id: FIRST_KEY,
            secret: rand::random(),
        },
    };
    match meta.propose(Command::Meta(command)).await.map_err(text)? {
        Reply::Bootstrapped { first } => {
            tracing::info!(
                first,
                shards = map.shards.len(),
                nodes = map.nodes.len(),
                "the cluster has begun"
            );
            Ok(())
        }
        other => Err(format!("{other:?}")),
    }
}

/// Reads the map and the keys again whenever the meta shard has applied something.
pub(crate) async fn watch(core: Arc<Core>, meta: Arc<Replica>, mut applied: watch::Receiver<u64>) {
    loop {
        applied.mark_unchanged();
        refresh(&core, &meta);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Takes over what the meta replica holds; tells whether the cluster has begun.
fn refresh(core: &Core, meta: &Replica) -> bool {
    let Ok(Some(state)) = meta.read(ClusterState::read) else {
        return false;
    };
    core.peers().update(&state.map);
    if core.cluster.set(state) {
        tracing::debug!("the cluster's map or keys have changed");
    }
    true
}
