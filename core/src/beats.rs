//! One beat for all shards of a node.
//!
//! Followers must notice within a fraction of a second that their leader's node is gone, and it is the
//! node that goes, with all shards it leads. So two nodes tell each other, in one request and its answer,
//! what each leads; a shard whose leader is heard that way has nothing to look for itself and does not
//! tick. Raft's own heartbeats carry what a node cannot know, that the group itself is alive and has no
//! other leader, and renew the lease that writes need: they leave every second beat or so, for all shards at
//! once, so that two of them fit into a lease.
//!
//! A beat decides nothing. Who leads, and when a shard stands for election, stays openraft's affair.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster;
use throng_protocol::ids::{NodeId, ShardId};
use throng_raft_store::ShardTiming;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::core::Core;
use crate::raft::BEAT_LANE;

/// What a node says of itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Beat {
    /// The shards it leads, and the term of each.
    leads: Vec<(ShardId, u64)>,
}

/// What a node has heard of others.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    /// When each of them asked last.
    asked: Mutex<BTreeMap<NodeId, Instant>>,
    /// Beats of others, asked for or not.
    heard: AtomicU64,
}

impl Beats {
    fn asked_by(&self, other: NodeId) {
        self.asked.lock().insert(other, Instant::now());
    }

    /// How many beats of other nodes have been heard.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Whether it is this node that asks. One of two does, and its answer is the other's beat; but the
    /// other does not wait for it for longer than a beat and a half.
    fn asks(&self, me: NodeId, other: NodeId, period: Duration) -> bool {
        let silence = self.asked.lock().get(&other).map(Instant::elapsed);
        me < other || silence.is_none_or(|silence| silence > period * 3 / 2)
    }
}

/// Every time between heartbeats, until dropped: exchanges beats with the other nodes, has shards look for a
/// leader whose own is silent, and sends the heartbeats that are due.
pub(crate) async fn run(core: Arc<Core>, timing: ShardTiming) {
    let period = timing.heartbeat;
    let mut beats = interval(period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0_u32.. {
        beats.tick().await;
        core.replicas()
            .for_each(|replica| replica.handle().listen_for_leader());
        let due = turn.is_multiple_of(timing.beats_per_heartbeat());
        let led = core
            .replicas()
            .filter(|replica| due && replica.handle().leadership().leads);
        let heartbeats = join_all(led.map(|replica| replica.handle().heartbeat()));
        let asked = others(&core).into_iter().map(|other| ask(&core, other, period));
        // One whose queue is full, or that does not answer, holds up no other.
        let _ = timeout(period, join(heartbeats, join_all(asked))).await;
    }
}

/// The nodes that have replicas of this one's shards.
fn others(core: &Core) -> BTreeSet<NodeId> {
    let voters = core
        .replicas()
        .flat_map(|replica| replica.voters().iter().copied());
    voters.filter(|node| *node != core.id()).collect()
}

async fn ask(core: &Core, other: NodeId, period: Duration) {
    if !core.beats.asks(core.id(), other, period) {
        return;
    }
    let beat = cluster::encode(&beat(core));
    // A node that does not answer is silent, which is all there is to know.
    if let Ok(answer) = core.peers().call(other, BEAT_LANE, beat, period).await {
        hear(core, other, &answer);
    }
}

/// Takes another node's beat, and answers with this one's.
pub(crate) fn answer(core: &Core, from: NodeId, request: &Bytes) -> Bytes {
    core.beats.asked_by(from);
    hear(core, from, request);
    cluster::encode(&beat(core))
}

fn beat(core: &Core) -> Beat {
    let led = core.replicas().filter_map(|replica| {
        let leadership = replica.handle().leadership();
        leadership.leads.then_some((replica.shard(), leadership.term))
    });
    Beat { leads: led.collect() }
}

fn hear(core: &Core, from: NodeId, beat: &Bytes) {
    let Ok(beat) = cluster::decode::<Beat>(beat) else {
        tracing::warn!(%from, "a node's beat makes no sense");
        return;
    };
    core.beats.heard.fetch_add(1, Ordering::Relaxed);
    for (shard, term) in beat.leads {
        if let Some(replica) = core.replicas.get(&shard) {
            replica.handle().heard_node(from, term);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(150);

    #[tokio::test(start_paused = true)]
    async fn of_two_nodes_one_asks_and_the_other_only_when_it_is_not_asked() {
        let (beats, low, high) = (Beats::default(), NodeId(1), NodeId(2));
        assert!(beats.asks(low, high, PERIOD));
        assert!(beats.asks(high, low, PERIOD), "nobody has asked yet");
        beats.asked_by(low);
        beats.asked_by(high);
        assert!(beats.asks(low, high, PERIOD));
        assert!(!beats.asks(high, low, PERIOD));
        tokio::time::advance(PERIOD * 3 / 2).await;
        assert!(!beats.asks(high, low, PERIOD));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(beats.asks(high, low, PERIOD));
    }
}
