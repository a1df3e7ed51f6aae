//! Kicks: memberships that others end.

use throng_protocol::cluster::FenceKind;
use throng_protocol::ids::UserNumber;

use super::fence::{self, Change, Target};
use super::group;
use crate::effect::Effects;
use crate::record::{GroupRecord, MemberRecord, read};
use crate::{ApplyError, Reply, View, keys};

/// Kicks a member. One who was kicked and has not come back is answered with that kick again, so
/// that who did not hear the answer may ask once more.
pub(super) fn kick(
    view: &dyn View,
    target: &Target<'_>,
    by: Option<UserNumber>,
    proposed_ms: u64,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let Some(record) = read::<GroupRecord>(view, &keys::group(target.app, target.group))? else {
        return Ok(group::unknown(target.group));
    };
    if let Some(refusal) = target.protected(&record, by) {
        return Ok(refusal);
    }
    let key = keys::member(target.app, target.group, target.number);
    let Some(member) = read::<MemberRecord>(view, &key)? else {
        return Ok(match target.ledger(view)? {
            // Who is no member cannot be muted: the last fence is the one that ended the membership.
            Some(ledger)
                if ledger.kicked != 0 && ledger.kicked == ledger.fenced && ledger.name == *target.user =>
            {
                Reply::Fenced {
                    version: ledger.kicked,
                    changed: false,
                    sent: Vec::new(),
                }
            }
            _ => target.not_member(),
        });
    };
    if member.name != *target.user {
        return Ok(target.not_member());
    }
    let change = Change::begin(view, target, record, proposed_ms)?;
    let Some((version, sent)) = change.end_membership(FenceKind::Kick, effects)? else {
        return Ok(fence::busy(target.group));
    };
    Ok(Reply::Fenced {
        version,
        changed: true,
        sent,
    })
}
