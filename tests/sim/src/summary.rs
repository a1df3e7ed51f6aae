//! What all seeds of a run together did: a run whose faults did not happen proves nothing, so it
//! fails when there was too little of anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Answer, Ask, Host, What};
use crate::run::Run;

/// Acked sends per seed, on average, below which a run proves too little.
const ACKED_MEAN_MIN: u64 = 200;
/// Crashes per seed.
const CRASHES_MEAN_MIN: u64 = 2;
/// Partitions per seed.
const PARTITIONS_MEAN_MIN: u64 = 1;
/// Changes of a leader per seed, those of the start aside.
const LEADER_CHANGES_MEAN_MIN: u64 = 2;

/// What a seed did, or all of them together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Things clients asked for.
    pub operations: u64,
    /// Sends that were acked.
    pub acked: u64,
    /// Acks that repeated an earlier one.
    pub repeats: u64,
    /// Entries handed to applications.
    pub delivered: u64,
    /// Processes killed.
    pub crashes: u64,
    /// Partitions, whole or one-way.
    pub partitions: u64,
    /// Shards that got another leader than before.
    pub leader_changes: u64,
    /// Snapshots that a replica took in place of its state, while clients sent.
    pub snapshots: u64,
    /// Times a replica purged its log.
    pub purges: u64,
    /// Kicks and mutes that were answered.
    pub fences: u64,
    /// Kicks and mutes that were asked for while a send of their user was in flight.
    pub fences_in_flight: u64,
    /// Clocks that jumped.
    pub clock_jumps: u64,
    /// Disks that were full or slow.
    pub disk_faults: u64,
}

impl Counts {
    /// What a seed did.
    #[must_use]
    pub fn of(run: &Run) -> Self {
        let mut counts = Self::default();
        let mut leaders = BTreeMap::new();
        for event in run.history.events() {
            match &event.what {
                What::Asked(..) => counts.operations += 1,
                What::Answered(_, Answer::Acked { repeat, .. }) => {
                    counts.acked += 1;
                    counts.repeats += u64::from(*repeat);
                }
                What::Answered(_, Answer::Fenced { .. }) => counts.fences += 1,
                What::Delivered { .. } => counts.delivered += 1,
                What::Crash if !matches!(event.host, Host::Client(_)) => counts.crashes += 1,
                What::Partition { .. } => counts.partitions += 1,
                What::LeaderChanged { shard, node, .. } => {
                    let before = leaders.insert(*shard, *node);
                    counts.leader_changes += u64::from(before.is_some_and(|before| before != *node));
                }
                What::Installed { .. } => counts.snapshots += 1,
                What::Purged { .. } => counts.purges += 1,
                What::Clock { .. } => counts.clock_jumps += 1,
                What::DiskFull(true) | What::DiskSlow { .. } => counts.disk_faults += 1,
                _ => {}
            }
        }
        counts.fences_in_flight = fences_in_flight(run);
        counts
    }

    /// Adds another seed's.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.all_mut().into_iter().zip(other.all()) {
            *sum += more;
        }
    }

    fn all(&self) -> [u64; 13] {
        let mut copy = *self;
        copy.all_mut().map(|count| *count)
    }

    fn all_mut(&mut self) -> [&mut u64; 13] {
        [
            &mut self.operations,
            &mut self.acked,
            &mut self.repeats,
            &mut self.delivered,
            &mut self.crashes,
            &mut self.partitions,
            &mut self.leader_changes,
            &mut self.snapshots,
            &mut self.purges,
            &mut self.fences,
            &mut self.fences_in_flight,
            &mut self.clock_jumps,
            &mut self.disk_faults,
        ]
    }

    /// What there was too little of in `seeds` seeds; empty if the run proves something.
    #[must_use]
    pub fn too_little(&self, seeds: u64) -> Vec<String> {
        let means = [
            ("acked sends", self.acked, ACKED_MEAN_MIN),
            ("crashes", self.crashes, CRASHES_MEAN_MIN),
            ("partitions", self.partitions, PARTITIONS_MEAN_MIN),
            ("leader changes", self.leader_changes, LEADER_CHANGES_MEAN_MIN),
        ];
        let mut missing: Vec<String> = means
            .into_iter()
            .filter(|(_, sum, mean)| *sum < mean * seeds)
            .map(|(what, sum, mean)| format!("{sum} {what} in {seeds} seeds, fewer than {mean} a seed"))
            .collect();
        for (what, sum) in [("fence", self.fences_in_flight), ("snapshot", self.snapshots)] {
            if sum == 0 {
                missing.push(format!("no seed had a {what} under load"));
            }
        }
        missing
    }
}

