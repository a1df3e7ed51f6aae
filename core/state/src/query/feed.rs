//! What a feed of a channel tells next: entries and fences, each fence at its place.

use std::collections::BTreeMap;

use throng_protocol::cluster::{Anchor, Direction, Fence, FenceTable, Fenced, Page};
use throng_protocol::ids::{ChannelNumber, Epoch, Seq};
use throng_protocol::limits::{PAGE_BYTES_TARGET, PAGE_ENTRIES_MAX};

use crate::limits::FENCES_PER_GROUP_MAX;
use crate::message::fence::ends;
use crate::message::page::{PageWanted, page};
use crate::message::place::{last_where, places};
use crate::message::within::{before_index, kept};
use crate::record::{EntryStamp, LogRecord, TailRecord, read, read_present};
use crate::{ApplyError, View, keys};

/// What a feed has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedPosition {
    /// The incarnation of the log.
    pub epoch: Epoch,
    /// The last entry.
    pub sent: Seq,
    /// The version of the last fence.
    pub fenced: u64,
}

/// What a feed tells next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedStep {
    /// Nothing now.
    Nothing,
    /// The page's entries.
    Entries {
        /// The page; its entries follow the position.
        page: Page,
        /// Whether more is there already.
        more: bool,
    },
    /// A fence whose place has come.
    Fence {
        /// Its place, at the position or before it.
        after: Seq,
        /// The fence.
        fence: Fence,
    },
    /// Fences behind the position were folded before they were told: the follower needs a new
    /// table.
    Folded,
    /// The log was rebuilt, or entries behind the position are gone: the follower starts anew.
    Reset {
        /// The incarnation of the log.
        epoch: Epoch,
        /// Its last entry.
        head: Seq,
    },
}

/// What a feed tells next; `None` if the channel's log is not on this shard.
pub fn feed_step(
    view: &dyn View,
    channel: ChannelNumber,
    at: &FeedPosition,
) -> Result<Option<FeedStep>, ApplyError> {
    let Some(log) = read::<LogRecord>(view, &keys::log(channel))? else {
        return Ok(None);
    };
    let tail: TailRecord = read_present(view, &keys::tail(channel))?;
    if log.epoch != at.epoch || at.sent > tail.head || at.sent.next() < tail.oldest {
        return Ok(Some(FeedStep::Reset {
            epoch: log.epoch,
            head: tail.head,
        }));
    }
    let ends = ends(view, (&log.info.app, &log.info.group))?;
    if at.fenced < ends.floor {
        return Ok(Some(FeedStep::Folded));
    }
    let mut until = None;
    if at.fenced < ends.last
        && let Some((version, fence)) = kept(view, &log.info, (at.fenced, ends.last), 1)?.pop()
    {
        let before = |entry: &EntryStamp| entry.index < fence.index;
        let after = last_where(view, channel, (at.sent, tail.head), before)?;
        if after == at.sent {
            let (number, kind) = (fence.number, fence.kind);
            let fence = Fence {
                version,
                number,
                kind,
            };
            return Ok(Some(FeedStep::Fence { after, fence }));
        }
        until = Some(after);
    }
    entries(view, channel, at.sent, until)
}

/// Entries behind a position, none behind `until`.
fn entries(
    view: &dyn View,
    channel: ChannelNumber,
    sent: Seq,
    until: Option<Seq>,
) -> Result<Option<FeedStep>, ApplyError> {
    let wanted = PageWanted {
        anchor: Anchor::Seq(sent),
        direction: Direction::After,
        limit: PAGE_ENTRIES_MAX,
        bytes_target: PAGE_BYTES_TARGET,
        fences: false,
    };
    let Some(mut page) = page(view, channel, &wanted)? else {
        return Ok(None);
    };
    if let Some(until) = until {
        page.entries.retain(|entry| entry.seq <= until);
    }
    let Some(last) = page.entries.last().map(|entry| entry.seq) else {
        return Ok(Some(FeedStep::Nothing));
    };
    let more = until.is_some() || last < page.head;
    Ok(Some(FeedStep::Entries { page, more }))
}

/// The fences of a channel's group as a feed that begins behind `from` has them; `None` if the
/// channel's log is not on this shard.
pub fn fence_table(
    view: &dyn View,
    channel: ChannelNumber,
    from: Seq,
) -> Result<Option<FenceTable>, ApplyError> {
    let Some(log) = read::<LogRecord>(view, &keys::log(channel))? else {
        return Ok(None);
    };
    let tail: TailRecord = read_present(view, &keys::tail(channel))?;
    let ends = ends(view, (&log.info.app, &log.info.group))?;
    let last = if from >= tail.head {
        ends.last
    } else {
        let next = from.next().max(tail.oldest);
        let next = EntryStamp::read(view, &keys::entry(channel, next))?;
        before_index(view, &log.info, &ends, next.index)?
    };
    let mut latest = BTreeMap::new();
    for (version, fence) in kept(view, &log.info, (ends.floor, last), FENCES_PER_GROUP_MAX as usize)? {
        if fence.kind.ends_reading() {
            latest.insert(fence.number, (version, fence.index));
        }
    }
    let mut latest: Vec<_> = latest
        .into_iter()
        .map(|(number, (version, index))| (version, number, index))
        .collect();
    latest.sort_unstable();
    let indexes: Vec<u64> = latest.iter().map(|(_, _, index)| *index).collect();
    let behind = (Seq(tail.oldest.0.saturating_sub(1)), from.min(tail.head));
    let places = places(view, channel, behind, &indexes)?;
    let fenced = latest.into_iter().zip(places);
    let fenced = fenced.map(|((version, number, _), after)| Fenced {
        number,
        version,
        after,
    });
    Ok(Some(FenceTable {
        floor: ends.floor,
        last,
        fenced: fenced.collect(),
    }))
}
