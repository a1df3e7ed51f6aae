//! What every message must have become: worked out from the changes that were acked, in the order of their
//! positions, and compared with what clients hold.
//!
//! Pure, and a stranger to gateway and core, and to the component that keeps what clients hold: it knows
//! the trace, which changes were made where, and nothing of how.

use std::collections::BTreeMap;

/// What was done to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It got another body.
    Modify(String),
    /// It was taken back.
    Recall,
    /// It was deleted for all.
    Delete,
    /// Keys were set and removed.
    Expand {
        /// Keys with their values.
        set: Vec<(String, String)>,
        /// Keys that went.
        remove: Vec<String>,
    },
}

/// A change that was acked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The key it was made under.
    pub id: u64,
    /// Its position.
    pub seq: u64,
    /// The position of the message.
    pub target: u64,
    /// What it did.
    pub deed: Deed,
}

/// What is left of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Left {
    /// Everything.
    #[default]
    All,
    /// Nothing: it was recalled.
    Recalled,
    /// Nothing: it was deleted.
    Deleted,
}

/// A message as it is, or as a client holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Its body; empty if nothing is left.
    pub body: Vec<u8>,
    /// What is left.
    pub left: Left,
    /// The position of its last change; 0 for none.
    pub version: u64,
    /// Its expansion.
    pub keys: BTreeMap<String, String>,
}

/// What was found wrong, by the kind of what should have been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wrong {
    /// Bodies.
    pub bodies: u64,
    /// Recalls that do not show, or show where there is none.
    pub recalls: u64,
    /// Deletions, the same.
    pub deletions: u64,
    /// Expansions.
    pub expansions: u64,
    /// Versions.
    pub versions: u64,
    /// Messages that a client should hold and does not.
    pub missing: u64,
}

impl std::ops::AddAssign for Wrong {
    fn add_assign(&mut self, other: Self) {
        self.bodies += other.bodies;
        self.recalls += other.recalls;
        self.deletions += other.deletions;
        self.expansions += other.expansions;
        self.versions += other.versions;
        self.missing += other.missing;
    }
}

/// The messages of one channel as they must be, by position.
#[derive(Debug, Default)]
pub struct Model(BTreeMap<u64, State>);

impl Model {
    /// Starts with the messages as they were sent and makes the changes in their order.
    pub fn new(sent: impl IntoIterator<Item = (u64, Vec<u8>)>, mut made: Vec<Made>) -> Self {
        let message = |(seq, body)| {
            let state = State {
                body,
                ..State::default()
            };
            (seq, state)
        };
        let mut messages: BTreeMap<u64, State> = sent.into_iter().map(message).collect();
        made.sort_by_key(|made| made.seq);
        for made in made {
            if let Some(state) = messages.get_mut(&made.target) {
                state.make(made.seq, made.deed);
            }
        }
        Self(messages)
    }

    /// Compares what a client holds, which must be every message behind a position. Gives how many were
    /// compared.
    pub fn compare(&self, from: u64, held: &BTreeMap<u64, State>) -> (u64, Wrong) {
        let mut wrong = Wrong::default();
        let due = self.0.range(from.saturating_add(1)..);
        let mut compared = 0;
        for (seq, expected) in due {
            compared += 1;
            match held.get(seq) {
                None => wrong.missing += 1,
                Some(found) => wrong += expected.differences(found),
            }
        }
        (compared, wrong)
    }

    /// Compares only what a client holds.
    pub fn compare_held(&self, held: &BTreeMap<u64, State>) -> (u64, Wrong) {
        let mut wrong = Wrong::default();
        let mut compared = 0;
        for (seq, found) in held {
            if let Some(expected) = self.0.get(seq) {
                compared += 1;
                wrong += expected.differences(found);
            }
        }
        (compared, wrong)
    }
}

