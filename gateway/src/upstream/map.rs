//! The cluster's map, read again from time to time and when there is reason to doubt it.

use std::sync::Arc;

use throng_protocol::cluster::{Reply, Request};
use throng_protocol::ids::{NodeId, ShardId};
use throng_protocol::placement::ClusterMap;
use tokio::time::{sleep, timeout, timeout_at};

use super::{Deadline, Upstream};
use crate::limits::{MAP_INTERVAL, MAP_INTERVAL_MIN};
use crate::refused::Refused;

impl Upstream {
    /// The map as far as it is known.
    pub fn current_map(&self) -> Option<Arc<ClusterMap>> {
        self.map.borrow().clone()
    }

    /// The nodes that hold a shard; empty while the map is not known.
    pub fn voters(&self, shard: ShardId) -> Vec<NodeId> {
        let map = self.current_map();
        map.and_then(|map| map.shard(shard).map(|info| info.voters.clone()))
            .unwrap_or_default()
    }

    pub(super) async fn map_by(&self, by: Deadline) -> Result<Arc<ClusterMap>, Refused> {
        let mut maps = self.map.subscribe();
        let known = timeout_at(by.at(), maps.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(map)) => map.clone().ok_or_else(unknown),
            _ => Err(unknown()),
        }
    }

    /// Keeps the map fresh, for ever.
    pub async fn keep_map(&self) {
        loop {
            match self.call_any(&Request::Map, Deadline::start()).await {
                Ok(Reply::Map(map)) => self.take_map(map),
                Ok(other) => drop(Refused::unexpected(&other)),
                Err(error) => tracing::warn!(%error, "the cluster's map cannot be read"),
            }
            sleep(MAP_INTERVAL_MIN).await;
            if self.current_map().is_some() {
                // Either way it is time.
                let _ = timeout(MAP_INTERVAL, self.doubt.notified()).await;
            }
        }
    }

    fn take_map(&self, map: ClusterMap) {
        if map.shards.is_empty() {
            return;
        }
        self.map.send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| map.version > known.version);
            if newer {
                tracing::info!(
                    version = map.version,
                    nodes = map.nodes.len(),
                    "the cluster's map"
                );
                *known = Some(Arc::new(map));
            }
            newer
        });
    }
}

fn unknown() -> Refused {
    Refused::unavailable("no core node has told the cluster's map yet")
}
