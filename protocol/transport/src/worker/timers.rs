//! When each connection of a worker wants to be woken: a wheel of milliseconds.
//!
//! One entry a connection, moved in constant time: a delivery moves its connection's timer twice.
//! Times beyond one turn of the wheel stay in their slot and are looked at once a turn. Knows no
//! clock and no connections, only ticks and keys.

/// Slots: one turn takes four seconds, longer than probes and delays of acks; what lasts longer is an
/// idle time, of which a turn looks at a quarter of a thousandth a millisecond.
const SLOTS: usize = 4_096;
/// Slots of one word of the map of slots in use.
const WORD: usize = 64;
/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    /// The tick it is due at.
    at: u64,
    next: u32,
    previous: u32,
    set: bool,
}

const UNSET: Node = Node {
    at: 0,
    next: NONE,
    previous: NONE,
    set: false,
};

/// A wheel of timers, one for each small key.
#[derive(Debug)]
pub(super) struct Timers {
    heads: Box<[u32]>,
    /// One bit for each slot that is not empty.
    used: [u64; SLOTS / WORD],
    nodes: Vec<Node>,
    /// Every tick before it was looked at.
    now: u64,
}

impl Timers {
    pub fn new() -> Self {
        Self {
            heads: vec![NONE; SLOTS].into_boxed_slice(),
            used: [0; SLOTS / WORD],
            nodes: Vec::new(),
            now: 0,
        }
    }

    /// Sets a key's only timer, or takes it away. One that is due already comes with the next tick.
    pub fn set(&mut self, key: usize, at: Option<u64>) {
        if key >= self.nodes.len() {
            if at.is_none() {
                return;
            }
            self.nodes.resize(key + 1, UNSET);
        }
        let at = at.map(|at| at.max(self.now));
        let node = self.nodes[key];
        if node.set {
            if at == Some(node.at) {
                return;
            }
            self.unlink(key);
        }
        if let Some(at) = at {
            self.link(key, at);
        }
    }

    fn link(&mut self, key: usize, at: u64) {
        let slot = slot_of(at);
        let (head, me) = (self.heads[slot], index(key));
        self.nodes[key] = Node {
            at,
            next: head,
            previous: NONE,
            set: true,
        };
        if let Some(next) = self.nodes.get_mut(head as usize) {
            next.previous = me;
        }
        self.heads[slot] = me;
        self.used[slot / WORD] |= 1 << (slot % WORD);
    }

    fn unlink(&mut self, key: usize) {
        let node = std::mem::replace(&mut self.nodes[key], UNSET);
        let slot = slot_of(node.at);
        if let Some(next) = self.nodes.get_mut(node.next as usize) {
            next.previous = node.previous;
        }
        match self.nodes.get_mut(node.previous as usize) {
            Some(previous) => previous.next = node.next,
            None => self.heads[slot] = node.next,
        }
        if self.heads[slot] == NONE {
            self.used[slot / WORD] &= !(1 << (slot % WORD));
        }
    }

    /// Takes away every timer due at `now` or before, and appends the keys to `due`.
    pub fn expire(&mut self, now: u64, due: &mut Vec<usize>) {
        if now < self.now {
            return;
        }
        // After a long sleep each slot is looked at once.
        let ticks = (now - self.now + 1).min(SLOTS as u64);
        let first = now + 1 - ticks;
        for tick in first..=now {
            let slot = slot_of(tick);
            if self.used[slot / WORD] & (1 << (slot % WORD)) != 0 {
                self.expire_slot(slot, now, due);
            }
        }
        self.now = now + 1;
    }

    fn expire_slot(&mut self, slot: usize, now: u64, due: &mut Vec<usize>) {
        let mut next = self.heads[slot];
        while let Some(node) = self.nodes.get(next as usize) {
            let (key, at) = (next as usize, node.at);
            next = node.next;
            if at <= now {
                self.unlink(key);
                due.push(key);
            }
        }
    }

    /// The next tick at which [`Self::expire`] has something to look at; `None` without timers. It may
    /// find that what it looks at is due a turn later.
    pub fn next(&self) -> Option<u64> {
        let from = slot_of(self.now);
        let words = SLOTS / WORD;
        // The first word twice: its slots before `from` come last.
        for step in 0..=words {
            let word = (from / WORD + step) % words;
            let mut bits = self.used[word];
            if step == 0 {
                bits &= u64::MAX << (from % WORD);
            }
            if bits != 0 {
                let slot = word * WORD + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - from) % SLOTS;
                return Some(self.now + ahead as u64);
            }
        }
        None
    }
}

fn slot_of(tick: u64) -> usize {
    // The remainder is below the number of slots.
    usize::try_from(tick % SLOTS as u64).unwrap_or_default()
}

fn index(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn a_wheel_does_what_a_sorted_map_would() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut timers, mut model) = (Timers::new(), BTreeMap::new());
            let mut now = 0;
            for _ in 0..2_000 {
                if rng.random_bool(0.7) {
                    let key = rng.random_range(0..40);
                    let reach = if rng.random_bool(0.5) { 50 } else { 50_000 };
                    let at = rng.random_bool(0.8).then(|| now + rng.random_range(0..reach));
                    timers.set(key, at);
                    match at {
                        Some(at) => model.insert(key, at),
                        None => model.remove(&key),
                    };
                    continue;
                }
                if let Some(next) = timers.next() {
                    let first = model.values().min().unwrap();
                    assert!(next <= (*first).max(now), "seed {seed}: {next} behind {first}");
                } else {
                    assert!(model.is_empty());
                }
                let reach = if rng.random_bool(0.9) { 20 } else { 20_000 };
                now += rng.random_range(1..reach);
                let mut due = Vec::new();
                timers.expire(now, &mut due);
                due.sort_unstable();
                let expected: Vec<usize> = model
                    .iter()
                    .filter(|(_, at)| **at <= now)
                    .map(|(key, _)| *key)
                    .collect();
                assert_eq!(due, expected, "seed {seed} at {now}");
                model.retain(|_, at| *at > now);
                now += 1;
            }
        }
    }

    #[test]
    fn whoever_sleeps_until_the_next_tick_reaches_every_timer() {
        let mut timers = Timers::new();
        timers.set(3, Some(10_000));
        let (mut due, mut turns) = (Vec::new(), 0);
        while let Some(next) = timers.next() {
            timers.expire(next, &mut due);
            turns += 1;
            assert!(turns < 10);
        }
        assert_eq!((due.as_slice(), turns), ([3].as_slice(), 3));
    }
}
