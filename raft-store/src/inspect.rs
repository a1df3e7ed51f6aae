//! What a store holds of its shards, for whoever compares replicas from outside: the log entry by
//! entry, the vote, how far was purged and applied, and the records of the state.
//!
//! Reads any [`Store`]: a folder that no node has open ([`HeedStore::open`](crate::HeedStore)), or
//! the [`Image`](crate::sim_disk::Image) of a simulated disk. Every checksum is verified. The module
//! refuses to repair, and to name openraft's types: its readers know Raft, not openraft.

use std::fmt;

use bytes::{Buf, Bytes};
use openraft::vote::RaftLeaderId as _;
use throng_protocol::ids::ShardId;

use crate::entry;
use crate::keys::{self, Meta};
use crate::log_store::decode_meta;
use crate::record::{self, RecordError};
use crate::shard_state::Applied;
use crate::store::{Limit, Reads, Records, Store, StoreFailure, Table};
use crate::types::{LogId, Vote};

/// Records read at once.
const PAGE: Limit = Limit {
    records: usize::MAX,
    bytes: 4 * 1024 * 1024,
};

/// A store cannot be inspected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// A record is damaged.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A position in a shard's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// What a replica has voted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voted {
    /// The term.
    pub term: u64,
    /// For whom.
    pub node: u64,
    /// Whether that node is known to have won the term.
    pub committed: bool,
}

/// What an entry of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// The mark a new leader begins its term with.
    Blank,
    /// A command of the state machine.
    Command,
    /// Who the voters are.
    Membership,
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub at: At,
    /// What it is.
    pub kind: EntryKind,
    /// Its payload; for a command what `throng_state::Command::decode` reads.
    pub payload: Bytes,
}

// Bodies of messages do not belong into failures and logs.
impl fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, kind, payload } = self;
        write!(
            f,
            "{at} {kind:?} {:08x} ({} bytes)",
            crc32fast::hash(payload),
            payload.len()
        )
    }
}

/// All that a store holds of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The shard.
    pub shard: ShardId,
    /// The vote.
    pub vote: Option<Voted>,
    /// How far the replica knew the log to be committed. It may lag behind the truth by any length.
    pub committed: Option<At>,
    /// The last entry that was removed from the beginning of the log.
    pub purged: Option<At>,
    /// The last entry whose effect is in `state`.
    pub applied: Option<At>,
    /// How many snapshots from other nodes were installed.
    pub generation: u32,
    /// The log, ascending.
    pub log: Vec<LogEntry>,
    /// The records of the state machine, in key order.
    pub state: Records,
}

/// The shards that a store holds anything of that was ever voted, logged or applied.
pub fn shards(reads: &dyn Reads) -> Result<Vec<ShardId>, InspectError> {
    let mut shards = Vec::new();
    let mut from = Bytes::from_static(&[0]);
    let end = Bytes::from_static(&[u8::MAX; 16]);
    loop {
        let next = reads.scan(Table::Meta, &from, &end, Limit::records(1))?;
        let Some((key, _)) = next.first() else {
            return Ok(shards);
        };
        let Some(number) = key.first_chunk() else {
            return Err(RecordError::new(Table::Meta, key, "its key names no shard").into());
        };
        let shard = ShardId(u32::from_be_bytes(*number));
        shards.push(shard);
        from = keys::state_end(shard);
    }
}

/// Everything of one shard. An unknown shard is an empty one.
pub fn shard(reads: &dyn Reads, shard: ShardId) -> Result<Replica, InspectError> {
    let applied = small::<Applied>(reads, shard, Meta::Applied)?.unwrap_or_default();
    Ok(Replica {
        shard,
        vote: small::<Vote>(reads, shard, Meta::Vote)?.map(|vote| voted(&vote)),
        committed: small(reads, shard, Meta::Committed)?.map(at),
        purged: small(reads, shard, Meta::Purged)?.map(at),
        applied: applied.log_id.map(at),
        generation: applied.generation,
        log: log(reads, shard)?,
        state: state(reads, shard, applied.generation)?,
    })
}

/// Everything of every shard of a store, in one consistent view.
pub fn replicas(store: &dyn Store) -> Result<Vec<Replica>, InspectError> {
    let mut found = Ok(Vec::new());
    store.read(&mut |reads| {
        // Damaged records leave through `found`, they are no failure of the store.
        found = shards(reads).and_then(|all| all.into_iter().map(|one| shard(reads, one)).collect());
        Ok(())
    })?;
    found
}

