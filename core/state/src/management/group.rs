//! Groups.

use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, GroupId, UserId, UserNumber};

use crate::effect::Effects;
use crate::record::{GroupRecord, MemberRecord, read};
use crate::{ApplyError, Reply, View, keys};

/// The version of a group that was just created.
const FIRST_VERSION: u64 = 1;

/// Creates a group with its creator as the first member. A repeat by the creator finds it and
/// changes nothing, not even a membership that has ended since.
pub(super) fn create_group(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    user: &UserId,
    number: UserNumber,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    if let Some(refusal) = nobody(number) {
        return Ok(refusal);
    }
    let key = keys::group(app, group);
    if let Some(existing) = read::<GroupRecord>(view, &key)? {
        return Ok(if existing.creator == number {
            Reply::Group {
                version: existing.version,
                created: false,
            }
        } else {
            Reply::refused(
                Code::AlreadyExists,
                format!("group {group} exists and was created by another user"),
            )
        });
    }
    effects.put(
        key,
        &GroupRecord {
            creator: number,
            version: FIRST_VERSION,
            members: 1,
            channels: 0,
            fenced: 0,
        },
    );
    effects.put(
        keys::member(app, group, number),
        &MemberRecord {
            since: FIRST_VERSION,
            name: user.clone(),
        },
    );
    Ok(Reply::Group {
        version: FIRST_VERSION,
        created: true,
    })
}

/// The refusal for a group that does not exist.
pub(super) fn unknown(group: &GroupId) -> Reply {
    Reply::refused(Code::GroupUnknown, format!("there is no group {group}"))
}

/// Refuses the number that is no user's: it stands for the app itself, which nobody may speak as.
pub(super) fn nobody(number: UserNumber) -> Option<Reply> {
    (number == UserNumber(0)).then(|| Reply::refused(Code::InvalidField, "0 is the number of no user"))
}
