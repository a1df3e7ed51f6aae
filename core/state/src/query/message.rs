//! Reading a message shard.

use throng_protocol::cluster::{ChannelInfo, Direction, Page};
use throng_protocol::ids::{ChannelNumber, Epoch, Seq, Ts};

use crate::message::page as pages;
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

/// At most `limit` entries (and at most `PAGE_ENTRIES_MAX`) on one side of `anchor`, ascending. The
/// page is closed before the entry that would take it over `bytes_target`, but has one entry at
/// least if there is one. `None` if the channel's log is not on this shard.
pub fn page(
    view: &dyn View,
    channel: ChannelNumber,
    anchor: Seq,
    direction: Direction,
    limit: u32,
    bytes_target: usize,
) -> Result<Option<Page>, ApplyError> {
    pages::page(view, channel, anchor, direction, limit, bytes_target)
}
