//! Opens a folder with the real store and compares it with what is owed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use serde::{Deserialize, Serialize};
use throng_protocol::ids::ShardId;
use throng_protocol::placement::Plane;
use throng_raft_store::types::{Entry, LogId, Vote};
use throng_raft_store::{NodeStore, Notice, Observer, Shard, StoreOptions};
use throng_state::View;

use crate::expect::{Owed, Owing, States, fingerprint};
use crate::load::STORE;
use crate::shards::SHARDS;

/// The size of the map an image is opened with: more than any load fills.
const MAP_BYTES: usize = 256 << 20;

/// How a store failed after the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It cannot be opened, or what it holds cannot be read.
    Unopenable,
    /// Something that was promised is not there.
    AckedLost,
    /// What is there contradicts itself or was never asked for.
    Wrong,
}

/// A promise that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// How.
    pub kind: Kind,
    /// What and where.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

fn unopenable(error: &impl ToString) -> Violation {
    Violation {
        kind: Kind::Unopenable,
        text: error.to_string(),
    }
}

fn lost(text: String) -> Violation {
    Violation {
        kind: Kind::AckedLost,
        text,
    }
}

fn wrong(text: String) -> Violation {
    Violation {
        kind: Kind::Wrong,
        text,
    }
}

#[derive(Debug)]
struct Nobody;

impl Observer for Nobody {
    fn applied(&self, _: ShardId, _: u64, _: Vec<Notice>) {}
    fn installed(&self, _: ShardId, _: u64) {}
}

/// Opens the store below `root` and checks every shard.
pub async fn check(root: &Path, owing: &Owing, states: &States) -> Result<(), Violation> {
    let options = StoreOptions { map_bytes: MAP_BYTES };
    let node = NodeStore::open(&root.join(STORE), &options).map_err(|error| unopenable(&error))?;
    for (shard, plane) in SHARDS {
        check_shard(&node, shard, plane, owing, states)
            .await
            .map_err(|violation| Violation {
                text: format!("shard {shard}: {}", violation.text),
                ..violation
            })?;
    }
    Ok(())
}

async fn check_shard(
    node: &NodeStore,
    shard: ShardId,
    plane: Plane,
    owing: &Owing,
    states: &States,
) -> Result<(), Violation> {
    let nothing = Owed::default();
    let owed = owing.known(shard.0).unwrap_or(&nothing);
    let mut replica = node
        .shard(shard, plane, Arc::new(Nobody))
        .await
        .map_err(|error| unopenable(&error))?;
    let found = Found::read(&mut replica)
        .await
        .map_err(|error| unopenable(&error))?;
    found.check_vote(owed)?;
    found.check_shape(owed)?;
    found.check_log(owed)?;
    found.check_state(shard, owed, states)
}

/// What a reopened shard says.
struct Found {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: u64,
    log: Vec<Entry>,
    applied: u64,
    state: u64,
}

impl Found {
    async fn read(replica: &mut Shard) -> std::io::Result<Self> {
        let mut reader = replica.log.get_log_reader().await;
        let log_state = replica.log.get_log_state().await?;
        let records = replica
            .reader
            .scan(&[], &[0xff; 8], usize::MAX)
            .map_err(std::io::Error::other)?;
        let state = records.iter().fold(0_u64, |sum, (key, value)| {
            sum.wrapping_add(fingerprint(&[key, value]))
        });
        Ok(Self {
            vote: reader.read_vote().await?,
            committed: replica.log.read_committed().await?,
            purged: log_state.last_purged_log_id,
            last: log_state.last_log_id.map_or(0, |last| last.index),
            log: reader.try_get_log_entries(..).await?,
            applied: replica.reader.applied_index(),
            state,
        })
    }

    fn check_vote(&self, owed: &Owed) -> Result<(), Violation> {
        let allowed = owed.votes.get(owed.voted.saturating_sub(1)..).unwrap_or_default();
        match self.vote {
            None if owed.voted == 0 => Ok(()),
            None => Err(lost(format!("the vote {:?} is gone", allowed.first()))),
            Some(vote) => {
                let found = (vote.leader_id.term, vote.committed);
                if allowed.contains(&found) {
                    return Ok(());
                }
                let text = format!("the vote is {found:?}, promised was {:?}", allowed.first());
                Err(if owed.votes.contains(&found) {
                    lost(text)
                } else {
                    wrong(text)
                })
            }
        }
    }

    /// The log is contiguous behind what was purged, purged is behind applied, applied is behind the
    /// log's end unless a snapshot brought it.
    fn check_shape(&self, owed: &Owed) -> Result<(), Violation> {
        let purged = self.purged.map_or(0, |purged| purged.index);
        if purged > self.applied {
            return Err(wrong(format!(
                "the log is purged to {purged} and the state is of {}",
                self.applied
            )));
        }
        for (entry, index) in self.log.iter().zip(purged + 1..) {
            if entry.log_id.index != index {
                return Err(wrong(format!(
                    "entry {} follows {}, the log was purged to {purged}",
                    entry.log_id.index,
                    index - 1
                )));
            }
        }
        let end = self.log.last().map_or(purged, |entry| entry.log_id.index);
        if end != self.last {
            return Err(wrong(format!(
                "the log ends at {end} and is said to end at {}",
                self.last
            )));
        }
        if self.applied > end && !owed.installing.contains(&self.applied) {
            return Err(wrong(format!(
                "the state is of {}, the log ends at {end}",
                self.applied
            )));
        }
        match self.committed {
            Some(committed) if committed.index > end.max(self.applied) => Err(wrong(format!(
                "entry {} is committed, the log ends at {end}",
                committed.index
            ))),
            _ => Ok(()),
        }
    }

    /// Every entry is one that was appended, and every promised one is there or in the state.
    fn check_log(&self, owed: &Owed) -> Result<(), Violation> {
        let mut terms = std::collections::BTreeMap::new();
        let mut term_before = 0;
        for entry in &self.log {
            let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
            let EntryPayload::Normal(command) = &entry.payload else {
                return Err(wrong(format!("entry {index} holds no command")));
            };
            if owed.issued.get(&(index, term)) != Some(&fingerprint(&[&command.0])) {
                return Err(wrong(format!(
                    "entry {index} of term {term} was never appended like this"
                )));
            }
            if term < term_before {
                return Err(wrong(format!(
                    "entry {index} has term {term} behind {term_before}"
                )));
            }
            term_before = term;
            terms.insert(index, term);
        }
        for (index, term) in owed.acked.range(self.applied + 1..) {
            if terms.get(index) != Some(term) {
                return Err(lost(format!(
                    "entry {index} of term {term} was promised; the log ends at {}, the state is of {}",
                    self.last, self.applied
                )));
            }
        }
        Ok(())
    }

    /// The state is that of the entry it says it is of, and not older than a promised snapshot.
    fn check_state(&self, shard: ShardId, owed: &Owed, states: &States) -> Result<(), Violation> {
        if self.applied < owed.installed {
            return Err(lost(format!(
                "a snapshot of {} was promised, the state is of {}",
                owed.installed, self.applied
            )));
        }
        let asked = owed.applying.max(owed.installing.last().copied().unwrap_or(0));
        if self.applied > asked {
            return Err(wrong(format!(
                "the state is of {}, entries were applied up to {asked}",
                self.applied
            )));
        }
        if states.at(shard.0, self.applied) != Some(self.state) {
            return Err(wrong(format!(
                "the state is not that of entry {}, which it says it is of",
                self.applied
            )));
        }
        Ok(())
    }
}
