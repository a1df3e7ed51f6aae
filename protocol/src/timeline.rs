//! What a client holds of one channel: messages as they are now, and which stretches of the log it has.
//!
//! ```text
//!  seq   1 ........ 40 41 ......... 60 61 ......... 99
//!        │ page, 1–40 │  not loaded   │ live, 61–99 ──►
//!        └ head 70    └               └ tells of every change behind 60
//! ```
//!
//! Deliveries and pages may come in any order and overlap. Three rules make what is shown exact. A message
//! that comes again replaces what is held if it has a higher version. A change is made to a message that is
//! held with the version the change names as the one before it, or a later one that is not behind the
//! change; one that came too early is kept. And a stretch is up to
//! date with the changes up to the head its page was read at, and on from there as far as the log is held
//! without a gap: what lies behind that is asked for ([`Timeline::stale`]).
//!
//! It refuses to know time, connections and users, and to forget anything by itself: changes to messages that are
//! not held are kept as well, so an application that follows a channel for long lets go of what lies far
//! back ([`Timeline::forget_before`]).

use std::collections::BTreeMap;

use crate::cluster::EntryKind;
use crate::ids::{Epoch, Seq};
use crate::message::Entry;

/// What is at a position of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown<'a> {
    /// Nothing is known of it; a page of history brings it.
    NotLoaded,
    /// A message as it is now; [`Entry::hole`] says whether anything is left of it.
    Message(&'a Entry),
    /// An entry that is no message, and shows in what it changed.
    Change,
}

/// A stretch whose messages may have changed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale {
    /// Its first entry.
    pub from: Seq,
    /// Its last one.
    pub to: Seq,
    /// Changes up to this entry are in what is held.
    pub since: Seq,
}

/// Entries from one up to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    to: Seq,
    /// Changes up to this entry are in its messages.
    since: Seq,
}

/// What a client holds of one channel.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    epoch: Epoch,
    messages: BTreeMap<Seq, Entry>,
    /// By the first entry; they neither overlap nor touch, unless what they know of changes differs.
    stretches: BTreeMap<Seq, Stretch>,
    /// Changes to messages that are not held, or without the changes before these; by target and position.
    pending: BTreeMap<(Seq, Seq), Entry>,
    /// Nothing before it is kept.
    forgotten: Seq,
}

