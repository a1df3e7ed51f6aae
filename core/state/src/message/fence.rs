//! The fences of a group on one shard: one record each, whatever number of channels and entries
//! the group has. Their order among entries is that of the log indexes, so that nothing of a channel
//! is written for a fence.

use throng_planted::planted;
use throng_protocol::cluster::Fence;
use throng_protocol::ids::{AppId, GroupId, UserId};

use super::At;
use crate::effect::Effects;
use crate::limits::FENCES_FOLDED_MAX;
use crate::record::{FenceRecord, FencedUserRecord, FencesRecord, Record, corrupt, one_more, read};
use crate::{ApplyError, Effect, View, keys};

/// A group.
type Group<'a> = (&'a AppId, &'a GroupId);

/// The ends of a group's fences; those of a group without any are 0.
pub(crate) fn ends(view: &dyn View, (app, group): Group<'_>) -> Result<FencesRecord, ApplyError> {
    let key = keys::fences(app, group);
    let ends = read(view, &key)?.unwrap_or(FencesRecord {
        floor: 0,
        last: 0,
        count: 0,
        rights: 0,
    });
    if ends.floor > ends.last {
        return Err(corrupt(&key, "the floor lies above the last fence".to_owned()));
    }
    Ok(ends)
}

/// Begins with a floor: the group had fences before its first channel came here.
pub(super) fn begin(
    view: &dyn View,
    of: Group<'_>,
    floor: u64,
    effects: &mut Effects,
) -> Result<(), ApplyError> {
    let ends = ends(view, of)?;
    if floor > ends.last && ends.count == 0 {
        let ends = FencesRecord {
            floor,
            last: floor,
            count: 0,
            rights: ends.rights,
        };
        effects.put(keys::fences(of.0, of.1), &ends);
    }
    Ok(())
}

/// Grants from before a version do not count for acting any more; no subscription ends by it, and no feed tells of it.
pub(super) fn rights(
    view: &dyn View,
    of: Group<'_>,
    version: u64,
    effects: &mut Effects,
) -> Result<(), ApplyError> {
    let mut ends = ends(view, of)?;
    if version > ends.rights && !planted!("rights_lost_unheard") {
        ends.rights = version;
        effects.put(keys::fences(of.0, of.1), &ends);
    }
    Ok(())
}

/// Takes a fence; one that is not behind all others is known already, or folded.
pub(super) fn take(
    at: &At<'_>,
    (app, group): Group<'_>,
    fence: &Fence,
    user: &UserId,
    at_ms: u64,
    effects: &mut Effects,
) -> Result<(), ApplyError> {
    let mut ends = ends(at.view, (app, group))?;
    if fence.version <= ends.last {
        return Ok(());
    }
    ends.last = fence.version;
    ends.count = one_more(&keys::fences(app, group), ends.count)?;
    // Before the new records are put: what folds may be of the same user.
    fold(at, (app, group), &mut ends, effects)?;
    let user_key = keys::fenced_user(app, group, fence.number);
    let mut last = read(at.view, &user_key)?.unwrap_or(FencedUserRecord { ended: 0, muted: 0 });
    last.forget(ends.floor);
    if fence.kind.ends_reading() {
        last.ended = fence.version;
    } else {
        last.muted = fence.version;
    }
    effects.put(user_key, &last);
    let record = FenceRecord {
        number: fence.number,
        user: user.clone(),
        kind: fence.kind,
        index: at.index,
        at_ms,
    };
    effects.put(keys::fence(app, group, fence.version), &record);
    effects.put(keys::fences(app, group), &ends);
    effects.push(Effect::Fenced {
        app: app.clone(),
        group: group.clone(),
    });
    Ok(())
}

/// Folds the oldest fences into the floor while there are too many.
fn fold(
    at: &At<'_>,
    (app, group): Group<'_>,
    ends: &mut FencesRecord,
    effects: &mut Effects,
) -> Result<(), ApplyError> {
    let excess = ends.count.saturating_sub(at.bounds.fences_per_group);
    let folded = usize::try_from(excess).map_or(FENCES_FOLDED_MAX, |excess| excess.min(FENCES_FOLDED_MAX));
    let (from, to) = (keys::fence(app, group, 0), keys::fence(app, group, ends.last));
    for (key, value) in at.view.scan(&from, &to, folded)? {
        let version =
            keys::fence_version(&key).ok_or_else(|| corrupt(&key, "it names no version".to_owned()))?;
        let number = FenceRecord::decode(&key, &value)?.number;
        let user_key = keys::fenced_user(app, group, number);
        if let Some(mut last) = read::<FencedUserRecord>(at.view, &user_key)? {
            last.forget(version);
            if last.newest() == 0 {
                effects.delete(user_key);
            } else {
                effects.put(user_key, &last);
            }
        }
        effects.delete(key);
        if !planted!("floor_not_raised") {
            ends.floor = version;
        }
        ends.count = ends.count.saturating_sub(1);
    }
    Ok(())
}

impl FencedUserRecord {
    /// The version of the user's last fence of any kind.
    pub(crate) fn newest(&self) -> u64 {
        self.ended.max(self.muted)
    }

    /// Drops fences up to a floor: the floor stands for them.
    fn forget(&mut self, floor: u64) {
        for version in [&mut self.ended, &mut self.muted] {
            if *version <= floor {
                *version = 0;
            }
        }
    }
}
