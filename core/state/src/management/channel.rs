//! Channels: their names and numbers are decided here, their logs begin on a message shard, which
//! hears of it through the outbox.

use throng_protocol::cluster::{ChannelInfo, Permissions};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ChannelId, ChannelNumber, Epoch, GroupId, ShardId, UserNumber};

use super::{group, role};
use crate::effect::Effects;
use crate::limits::{CHANNEL_COUNTER_BITS, CHANNELS_PER_GROUP_MAX, OUTBOX_PENDING_MAX};
use crate::outbox::{self, Delivery};
use crate::record::{
    ChannelCounterRecord, ChannelRecord, GroupRecord, GroupShardRecord, MemberRecord, one_more, read,
};
use crate::{ApplyError, Reply, View, keys};

/// The epoch of a log that was never rebuilt.
const FIRST_EPOCH: Epoch = Epoch(1);

/// The channel a member or the app wants.
pub(super) struct Wanted<'a> {
    app: &'a AppId,
    group: &'a GroupId,
    channel: &'a ChannelId,
    /// `None` for the app itself.
    by: Option<UserNumber>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(
        app: &'a AppId,
        group: &'a GroupId,
        channel: &'a ChannelId,
        by: Option<UserNumber>,
    ) -> Self {
        Self {
            app,
            group,
            channel,
            by,
        }
    }

    /// Why it may not be made in its group.
    fn refused(&self, view: &dyn View, record: &GroupRecord) -> Result<Option<Reply>, ApplyError> {
        let Self { app, group, by, .. } = *self;
        if let Some(number) = by
            && !role::permissions(view, (app, group), record, number)?.has(Permissions::CREATE_CHANNELS)
        {
            let text = format!("members of {group} may not create channels in it");
            return Ok(Some(Reply::refused(Code::Forbidden, text)));
        }
        if record.channels >= CHANNELS_PER_GROUP_MAX {
            let text = format!("group {group} has {CHANNELS_PER_GROUP_MAX} channels, as many as allowed");
            return Ok(Some(Reply::refused(Code::Forbidden, text)));
        }
        Ok(None)
    }
}

/// Creates a channel, or finds it; the outbox record that opens its log is committed with it.
pub(super) fn create_channel(
    view: &dyn View,
    wanted: &Wanted<'_>,
    issuer: ShardId,
    target: ShardId,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let Wanted {
        app,
        group,
        channel,
        by,
    } = *wanted;
    let (group_key, channel_key) = (keys::group(app, group), keys::channel(app, group, channel));
    let Some(mut record) = read::<GroupRecord>(view, &group_key)? else {
        return Ok(group::unknown(group));
    };
    if let Some(number) = by
        && read::<MemberRecord>(view, &keys::member(app, group, number))?.is_none()
    {
        return Ok(Reply::refused(
            Code::NotMember,
            format!("only members of {group} create channels in it"),
        ));
    }
    if let Some(existing) = read::<ChannelRecord>(view, &channel_key)? {
        return Ok(Reply::Channel {
            info: existing.info,
            created: false,
        });
    }
    if let Some(refusal) = wanted.refused(view, &record)? {
        return Ok(refusal);
    }
    let Some(slot) = outbox::reserve(view, target)? else {
        let text = format!("{OUTBOX_PENDING_MAX} records wait for shard {target}");
        return Ok(Reply::refused(Code::Unavailable, text));
    };
    let (counter, channel_number) = match next_number(view, issuer)? {
        Ok(next) => next,
        Err(refusal) => return Ok(refusal),
    };

    let info = ChannelInfo {
        app: app.clone(),
        group: group.clone(),
        channel: channel.clone(),
        number: channel_number,
        shard: target,
    };
    record.version = one_more(&group_key, record.version)?;
    record.channels += 1;
    let shard_key = keys::group_shard(app, group, target);
    let first_there = read::<GroupShardRecord>(view, &shard_key)?.is_none();
    if first_there {
        let since = record.version;
        effects.put(shard_key, &GroupShardRecord { since });
    }
    effects.put(group_key, &record);
    effects.put(
        channel_key,
        &ChannelRecord {
            info: info.clone(),
            archived: false,
            decided: 0,
        },
    );
    effects.put(keys::channel_counter(), &counter);
    slot.fill(
        Delivery::OpenChannel {
            info: info.clone(),
            epoch: FIRST_EPOCH,
            floor: if first_there { record.fenced } else { 0 },
        },
        effects,
    );
    Ok(Reply::Channel { info, created: true })
}

/// The next channel number: the issuing shard above a counter, so that shards issue without asking
/// each other and a number is never issued twice.
fn next_number(
    view: &dyn View,
    issuer: ShardId,
) -> Result<Result<(ChannelCounterRecord, ChannelNumber), Reply>, ApplyError> {
    let key = keys::channel_counter();
    let mut counter =
        read::<ChannelCounterRecord>(view, &key)?.unwrap_or(ChannelCounterRecord { issuer, last: 0 });
    if counter.issuer != issuer {
        let text = format!(
            "shard {} was asked to issue channel numbers as shard {issuer}",
            counter.issuer
        );
        return Ok(Err(Reply::refused(Code::Internal, text)));
    }
    counter.last = one_more(&key, counter.last)?;
    let shard = u64::from(issuer.0);
    if counter.last >> CHANNEL_COUNTER_BITS != 0 || shard >> (u64::BITS - CHANNEL_COUNTER_BITS) != 0 {
        let text = format!("shard {issuer} has no channel numbers left");
        return Ok(Err(Reply::refused(Code::Internal, text)));
    }
    let number = ChannelNumber(shard << CHANNEL_COUNTER_BITS | counter.last);
    Ok(Ok((counter, number)))
}
