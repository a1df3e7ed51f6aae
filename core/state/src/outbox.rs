//! The outbox: the one way a shard tells another something.
//!
//! A record is committed with its cause and numbered densely from 1 for each pair of source and
//! target: the receiver takes exactly the number behind the last one it has, which a numbering over
//! all targets would not allow it to check. The leader sends from the store, in order, until the
//! target has committed; what was acknowledged is deleted. This module refuses to know who sends.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::{ChannelInfo, Fence};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ChannelNumber, Epoch, GroupId, ShardId, UserId};

use crate::codec::{self, DecodeError};
use crate::effect::Effects;
use crate::limits::{OUTBOX_ACKED_MAX, OUTBOX_PENDING_MAX};
use crate::record::{OutboxRecord, OutgoingRecord, corrupt, read};
use crate::{ApplyError, Effect, Outgoing, Reply, View, keys};

/// The version written before a delivery that travels by itself. Before 2, the opening of a channel
/// named no floor.
const VERSION: u8 = 2;

/// What one shard tells another. Variants are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// To a message shard: begin the log of a channel.
    OpenChannel {
        /// The channel.
        info: ChannelInfo,
        /// The incarnation its log begins with.
        epoch: Epoch,
        /// For the group's first channel on the shard: the version of the group's last fence. The
        /// shard was told of none before, so it must take no grant from below. 0 otherwise.
        floor: u64,
    },
    /// To each message shard with channels of a group: a right is gone.
    Fence {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The fence.
        fence: Fence,
        /// Whom it touches, by name.
        user: UserId,
        /// When the change was proposed, Unix milliseconds.
        at_ms: u64,
    },
    /// To the message shard of a channel: members may not write to it any more, or may again.
    Archive {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The channel.
        channel: ChannelNumber,
        /// Whether it is archived.
        archived: bool,
        /// The version of the group that the change made.
        version: u64,
    },
    /// To each message shard with channels of a group: a role has lost permissions, so grants of a lower version do
    /// not count for acting.
    Rights {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The version of the group that the change made.
        version: u64,
    },
}

impl Delivery {
    /// The delivery as it travels between shards, opaque to the wire.
    pub fn encode(&self) -> Bytes {
        codec::encode(VERSION, self)
    }

    /// Reads a delivery that came over the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(VERSION, bytes)
    }
}

/// The next place in the outbox towards a target.
#[derive(Debug)]
pub(crate) struct Slot {
    target: ShardId,
    outbox: OutboxRecord,
}

/// Takes the next place in the outbox towards `target`; `None` when too many records wait there.
/// At most once per target and command: a second one would read the same place.
pub(crate) fn reserve(view: &dyn View, target: ShardId) -> Result<Option<Slot>, ApplyError> {
    let outbox = read_outbox(view, target)?;
    Ok((outbox.last - outbox.acked < OUTBOX_PENDING_MAX).then_some(Slot { target, outbox }))
}

impl Slot {
    /// Commits a delivery with the command that causes it; returns its place.
    pub(crate) fn fill(mut self, delivery: Delivery, effects: &mut Effects) -> Outgoing {
        self.outbox.last += 1;
        let number = self.outbox.last;
        effects.put(keys::outgoing(self.target, number), &OutgoingRecord { delivery });
        effects.put(keys::outbox(self.target), &self.outbox);
        let outgoing = Outgoing {
            number,
            target: self.target,
        };
        effects.push(Effect::Outbox(outgoing));
        outgoing
    }
}

/// Deletes what a target has committed, as much as fits into one command.
pub(crate) fn acknowledge(
    view: &dyn View,
    target: ShardId,
    through: u64,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let mut outbox = read_outbox(view, target)?;
    if through > outbox.last {
        // The target knows a future of this shard: one of them lost its state. Going on would drop
        // records as repeats.
        let text = format!(
            "shard {target} has {through}, but only {} were sent to it",
            outbox.last
        );
        return Ok(Reply::refused(Code::Internal, text));
    }
    let through = through.min(outbox.acked.saturating_add(OUTBOX_ACKED_MAX));
    if through <= outbox.acked {
        return Ok(Reply::OutboxAcked {
            through: outbox.acked,
        });
    }
    for number in outbox.acked + 1..=through {
        effects.delete(keys::outgoing(target, number));
    }
    outbox.acked = through;
    effects.put(keys::outbox(target), &outbox);
    Ok(Reply::OutboxAcked { through })
}

/// The outbox towards a shard; an empty one if nothing was ever sent there.
pub(crate) fn read_outbox(view: &dyn View, target: ShardId) -> Result<OutboxRecord, ApplyError> {
    let key = keys::outbox(target);
    let outbox = read(view, &key)?.unwrap_or(OutboxRecord { last: 0, acked: 0 });
    if outbox.acked > outbox.last {
        return Err(corrupt(
            &key,
            format!("{} are acknowledged of {}", outbox.acked, outbox.last),
        ));
    }
    Ok(outbox)
}
