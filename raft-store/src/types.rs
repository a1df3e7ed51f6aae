//! The types openraft is configured with. Commands and replies are opaque bytes here: what they
//! mean is `throng-state`'s business.

use std::fmt;

use bytes::Bytes;
use openraft::alias;
use serde::{Deserialize, Serialize};

/// A command as the log holds it (`throng_state::Command::encode`).
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CommandBytes(pub Bytes);

/// A reply as the state machine gave it (`throng_state::Reply::decode`). Empty for entries that
/// hold no command.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplyBytes(pub Bytes);

macro_rules! shown_by_length {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({} bytes)", stringify!($name), self.0.len())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} bytes", self.0.len())
            }
        }
    )*};
}

// Bodies of messages do not belong into logs, and openraft prints entries.
shown_by_length!(CommandBytes, ReplyBytes);

openraft::declare_raft_types!(
    /// What openraft is told about this cluster. Standard leader ids: at most one leader per term,
    /// and a log id is (term, index).
    pub TypeConfig:
        D = CommandBytes,
        R = ReplyBytes,
        NodeId = u64,
        Node = openraft::EmptyNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = crate::runtime::Runtime,
);

/// A log id, (term, index).
pub type LogId = alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = alias::EntryOf<TypeConfig>;
/// A membership and the entry that set it.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot is of.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot, as openraft passes it.
pub type Snapshot = alias::SnapshotOf<TypeConfig, crate::snapshot::SnapshotData>;

/// A log id from its parts.
pub fn log_id(term: u64, index: u64) -> LogId {
    use openraft::vote::RaftLeaderIdExt as _;
    // The committed form of a standard leader id holds the term alone.
    LogId {
        leader_id: alias::LeaderIdOf::<TypeConfig>::new_committed(term, 0),
        index,
    }
}
