//! A shard in memory, for the tests of this crate and of those that use it.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use throng_protocol::placement::Plane;

use crate::limits::Bounds;
use crate::{ApplyError, Command, Effect, Reply, View, ViewError, apply_within};

/// The records of one shard in a sorted map, and the last applied index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapView {
    /// The plane of the shard.
    pub plane: Plane,
    /// The index of the last command.
    pub index: u64,
    /// Its bounds.
    pub bounds: Bounds,
    /// The records.
    pub records: BTreeMap<Bytes, Bytes>,
}

impl MapView {
    /// An empty shard.
    pub fn new(plane: Plane) -> Self {
        Self {
            plane,
            index: 0,
            bounds: Bounds::default(),
            records: BTreeMap::new(),
        }
    }

    /// Applies the next command and carries its effects out; returns them.
    pub fn apply(&mut self, command: &[u8]) -> Result<Vec<Effect>, ApplyError> {
        let effects = apply_within(&self.bounds, self.plane, &*self, self.index + 1, command)?;
        self.index += 1;
        for effect in &effects {
            self.carry_out(effect);
        }
        Ok(effects)
    }

    /// Applies the next command; returns its reply, and its effects without the reply.
    ///
    /// # Panics
    /// If the command cannot be applied, or has not exactly one reply.
    pub fn run(&mut self, command: &Command) -> (Reply, Vec<Effect>) {
        let mut effects = self.apply(&command.encode()).expect("the command applies");
        let Some(Effect::Reply(reply)) = effects.pop() else {
            panic!("the last effect is not the reply")
        };
        assert!(
            !effects.iter().any(|effect| matches!(effect, Effect::Reply(_))),
            "two replies"
        );
        (Reply::decode(&reply).expect("the reply decodes"), effects)
    }

    /// Applies the next command; returns its reply.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn reply(&mut self, command: &Command) -> Reply {
        self.run(command).0
    }

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::Put { key, value } => {
                self.records.insert(key.clone(), value.clone());
            }
            Effect::Delete { key } => {
                self.records.remove(key);
            }
            Effect::Reply(_) | Effect::Advanced { .. } | Effect::Fenced { .. } | Effect::Outbox(_) => {}
        }
    }

    fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (Bytes, Bytes)> {
        // An empty range of a map is a panic, of a view it is empty.
        let to = to.max(from);
        self.records
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
            .map(|(key, value)| (key.clone(), value.clone()))
    }
}

impl View for MapView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.records.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        Ok(self.range(from, to).take(limit).collect())
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        Ok(self.range(from, to).rev().take(limit).collect())
    }
}
