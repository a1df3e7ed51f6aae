//! Kicks: memberships that others end.

use throng_protocol::cluster::{FenceKind, Permissions};
use throng_protocol::ids::UserNumber;

use super::fence::{self, Change, Target};
use super::group;
use crate::effect::Effects;
use crate::record::{GroupRecord, LedgerRecord, MemberRecord, read};
use crate::{ApplyError, Reply, View, keys};

/// Kicks a member. One who was kicked and has not come back is answered with that kick again, so
/// that who did not hear the answer may ask once more; who says which membership is meant is answered so
/// also when the user has come back.
pub(super) fn kick(
    view: &dyn View,
    target: &Target<'_>,
    by: Option<UserNumber>,
    since: Option<u64>,
    proposed_ms: u64,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let Some(record) = read::<GroupRecord>(view, &keys::group(target.app, target.group))? else {
        return Ok(group::unknown(target.group));
    };
    if let Some(refusal) = target.protected(view, &record, by, Permissions::KICK)? {
        return Ok(refusal);
    }
    let key = keys::member(target.app, target.group, target.number);
    let member = read::<MemberRecord>(view, &key)?;
    let Some(member) = member.filter(|member| since.is_none_or(|since| since == member.since)) else {
        return over(view, target, since);
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

/// The answer for a membership that is over: the kick that ended it, or that there is none.
fn over(view: &dyn View, target: &Target<'_>, since: Option<u64>) -> Result<Reply, ApplyError> {
    let kicked = |ledger: &LedgerRecord| match since {
        Some(since) => ledger.kicked > since,
        // Who is no member cannot be muted: the last fence is the one that ended the membership.
        None => ledger.kicked != 0 && ledger.kicked == ledger.fenced,
    };
    let ledger = target.ledger(view)?;
    let ledger = ledger.filter(|ledger| kicked(ledger) && ledger.name == *target.user);
    Ok(match ledger {
        Some(ledger) => Reply::Fenced {
            version: ledger.kicked,
            changed: false,
            sent: Vec::new(),
        },
        None => target.not_member(),
    })
}
