//! Pages of a channel's log, for history, catch-up and feeds alike.

use throng_protocol::cluster::{Direction, Entry, Page};
use throng_protocol::ids::{ChannelNumber, Seq};
use throng_protocol::limits::PAGE_ENTRIES_MAX;

use crate::limits::PAGE_SCAN_ENTRIES;
use crate::record::{EntryRecord, LogRecord, Record, TailRecord, corrupt, read, read_present};
use crate::{ApplyError, View, keys};

/// Bytes of an entry beside its body and its sender's name, about.
const ENTRY_OVERHEAD_BYTES: usize = 48;

/// At most `limit` entries on one side of `anchor`, ascending. The page is closed before the entry
/// that would take it over `bytes_target`, but has one entry at least, so that a reader always
/// comes forward. `None` for a channel whose log is not here.
pub(crate) fn page(
    view: &dyn View,
    channel: ChannelNumber,
    anchor: Seq,
    direction: Direction,
    limit: u32,
    bytes_target: usize,
) -> Result<Option<Page>, ApplyError> {
    let Some(log) = read::<LogRecord>(view, &keys::log(channel))? else {
        return Ok(None);
    };
    let tail: TailRecord = read_present(view, &keys::tail(channel))?;
    // Entries `from..to`.
    let (from, to) = match direction {
        Direction::After => (anchor.next(), tail.head.next()),
        Direction::Before => (tail.oldest, anchor.min(tail.head.next())),
    };
    let budget = Budget {
        entries: limit.min(PAGE_ENTRIES_MAX) as usize,
        bytes: bytes_target,
    };
    let entries = collect(view, channel, (from, to), direction, budget)?;
    let prev = match (entries.first(), direction) {
        (Some(first), _) => Seq(first.seq.0.saturating_sub(1)),
        (None, Direction::After) => anchor.min(tail.head),
        (None, Direction::Before) => Seq(to.0.saturating_sub(1)),
    };
    Ok(Some(Page {
        epoch: log.epoch,
        prev,
        entries,
        head: tail.head,
        fenced: 0,
        fences: Vec::new(),
    }))
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
        for (key, value) in found {
            let entry = entry(&key, &value)?;
            bytes += entry.body.len() + entry.sender.as_str().len() + ENTRY_OVERHEAD_BYTES;
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

/// The entry of a record.
fn entry(key: &[u8], value: &[u8]) -> Result<Entry, ApplyError> {
    let seq = keys::entry_seq(key).ok_or_else(|| corrupt(key, "it is not the key of an entry".to_owned()))?;
    let EntryRecord {
        ts,
        kind,
        sender_number,
        sender,
        client_message_id,
        body,
    } = EntryRecord::decode(key, value)?;
    Ok(Entry {
        seq,
        ts,
        kind,
        sender_number,
        sender,
        client_message_id,
        body,
    })
}
