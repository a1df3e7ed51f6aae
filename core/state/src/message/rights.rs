//! What a grant is worth on this shard: whether a fence has touched its user since it was made, and
//! whether the shard has heard of every fence the grant was made behind.

use throng_protocol::cluster::GrantClaims;

use super::fence::ends;
use crate::record::{FencedUserRecord, read};
use crate::{ApplyError, View, keys};

/// What a grant is worth here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// What it says.
    Held,
    /// Nothing: a fence touched its user since. Management knows what holds now.
    Stale,
    /// Nothing yet: the user's last fence has not arrived here, and what the user may do again must
    /// lie behind it.
    Early,
}

/// What a grant is worth for acting: every fence counts, and every loss of permissions.
pub(crate) fn to_act(view: &dyn View, claims: &GrantClaims) -> Result<Right, ApplyError> {
    if claims.version < ends(view, (&claims.app, &claims.group))?.rights {
        return Ok(Right::Stale);
    }
    judge(view, claims, FencedUserRecord::newest)
}

/// What a grant is worth for reading, which a mute does not end.
pub(crate) fn to_read(view: &dyn View, claims: &GrantClaims) -> Result<Right, ApplyError> {
    judge(view, claims, |last| last.ended)
}

fn judge(
    view: &dyn View,
    claims: &GrantClaims,
    touched: fn(&FencedUserRecord) -> u64,
) -> Result<Right, ApplyError> {
    let GrantClaims {
        app,
        group,
        number,
        version,
        fenced,
        ..
    } = claims;
    let ends = ends(view, (app, group))?;
    if *version < ends.floor {
        return Ok(Right::Stale);
    }
    // Behind the last fence of the group no user's own can have touched the grant: the usual case.
    if *version < ends.last {
        let last = read::<FencedUserRecord>(view, &keys::fenced_user(app, group, *number))?;
        if last.is_some_and(|last| touched(&last) > *version) {
            return Ok(Right::Stale);
        }
    }
    Ok(if *fenced > ends.last {
        Right::Early
    } else {
        Right::Held
    })
}
