//! One pulse for all shards of a node.
//!
//! Heartbeats of a node's shards leave at the same moment, so that they share packets and wake their
//! receivers once; each shard by itself would wake every node for every heartbeat. A shard whose leader
//! beats has nothing to look for itself, so the pulse also says which shards tick. When one of those
//! stands for election stays its own affair, in openraft, where chance keeps nodes apart.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::core::Core;

/// Every `period`, until dropped: has every shard that this node leads send a heartbeat, and every other
/// one look for a leader if its own is silent.
pub(crate) async fn run(core: Arc<Core>, period: Duration) {
    let mut beats = interval(period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        core.replicas()
            .for_each(|replica| replica.handle().listen_for_leader());
        let led = core
            .replicas()
            .filter(|replica| replica.handle().leadership().leads);
        let sent = join_all(led.map(|replica| replica.handle().heartbeat()));
        // One whose queue is full is late, and holds up no other.
        let _ = timeout(period, sent).await;
    }
}
