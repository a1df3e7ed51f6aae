//! The beginning of a channel's log, and the end of writing to it.

use throng_planted::planted;
use throng_protocol::cluster::ChannelInfo;
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Epoch, Seq, Ts};

use super::fence;
use crate::effect::Effects;
use crate::record::{LogRecord, TailRecord, read};
use crate::{ApplyError, Reply, View, keys};

/// Begins the log of a channel. A number that another channel has is refused, which holds up the
/// outbox where operators see it: two channels in one log would be worse.
pub(super) fn open_channel(
    view: &dyn View,
    info: &ChannelInfo,
    epoch: Epoch,
    floor: u64,
    effects: &mut Effects,
) -> Result<Option<Reply>, ApplyError> {
    let log = LogRecord {
        info: info.clone(),
        epoch,
        archived: false,
    };
    let existing = read::<LogRecord>(view, &keys::log(info.number))?;
    match existing.filter(|_| !planted!("inbox_repeat_applied")) {
        Some(existing) if existing.info == log.info && existing.epoch == log.epoch => Ok(None),
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
            fence::begin(view, (&info.app, &info.group), floor, effects)?;
            Ok(None)
        }
    }
}

/// Ends writing to a channel by members, or lets it go on.
pub(super) fn archive(
    view: &dyn View,
    channel: ChannelNumber,
    archived: bool,
    effects: &mut Effects,
) -> Result<Option<Reply>, ApplyError> {
    let key = keys::log(channel);
    // The order to open it stands before in the same outbox.
    let Some(mut log) = read::<LogRecord>(view, &key)? else {
        let text = format!("channel {channel} is archived here and was never opened");
        return Ok(Some(Reply::refused(Code::Internal, text)));
    };
    if log.archived != archived {
        log.archived = archived;
        effects.put(key, &log);
    }
    Ok(None)
}
