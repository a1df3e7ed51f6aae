//! Archives: channels that are read and not written to any more, until they are opened again.

use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ChannelId, GroupId};

use super::{fence, group};
use crate::effect::Effects;
use crate::outbox::{self, Delivery};
use crate::record::{ChannelRecord, GroupRecord, one_more, read};
use crate::{ApplyError, Reply, View, keys};

/// Archives a channel, or opens it again; its shard is told with the same command.
pub(super) fn archive(
    view: &dyn View,
    (app, of, channel): (&AppId, &GroupId, &ChannelId),
    archived: bool,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let (group_key, channel_key) = (keys::group(app, of), keys::channel(app, of, channel));
    let Some(mut record) = read::<GroupRecord>(view, &group_key)? else {
        return Ok(group::unknown(of));
    };
    let Some(mut existing) = read::<ChannelRecord>(view, &channel_key)? else {
        let text = format!("there is no channel {channel} in {of}");
        return Ok(Reply::refused(Code::ChannelUnknown, text));
    };
    if existing.archived == archived {
        return Ok(Reply::Fenced {
            version: existing.decided,
            changed: false,
            sent: Vec::new(),
        });
    }
    let Some(slot) = outbox::reserve(view, existing.info.shard)? else {
        return Ok(fence::busy(of));
    };
    record.version = one_more(&group_key, record.version)?;
    let version = record.version;
    effects.put(group_key, &record);
    (existing.archived, existing.decided) = (archived, version);
    effects.put(channel_key, &existing);
    let delivery = Delivery::Archive {
        app: app.clone(),
        group: of.clone(),
        channel: existing.info.number,
        archived,
        version,
    };
    Ok(Reply::Fenced {
        version,
        changed: true,
        sent: vec![slot.fill(delivery, effects)],
    })
}
