//! Members: joining and leaving. Each change gets a version of its own, and a membership remembers
//! the version it began at, so that a grant says which membership it is of.

use throng_protocol::ids::{AppId, GroupId, UserId, UserNumber};

use super::group;
use crate::effect::Effects;
use crate::record::{GroupRecord, MemberRecord, one_more, read};
use crate::{ApplyError, Reply, View, keys};

/// Makes a user a member; nothing changes for one who is.
pub(super) fn join(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    user: &UserId,
    number: UserNumber,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let (group_key, member_key) = (keys::group(app, group), keys::member(app, group, number));
    let Some(mut record) = read::<GroupRecord>(view, &group_key)? else {
        return Ok(group::unknown(group));
    };
    if read::<MemberRecord>(view, &member_key)?.is_some() {
        return Ok(Reply::Membership {
            version: record.version,
            changed: false,
        });
    }
    record.version = one_more(&group_key, record.version)?;
    record.members = one_more(&group_key, record.members)?;
    effects.put(group_key, &record);
    effects.put(
        member_key,
        &MemberRecord {
            since: record.version,
            name: user.clone(),
        },
    );
    Ok(Reply::Membership {
        version: record.version,
        changed: true,
    })
}

/// Ends a membership; nothing changes for a user who has none. A group stays when its last member
/// leaves.
pub(super) fn leave(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    number: UserNumber,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let (group_key, member_key) = (keys::group(app, group), keys::member(app, group, number));
    let Some(mut record) = read::<GroupRecord>(view, &group_key)? else {
        return Ok(group::unknown(group));
    };
    if read::<MemberRecord>(view, &member_key)?.is_none() {
        return Ok(Reply::Membership {
            version: record.version,
            changed: false,
        });
    }
    record.version = one_more(&group_key, record.version)?;
    record.members = record.members.saturating_sub(1);
    effects.put(group_key, &record);
    effects.delete(member_key);
    Ok(Reply::Membership {
        version: record.version,
        changed: true,
    })
}
