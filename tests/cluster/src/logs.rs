//! The replicas of every shard compared entry by entry, from the closed folders of the core nodes.
//!
//! What must hold at any moment, also right after a crash: two replicas that hold an entry of one
//! index and term hold the same entry and the same ones before it; what both know to be committed is
//! the same; and states of the same entry are the same, byte for byte.

mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use throng_protocol::ids::ShardId;
use throng_raft_store::HeedStore;
use throng_raft_store::heed_store::MAP_BYTES;
use throng_raft_store::inspect::{self, Replica};

pub use self::held::Held;

/// Violations named one by one; a broken log would name thousands.
const NAMED_MAX: usize = 20;

/// What was compared, and what differs.
#[derive(Debug, Default)]
pub struct Compared {
    /// Pairs of logs.
    pub logs: u64,
    /// Pairs of entries.
    pub entries: u64,
    /// Pairs of states of the same entry.
    pub states: u64,
    /// Entries, states and replicas that are not what they must be.
    pub divergent: u64,
    /// Replicas whose log begins behind a snapshot.
    pub purged: u64,
    /// Terms in which entries were logged, by shard.
    pub terms: BTreeMap<ShardId, BTreeSet<u64>>,
    /// What differs, for people; the first of it.
    pub violations: Vec<String>,
}

/// The replicas of every node that a folder was given of, in the order of the folders.
pub fn read(folders: &[impl AsRef<Path>]) -> Result<Vec<Vec<Replica>>> {
    folders.iter().map(|folder| read_one(folder.as_ref())).collect()
}

fn read_one(folder: &Path) -> Result<Vec<Replica>> {
    let store =
        HeedStore::open(folder, MAP_BYTES).with_context(|| format!("opening {}", folder.display()))?;
    inspect::replicas(&store).with_context(|| format!("reading {}", folder.display()))
}

/// Compares the replicas of every shard with each other.
pub fn compare(nodes: &[Vec<Replica>]) -> Compared {
    let mut compared = Compared::default();
    let mut shards: BTreeMap<ShardId, Vec<(usize, &Replica)>> = BTreeMap::new();
    for (place, replicas) in nodes.iter().enumerate() {
        for replica in replicas {
            compared.alone(place + 1, replica);
            shards
                .entry(replica.shard)
                .or_default()
                .push((place + 1, replica));
        }
    }
    for replicas in shards.values() {
        for (place, one) in replicas.iter().enumerate() {
            for other in &replicas[place + 1..] {
                compared.pair(*one, *other);
            }
        }
    }
    compared
}

impl Compared {
    fn differs(&mut self, text: String) {
        self.divergent += 1;
        if self.violations.len() < NAMED_MAX {
            self.violations.push(text);
        }
    }

    fn alone(&mut self, node: usize, replica: &Replica) {
        if let Err(broken) = replica.check() {
            self.differs(format!("node {node}: {broken}"));
        }
        self.purged += u64::from(replica.purged.is_some());
        let terms = self.terms.entry(replica.shard).or_default();
        terms.extend(replica.log.iter().map(|entry| entry.at.term));
    }

    fn pair(&mut self, (a, one): (usize, &Replica), (b, other): (usize, &Replica)) {
        let shard = one.shard;
        self.logs += 1;
        let first = |replica: &Replica| replica.log.first().map(|entry| entry.at.index);
        let both = first(one).max(first(other)).unwrap_or(u64::MAX);
        let committed = one.committed.min(other.committed).map_or(0, |at| at.index);
        // From the end: the last entry of one index and term proves all before it the same.
        let mut same_before = false;
        let last = one.log.last().map_or(0, |entry| entry.at.index);
        for index in (both..=last).rev() {
            let (Some(left), Some(right)) = (one.entry(index), other.entry(index)) else {
                continue;
            };
            self.entries += 1;
            same_before |= left.at == right.at || index <= committed;
            if same_before && left != right {
                self.differs(format!(
                    "shard {shard}, index {index}: node {a} has {left:?}, node {b} has {right:?}"
                ));
            }
        }
        if one.applied == other.applied && one.applied.is_some() {
            self.states += 1;
            if one.state != other.state {
                let applied = one.applied.map_or_else(String::new, |at| at.to_string());
                self.differs(format!(
                    "shard {shard}: the states of nodes {a} and {b} at {applied} differ"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use throng_raft_store::inspect::{At, EntryKind, LogEntry};

    use super::*;

    fn entry(index: u64, term: u64, payload: &'static str) -> LogEntry {
        LogEntry {
            at: At { term, index },
            kind: EntryKind::Command,
            payload: Bytes::from_static(payload.as_bytes()),
        }
    }

    fn replica(log: Vec<LogEntry>, committed: u64) -> Replica {
        let at = log.iter().map(|entry| entry.at).find(|at| at.index == committed);
        Replica {
            shard: ShardId(101),
            vote: Some(inspect::Voted {
                term: 9,
                node: 1,
                committed: true,
            }),
            committed: at,
            purged: None,
            applied: None,
            generation: 0,
            log,
            state: Vec::new(),
        }
    }

    fn divergent(one: Replica, other: Replica) -> (u64, Vec<String>) {
        let compared = compare(&[vec![one], vec![other]]);
        assert_eq!(compared.logs, 1);
        (compared.divergent, compared.violations)
    }

    #[test]
    fn a_log_that_is_shorter_or_has_an_uncommitted_tail_of_an_old_term_is_sound() {
        let long = || replica(vec![entry(1, 1, "a"), entry(2, 1, "b"), entry(3, 3, "c")], 2);
        assert_eq!(divergent(long(), long()).0, 0);
        assert_eq!(divergent(long(), replica(vec![entry(1, 1, "a")], 1)).0, 0);
        let stale = replica(vec![entry(1, 1, "a"), entry(2, 1, "b"), entry(3, 2, "x")], 2);
        assert_eq!(divergent(long(), stale).0, 0);
    }

    #[test]
    fn another_payload_under_one_index_and_term_is_found() {
        let one = replica(vec![entry(1, 1, "a"), entry(2, 1, "b")], 1);
        let other = replica(vec![entry(1, 1, "a"), entry(2, 1, "x")], 1);
        let (count, named) = divergent(one, other);
        assert_eq!(count, 1);
        assert!(named[0].contains("shard 101, index 2"), "{named:?}");
    }

    #[test]
    fn entries_that_differ_before_one_that_is_the_same_are_found() {
        let one = replica(vec![entry(1, 1, "a"), entry(2, 1, "b"), entry(3, 3, "c")], 1);
        let other = replica(vec![entry(1, 1, "a"), entry(2, 2, "b"), entry(3, 3, "c")], 1);
        assert_eq!(divergent(one, other).0, 1);
    }

    #[test]
    fn committed_entries_that_differ_are_found_and_states_are_compared_at_one_entry_only() {
        let one = replica(vec![entry(1, 1, "a"), entry(2, 1, "b")], 2);
        let other = replica(vec![entry(1, 1, "a"), entry(2, 2, "x")], 2);
        assert_eq!(divergent(one.clone(), other).0, 1);

        let (mut left, mut right) = (one.clone(), one);
        (left.applied, right.applied) = (left.committed, right.committed);
        left.state
            .push((Bytes::from_static(b"k"), Bytes::from_static(b"v")));
        assert_eq!(divergent(left.clone(), right.clone()).0, 1);
        right.applied = right.log.first().map(|entry| entry.at);
        assert_eq!(divergent(left, right).0, 0);
    }
}
