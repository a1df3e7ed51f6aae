//! Members: joining and leaving. Each change gets a version of its own, and a membership remembers
//! the version it began at, so that a grant says which membership it is of.

use throng_protocol::cluster::FenceKind;
use throng_protocol::ids::{AppId, GroupId, UserId, UserNumber};

use super::fence::{self, Change, Target};
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

/// Ends a membership, with a fence: who left on one edge must not go on reading on another. Nothing
/// changes for a user who is not a member. A group stays when its last member leaves.
pub(super) fn leave(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    number: UserNumber,
    proposed_ms: u64,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let Some(record) = read::<GroupRecord>(view, &keys::group(app, group))? else {
        return Ok(group::unknown(group));
    };
    let Some(member) = read::<MemberRecord>(view, &keys::member(app, group, number))? else {
        return Ok(Reply::Membership {
            version: record.version,
            changed: false,
        });
    };
    let target = Target::new(app, group, &member.name, number);
    let change = Change::begin(view, &target, record, proposed_ms)?;
    let Some((version, _)) = change.end_membership(FenceKind::Left, effects)? else {
        return Ok(fence::busy(group));
    };
    Ok(Reply::Membership {
        version,
        changed: true,
    })
}
