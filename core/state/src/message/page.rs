//! Pages of a channel's log, for history, catch-up and feeds alike.

use std::collections::BTreeMap;

use throng_planted::planted;
use throng_protocol::cluster::{Anchor, Direction, Entry, Page};
use throng_protocol::ids::{ChannelNumber, Seq, Ts};
use throng_protocol::limits::PAGE_ENTRIES_MAX;

use super::changes::{bytes_of, changed_within, seq_of, shown};
use super::place::last_where;
use super::{fence, within};
use crate::limits::PAGE_SCAN_ENTRIES;
use crate::record::{ChangedRecord, EntryRecord, LogRecord, Record, TailRecord, read, read_present};
use crate::{ApplyError, View, keys};

/// Which part of a channel's log a page is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageWanted {
    /// What it is on one side of.
    pub anchor: Anchor,
    /// Which side.
    pub direction: Direction,
    /// Most entries; never more than `PAGE_ENTRIES_MAX`.
    pub limit: u32,
    /// The page is closed before the entry that would take it over so many bytes, but has one entry
    /// at least, so that a reader always comes forward.
    pub bytes_target: usize,
    /// Whether the fences within it are wanted.
    pub fences: bool,
}

/// A page, its entries ascending. `None` for a channel whose log is not here.
pub(crate) fn page(
    view: &dyn View,
    channel: ChannelNumber,
    wanted: &PageWanted,
) -> Result<Option<Page>, ApplyError> {
    let Some(log) = read::<LogRecord>(view, &keys::log(channel))? else {
        return Ok(None);
    };
    let tail: TailRecord = read_present(view, &keys::tail(channel))?;
    let direction = wanted.direction;
    let anchor = position(view, channel, &tail, wanted)?;
    // Entries `from..to`.
    let (from, to) = match direction {
        Direction::After if planted!("page_with_anchor") => (anchor, tail.head.next()),
        Direction::After => (anchor.next(), tail.head.next()),
        Direction::Before => (tail.oldest, anchor.min(tail.head.next())),
    };
    let budget = Budget {
        entries: wanted.limit.min(PAGE_ENTRIES_MAX) as usize,
        bytes: wanted.bytes_target,
    };
    let entries = collect(view, channel, (from, to), direction, budget)?;
    let prev = match (entries.first(), direction) {
        (Some(first), _) => Seq(first.seq.0.saturating_sub(1)),
        (None, Direction::After) => anchor.min(tail.head),
        (None, Direction::Before) => Seq(to.0.saturating_sub(1)),
    };
    let ends = fence::ends(view, (&log.info.app, &log.info.group))?;
    let mut page = Page {
        epoch: log.epoch,
        prev,
        entries,
        head: tail.head,
        fenced: ends.last,
        fences: Vec::new(),
    };
    if wanted.fences {
        page.fences = within::fences(view, &log.info, &ends, &page, tail.oldest)?;
    }
    Ok(Some(page))
}

/// The anchor as a position: behind a time stamp lie the entries behind the last one that is not
/// later, before it those before the first one that is not earlier.
fn position(
    view: &dyn View,
    channel: ChannelNumber,
    tail: &TailRecord,
    wanted: &PageWanted,
) -> Result<Seq, ApplyError> {
    let ts = match wanted.anchor {
        Anchor::Seq(seq) => return Ok(seq),
        Anchor::Ts(ts) => ts,
    };
    let ends = (Seq(tail.oldest.0.saturating_sub(1)), tail.head);
    match wanted.direction {
        Direction::After => last_where(view, channel, ends, |entry| entry.ts <= ts),
        Direction::Before => {
            let ts = if planted!("ts_page_with_anchor") {
                Ts(ts.0 + 1)
            } else {
                ts
            };
            Ok(last_where(view, channel, ends, |entry| entry.ts < ts)?.next())
        }
    }
}

/// What a page may still take.
struct Budget {
    entries: usize,
    bytes: usize,
}

/// Reads entries `from..to` from one end until the budget is used up; ascending.
fn collect(
    view: &dyn View,
    channel: ChannelNumber,
    (mut from, mut to): (Seq, Seq),
    direction: Direction,
    budget: Budget,
) -> Result<Vec<Entry>, ApplyError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    'full: while from < to && entries.len() < budget.entries {
        let chunk = PAGE_SCAN_ENTRIES.min(budget.entries - entries.len());
        let (low, high) = (keys::entry(channel, from), keys::entry(channel, to));
        let found = match direction {
            Direction::After => view.scan(&low, &high, chunk)?,
            Direction::Before => view.scan_back(&low, &high, chunk)?,
        };
        if found.is_empty() {
            break;
        }
        let seqs: Result<Vec<Seq>, ApplyError> = found.iter().map(|(key, _)| seq_of(key)).collect();
        let seqs = seqs?;
        let first = seqs.iter().min().copied().unwrap_or_default();
        let last = seqs.iter().max().copied().unwrap_or_default();
        let changed: BTreeMap<Seq, ChangedRecord> = changed_within(view, channel, (first, last.next()))?
            .into_iter()
            .collect();
        for (seq, (key, value)) in seqs.into_iter().zip(found) {
            let record = EntryRecord::decode(&key, &value)?;
            let entry = shown(view, channel, seq, record, changed.get(&seq))?;
            bytes += bytes_of(&entry);
            if bytes > budget.bytes && !entries.is_empty() {
                break 'full;
            }
            match direction {
                Direction::After => from = entry.seq.next(),
                Direction::Before => to = entry.seq,
            }
            entries.push(entry);
        }
    }
    if direction == Direction::Before {
        entries.reverse();
    }
    Ok(entries)
}
