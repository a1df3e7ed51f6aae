//! Changes to messages: what they are, who may make them, and what they leave behind.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{EntryKind, Grant};
use crate::code::Code;
use crate::ids::{AppId, GroupId};
use crate::limits::{
    BODY_BYTES_MAX, EXPANSION_KEY_BYTES_MAX, EXPANSION_KEYS_PER_CHANGE_MAX, EXPANSION_VALUE_BYTES_MAX,
};

/// Why an entry has no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Hole {
    /// It has.
    #[default]
    None,
    /// The message was recalled.
    Recalled,
    /// The message was deleted for all.
    Deleted,
}

impl Hole {
    /// The number on the client wire.
    pub fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Recalled => 1,
            Self::Deleted => 2,
        }
    }

    /// The name in exports and the Server API.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Recalled => "recalled",
            Self::Deleted => "deleted",
        }
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It has another body.
    Modify {
        /// The body, opaque.
        body: Bytes,
    },
    /// It is taken back: a hole stays in its place.
    Recall,
    /// It is deleted for all.
    Delete,
    /// Its expansion has other keys.
    Expand {
        /// Keys and the values they get; each key once, here and in `remove`.
        set: Vec<(String, String)>,
        /// Keys that go.
        remove: Vec<String>,
    },
}

impl Change {
    /// The kind of the entry it becomes.
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Modify { .. } => EntryKind::Modify,
            Self::Recall => EntryKind::Recall,
            Self::Delete => EntryKind::Delete,
            Self::Expand { .. } => EntryKind::Expand,
        }
    }
}

/// Why a change is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The body is over the limit.
    #[error("{0} bytes are over the limit of {BODY_BYTES_MAX}")]
    BodyTooLarge(usize),
    /// Too few or too many keys.
    #[error("{0} keys are not in 1 to {EXPANSION_KEYS_PER_CHANGE_MAX}")]
    KeyCount(usize),
    /// A key is outside its limits.
    #[error("a key has 1 to {EXPANSION_KEY_BYTES_MAX} bytes and no control character")]
    Key,
    /// A value is outside its limits.
    #[error("a value of {0} bytes is over the limit of {EXPANSION_VALUE_BYTES_MAX}")]
    Value(usize),
    /// A key would get two values, or be set and removed.
    #[error("a key is named twice")]
    KeyTwice,
}

impl ChangeError {
    /// The code for whoever asks.
    pub fn code(&self) -> Code {
        match self {
            Self::BodyTooLarge(_) => Code::MessageTooLarge,
            Self::KeyCount(_) | Self::Key | Self::Value(_) | Self::KeyTwice => Code::InvalidField,
        }
    }
}

/// Whether a key of an expansion is within its limits. Keys are compared byte by byte.
pub fn check_expansion_key(key: &str) -> Result<(), ChangeError> {
    let fits = (1..=EXPANSION_KEY_BYTES_MAX).contains(&key.len());
    match fits && !key.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(ChangeError::Key),
    }
}

impl Change {
    /// Whether it is within the limits that need no message to be judged.
    pub fn check(&self) -> Result<(), ChangeError> {
        match self {
            Self::Modify { body } if body.len() > BODY_BYTES_MAX => {
                Err(ChangeError::BodyTooLarge(body.len()))
            }
            Self::Modify { .. } | Self::Recall | Self::Delete => Ok(()),
            Self::Expand { set, remove } => {
                let count = set.len() + remove.len();
                if count == 0 || count > EXPANSION_KEYS_PER_CHANGE_MAX {
                    return Err(ChangeError::KeyCount(count));
                }
                let mut keys: Vec<&String> = set.iter().map(|(key, _)| key).chain(remove).collect();
                keys.iter().try_for_each(|key| check_expansion_key(key))?;
                let longest = set.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
                if longest > EXPANSION_VALUE_BYTES_MAX {
                    return Err(ChangeError::Value(longest));
                }
                keys.sort_unstable();
                match keys.windows(2).any(|pair| pair[0] == pair[1]) {
                    true => Err(ChangeError::KeyTwice),
                    false => Ok(()),
                }
            }
        }
    }
}

/// By which right something is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// A member's.
    Member(Grant),
    /// The app's own; not from edges.
    App {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
    },
}

/// What a member may do: a set, as bits. Numbers are stored and on this wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Permissions(pub u32);

impl Permissions {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them: a group's creator.
    pub const ALL: Self = Self(u32::MAX);
    /// Modify messages of others.
    pub const MODIFY_OTHERS: Self = Self(1);
    /// Recall messages of others.
    pub const RECALL_OTHERS: Self = Self(1 << 1);
    /// Delete messages for all.
    pub const DELETE: Self = Self(1 << 2);
    /// Send and modify own messages.
    pub const SEND: Self = Self(1 << 3);
    /// Set and remove keys of expansions.
    pub const EXPAND: Self = Self(1 << 4);
    /// Create channels.
    pub const CREATE_CHANNELS: Self = Self(1 << 5);
    /// Kick members who may not.
    pub const KICK: Self = Self(1 << 6);
    /// Mute members who may not.
    pub const MUTE: Self = Self(1 << 7);
    /// What members may do unless a group says otherwise.
    pub const EVERYONE: Self = Self(Self::SEND.0 | Self::EXPAND.0 | Self::CREATE_CHANNELS.0);

    /// Their names in the Server API.
    pub const NAMES: [(&'static str, Self); 8] = [
        ("modify_others", Self::MODIFY_OTHERS),
        ("recall_others", Self::RECALL_OTHERS),
        ("delete_messages", Self::DELETE),
        ("send", Self::SEND),
        ("expand", Self::EXPAND),
        ("create_channels", Self::CREATE_CHANNELS),
        ("kick", Self::KICK),
        ("mute", Self::MUTE),
    ];

    /// These and others.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether all of these are among them.
    pub fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}
