//! When a replica's Raft group ticks.
//!
//! All that a tick does is to look whether it is time to stand for election, and it is not while the
//! replica leads, or hears from whoever does. The ticks of all its shards would be a good part of what
//! an idle node does, so a group ticks only while its leader is silent. How long a silence may last is
//! not decided here but by openraft, whose timeouts this leaves alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Whether a group ticks, and what that depends on.
#[derive(Debug)]
pub(super) struct Ticks {
    /// Silence of the leader after which it does.
    patience: Duration,
    /// When the leader was heard last.
    heard: Mutex<Option<Instant>>,
    on: AtomicBool,
}

impl Ticks {
    /// Of a group that ticks, as all do at first.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            heard: Mutex::new(None),
            on: AtomicBool::new(true),
        }
    }

    /// The group has accepted something its leader said.
    pub fn heard(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    /// Whether the group is to tick from now on, if that has changed.
    pub fn change(&self, leads: bool) -> Option<bool> {
        let silence = self.heard.lock().map(|heard| heard.elapsed());
        let on = !leads && silence.is_none_or(|silence| silence > self.patience);
        (self.on.swap(on, Ordering::Relaxed) != on).then_some(on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(190);

    #[tokio::test(start_paused = true)]
    async fn a_group_ticks_until_it_hears_its_leader_and_again_when_that_is_silent() {
        let ticks = Ticks::new(PATIENCE);
        assert_eq!(ticks.change(false), None, "it ticks from the start");
        ticks.heard();
        assert_eq!(ticks.change(false), Some(false));
        tokio::time::advance(PATIENCE).await;
        assert_eq!(ticks.change(false), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(ticks.change(false), Some(true));
        ticks.heard();
        assert_eq!(ticks.change(false), Some(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_does_not_tick_and_one_that_has_lost_its_place_does() {
        let ticks = Ticks::new(PATIENCE);
        assert_eq!(ticks.change(true), Some(false));
        tokio::time::advance(10 * PATIENCE).await;
        assert_eq!(ticks.change(true), None);
        assert_eq!(ticks.change(false), Some(true));
    }
}