impl Timeline {
    /// Nothing of a log.
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            ..Self::default()
        }
    }

    /// The incarnation of the log.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Takes entries that follow `prev` without a gap, as a delivery brings them: they are of the moment of
    /// their last one. Entries of another epoch void everything that is held.
    pub fn deliver(&mut self, epoch: Epoch, prev: Seq, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        self.enter(epoch);
        self.take(prev, last.seq, last.seq, entries);
    }

    /// Takes a page of history or of a sync, which is of the moment when the log ended at `head`.
    pub fn page(&mut self, epoch: Epoch, prev: Seq, head: Seq, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        self.enter(epoch);
        self.take(prev, last.seq, head, entries);
    }

    /// Takes the changed messages of a stretch, all of them, read when the log ended at `head`.
    pub fn changes(&mut self, epoch: Epoch, stale: Stale, head: Seq, entries: &[Entry]) {
        if epoch != self.epoch {
            return;
        }
        entries.iter().for_each(|entry| self.put(entry));
        self.note(stale.from, stale.to, head);
    }

    fn enter(&mut self, epoch: Epoch) {
        if epoch != self.epoch {
            *self = Self::new(epoch);
        }
    }

    fn take(&mut self, prev: Seq, last: Seq, since: Seq, entries: &[Entry]) {
        for entry in entries {
            match change_of(entry) {
                Some(target) => self.change(target, entry),
                None => self.put(entry),
            }
        }
        self.note(prev.next(), last, since);
    }

    /// A message comes, maybe again.
    fn put(&mut self, entry: &Entry) {
        let seq = entry.seq;
        if entry.kind != EntryKind::Message.number() || seq < self.forgotten {
            return;
        }
        match self.messages.get_mut(&seq) {
            // What is gone stays gone: an entry that was read before brings it in vain.
            Some(held) if held.hole != 0 && entry.hole == 0 => held.version = held.version.max(entry.version),
            Some(held) if !replaces(held, entry) => {}
            _ => drop(self.messages.insert(seq, entry.clone())),
        }
        self.catch_up(seq);
    }

    /// Makes the changes that came before the message did, or before those they follow.
    fn catch_up(&mut self, target: Seq) {
        let of_target = (target, Seq(0))..=(target, Seq(u64::MAX));
        let waiting: Vec<_> = self.pending.range(of_target).map(|(key, _)| *key).collect();
        for key in waiting {
            let Some(change) = self.pending.remove(&key) else {
                continue;
            };
            let held = self.messages.get_mut(&target);
            if let Some(held) = held.filter(|held| held.version >= change.version) {
                apply(held, &change);
            } else {
                self.pending.insert(key, change);
                return;
            }
        }
    }

    fn change(&mut self, target: Seq, change: &Entry) {
        if target < self.forgotten {
            return;
        }
        self.pending.insert((target, change.seq), change.clone());
        self.catch_up(target);
    }

    /// Entries `from..=to` are held, with the changes up to `since`. Of what was held before, the later
    /// knowledge counts.
    fn note(&mut self, from: Seq, to: Seq, since: Seq) {
        let from = from.max(self.forgotten);
        if from > to {
            return;
        }
        let mut pieces = Vec::new();
        let mut next = from;
        let overlapping: Vec<_> = self
            .stretches
            .range(..=to)
            .filter(|(_, stretch)| stretch.to >= from)
            .map(|(first, stretch)| (*first, *stretch))
            .collect();
        for (first, stretch) in overlapping {
            self.stretches.remove(&first);
            if first < next {
                pieces.push((first, Seq(next.0 - 1), stretch.since));
            } else if first > next {
                pieces.push((next, Seq(first.0 - 1), since));
            }
            let end = stretch.to.min(to);
            pieces.push((first.max(next), end, stretch.since.max(since)));
            if stretch.to > to {
                pieces.push((to.next(), stretch.to, stretch.since));
            }
            next = end.next();
        }
        if next <= to {
            pieces.push((next, to, since));
        }
        for (from, to, since) in pieces {
            self.stretches.insert(from, Stretch { to, since });
        }
        self.merge();
    }

    /// Puts neighbours together that know the same changes.
    fn merge(&mut self) {
        let mut merged: Vec<(Seq, Stretch)> = Vec::with_capacity(self.stretches.len());
        for (from, mut stretch) in std::mem::take(&mut self.stretches) {
            stretch.since = stretch.since.max(stretch.to);
            match merged.last_mut() {
                Some((_, last)) if last.to.next() == from && last.since.max(stretch.to) == stretch.since => {
                    // What the earlier one does not know of the later one's changes, the later one holds.
                    (last.to, last.since) = (stretch.to, stretch.since);
                }
                _ => merged.push((from, stretch)),
            }
        }
        self.stretches = merged.into_iter().collect();
    }

    /// Takes the whole expansion of a message that has it elsewhere, read with this version. Says whether it was of
    /// the version that is held; if not, it is read again.
    pub fn expansion(&mut self, seq: Seq, version: Seq, mut expansion: Vec<(String, String)>) -> bool {
        let held = self.messages.get_mut(&seq);
        let Some(held) = held.filter(|held| held.version == version && held.hole == 0) else {
            return false;
        };
        expansion.sort_unstable();
        (held.expansion, held.keys_elsewhere) = (expansion, false);
        true
    }

    /// Lets go of everything before a position. Changes to what was let go are not kept from then on.
    pub fn forget_before(&mut self, seq: Seq) {
        self.forgotten = self.forgotten.max(seq);
        let forgotten = self.forgotten;
        self.messages.retain(|held, _| *held >= forgotten);
        self.pending.retain(|(target, _), _| *target >= forgotten);
        let mut stretches = BTreeMap::new();
        for (from, stretch) in std::mem::take(&mut self.stretches) {
            if stretch.to >= forgotten {
                stretches.insert(from.max(forgotten), stretch);
            }
        }
        self.stretches = stretches;
    }

    /// What is at a position.
    pub fn get(&self, seq: Seq) -> Shown<'_> {
        match self.messages.get(&seq) {
            Some(entry) => Shown::Message(entry),
            None if self.holds(seq) => Shown::Change,
            None => Shown::NotLoaded,
        }
    }

    fn holds(&self, seq: Seq) -> bool {
        let before = self.stretches.range(..=seq).next_back();
        before.is_some_and(|(_, stretch)| stretch.to >= seq)
    }

    /// The messages that are held, ascending.
    pub fn messages(&self) -> impl Iterator<Item = &Entry> {
        self.messages.values()
    }

    /// Between which positions nothing is loaded, within `from..=to`, ascending.
    pub fn gaps(&self, from: Seq, to: Seq) -> Vec<(Seq, Seq)> {
        let mut gaps = Vec::new();
        let mut next = from;
        for (&first, stretch) in self.stretches.range(..=to) {
            if stretch.to < next {
                continue;
            }
            if first > next {
                gaps.push((next, Seq(first.0 - 1)));
            }
            next = stretch.to.next();
        }
        if next <= to {
            gaps.push((next, to));
        }
        gaps
    }

    /// The stretches whose messages may have changed up to `head` without this being known, ascending: for
    /// each, the log behind what it knows is not held up to there.
    pub fn stale(&self, head: Seq) -> Vec<Stale> {
        let of = |(&from, stretch): (&Seq, &Stretch)| Stale {
            from,
            to: stretch.to,
            since: self.known(stretch.since),
        };
        let stretches = self.stretches.iter().map(of);
        stretches.filter(|stale| stale.since < head).collect()
    }

    /// How far the log is held without a gap behind `since`: the changes in it are known as well.
    fn known(&self, since: Seq) -> Seq {
        let mut known = since;
        for (&first, stretch) in &self.stretches {
            if first <= known.next() {
                known = known.max(stretch.to);
            }
        }
        known
    }
}

