//! What other shards tell a message shard: each record of their outboxes once, in order.

use throng_planted::planted;
use throng_protocol::code::Code;
use throng_protocol::ids::ShardId;

use super::{At, fence, open};
use crate::effect::Effects;
use crate::outbox::Delivery;
use crate::record::{InboxRecord, read};
use crate::{ApplyError, Reply, keys};

/// Takes one outbox record of another shard. The position in that outbox is committed with the
/// effect, so a record that was sent twice has its effect once.
pub(super) fn deliver(
    at: &At<'_>,
    source: ShardId,
    number: u64,
    delivery: &Delivery,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    if number == 0 {
        return Ok(Reply::refused(Code::InvalidField, "outbox numbers begin at 1"));
    }
    let last = read::<InboxRecord>(at.view, &keys::inbox(source))?.map_or(0, |inbox| inbox.last);
    if number <= last && !planted!("inbox_repeat_applied") {
        return Ok(Reply::Done);
    }
    if number.saturating_sub(last) > 1 {
        return Ok(Reply::OutOfOrder { expected: last + 1 });
    }
    let refusal = match delivery {
        Delivery::OpenChannel { info, epoch, floor } => {
            open::open_channel(at.view, info, *epoch, *floor, effects)?
        }
        Delivery::Fence {
            app,
            group,
            fence,
            user,
            at_ms,
        } => {
            fence::take(at, (app, group), fence, user, *at_ms, effects)?;
            None
        }
        Delivery::Archive {
            channel, archived, ..
        } => open::archive(at.view, *channel, *archived, effects)?,
        Delivery::Rights { app, group, version } => {
            fence::rights(at.view, (app, group), *version, effects)?;
            None
        }
    };
    if let Some(refusal) = refusal {
        return Ok(refusal);
    }
    effects.put(keys::inbox(source), &InboxRecord { last: number });
    Ok(Reply::Done)
}
