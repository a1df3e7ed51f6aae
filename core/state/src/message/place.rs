//! Places among the entries of a channel: where a log index lies, and where a time stamp does. Both
//! grow strictly with the position, so each is found by halving, reading no bodies.

use throng_protocol::ids::{ChannelNumber, Seq};

use crate::record::EntryStamp;
use crate::{ApplyError, View, keys};

/// The last position of `low..=high` for which `holds`, which must hold for all positions up to one
/// and for none behind it. `low` is taken to hold without a look: it may be the place before the
/// oldest entry.
pub(crate) fn last_where(
    view: &dyn View,
    channel: ChannelNumber,
    (low, high): (Seq, Seq),
    holds: impl Fn(&EntryStamp) -> bool,
) -> Result<Seq, ApplyError> {
    let (mut low, mut high) = (low.0, high.0);
    while low < high {
        // Rounded up, so that it is above `low`.
        let middle = high - (high - low) / 2;
        if holds(&EntryStamp::read(view, &keys::entry(channel, Seq(middle)))?) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(Seq(low))
}

/// The places of ascending log indexes among the entries behind `low` up to `high`: the last entry
/// applied before each, `low` if there is none. Each index found narrows the search for those on
/// either side of it, so that many indexes in a short log cost no more than reading the log.
pub(crate) fn places(
    view: &dyn View,
    channel: ChannelNumber,
    (low, high): (Seq, Seq),
    indexes: &[u64],
) -> Result<Vec<Seq>, ApplyError> {
    let Some(middle) = indexes.len().checked_sub(1).map(|last| last / 2) else {
        return Ok(Vec::new());
    };
    if low == high {
        return Ok(vec![low; indexes.len()]);
    }
    let place = last_where(view, channel, (low, high), |entry| entry.index < indexes[middle])?;
    let mut found = places(view, channel, (low, place), &indexes[..middle])?;
    found.push(place);
    found.extend(places(view, channel, (place, high), &indexes[middle + 1..])?);
    Ok(found)
}
