//! What other shards tell a message shard: each record of their outboxes once, in order. The first
//! thing any of them says is that a channel's log begins here.

use throng_protocol::cluster::ChannelInfo;
use throng_protocol::code::Code;
use throng_protocol::ids::{Epoch, Seq, ShardId, Ts};

use crate::effect::Effects;
use crate::outbox::Delivery;
use crate::record::{InboxRecord, LogRecord, TailRecord, read};
use crate::{ApplyError, Reply, View, keys};

/// Takes one outbox record of another shard. The position in that outbox is committed with the
/// effect, so a record that was sent twice has its effect once.
pub(super) fn deliver(
    view: &dyn View,
    source: ShardId,
    number: u64,
    delivery: &Delivery,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    if number == 0 {
        return Ok(Reply::refused(Code::InvalidField, "outbox numbers begin at 1"));
    }
    let last = read::<InboxRecord>(view, &keys::inbox(source))?.map_or(0, |inbox| inbox.last);
    if number <= last {
        return Ok(Reply::Done);
    }
    if number - last > 1 {
        return Ok(Reply::OutOfOrder { expected: last + 1 });
    }
    let refusal = match delivery {
        Delivery::OpenChannel { info, epoch } => open_channel(view, info, *epoch, effects)?,
    };
    if let Some(refusal) = refusal {
        return Ok(refusal);
    }
    effects.put(keys::inbox(source), &InboxRecord { last: number });
    Ok(Reply::Done)
}

/// Begins the log of a channel. A number that another channel has is refused, which holds up the
/// outbox where operators see it: two channels in one log would be worse.
fn open_channel(
    view: &dyn View,
    info: &ChannelInfo,
    epoch: Epoch,
    effects: &mut Effects,
) -> Result<Option<Reply>, ApplyError> {
    let log = LogRecord {
        info: info.clone(),
        epoch,
    };
    match read::<LogRecord>(view, &keys::log(info.number))? {
        Some(existing) if existing == log => Ok(None),
        Some(existing) => {
            let text = format!(
                "channel number {} is that of {}",
                info.number, existing.info.channel
            );
            Ok(Some(Reply::refused(Code::Internal, text)))
        }
        None => {
            let tail = TailRecord {
                head: Seq(0),
                last_ts: Ts::default(),
                oldest: Seq(1),
                expired: Seq(0),
                due: Ts::default(),
            };
            effects.put(keys::log(info.number), &log);
            effects.put(keys::tail(info.number), &tail);
            Ok(None)
        }
    }
}
