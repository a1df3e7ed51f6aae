//! What was durable of Raft's own records: a dump of a replica for every crash of its node and for
//! the end of a run. Taken from the disks, where nothing can be hidden by a process that believes
//! otherwise; read by the invariants alone.

use std::collections::BTreeMap;

use throng_protocol::ids::ShardId;
use throng_raft_store::inspect::{self, At};
use throng_raft_store::store::Reads;

/// A replica's durable records at one moment.
#[derive(Clone, Debug)]
pub struct Dump {
    /// How many events the history had.
    pub event: usize,
    /// On which node.
    pub node: u8,
    /// Of which shard.
    pub shard: ShardId,
    /// The records, or why they cannot be read.
    pub found: Result<inspect::Replica, String>,
}

impl Dump {
    /// Dumps every shard of a node's disk.
    #[must_use]
    pub fn all(event: usize, node: u8, disk: &dyn Reads) -> Vec<Self> {
        let one = |shard| Self {
            event,
            node,
            shard,
            found: inspect::shard(disk, shard).map_err(|error| error.to_string()),
        };
        match inspect::shards(disk) {
            Ok(shards) => shards.into_iter().map(one).collect(),
            Err(error) => vec![Self {
                event,
                node,
                shard: ShardId(0),
                found: Err(error.to_string()),
            }],
        }
    }

    /// The dump, if it could be read.
    pub(crate) fn readable(&self) -> Option<(&Self, &inspect::Replica)> {
        self.found.as_ref().ok().map(|replica| (self, replica))
    }
}

/// Entries known to be committed: those up to where a replica knew the log to be, or had applied it.
#[derive(Default)]
pub(crate) struct Committed<'a> {
    entries: BTreeMap<(ShardId, u64), Known<'a>>,
}

/// An entry, and who first knew it to be committed.
struct Known<'a> {
    entry: &'a inspect::LogEntry,
    dump: &'a Dump,
    /// The latest term in which it can have been committed: no later than that of any replica that knew.
    term: u64,
}

/// Two entries are committed at one index.
pub(crate) type Twice<'a> = (
    (&'a inspect::LogEntry, &'a Dump),
    (&'a inspect::LogEntry, &'a Dump),
);

impl<'a> Committed<'a> {
    /// The committed entries of some dumps, and the first index that has two.
    pub fn of(dumps: &'a [Dump]) -> (Self, Option<Twice<'a>>) {
        let mut committed = Self::default();
        let mut twice = None;
        for (dump, replica) in dumps.iter().filter_map(Dump::readable) {
            for entry in replica
                .log
                .iter()
                .take_while(|entry| entry.at.index <= known(replica))
            {
                let term = replica.vote.map_or(u64::MAX, |vote| vote.term);
                let place = (dump.shard, entry.at.index);
                let first = committed
                    .entries
                    .entry(place)
                    .or_insert(Known { entry, dump, term });
                first.term = first.term.min(term);
                if first.entry != entry {
                    twice.get_or_insert(((first.entry, first.dump), (entry, dump)));
                }
            }
        }
        (committed, twice)
    }

    /// Those of one shard, ascending, each with who knew and the latest term in which it can have been
    /// committed.
    pub fn shard(&self, shard: ShardId) -> impl DoubleEndedIterator<Item = (At, &'a Dump, u64)> {
        let range = (shard, 0)..=(shard, u64::MAX);
        self.entries
            .range(range)
            .map(|(_, known)| (known.entry.at, known.dump, known.term))
    }
}

/// How far the log of a replica is known to be committed. Behind an installed snapshot the log may be
/// one that is about to be purged, of which nothing is known.
fn known(replica: &inspect::Replica) -> u64 {
    if replica.applied > replica.last() {
        return 0;
    }
    let known = replica.committed.max(replica.applied);
    known.map_or(0, |known| known.index)
}

#[cfg(test)]
pub(crate) mod testing {
    use bytes::Bytes;
    use throng_raft_store::inspect::{EntryKind, LogEntry, Replica, Voted};

    use super::*;
    use crate::logs::FinalLogs;

    pub fn at(term: u64, index: u64) -> At {
        At { term, index }
    }

    /// A node's replica with entries of these terms from index 1, all durable, none known committed.
    pub fn replica(terms: &[u64]) -> Replica {
        let log = (1..).zip(terms).map(|(index, term)| LogEntry {
            at: at(*term, index),
            kind: EntryKind::Command,
            payload: Bytes::from(format!("{index} in {term}")),
        });
        Replica {
            shard: ShardId(100),
            vote: terms.last().map(|term| Voted {
                term: *term,
                node: 1,
                committed: true,
            }),
            committed: None,
            purged: None,
            applied: None,
            generation: 0,
            log: log.collect(),
            state: Vec::new(),
        }
    }

    pub fn dump(node: u8, replica: Replica) -> Dump {
        Dump {
            event: 0,
            node,
            shard: replica.shard,
            found: Ok(replica),
        }
    }

    pub fn logs(dumps: Vec<Dump>) -> FinalLogs {
        FinalLogs {
            dumps,
            ..FinalLogs::default()
        }
    }
}
