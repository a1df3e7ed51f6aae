//! Which messages of a range have changed, and what a message is now.

use bytes::Bytes;
use throng_planted::planted;
use throng_protocol::cluster::{Entry, EntryKind, Hole, Page};
use throng_protocol::ids::{ChannelNumber, Position, Seq};
use throng_protocol::limits::{CHANGES_RANGE_MAX, EXPANSION_INLINE_BYTES_MAX, PAGE_BYTES_TARGET};

use super::fence;
use crate::limits::PAGE_SCAN_ENTRIES;
use crate::record::{
    ChangedRecord, EntryRecord, ExpansionRecord, LogRecord, Record, TailRecord, Touched, corrupt, read,
    read_present,
};
use crate::{ApplyError, View, keys};

/// The range whose changes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangesWanted {
    /// Its first entry.
    pub from: Position,
    /// Its last one.
    pub to: Seq,
    /// Changes up to this entry are known.
    pub since: Seq,
}

/// The messages of a range that have changed behind an entry, as they are now; a page may end early, as every
/// page. `None` for a channel whose log is not here, or is of another epoch.
pub(crate) fn changes(
    view: &dyn View,
    channel: ChannelNumber,
    wanted: &ChangesWanted,
) -> Result<Option<Page>, ApplyError> {
    let log = read::<LogRecord>(view, &keys::log(channel))?;
    let Some(log) = log.filter(|log| log.epoch == wanted.from.epoch) else {
        return Ok(None);
    };
    let tail: TailRecord = read_present(view, &keys::tail(channel))?;
    let from = wanted.from.seq.max(tail.oldest);
    let last = from.0.saturating_add(CHANGES_RANGE_MAX - 1);
    let to = wanted.to.min(tail.head).min(Seq(last)).next();
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for (seq, changed) in changed_within(view, channel, (from, to))? {
        if changed.version <= wanted.since {
            continue;
        }
        let key = keys::entry(channel, seq);
        let record: EntryRecord = read_present(view, &key)?;
        let entry = shown(view, channel, seq, record, Some(&changed))?;
        bytes += bytes_of(&entry);
        if bytes > PAGE_BYTES_TARGET && !entries.is_empty() {
            break;
        }
        entries.push(entry);
    }
    let ends = fence::ends(view, (&log.info.app, &log.info.group))?;
    Ok(Some(Page {
        epoch: log.epoch,
        prev: Seq(wanted.from.seq.0.saturating_sub(1)),
        entries,
        head: tail.head,
        fenced: ends.last,
        fences: Vec::new(),
    }))
}

/// What changes have made of the messages `from..to` that were changed, at most `CHANGES_RANGE_MAX` of them,
/// ascending.
pub(super) fn changed_within(
    view: &dyn View,
    channel: ChannelNumber,
    (from, to): (Seq, Seq),
) -> Result<Vec<(Seq, ChangedRecord)>, ApplyError> {
    if from >= to {
        return Ok(Vec::new());
    }
    let (low, high) = (keys::changed(channel, from), keys::changed(channel, to));
    let found = view.scan(&low, &high, CHANGES_RANGE_MAX as usize)?;
    let read = |(key, value): (Bytes, Bytes)| Ok((seq_of(&key)?, ChangedRecord::decode(&key, &value)?));
    found.into_iter().map(read).collect()
}

/// Bytes of an entry beside its body, its sender's name and its expansion, about.
const ENTRY_OVERHEAD_BYTES: usize = 48;

/// About how many bytes an entry takes in a page.
pub(super) fn bytes_of(entry: &Entry) -> usize {
    let pairs = entry
        .expansion
        .iter()
        .map(|(key, value)| key.len() + value.len() + 16);
    let removed = entry.removed.iter().map(|key| key.len() + 8);
    let texts = pairs.sum::<usize>() + removed.sum::<usize>();
    entry.body.len() + entry.sender.as_str().len() + texts + ENTRY_OVERHEAD_BYTES
}

pub(super) fn seq_of(key: &[u8]) -> Result<Seq, ApplyError> {
    keys::entry_seq(key).ok_or_else(|| corrupt(key, "it is not the key of an entry".to_owned()))
}

/// An entry as readers see it: a message as it is now, a change with what it left of its target. `changed` is
/// what is known of a message's changes.
pub(super) fn shown(
    view: &dyn View,
    channel: ChannelNumber,
    seq: Seq,
    record: EntryRecord,
    changed: Option<&ChangedRecord>,
) -> Result<Entry, ApplyError> {
    let mut entry = Entry {
        seq,
        ts: record.ts,
        kind: record.kind,
        sender_number: record.sender_number,
        sender: record.sender,
        client_message_id: record.client_message_id,
        body: record.body,
        target: record.target,
        version: record.before,
        hole: Hole::None,
        expansion: Vec::new(),
        removed: Vec::new(),
        keys_elsewhere: false,
    };
    if entry.kind != EntryKind::Message {
        show_target(view, channel, &mut entry)?;
    } else if let Some(changed) = changed {
        (entry.version, entry.hole) = (changed.version, changed.hole);
        if changed.keys_bytes as usize > EXPANSION_INLINE_BYTES_MAX {
            entry.keys_elsewhere = true;
        } else if changed.keys > 0 {
            entry.expansion = expansion(view, channel, seq, "", usize::MAX)?.0;
        }
    }
    Ok(entry)
}

/// Shows what a change touched of its target, as it is now.
fn show_target(view: &dyn View, channel: ChannelNumber, entry: &mut Entry) -> Result<(), ApplyError> {
    let target: ChangedRecord = read_present(view, &keys::changed(channel, entry.target))?;
    entry.hole = target.hole;
    let touched = std::mem::take(&mut entry.body);
    if target.hole != Hole::None && !planted!("recall_keeps_body") {
        return Ok(());
    }
    match entry.kind {
        EntryKind::Modify => {
            let message: EntryRecord = read_present(view, &keys::entry(channel, entry.target))?;
            entry.body = message.body;
        }
        EntryKind::Expand => {
            for name in Touched::decode(&keys::entry(channel, entry.seq), &touched)?.keys {
                let stored = keys::expansion(channel, entry.target, &name);
                match read::<ExpansionRecord>(view, &stored)? {
                    Some(record) => entry.expansion.push((name, record.value)),
                    None => entry.removed.push(name),
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Keys of a message's expansion behind one, ascending, up to about so many bytes but at least one; and
/// whether there are more.
pub(crate) fn expansion(
    view: &dyn View,
    channel: ChannelNumber,
    seq: Seq,
    after: &str,
    bytes_target: usize,
) -> Result<(Vec<(String, String)>, bool), ApplyError> {
    let (mut from, to) = keys::expansion_after(channel, seq, after);
    let (mut pairs, mut bytes) = (Vec::new(), 0_usize);
    loop {
        let found = view.scan(&from, &to, PAGE_SCAN_ENTRIES)?;
        let Some((last, _)) = found.last() else {
            return Ok((pairs, false));
        };
        from = Bytes::from([&last[..], &[0]].concat());
        for (key, value) in found {
            let name = keys::expansion_key(&key);
            let name = name.ok_or_else(|| corrupt(&key, "it is not the key of an expansion".to_owned()))?;
            let ExpansionRecord { value } = ExpansionRecord::decode(&key, &value)?;
            bytes = bytes.saturating_add(name.len() + value.len());
            if bytes > bytes_target && !pairs.is_empty() {
                return Ok((pairs, true));
            }
            pairs.push((name.to_owned(), value));
        }
    }
}
