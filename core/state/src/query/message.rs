//! Reading a message shard.

use throng_protocol::cluster::{ChannelInfo, GrantClaims, Page};
use throng_protocol::ids::{ChannelNumber, Epoch, Seq, Ts};

use crate::message::page::{self as pages, PageWanted};
use crate::message::rights::{self, Right};
use crate::record::{LogRecord, TailRecord, read, read_present};
use crate::{ApplyError, View, keys};

/// The ends of a channel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelHead {
    /// The incarnation of the log.
    pub epoch: Epoch,
    /// The last entry; 0 for an empty log.
    pub head: Seq,
    /// The oldest entry kept; one behind the head in an empty log.
    pub oldest: Seq,
    /// The time stamp of the last entry.
    pub last_ts: Ts,
}

/// A channel whose log is on this shard.
pub fn channel(view: &dyn View, channel: ChannelNumber) -> Result<Option<ChannelInfo>, ApplyError> {
    Ok(read::<LogRecord>(view, &keys::log(channel))?.map(|record| record.info))
}

/// The ends of a channel's log; `None` if it is not on this shard.
pub fn channel_head(view: &dyn View, channel: ChannelNumber) -> Result<Option<ChannelHead>, ApplyError> {
    let Some(log) = read::<LogRecord>(view, &keys::log(channel))? else {
        return Ok(None);
    };
    let tail: TailRecord = read_present(view, &keys::tail(channel))?;
    Ok(Some(ChannelHead {
        epoch: log.epoch,
        head: tail.head,
        oldest: tail.oldest,
        last_ts: tail.last_ts,
    }))
}

/// The part of a channel's log that `wanted` describes; `None` if the channel's log is not on this
/// shard.
pub fn page(
    view: &dyn View,
    channel: ChannelNumber,
    wanted: &PageWanted,
) -> Result<Option<Page>, ApplyError> {
    pages::page(view, channel, wanted)
}

/// What a grant is worth for reading channels of its group.
pub fn right_to_read(view: &dyn View, claims: &GrantClaims) -> Result<Right, ApplyError> {
    rights::to_read(view, claims)
}
