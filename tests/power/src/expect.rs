//! What a store owes at a moment of the record: everything it promised before, and nothing that was
//! never asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use throng_protocol::placement::Plane;
use throng_state::Effect;
use throng_state::testing::MapView;

use crate::mark::Mark;
use crate::record::Step;
use crate::shards::SHARDS;

/// A fingerprint of bytes; the record and the images are ours, so nobody chooses collisions.
pub fn fingerprint(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// A shard's state after each entry that was ever applied, as fingerprints: the sum over its records,
/// so that the next one costs what the entry changes.
#[derive(Debug, Default)]
pub struct States {
    by_index: BTreeMap<(u32, u64), u64>,
}

struct Model {
    view: MapView,
    records: BTreeMap<Bytes, u64>,
    sum: u64,
    issued: BTreeMap<u64, Vec<u8>>,
}

impl Model {
    fn new(plane: Plane) -> Self {
        Self {
            view: MapView::new(plane),
            records: BTreeMap::new(),
            sum: 0,
            issued: BTreeMap::new(),
        }
    }

    fn apply(&mut self, index: u64) -> Result<()> {
        let command = self.issued.remove(&index).context("it was never issued")?;
        // Log indexes that hold no command take none of the view's.
        self.view.index = index - 1;
        let effects = self
            .view
            .apply(&command)
            .map_err(|error| anyhow!("entry {index}: {error}"))?;
        for effect in effects {
            let (key, new) = match effect {
                Effect::Put { key, value } => {
                    let new = fingerprint(&[&key, &value]);
                    (key, Some(new))
                }
                Effect::Delete { key } => (key, None),
                _ => continue,
            };
            let old = match new {
                Some(new) => self.records.insert(key, new),
                None => self.records.remove(&key),
            };
            self.sum = self
                .sum
                .wrapping_sub(old.unwrap_or(0))
                .wrapping_add(new.unwrap_or(0));
        }
        Ok(())
    }
}

impl States {
    /// Replays everything a record says was applied.
    pub fn of(steps: &[Step]) -> Result<Self> {
        let mut states = Self::default();
        let mut models: BTreeMap<u32, Model> = SHARDS
            .iter()
            .map(|(shard, plane)| (shard.0, Model::new(*plane)))
            .collect();
        for step in steps {
            let Step::Mark(mark) = step else { continue };
            match mark {
                Mark::Issue {
                    shard,
                    index,
                    command,
                    ..
                } => {
                    let model = models.get_mut(shard).context("a shard")?;
                    model.issued.insert(*index, command.clone());
                }
                Mark::Applying { shard, upto } | Mark::Installing { shard, index: upto } => {
                    let model = models.get_mut(shard).context("a shard")?;
                    for index in model.view.index + 1..=*upto {
                        model.apply(index)?;
                        states.by_index.insert((*shard, index), model.sum);
                    }
                }
                _ => {}
            }
        }
        Ok(states)
    }

    /// The state after an entry; an empty shard before the first.
    pub fn at(&self, shard: u32, index: u64) -> Option<u64> {
        if index == 0 {
            return Some(0);
        }
        self.by_index.get(&(shard, index)).copied()
    }
}

/// What one shard owes.
#[derive(Debug, Default, Clone)]
pub struct Owed {
    /// Votes asked for, in order: term, whether committed.
    pub votes: Vec<(u64, bool)>,
    /// How many of them were promised.
    pub voted: usize,
    /// What was ever asked to be appended: (index, term) and the command's fingerprint.
    pub issued: BTreeMap<(u64, u64), u64>,
    /// The term of the last entry asked for at an index.
    latest: BTreeMap<u64, u64>,
    /// Entries promised: index and term.
    pub acked: BTreeMap<u64, u64>,
    /// How far entries were ever applied.
    pub applying: u64,
    /// Snapshots asked to be installed, by their last entry.
    pub installing: BTreeSet<u64>,
    /// The last snapshot that was promised.
    pub installed: u64,
}

/// What all shards owe.
#[derive(Debug, Default, Clone)]
pub struct Owing {
    shards: BTreeMap<u32, Owed>,
}

impl Owing {
    /// What a shard owes, if anything was ever asked of it.
    pub fn known(&self, shard: u32) -> Option<&Owed> {
        self.shards.get(&shard)
    }

    /// Entries promised.
    pub fn acked(&self) -> u64 {
        self.shards.values().map(|owed| owed.acked.len() as u64).sum()
    }

    /// Takes the next mark of the record.
    pub fn take(&mut self, mark: &Mark) {
        match mark {
            Mark::Issue {
                shard,
                term,
                index,
                command,
            } => {
                let owed = self.of(*shard);
                owed.issued.insert((*index, *term), fingerprint(&[command]));
                owed.latest.insert(*index, *term);
            }
            Mark::Durable {
                shard,
                term,
                first,
                last,
            } => {
                let owed = self.of(*shard);
                for index in *first..=*last {
                    // Unless it was cut meanwhile.
                    if owed.latest.get(&index) == Some(term) {
                        owed.acked.insert(index, *term);
                    }
                }
            }
            Mark::Cut { shard, from } => {
                let owed = self.of(*shard);
                owed.acked.split_off(from);
                owed.latest.split_off(from);
            }
            Mark::Voting {
                shard,
                term,
                committed,
            } => self.of(*shard).votes.push((*term, *committed)),
            Mark::Voted { shard } => {
                let owed = self.of(*shard);
                owed.voted = owed.votes.len();
            }
            Mark::Applying { shard, upto } => {
                let owed = self.of(*shard);
                owed.applying = owed.applying.max(*upto);
            }
            Mark::Installing { shard, index } => {
                self.of(*shard).installing.insert(*index);
            }
            Mark::Installed { shard } => {
                let owed = self.of(*shard);
                owed.installed = owed.installing.last().copied().unwrap_or(0);
            }
        }
    }

    fn of(&mut self, shard: u32) -> &mut Owed {
        self.shards.entry(shard).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(term: u64, index: u64) -> Mark {
        Mark::Issue {
            shard: 0,
            term,
            index,
            command: vec![index as u8],
        }
    }

    fn durable(term: u64, first: u64, last: u64) -> Mark {
        Mark::Durable {
            shard: 0,
            term,
            first,
            last,
        }
    }

    fn owed(marks: &[Mark]) -> Owed {
        let mut owing = Owing::default();
        for mark in marks {
            owing.take(mark);
        }
        owing.known(0).cloned().unwrap_or_default()
    }

    #[test]
    fn what_is_cut_is_owed_no_longer_and_what_replaces_it_is() {
        let marks = [
            issue(1, 1),
            issue(1, 2),
            durable(1, 1, 2),
            Mark::Cut { shard: 0, from: 2 },
        ];
        assert_eq!(owed(&marks).acked, BTreeMap::from([(1, 1)]));
        let again = [&marks[..], &[issue(3, 2), durable(3, 2, 2)]].concat();
        assert_eq!(owed(&again).acked, BTreeMap::from([(1, 1), (2, 3)]));
    }

    #[test]
    fn a_report_that_comes_behind_the_cut_promises_nothing() {
        let marks = [
            issue(1, 1),
            Mark::Cut { shard: 0, from: 1 },
            issue(2, 1),
            durable(1, 1, 1),
        ];
        assert_eq!(owed(&marks).acked, BTreeMap::new());
    }

    #[test]
    fn only_votes_that_were_answered_are_owed() {
        let voting = |term| Mark::Voting {
            shard: 0,
            term,
            committed: false,
        };
        let owed = owed(&[voting(1), Mark::Voted { shard: 0 }, voting(2)]);
        assert_eq!((owed.votes.len(), owed.voted), (2, 1));
    }
}