impl State {
    fn make(&mut self, seq: u64, deed: Deed) {
        self.version = seq;
        match deed {
            Deed::Modify(body) => self.body = body.into_bytes(),
            Deed::Recall => self.empty(Left::Recalled),
            Deed::Delete => self.empty(Left::Deleted),
            Deed::Expand { set, remove } => {
                for key in remove {
                    self.keys.remove(&key);
                }
                self.keys.extend(set);
            }
        }
    }

    fn empty(&mut self, left: Left) {
        self.left = left;
        self.body.clear();
        self.keys.clear();
    }

    fn differences(&self, found: &Self) -> Wrong {
        let is = |wrong: bool| u64::from(wrong);
        let either = |left| (self.left == left) != (found.left == left);
        Wrong {
            bodies: is(self.body != found.body),
            recalls: is(either(Left::Recalled)),
            deletions: is(either(Left::Deleted)),
            expansions: is(self.keys != found.keys),
            versions: is(self.version != found.version),
            missing: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(seq: u64, target: u64, deed: Deed) -> Made {
        Made {
            id: seq,
            seq,
            target,
            deed,
        }
    }

    fn expand(key: &str, value: &str, remove: &[&str]) -> Deed {
        Deed::Expand {
            set: vec![(key.to_owned(), value.to_owned())],
            remove: remove.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    fn model() -> Model {
        let sent = [(1, b"one".to_vec()), (2, b"two".to_vec()), (3, b"three".to_vec())];
        let changes = vec![
            made(9, 1, Deed::Modify("last".to_owned())),
            made(5, 1, Deed::Modify("first".to_owned())),
            made(6, 2, expand("k", "v", &[])),
            made(7, 2, Deed::Recall),
            made(8, 3, expand("a", "1", &["b"])),
            made(10, 3, expand("b", "2", &["a"])),
            made(11, 2, Deed::Delete),
        ];
        Model::new(sent, changes)
    }

    fn right() -> BTreeMap<u64, State> {
        let state = |body: &str, left, version, keys: &[(&str, &str)]| State {
            body: body.as_bytes().to_vec(),
            left,
            version,
            keys: keys
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        };
        BTreeMap::from([
            (1, state("last", Left::All, 9, &[])),
            (2, state("", Left::Deleted, 11, &[])),
            (3, state("three", Left::All, 10, &[("b", "2")])),
        ])
    }

    #[test]
    fn changes_are_made_in_the_order_of_their_positions() {
        assert_eq!(model().compare(0, &right()), (3, Wrong::default()));
        assert_eq!(model().compare_held(&right()), (3, Wrong::default()));
    }

    #[test]
    fn each_difference_is_counted_for_what_it_is() {
        let wrong = |change: fn(&mut BTreeMap<u64, State>)| {
            let mut held = right();
            change(&mut held);
            model().compare(0, &held).1
        };
        let none = Wrong::default();
        let body = wrong(|held| held.get_mut(&1).expect("held").body.clear());
        assert_eq!(body, Wrong { bodies: 1, ..none });
        let alive = wrong(|held| held.get_mut(&2).expect("held").left = Left::All);
        assert_eq!(alive, Wrong { deletions: 1, ..none });
        let recalled = wrong(|held| held.get_mut(&3).expect("held").left = Left::Recalled);
        assert_eq!(recalled, Wrong { recalls: 1, ..none });
        let keys = wrong(|held| held.get_mut(&3).expect("held").keys.clear());
        assert_eq!(
            keys,
            Wrong {
                expansions: 1,
                ..none
            }
        );
        let version = wrong(|held| held.get_mut(&1).expect("held").version = 5);
        assert_eq!(version, Wrong { versions: 1, ..none });
        let missing = wrong(|held| drop(held.remove(&3)));
        assert_eq!(missing, Wrong { missing: 1, ..none });
    }

    #[test]
    fn only_what_lies_behind_the_position_is_due() {
        let mut held = right();
        held.remove(&1);
        assert_eq!(model().compare(1, &held), (2, Wrong::default()));
        assert_eq!(model().compare_held(&held), (2, Wrong::default()));
    }
}
