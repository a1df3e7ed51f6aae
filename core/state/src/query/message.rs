//! Reading a message shard.

use throng_protocol::cluster::{ChannelInfo, EntryKind, GrantClaims, Page};
use throng_protocol::ids::{ChannelNumber, Epoch, Position, Seq, Ts};
use throng_protocol::limits::PAGE_BYTES_TARGET;

use crate::message::changes::{self, ChangesWanted};
use crate::message::page::{self as pages, PageWanted};
use crate::message::rights::{self, Right};
use crate::record::{ChangedRecord, EntryRecord, LogRecord, TailRecord, read, read_present};
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

/// The messages of a range that have changed, as they are now; `None` if the channel's log is not on this
/// shard or of another epoch.
pub fn changes(
    view: &dyn View,
    channel: ChannelNumber,
    wanted: &ChangesWanted,
) -> Result<Option<Page>, ApplyError> {
    changes::changes(view, channel, wanted)
}

/// Keys of a message's expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expansion {
    /// The incarnation of the log.
    pub epoch: Epoch,
    /// The last change of the message; 0 for none.
    pub version: Seq,
    /// Keys and their values, ascending.
    pub expansion: Vec<(String, String)>,
    /// Whether there are more behind the last.
    pub more: bool,
}

/// The keys of a message's expansion behind one, or behind the empty one; `None` if there is no such message
/// on this shard.
pub fn expansion(
    view: &dyn View,
    channel: ChannelNumber,
    target: Position,
    after: &str,
) -> Result<Option<Expansion>, ApplyError> {
    let log = read::<LogRecord>(view, &keys::log(channel))?;
    let Some(log) = log.filter(|log| log.epoch == target.epoch) else {
        return Ok(None);
    };
    let entry = read::<EntryRecord>(view, &keys::entry(channel, target.seq))?;
    if entry.is_none_or(|entry| entry.kind != EntryKind::Message) {
        return Ok(None);
    }
    let changed: ChangedRecord = read(view, &keys::changed(channel, target.seq))?.unwrap_or_default();
    let (expansion, more) = changes::expansion(view, channel, target.seq, after, PAGE_BYTES_TARGET)?;
    Ok(Some(Expansion {
        epoch: log.epoch,
        version: changed.version,
        expansion,
        more,
    }))
}

/// What a grant is worth for reading channels of its group.
pub fn right_to_read(view: &dyn View, claims: &GrantClaims) -> Result<Right, ApplyError> {
    rights::to_read(view, claims)
}
