//! Fences among the entries of a channel: which lie within a page, and which before a position.

use throng_protocol::cluster::{ChannelInfo, FenceAt, Page};
use throng_protocol::ids::Seq;

use super::place::places;
use crate::limits::FENCES_PER_GROUP_MAX;
use crate::record::{EntryStamp, FenceRecord, FencesRecord, Record, corrupt};
use crate::{ApplyError, View, keys};

/// A fence with its version.
pub(crate) type Versioned = (u64, FenceRecord);

/// The fences of versions `after + 1 ..= through`, at most `limit`, ascending.
pub(crate) fn kept(
    view: &dyn View,
    of: &ChannelInfo,
    (after, through): (u64, u64),
    limit: usize,
) -> Result<Vec<Versioned>, ApplyError> {
    let key = |version| keys::fence(&of.app, &of.group, version);
    let found = view.scan(
        &key(after.saturating_add(1)),
        &key(through.saturating_add(1)),
        limit,
    )?;
    found.iter().map(|(key, value)| versioned(key, value)).collect()
}

fn versioned(key: &[u8], value: &[u8]) -> Result<Versioned, ApplyError> {
    let version = keys::fence_version(key).ok_or_else(|| corrupt(key, "it names no version".to_owned()))?;
    Ok((version, FenceRecord::decode(key, value)?))
}

/// The version of the last fence that was applied before a log index; the floor if none was.
/// Versions and indexes grow together, so it is found by halving the range of versions.
pub(crate) fn before_index(
    view: &dyn View,
    of: &ChannelInfo,
    ends: &FencesRecord,
    index: u64,
) -> Result<u64, ApplyError> {
    let key = |version| keys::fence(&of.app, &of.group, version);
    let first = key(ends.floor.saturating_add(1));
    let (mut low, mut high) = (ends.floor, ends.last);
    let mut last = ends.floor;
    while low < high {
        let middle = high - (high - low) / 2;
        let found = view.scan_back(&first, &key(middle.saturating_add(1)), 1)?;
        match found
            .first()
            .map(|(key, value)| versioned(key, value))
            .transpose()?
        {
            Some((version, fence)) if fence.index >= index => high = version.saturating_sub(1),
            Some((version, _)) => (low, last) = (middle, version),
            None => low = middle,
        }
    }
    Ok(last)
}

/// The fences whose place lies in a page: at its `prev` or behind it, and before its last entry, or
/// at the end of the log if that is its last entry. An empty page has some only if the log is empty:
/// elsewhere they are in the page of the entry before it.
pub(crate) fn fences(
    view: &dyn View,
    of: &ChannelInfo,
    ends: &FencesRecord,
    page: &Page,
    oldest: Seq,
) -> Result<Vec<FenceAt>, ApplyError> {
    let index_of = |seq| EntryStamp::read(view, &keys::entry(of.number, seq)).map(|entry| entry.index);
    let last = match page.entries.last() {
        Some(last) => last.seq,
        None if page.head == Seq(0) => Seq(0),
        None => return Ok(Vec::new()),
    };
    let after = if page.prev < oldest {
        ends.floor
    } else {
        before_index(view, of, ends, index_of(page.prev)?)?
    };
    let through = if last == page.head {
        ends.last
    } else {
        before_index(view, of, ends, index_of(last)?)?
    };
    let found = kept(view, of, (after, through), FENCES_PER_GROUP_MAX as usize)?;
    let indexes: Vec<u64> = found.iter().map(|(_, fence)| fence.index).collect();
    let places = places(view, of.number, (page.prev, last), &indexes)?;
    let with_place = |((version, fence), after): (Versioned, Seq)| FenceAt {
        after,
        version,
        number: fence.number,
        user: fence.user,
        kind: fence.kind,
        at_ms: fence.at_ms,
    };
    Ok(found.into_iter().zip(places).map(with_place).collect())
}
