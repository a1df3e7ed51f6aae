//! Everything a state machine can ask of the outside, as one enum.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use throng_protocol::ids::{AppId, ChannelNumber, GroupId, Seq, ShardId};

use crate::record::Record;
use crate::reply::Reply;

/// What must be done after a command was applied. Tests assert these lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write a record.
    Put {
        /// The record's key inside the shard.
        key: Bytes,
        /// The record, its version byte first.
        value: Bytes,
    },
    /// Remove a record; it may be absent.
    Delete {
        /// The record's key inside the shard.
        key: Bytes,
    },
    /// Answer whoever proposed the command; exactly one per command. Every replica produces it,
    /// the one that proposed uses it. Encoded as a `Reply`, see the `reply` module.
    Reply(Bytes),
    /// A channel's log grew; feeds of it can be read up to `head`.
    Advanced {
        /// The channel.
        channel: ChannelNumber,
        /// Its last entry.
        head: Seq,
    },
    /// A group has a new fence; feeds of its channels must tell it.
    Fenced {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
    },
    /// An outbox record was added; the leader sends it until it is acknowledged.
    Outbox(Outgoing),
}

/// One outbox record: what this shard must tell another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// The number of the record in this shard's outbox to `target`: dense per target, from 1.
    pub number: u64,
    /// The shard it is for.
    pub target: ShardId,
}

/// The effects of one command, as its handler collects them. Handlers return their reply, so that
/// there is exactly one.
#[derive(Debug, Default)]
pub(crate) struct Effects(Vec<Effect>);

impl Effects {
    /// Writes a record.
    pub(crate) fn put(&mut self, key: Bytes, record: &impl Record) {
        self.0.push(Effect::Put {
            key,
            value: record.encode(),
        });
    }

    /// Removes a record.
    pub(crate) fn delete(&mut self, key: Bytes) {
        self.0.push(Effect::Delete { key });
    }

    /// Asks for anything else.
    pub(crate) fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// The complete list.
    pub(crate) fn finish(mut self, reply: &Reply) -> Vec<Effect> {
        self.0.push(Effect::Reply(reply.encode()));
        self.0
    }
}
