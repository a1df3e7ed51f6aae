//! Fences as nodes tell each other of them: marks in a group's history behind which a user's right
//! is gone. A fence takes no position in a channel's log; its place is between two entries.

use serde::{Deserialize, Serialize};

use crate::ids::{Seq, UserId, UserNumber};

/// How a fence changed what its user may do. Numbers are stored and on this wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FenceKind {
    /// The membership was ended by another: no sends, no reads.
    Kick,
    /// The user has left: no sends, no reads.
    Left,
    /// The user may not send until a moment; reading goes on.
    Mute,
    /// The user may do less than before; reading goes on.
    Rights,
}

impl FenceKind {
    /// The name in exports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kick => "kick",
            Self::Left => "left",
            Self::Mute => "mute",
            Self::Rights => "rights",
        }
    }

    /// Whether the user reads nothing behind the fence.
    pub fn ends_reading(self) -> bool {
        matches!(self, Self::Kick | Self::Left)
    }
}

/// A fence as followers of a channel are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The version of the group's management state that made it; ascending per group.
    pub version: u64,
    /// Whom it touches.
    pub number: UserNumber,
    /// What it does.
    pub kind: FenceKind,
}

/// A fence and its place in a channel, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceAt {
    /// Its place: behind this entry and before the next.
    pub after: Seq,
    /// The version of the group's management state that made it.
    pub version: u64,
    /// Whom it touches.
    pub number: UserNumber,
    /// Whom it touches, by name.
    pub user: UserId,
    /// What it does.
    pub kind: FenceKind,
    /// When the change was proposed, Unix milliseconds.
    pub at_ms: u64,
}

/// The fences of a group as a feed of one of its channels begins with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceTable {
    /// Grants of a lower version say nothing any more: fences up to here were folded together.
    pub floor: u64,
    /// The version of the last fence this table takes account of; the next ones come as events.
    pub last: u64,
    /// Each user who was kicked or has left, with the last such fence; ascending by version.
    pub fenced: Vec<Fenced>,
}

/// The last fence that ended a user's reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fenced {
    /// The user.
    pub number: UserNumber,
    /// The version of the fence.
    pub version: u64,
    /// Its place in the channel: behind this entry and before the next.
    pub after: Seq,
}
