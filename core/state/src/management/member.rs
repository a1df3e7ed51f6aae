//! Members: joining and leaving. Each change gets a version of its own, and a membership remembers
//! the version it began at, so that a grant says which membership it is of.

use std::collections::BTreeSet;

use throng_protocol::cluster::{FenceKind, MEMBERS_PAGE_MAX};
use throng_protocol::code::Code;
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
    if let Some(refusal) = group::nobody(number) {
        return Ok(refusal);
    }
    let group_key = keys::group(app, group);
    let Some(mut record) = read::<GroupRecord>(view, &group_key)? else {
        return Ok(group::unknown(group));
    };
    let changed = begin(view, (app, group), &mut record, user, number, effects)?;
    if changed {
        effects.put(group_key, &record);
    }
    Ok(Reply::Membership {
        version: record.version,
        changed,
    })
}

/// Makes users members, each with a version of its own as if they had come one by one.
pub(super) fn join_all(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    members: &[(UserId, UserNumber)],
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    if members.len() > MEMBERS_PAGE_MAX as usize {
        let text = format!("{} users, {MEMBERS_PAGE_MAX} are allowed at once", members.len());
        return Ok(Reply::refused(Code::InvalidField, text));
    }
    if let Some(refusal) = members.iter().find_map(|(_, number)| group::nobody(*number)) {
        return Ok(refusal);
    }
    let group_key = keys::group(app, group);
    let Some(mut record) = read::<GroupRecord>(view, &group_key)? else {
        return Ok(group::unknown(group));
    };
    // A view is as of the last command: it does not know whom this one lets in.
    let (mut seen, mut joined) = (BTreeSet::new(), 0);
    for (user, number) in members {
        if seen.insert(number) && begin(view, (app, group), &mut record, user, *number, effects)? {
            joined += 1;
        }
    }
    if joined > 0 {
        effects.put(group_key, &record);
    }
    Ok(Reply::Joined { joined })
}

/// Begins a membership; `false` for a user who is a member.
fn begin(
    view: &dyn View,
    (app, group): (&AppId, &GroupId),
    record: &mut GroupRecord,
    user: &UserId,
    number: UserNumber,
    effects: &mut Effects,
) -> Result<bool, ApplyError> {
    let (group_key, member_key) = (keys::group(app, group), keys::member(app, group, number));
    if read::<MemberRecord>(view, &member_key)?.is_some() {
        return Ok(false);
    }
    record.version = one_more(&group_key, record.version)?;
    record.members = one_more(&group_key, record.members)?;
    let member = MemberRecord {
        since: record.version,
        name: user.clone(),
    };
    effects.put(member_key, &member);
    Ok(true)
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
