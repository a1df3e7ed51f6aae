//! Changes to messages in a run: what is asked for, what it makes of a message, and how that is seen.
//!
//! Bodies and values are functions of keys, so that a run's history, which holds hashes, says what every
//! message must be. A body that was modified is the first one with a mark and the change's key behind it:
//! whose message it is can still be told from it.

use std::collections::BTreeMap;

use throng_protocol::cluster::{Change, EntryKind, Hole};
use throng_protocol::ids::{ClientMessageId, Position, Seq};
use throng_protocol::message::Entry;

use crate::history::{BodyHash, Seen, User};

/// Stands before the key of the change in a modified body; no first body ends so.
const MARK: u8 = 0xfe;

/// What is done to a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Deed {
    /// It gets another body.
    Modify,
    /// It is taken back.
    Recall,
    /// It is deleted for all.
    Delete,
    /// A key of its expansion is set.
    Set(u8),
    /// A key of its expansion is removed.
    Unset(u8),
}

/// A change that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Changing {
    /// The message.
    pub target: Position,
    /// Who sent it.
    pub owner: User,
    /// The key it was sent under.
    pub key: ClientMessageId,
    /// Its first body.
    pub hash: BodyHash,
    /// What is done to it.
    pub deed: Deed,
}

/// How an entry is shown beside what it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Shown {
    /// The number of its kind.
    pub kind: u8,
    /// The message it changes.
    pub target: Seq,
    /// Of a message the last change in it, of a change the one before.
    pub version: Seq,
    /// The number of its hole.
    pub hole: u8,
    /// Its body and its expansion.
    pub content: BodyHash,
}

impl Deed {
    fn kind(self) -> EntryKind {
        match self {
            Self::Modify => EntryKind::Modify,
            Self::Recall => EntryKind::Recall,
            Self::Delete => EntryKind::Delete,
            Self::Set(_) | Self::Unset(_) => EntryKind::Expand,
        }
    }

    /// Whether nothing is left of the message.
    #[must_use]
    pub fn ends(self) -> bool {
        matches!(self, Self::Recall | Self::Delete)
    }
}

impl Changing {
    /// What the entry of the change is told from: its kind and its target, which it keeps whatever becomes of
    /// the message.
    #[must_use]
    pub fn identity(&self) -> BodyHash {
        identity(self.deed.kind().number(), self.target.seq)
    }

    /// The change as the SDK is asked for it, under its key.
    #[must_use]
    pub fn wire(&self, key: ClientMessageId) -> Option<Change> {
        let name = |key: u8| format!("k{key}");
        Some(match self.deed {
            Deed::Modify => Change::Modify {
                body: modified(&crate::workload::body_of(self.key, self.hash)?, key).into(),
            },
            Deed::Recall => Change::Recall,
            Deed::Delete => Change::Delete,
            Deed::Set(place) => Change::Expand {
                set: vec![(name(place), key.to_string())],
                remove: Vec::new(),
            },
            Deed::Unset(place) => Change::Expand {
                set: Vec::new(),
                remove: vec![name(place)],
            },
        })
    }
}

fn identity(kind: u8, target: Seq) -> BodyHash {
    BodyHash::of(&[&[MARK, kind][..], &target.0.to_be_bytes()].concat())
}

fn modified(first: &[u8], key: ClientMessageId) -> Vec<u8> {
    [first, &[MARK], &key.0.to_be_bytes()].concat()
}

/// The first body of a message with this one.
fn first(body: &[u8]) -> &[u8] {
    match body.len().checked_sub(9).map(|at| body.split_at(at)) {
        Some((first, [MARK, ..])) => first,
        _ => body,
    }
}

/// What stands for the first body of a message of which nothing is left; [`crate::run`] finds it by its key.
pub const GONE: BodyHash = BodyHash(0);

/// The hash that tells an entry from others.
#[must_use]
pub fn told_from(kind: u8, target: Seq, hole: u8, body: &[u8]) -> BodyHash {
    match kind {
        1 if hole != 0 => GONE,
        1 => BodyHash::of(first(body)),
        kind => identity(kind, target),
    }
}

