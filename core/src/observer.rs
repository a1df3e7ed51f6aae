//! What a node does at once when its replicas have applied something: wake feeds and outboxes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use throng_protocol::ids::ShardId;
use throng_raft_store::{Notice, Observer};
use tokio::sync::watch;

use crate::feed::FeedRegistry;
use crate::metrics::Metrics;
use crate::outbox::OutboxSignals;

/// Wakes whoever waits for one shard. Never blocks.
#[derive(Debug)]
pub(crate) struct ShardObserver {
    pub(crate) feeds: Arc<FeedRegistry>,
    pub(crate) outbox: OutboxSignals,
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) metrics: Metrics,
    /// The last entry of the snapshot that was installed last; 0 if none was.
    pub(crate) installed: Arc<AtomicU64>,
}

impl Observer for ShardObserver {
    fn applied(&self, shard: ShardId, index: u64, notices: Vec<Notice>) {
        self.metrics.applied.inc();
        for notice in notices {
            match notice {
                Notice::Advanced { channel, .. } => self.feeds.advanced((shard, channel)),
                Notice::Fenced { app, group } => {
                    self.metrics.fences_applied.inc();
                    self.feeds.fenced(&(shard, app, group));
                }
                Notice::Outbox(_) => self.outbox.added(),
            }
        }
        self.applied.send_replace(index);
    }

    fn installed(&self, shard: ShardId, index: u64) {
        self.installed.store(index, Ordering::Relaxed);
        self.feeds.replaced(shard);
        self.outbox.added();
        self.applied.send_replace(index);
    }
}
