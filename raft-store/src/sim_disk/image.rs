//! What is on a simulated disk: three ordered maps, and reads of them as LMDB would answer.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::store::{Batch, FailureKind, KEY_BYTES_MAX, Limit, Op, Reads, Records, StoreFailure, Table};

type Map = BTreeMap<Bytes, Bytes>;

/// The durable bytes of a simulated disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    log: Map,
    meta: Map,
    state: Map,
}

impl Image {
    /// Applies a batch, in its order.
    pub fn apply(&mut self, batch: &Batch) {
        for op in batch.ops() {
            match op {
                Op::Put { table, key, value } => {
                    self.map_mut(*table).insert(key.clone(), value.clone());
                }
                Op::Delete { table, key } => {
                    self.map_mut(*table).remove(key);
                }
                Op::DeleteRange { table, from, to } => {
                    let map = self.map_mut(*table);
                    let gone: Vec<Bytes> = range(map, from, to).map(|(key, _)| key.clone()).collect();
                    for key in gone {
                        map.remove(&key);
                    }
                }
            }
        }
    }

    /// All records of a table, in order.
    pub fn records(&self, table: Table) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.map(table).iter()
    }

    /// How many records a table has.
    pub fn len(&self, table: Table) -> usize {
        self.map(table).len()
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty() && self.meta.is_empty() && self.state.is_empty()
    }

    fn map(&self, table: Table) -> &Map {
        match table {
            Table::Log => &self.log,
            Table::Meta => &self.meta,
            Table::State => &self.state,
        }
    }

    fn map_mut(&mut self, table: Table) -> &mut Map {
        match table {
            Table::Log => &mut self.log,
            Table::Meta => &mut self.meta,
            Table::State => &mut self.state,
        }
    }
}

/// Refuses what LMDB refuses, by which a commit fails.
pub(super) fn check(op: &Op) -> Result<(), StoreFailure> {
    match op {
        Op::Put { key, .. } if key.len() > KEY_BYTES_MAX => Err(bad_key(key)),
        Op::Put { key, .. } | Op::Delete { key, .. } | Op::DeleteRange { from: key, .. } => check_key(key),
    }
}

fn check_key(key: &[u8]) -> Result<(), StoreFailure> {
    if key.is_empty() { Err(bad_key(key)) } else { Ok(()) }
}

fn bad_key(key: &[u8]) -> StoreFailure {
    let text = format!("a key has {} bytes, 1 to {KEY_BYTES_MAX} are allowed", key.len());
    StoreFailure::new(FailureKind::Io, text)
}

fn range<'a>(
    map: &'a Map,
    from: &[u8],
    to: &[u8],
) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Bytes)> {
    // An inverted range is an empty one, where the map would panic.
    let to = to.max(from);
    map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
}

fn collect<'a>(records: impl Iterator<Item = (&'a Bytes, &'a Bytes)>, limit: Limit) -> Records {
    let mut found = Records::new();
    let mut bytes = 0;
    for (key, value) in records {
        if found.len() >= limit.records || (bytes >= limit.bytes && !found.is_empty()) {
            break;
        }
        bytes += key.len() + value.len();
        found.push((key.clone(), value.clone()));
    }
    found
}

impl Reads for Image {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreFailure> {
        check_key(key)?;
        Ok(self.map(table).get(key).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: Limit) -> Result<Records, StoreFailure> {
        if from < to {
            check_key(from)?;
        }
        Ok(collect(range(self.map(table), from, to), limit))
    }

    fn scan_back(&self, table: Table, from: &[u8], to: &[u8], limit: Limit) -> Result<Records, StoreFailure> {
        Ok(collect(range(self.map(table), from, to).rev(), limit))
    }
}