fn content(body: &[u8], keys: &BTreeMap<String, String>) -> BodyHash {
    let mut bytes = body.to_vec();
    for (key, value) in keys {
        bytes.extend_from_slice(format!("\0{key}={value}").as_bytes());
    }
    BodyHash::of(&bytes)
}

/// An entry that somebody was shown; `None` if its sender is not of this world.
#[must_use]
pub fn seen(entry: &Entry) -> Option<(Seen, Shown)> {
    let Entry {
        kind,
        target,
        hole,
        body,
        ..
    } = entry;
    let seen = Seen {
        seq: entry.seq,
        ts: entry.ts,
        sender: User::named(&entry.sender)?,
        key: entry.client_message_id,
        hash: told_from(*kind, *target, *hole, body),
    };
    let keys = entry.expansion.iter().cloned().collect();
    let shown = Shown {
        kind: *kind,
        target: *target,
        version: entry.version,
        hole: *hole,
        content: content(body, &keys),
    };
    Some((seen, shown))
}

/// A message from its first body on.
#[derive(Debug, Clone)]
pub struct Message {
    first: Vec<u8>,
    body: Vec<u8>,
    keys: BTreeMap<String, String>,
    hole: Hole,
    version: Seq,
}

impl Message {
    /// As it was sent.
    #[must_use]
    pub fn new(first: Vec<u8>) -> Self {
        Self {
            body: first.clone(),
            first,
            keys: BTreeMap::new(),
            hole: Hole::None,
            version: Seq(0),
        }
    }

    /// Makes a change that was stored at `seq` under `key`.
    pub fn make(&mut self, seq: Seq, key: ClientMessageId, deed: Deed) {
        self.version = seq;
        match deed {
            Deed::Modify => self.body = modified(&self.first, key),
            Deed::Recall => self.empty(Hole::Recalled),
            Deed::Delete => self.empty(Hole::Deleted),
            Deed::Set(place) => drop(self.keys.insert(format!("k{place}"), key.to_string())),
            Deed::Unset(place) => drop(self.keys.remove(&format!("k{place}"))),
        }
    }

    fn empty(&mut self, hole: Hole) {
        self.hole = hole;
        self.body.clear();
        self.keys.clear();
    }

    /// How it must be shown.
    #[must_use]
    pub fn shown(&self) -> Shown {
        Shown {
            kind: EntryKind::Message.number(),
            target: Seq(0),
            version: self.version,
            hole: self.hole.number(),
            content: content(&self.body, &self.keys),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::body;

    #[test]
    fn a_message_is_told_from_its_first_body_whatever_became_of_it() {
        let key = ClientMessageId(0x0102_0304_0506_0708);
        let plain = body(key, 0);
        let hash = BodyHash::of(&plain);
        for change in [ClientMessageId(7), ClientMessageId(u64::MAX)] {
            let changed = modified(&plain, change);
            assert_eq!(told_from(1, Seq(0), 0, &changed), hash);
        }
        assert_eq!(told_from(1, Seq(0), 0, &plain), hash);
        assert_eq!(told_from(1, Seq(0), 1, b""), GONE);
        assert_ne!(told_from(2, Seq(4), 0, &plain), told_from(2, Seq(5), 0, &plain));
        assert_ne!(told_from(2, Seq(4), 0, b""), told_from(3, Seq(4), 0, b""));
    }

    #[test]
    fn what_is_shown_follows_the_changes_and_nothing_is_shown_of_what_is_gone() {
        let mut message = Message::new(b"first".to_vec());
        let sent = message.shown();
        message.make(Seq(5), ClientMessageId(1), Deed::Set(2));
        let with_key = message.shown();
        assert_ne!(sent.content, with_key.content);
        message.make(Seq(6), ClientMessageId(2), Deed::Unset(2));
        assert_eq!(
            (message.shown().content, message.shown().version),
            (sent.content, Seq(6))
        );
        message.make(Seq(7), ClientMessageId(3), Deed::Modify);
        assert_ne!(message.shown().content, sent.content);
        message.make(Seq(8), ClientMessageId(4), Deed::Recall);
        assert_eq!(
            (message.shown().content, message.shown().hole),
            (BodyHash::of(b""), 1)
        );
    }
}
