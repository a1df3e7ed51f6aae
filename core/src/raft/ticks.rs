//! When a replica's Raft group ticks.
//!
//! All that a tick does is to look whether it is time to stand for election, and it is not while the
//! replica leads, or hears from whoever does. The ticks of all its shards would be a good part of what
//! an idle node does, so a group ticks only while its leader is silent: while nothing is heard from the
//! leader's node, or only from its node and not from the group there. How long a silence may last is
//! not decided here but by openraft, whose timeouts this leaves alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use throng_raft_store::ShardTiming;
use tokio::time::Instant;

/// Whether a group ticks, and what that depends on.
#[derive(Debug)]
pub(super) struct Ticks {
    timing: ShardTiming,
    heard: Mutex<Heard>,
    on: AtomicBool,
    silences: AtomicU64,
}

/// When the leader was heard last.
#[derive(Debug, Default)]
struct Heard {
    /// By anything that says it leads.
    at_all: Option<Instant>,
    /// By what its group said to this one.
    by_group: Option<Instant>,
}

impl Ticks {
    /// Of a group that ticks, as all do at first.
    pub fn new(timing: ShardTiming) -> Self {
        Self {
            timing,
            heard: Mutex::default(),
            on: AtomicBool::new(true),
            silences: AtomicU64::new(0),
        }
    }

    /// The leader's node has said that it leads.
    pub fn heard_node(&self) {
        self.heard.lock().at_all = Some(Instant::now());
    }

    /// The group has accepted something its leader said.
    pub fn heard_group(&self) {
        let now = Some(Instant::now());
        *self.heard.lock() = Heard {
            at_all: now,
            by_group: now,
        };
    }

    /// Whether the group is to tick from now on, if that has changed.
    pub fn change(&self, leads: bool) -> Option<bool> {
        let on = !leads && self.is_silent();
        let changed = self.on.swap(on, Ordering::Relaxed) != on;
        if changed && on {
            self.silences.fetch_add(1, Ordering::Relaxed);
        }
        changed.then_some(on)
    }

    /// How often it has begun to tick.
    pub fn silences(&self) -> u64 {
        self.silences.load(Ordering::Relaxed)
    }

    fn is_silent(&self) -> bool {
        let heard = self.heard.lock();
        let over = |last: Option<Instant>, limit| last.is_none_or(|last| last.elapsed() > limit);
        over(heard.at_all, self.timing.patience()) || over(heard.by_group, self.timing.election_max)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ticks() -> (Ticks, Duration) {
        let timing = ShardTiming::default();
        (Ticks::new(timing), timing.patience())
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_ticks_until_it_hears_its_leader_and_again_when_that_is_silent() {
        let (ticks, patience) = ticks();
        assert_eq!(ticks.change(false), None, "it ticks from the start");
        ticks.heard_group();
        assert_eq!(ticks.change(false), Some(false));
        tokio::time::advance(patience).await;
        assert_eq!(ticks.change(false), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(ticks.change(false), Some(true));
        ticks.heard_group();
        assert_eq!(ticks.change(false), Some(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_does_not_tick_and_one_that_has_lost_its_place_does() {
        let (ticks, patience) = ticks();
        assert_eq!(ticks.change(true), Some(false));
        tokio::time::advance(10 * patience).await;
        assert_eq!(ticks.change(true), None);
        assert_eq!(ticks.change(false), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_heard_speaks_for_its_group_as_long_as_a_lease() {
        let (ticks, patience) = ticks();
        ticks.heard_node();
        assert_eq!(ticks.change(false), None, "its group has said nothing yet");
        ticks.heard_group();
        assert_eq!(ticks.change(false), Some(false));
        let end = Instant::now() + ShardTiming::default().election_max;
        while Instant::now() + patience <= end {
            tokio::time::advance(patience).await;
            ticks.heard_node();
            assert_eq!(ticks.change(false), None);
        }
        tokio::time::advance(patience).await;
        ticks.heard_node();
        assert_eq!(
            ticks.change(false),
            Some(true),
            "the node is alive, its group is not"
        );
    }
}