/// Kicks and mutes whose user had a send in flight when they were asked for.
fn fences_in_flight(run: &Run) -> u64 {
    let mut sending = BTreeSet::new();
    let mut fences = 0;
    for event in run.history.events() {
        match &event.what {
            What::Asked(op, Ask::Send { .. } | Ask::Change { .. }) => {
                sending.insert(*op);
            }
            What::Answered(op, _) => {
                sending.remove(op);
            }
            What::Asked(_, Ask::Kick { group, user } | Ask::Mute { group, user, .. }) => {
                let hit = sending.iter().filter_map(|op| run.ops.get(op)).any(|asked| {
                    let there = matches!(asked.ask, Ask::Send { channel, .. } | Ask::Change { channel, .. } if channel.group() == *group);
                    there && asked.client.user() == *user
                });
                fences += u64::from(hit);
            }
            _ => {}
        }
    }
    fences
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "operations {}, acks {} ({} repeats), deliveries {}, crashes {}, partitions {}, leader changes {}, \
             snapshots {}, purges {}, fences {} ({} with sends in flight), clock jumps {}, disk faults {}",
            self.operations,
            self.acked,
            self.repeats,
            self.delivered,
            self.crashes,
            self.partitions,
            self.leader_changes,
            self.snapshots,
            self.purges,
            self.fences,
            self.fences_in_flight,
            self.clock_jumps,
            self.disk_faults,
        )
    }
}

#[cfg(test)]
mod tests {
    use throng_protocol::ids::{ClientMessageId, Epoch, Seq, ShardId, Ts};

    use super::*;
    use crate::history::{BodyHash, Channel, Client, Group, History, Op, User};
    use crate::logs::FinalLogs;

    fn lively() -> Run {
        let mut history = History::default();
        let mut at_us = 0;
        let mut push = |host, what| {
            at_us += 1;
            history.push(at_us, host, what);
        };
        let (key, hash) = (ClientMessageId(1), BodyHash(1));
        let channel = Channel(0);
        push(
            Host::Client(Client(1)),
            What::Asked(Op(1), Ask::Send { channel, key, hash }),
        );
        let (group, user) = (Group(0), User(1));
        push(
            Host::Client(Client(0)),
            What::Asked(Op(2), Ask::Kick { group, user }),
        );
        let (epoch, seq, ts, repeat) = (Epoch(1), Seq(1), Ts(1), false);
        push(
            Host::Client(Client(1)),
            What::Answered(
                Op(1),
                Answer::Acked {
                    epoch,
                    seq,
                    ts,
                    repeat,
                },
            ),
        );
        push(
            Host::Client(Client(0)),
            What::Asked(Op(3), Ask::Kick { group, user }),
        );
        for (term, node) in [(1, 1), (2, 1), (3, 2)] {
            let shard = ShardId(9);
            push(Host::Core(node), What::LeaderChanged { shard, term, node });
        }
        push(Host::Core(1), What::Crash);
        push(Host::Client(Client(1)), What::Crash);
        Run::new(history, FinalLogs::default())
    }

    #[test]
    fn a_seed_is_counted_as_it_was() {
        let counts = Counts::of(&lively());
        assert_eq!((counts.operations, counts.acked, counts.crashes), (3, 1, 1));
        assert_eq!(
            counts.leader_changes, 1,
            "the first leader and one elected again are none"
        );
        assert_eq!(counts.fences_in_flight, 1, "the second kick met no send");
    }

    #[test]
    fn too_little_of_anything_fails() {
        let enough = Counts {
            acked: 400,
            crashes: 4,
            partitions: 2,
            leader_changes: 4,
            snapshots: 1,
            fences_in_flight: 1,
            ..Counts::default()
        };
        assert!(enough.too_little(2).is_empty());
        assert_eq!(enough.too_little(3).len(), 4);
        for place in [1, 4, 5, 6, 7, 10] {
            let mut less = enough;
            *less.all_mut()[place] -= 1;
            assert_eq!(less.too_little(2).len(), 1, "{place}");
        }
    }

    #[test]
    fn sums_are_those_of_the_seeds() {
        let one = Counts::of(&lively());
        let mut two = one;
        two.add(&one);
        assert_eq!((two.operations, two.acked, two.fences_in_flight), (6, 2, 2));
    }
}
