//! What is sent to whom, and how a figure of it is named.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes of a body that say which message it is and when it was due.
pub const STAMP_BYTES: usize = 12;

/// One load, the same for every system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Clients that send, in turns.
    pub publishers: usize,
    /// Clients that receive everything that is sent to their group.
    pub subscribers: usize,
    /// Groups with a channel each, among which subscribers and messages are dealt in turns; one for
    /// every system but throng.
    pub groups: usize,
    /// Messages a second, of all publishers together.
    pub rate: u32,
    /// Bytes of a body.
    pub size: usize,
    /// Seconds for which messages are due.
    pub seconds: u32,
}

impl Scenario {
    /// `fanout-<publishers>-<subscribers>-<rate>-<size>`.
    pub fn name(&self) -> String {
        let Self {
            publishers,
            subscribers,
            rate,
            size,
            ..
        } = self;
        format!("fanout-{publishers}-{subscribers}-{rate}-{size}")
    }

    /// Messages that are due.
    pub fn messages(&self) -> u32 {
        self.rate * self.seconds
    }

    /// Subscribers of each group: as many in each, or it is no scenario.
    pub fn audience(&self) -> usize {
        self.subscribers / self.groups.max(1)
    }

    /// Deliveries that are owed.
    pub fn expected(&self) -> u64 {
        self.audience() as u64 * u64::from(self.messages())
    }

    /// The group that a message or a subscriber is of.
    pub fn group_of(&self, number: usize) -> usize {
        number % self.groups.max(1)
    }

    /// When a message is due, from the beginning: an open loop, whatever became of those before it.
    pub fn due(&self, message: u32) -> Duration {
        Duration::from_secs(1) * message / self.rate.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_and_when_follows_from_the_scenario() {
        let scenario = Scenario {
            publishers: 1,
            subscribers: 1_000,
            groups: 1,
            rate: 20,
            size: 256,
            seconds: 10,
        };
        assert_eq!(scenario.name(), "fanout-1-1000-20-256");
        assert_eq!((scenario.messages(), scenario.expected()), (200, 200_000));
        assert_eq!(scenario.due(50), Duration::from_millis(2_500));
    }

    #[test]
    fn among_groups_each_message_is_owed_to_one_of_them() {
        let scenario = Scenario {
            publishers: 1,
            subscribers: 1_000,
            groups: 20,
            rate: 100,
            size: 256,
            seconds: 1,
        };
        assert_eq!((scenario.audience(), scenario.expected()), (50, 5_000));
        assert_eq!((scenario.group_of(19), scenario.group_of(20)), (19, 0));
    }
}