/// Whether a message that comes again says more than the one that is held.
fn replaces(held: &Entry, entry: &Entry) -> bool {
    let completes = held.keys_elsewhere && !entry.keys_elsewhere;
    held.version < entry.version || (completes && held.version == entry.version)
}

/// Makes a change to a message that has every change before it.
fn apply(held: &mut Entry, change: &Entry) {
    if change.seq <= held.version {
        return;
    }
    held.version = change.seq;
    if held.hole != 0 && change.hole == 0 {
        // It was read before the message was gone.
        return;
    }
    if change.hole != 0 {
        held.hole = change.hole;
        held.body.clear();
        held.expansion.clear();
        held.keys_elsewhere = false;
        return;
    }
    if change.kind == EntryKind::Modify.number() {
        held.body = change.body.clone();
    }
    for key in &change.removed {
        held.expansion.retain(|(name, _)| name != key);
    }
    for (key, value) in &change.expansion {
        match held
            .expansion
            .binary_search_by(|(name, _)| name.as_str().cmp(key))
        {
            Ok(place) => held.expansion[place].1.clone_from(value),
            Err(place) => held.expansion.insert(place, (key.clone(), value.clone())),
        }
    }
}

/// The message that a change changes; `None` for an entry that is no change.
fn change_of(entry: &Entry) -> Option<Seq> {
    (entry.target != Seq(0)).then_some(entry.target)
}

#[cfg(test)]
mod tests;
