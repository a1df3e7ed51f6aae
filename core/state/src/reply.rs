//! What the proposer of a command is answered.
//!
//! Replies leave the state machine encoded, `[version u8][postcard]`, because the store between it
//! and the proposer carries bytes. They are not stored. Refusals are values, never errors: every
//! replica comes to the same one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::ChannelInfo;
use throng_protocol::code::Code;
use throng_protocol::ids::{Epoch, Seq, Ts, UserNumber};

use crate::codec::{self, DecodeError};
use crate::effect::Outgoing;

/// The version written before every reply.
const VERSION: u8 = 1;

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To commands that only succeed.
    Done,
    /// The command changed nothing, and this is why.
    Refused {
        /// The code for whoever asked.
        code: Code,
        /// What happened, for people.
        text: String,
    },
    /// To `Bootstrap`.
    Bootstrapped {
        /// Whether this command did it; `false` when the cluster had begun before.
        first: bool,
    },
    /// To `LeaseNumbers`: the range `start..end`.
    Leased {
        /// The first number.
        start: u64,
        /// The number behind the last.
        end: u64,
    },
    /// To `RegisterUser`.
    User(UserNumber),
    /// To `RegisterUser` of an unknown user while the shard has no numbers: lease a range, add it,
    /// propose again.
    NumbersExhausted,
    /// To `CreateGroup`.
    Group {
        /// The version of the group's management state.
        version: u64,
        /// Whether this command created it.
        created: bool,
    },
    /// To `CreateChannel`.
    Channel {
        /// The channel.
        info: ChannelInfo,
        /// Whether this command created it.
        created: bool,
    },
    /// To `Join` and `Leave`.
    Membership {
        /// The version of the group's management state.
        version: u64,
        /// Whether this command changed it.
        changed: bool,
    },
    /// To `OutboxAcked`.
    OutboxAcked {
        /// Records are gone up to here; less than was acknowledged when that was too much for one
        /// command: propose again.
        through: u64,
    },
    /// To `Deliver`, when earlier records are missing; nothing was done.
    OutOfOrder {
        /// The number that must come next.
        expected: u64,
    },
    /// To `Append`.
    Appended {
        /// The channel's epoch.
        epoch: Epoch,
        /// The message's position.
        seq: Seq,
        /// Its time stamp.
        ts: Ts,
        /// Whether an earlier attempt appended it.
        repeat: bool,
    },
    /// To `Kick` and `Mute`, and to changes of roles.
    Fenced {
        /// The version of the group's management state that the change made.
        version: u64,
        /// Whether this command made it; `false` for a repeat.
        changed: bool,
        /// The outbox records that tell the message shards, by target; none for a repeat, whose
        /// records may wait still.
        sent: Vec<Outgoing>,
    },
    /// To `Append` and `Change`: the grant is older than a fence that touches its user. Nothing was done.
    GrantStale,
    /// To `JoinAll`.
    Joined {
        /// How many of the users were no members before.
        joined: u32,
    },
    /// To `Change`.
    Changed {
        /// The channel's epoch.
        epoch: Epoch,
        /// The change's position.
        seq: Seq,
        /// Its time stamp.
        ts: Ts,
        /// Whether an earlier attempt appended it.
        repeat: bool,
        /// The last change of the target before it; 0 for none.
        before: Seq,
    },
}

impl Reply {
    /// A refusal.
    pub(crate) fn refused(code: Code, text: impl Into<String>) -> Self {
        Self::Refused {
            code,
            text: text.into(),
        }
    }

    /// The reply as [`Effect::Reply`](crate::Effect::Reply) holds it.
    pub fn encode(&self) -> Bytes {
        codec::encode(VERSION, self)
    }

    /// Reads the bytes of an [`Effect::Reply`](crate::Effect::Reply).
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(VERSION, bytes)
    }
}
