//! Mutes: members who may read and not send until a moment.

use throng_protocol::cluster::Permissions;
use throng_protocol::ids::UserNumber;

use super::fence::{self, Change, Target};
use super::group;
use crate::effect::Effects;
use crate::record::{GroupRecord, MemberRecord, read};
use crate::{ApplyError, Reply, View, keys};

/// Mutes a member until a moment, or ends that with 0. Asking for what is so already is answered
/// with the change that made it so.
pub(super) fn mute(
    view: &dyn View,
    target: &Target<'_>,
    until_ms: u64,
    by: Option<UserNumber>,
    proposed_ms: u64,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let Some(record) = read::<GroupRecord>(view, &keys::group(target.app, target.group))? else {
        return Ok(group::unknown(target.group));
    };
    if let Some(refusal) = target.protected(view, &record, by, Permissions::MUTE)? {
        return Ok(refusal);
    }
    let key = keys::member(target.app, target.group, target.number);
    if read::<MemberRecord>(view, &key)?.is_none_or(|member| member.name != *target.user) {
        return Ok(target.not_member());
    }
    let (muted, so_far) = target
        .ledger(view)?
        .map_or((0, 0), |ledger| (ledger.muted, ledger.muted_until));
    if so_far == until_ms {
        return Ok(Reply::Fenced {
            version: if muted == 0 { record.version } else { muted },
            changed: false,
            sent: Vec::new(),
        });
    }
    let change = Change::begin(view, target, record, proposed_ms)?;
    let Some((version, sent)) = change.mute(until_ms, effects)? else {
        return Ok(fence::busy(target.group));
    };
    Ok(Reply::Fenced {
        version,
        changed: true,
        sent,
    })
}
