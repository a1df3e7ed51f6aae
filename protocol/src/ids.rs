//! Identifiers, one type per idea.
//!
//! Names that apps choose ([`AppId`], [`UserId`], [`GroupId`], [`ChannelId`], [`RoleId`], [`DeviceId`]) are
//! case-sensitive UTF-8 of 1 to [`NAME_BYTES_MAX`] bytes and are always scoped by their app.
//! Numbers are issued by the cluster. No function takes two bare integers that could be swapped.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty.
    #[error("a name has at least 1 byte")]
    Empty,
    /// The name is longer than [`NAME_BYTES_MAX`].
    #[error("a name has at most {NAME_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// The name holds a control character.
    #[error("a name holds no control characters")]
    Control,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a name as an app gave it; 1 to [`NAME_BYTES_MAX`] bytes, no control characters.
            pub fn new(name: &str) -> Result<Self, NameError> {
                match name.len() {
                    0 => Err(NameError::Empty),
                    len if len > NAME_BYTES_MAX => Err(NameError::TooLong(len)),
                    _ if name.chars().any(char::is_control) => Err(NameError::Control),
                    _ => Ok(Self(Arc::from(name))),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }
    };
}

name!(
    /// An app: the tenant every other id is scoped by.
    AppId
);
name!(
    /// A user's account inside an app.
    UserId
);
name!(
    /// A chat group inside an app. (A Raft group is a *shard*, see [`ShardId`].)
    GroupId
);
name!(
    /// A channel inside a group.
    ChannelId
);
name!(
    /// A role inside a group.
    RoleId
);
name!(
    /// One installation of a client; a user has one or more.
    DeviceId
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A user's number, unique in its app, issued once. Logs, sets and member lists hold it.
    UserNumber(u64)
);
number!(
    /// A channel's number, unique in its app, issued when the channel is created.
    ChannelNumber(u64)
);
number!(
    /// Position of an entry in a channel's log: dense, from 1. 0 stands before the first entry.
    Seq(u64)
);
number!(
    /// Incarnation of a channel's log; changes only when a log was rebuilt without its acked tail.
    Epoch(u32)
);
number!(
    /// The key a sender gives a message; a retry carries the same.
    ClientMessageId(u64)
);
number!(
    /// One Raft-replicated unit.
    ShardId(u32)
);
number!(
    /// A core process.
    NodeId(u64)
);
number!(
    /// An edge process.
    EdgeId(u64)
);
number!(
    /// A session at an edge; survives nothing, positions do.
    SessionId(u64)
);

impl Seq {
    /// The position after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A channel's time stamp: 48 bits of Unix milliseconds and 16 bits of counter, strictly increasing
/// inside a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Ts(pub u64);

impl Ts {
    /// The first stamp of a millisecond.
    pub fn from_millis(unix_ms: u64) -> Self {
        Self(unix_ms.min((1 << 48) - 1) << 16)
    }

    /// Unix milliseconds of this stamp.
    pub fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The smallest stamp behind both this one and `proposed`: what `apply` gives an entry.
    pub fn advance(self, proposed: Self) -> Self {
        Self(proposed.0.max(self.0.saturating_add(1)))
    }
}

/// The unique value of a message: channel, epoch and position. Text form `channel-epoch-seq`, in
/// lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    /// The channel whose log holds the message.
    pub channel: ChannelNumber,
    /// The incarnation of that log.
    pub epoch: Epoch,
    /// The position in that log.
    pub seq: Seq,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.channel.0, self.epoch.0, self.seq.0)
    }
}

/// A position in a channel's log that a client holds: everything up to and including `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// The incarnation the position belongs to; [`Epoch`] 0 means "none yet".
    pub epoch: Epoch,
    /// The last entry held.
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_64_bytes_and_no_control_characters() {
        assert_eq!(GroupId::new(""), Err(NameError::Empty));
        assert_eq!(GroupId::new(&"x".repeat(65)), Err(NameError::TooLong(65)));
        assert_eq!(GroupId::new("a\nb"), Err(NameError::Control));
        assert_eq!(
            GroupId::new(&"x".repeat(64)).map(|name| name.as_str().len()),
            Ok(64)
        );
        assert_eq!(
            UserId::new("Zoë").map(|name| name.to_string()),
            Ok("Zoë".to_owned())
        );
    }

    #[test]
    fn a_time_stamp_never_stands_still_or_goes_back() {
        let last = Ts::from_millis(5_000);
        assert_eq!(last.advance(Ts::from_millis(4_000)), Ts(last.0 + 1));
        assert_eq!(last.advance(Ts::from_millis(6_000)), Ts::from_millis(6_000));
        assert_eq!(Ts::from_millis(6_000).millis(), 6_000);
    }

    #[test]
    fn a_message_id_prints_its_parts_in_hexadecimal() {
        let id = MessageId {
            channel: ChannelNumber(0x1f),
            epoch: Epoch(1),
            seq: Seq(255),
        };
        assert_eq!(id.to_string(), "1f-1-ff");
    }
}
