//! One pulse for all shards of a node.
//!
//! Heartbeats of a node's shards leave at the same moment, so that they share packets and wake their
//! receivers once; each shard by itself would wake every node for every heartbeat. When a shard stands
//! for election stays its own affair, in openraft, where chance keeps nodes apart.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::core::Core;

/// Has every shard that this node leads send a heartbeat, every `period`, until dropped.
pub(crate) async fn run(core: Arc<Core>, period: Duration) {
    let mut beats = interval(period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let led = core
            .replicas()
            .filter(|replica| replica.handle().leadership().leads);
        let sent = join_all(led.map(|replica| replica.handle().heartbeat()));
        // One whose queue is full is late, and holds up no other.
        let _ = timeout(period, sent).await;
    }
}