impl Replica {
    /// The last entry that this replica has stored or, by a snapshot, stands for.
    pub fn last(&self) -> Option<At> {
        let logged = self.log.last().map(|entry| entry.at);
        logged.max(self.purged)
    }

    /// An entry of the log.
    pub fn entry(&self, index: u64) -> Option<&LogEntry> {
        let first = self.log.first()?.at.index;
        let place = usize::try_from(index.checked_sub(first)?).ok()?;
        self.log.get(place)
    }

    /// What must hold of a replica at any moment, also right after a crash; says what does not.
    pub fn check(&self) -> Result<(), String> {
        let shard = self.shard;
        let mut before = self.purged;
        for entry in &self.log {
            if let Some(before) = before {
                if entry.at.index != before.index + 1 {
                    return Err(format!("shard {shard}: {entry:?} stands behind {before}"));
                }
                if entry.at.term < before.term {
                    return Err(format!(
                        "shard {shard}: the term falls from {before} to {entry:?}"
                    ));
                }
            }
            before = Some(entry.at);
        }
        if self.purged > self.applied {
            let (purged, applied) = (self.purged, self.applied);
            return Err(format!(
                "shard {shard}: purged {purged:?}, applied only {applied:?}"
            ));
        }
        // An installed snapshot may be ahead of the log; what was applied from the log may not.
        if self.generation == 0 && self.applied > self.last() {
            let (applied, last) = (self.applied, self.last());
            return Err(format!(
                "shard {shard}: applied {applied:?}, the log ends at {last:?}"
            ));
        }
        let (term, voted) = (self.last().map(|last| last.term), self.vote.map(|vote| vote.term));
        if term > voted {
            return Err(format!(
                "shard {shard}: the log is of term {term:?}, the vote of {voted:?}"
            ));
        }
        Ok(())
    }
}

fn at(log_id: LogId) -> At {
    At {
        term: log_id.leader_id.term,
        index: log_id.index,
    }
}

fn voted(vote: &Vote) -> Voted {
    Voted {
        term: vote.leader_id.term(),
        node: *vote.leader_id.node_id(),
        committed: vote.committed,
    }
}

/// A small record.
fn small<T: serde::de::DeserializeOwned>(
    reads: &dyn Reads,
    shard: ShardId,
    which: Meta,
) -> Result<Option<T>, InspectError> {
    let key = keys::meta(shard, which);
    let Some(record) = reads.get(Table::Meta, &key)? else {
        return Ok(None);
    };
    let payload = record::open(Table::Meta, &key, &record)?;
    let decoded =
        decode_meta(payload).map_err(|error| RecordError::new(Table::Meta, &key, error.to_string()))?;
    Ok(Some(decoded))
}

fn log(reads: &dyn Reads, shard: ShardId) -> Result<Vec<LogEntry>, InspectError> {
    let mut entries = Vec::new();
    each(
        reads,
        Table::Log,
        keys::log(shard, 0),
        &keys::log_end(shard),
        |key, payload| {
            let damaged = |reason: String| RecordError::new(Table::Log, key, reason);
            let entry = entry::decode(payload.clone()).map_err(|error| damaged(error.to_string()))?;
            let at = at(entry.log_id);
            if keys::log_index(key) != Some(at.index) {
                return Err(damaged(format!("it holds the entry of index {}", at.index)));
            }
            let kind = match entry.payload {
                openraft::EntryPayload::Blank => EntryKind::Blank,
                openraft::EntryPayload::Normal(_) => EntryKind::Command,
                openraft::EntryPayload::Membership(_) => EntryKind::Membership,
            };
            let mut payload = payload;
            payload.advance(entry::HEAD);
            entries.push(LogEntry { at, kind, payload });
            Ok(())
        },
    )?;
    Ok(entries)
}

fn state(reads: &dyn Reads, shard: ShardId, generation: u32) -> Result<Records, InspectError> {
    let mut records = Records::new();
    let (from, to) = (
        keys::generation(shard, generation),
        keys::generation_end(shard, generation),
    );
    each(reads, Table::State, from, &to, |key, payload| {
        records.push((keys::state_inner(key), payload));
        Ok(())
    })?;
    Ok(records)
}

/// The checked payloads of a range, in order.
fn each(
    reads: &dyn Reads,
    table: Table,
    mut from: Bytes,
    to: &[u8],
    mut take: impl FnMut(&Bytes, Bytes) -> Result<(), RecordError>,
) -> Result<(), InspectError> {
    loop {
        let page = reads.scan(table, &from, to, PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        from = keys::successor(last);
        for (key, record) in &page {
            take(key, record::open(table, key, record)?)?;
        }
    }
}
