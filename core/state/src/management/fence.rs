//! What every fence has in common: the next version of the group, what it leaves in the ledger, and
//! a record for each message shard that holds channels of the group, all in one command. A fence
//! that some shard could not be told of is not made: rights would differ from shard to shard.

use throng_planted::planted;
use throng_protocol::cluster::{Fence, FenceKind, Permissions};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, GroupId, UserId, UserNumber};

use super::role;
use crate::effect::Effects;
use crate::limits::CHANNELS_PER_GROUP_MAX;
use crate::outbox::{self, Delivery, Slot};
use crate::record::{GroupRecord, LedgerRecord, MemberRecord, corrupt, one_more, read};
use crate::{ApplyError, Outgoing, Reply, View, keys};

/// A user of a group whose rights change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) app: &'a AppId,
    pub(super) group: &'a GroupId,
    pub(super) user: &'a UserId,
    pub(super) number: UserNumber,
}

impl<'a> Target<'a> {
    pub(super) fn new(app: &'a AppId, group: &'a GroupId, user: &'a UserId, number: UserNumber) -> Self {
        Self {
            app,
            group,
            user,
            number,
        }
    }

    /// What fences have taken from the user so far; `None` if none ever touched the user.
    pub(super) fn ledger(&self, view: &dyn View) -> Result<Option<LedgerRecord>, ApplyError> {
        read(view, &keys::ledger(self.app, self.group, self.number))
    }

    /// The refusal for a user who is no member.
    pub(super) fn not_member(&self) -> Reply {
        Reply::refused(
            Code::NotMember,
            format!("{} is not a member of {}", self.user, self.group),
        )
    }

    /// Why `by` may not take rights away from this user: only who has the permission may, and only from who has it
    /// not. The app itself may from anyone but the group's creator.
    pub(super) fn protected(
        &self,
        view: &dyn View,
        group: &GroupRecord,
        by: Option<UserNumber>,
        permission: Permissions,
    ) -> Result<Option<Reply>, ApplyError> {
        let of = (self.app, self.group);
        let has = |number| {
            let permissions = role::permissions(view, of, group, number)?;
            Ok::<_, ApplyError>(permissions.has(permission))
        };
        if let Some(by) = by {
            // Every right is a member's, that of the creator too.
            let key = keys::member(self.app, self.group, by);
            if read::<MemberRecord>(view, &key)?.is_none() {
                let text = format!("who asks is not a member of {}", self.group);
                return Ok(Some(Reply::refused(Code::NotMember, text)));
            }
        }
        let text = if self.number == group.creator {
            format!("{} created {} and keeps every right in it", self.user, self.group)
        } else if let Some(by) = by.filter(|by| *by != group.creator) {
            if !has(by)? {
                format!(
                    "only the creator of {} and who has the permission may do this",
                    self.group
                )
            } else if has(self.number)? {
                format!("{} may do this in {} as well", self.user, self.group)
            } else {
                return Ok(None);
            }
        } else {
            return Ok(None);
        };
        Ok(Some(Reply::refused(Code::Forbidden, text)))
    }
}

/// The version of a change, and the outbox records that tell of it.
pub(super) type Made = (u64, Vec<Outgoing>);

/// A change of a user's rights about to be made.
pub(super) struct Change<'a> {
    view: &'a dyn View,
    target: &'a Target<'a>,
    group: GroupRecord,
    ledger: LedgerRecord,
    at_ms: u64,
}

impl<'a> Change<'a> {
    /// Reads what the change is made from.
    pub(super) fn begin(
        view: &'a dyn View,
        target: &'a Target<'a>,
        group: GroupRecord,
        at_ms: u64,
    ) -> Result<Self, ApplyError> {
        let ledger = target.ledger(view)?.unwrap_or_else(|| LedgerRecord {
            name: target.user.clone(),
            fenced: 0,
            kicked: 0,
            muted: 0,
            muted_until: 0,
        });
        Ok(Self {
            view,
            target,
            group,
            ledger,
            at_ms,
        })
    }

    /// Ends the user's membership. Does nothing and returns `None` while a shard cannot be told.
    pub(super) fn end_membership(
        mut self,
        kind: FenceKind,
        effects: &mut Effects,
    ) -> Result<Option<Made>, ApplyError> {
        let Some(slots) = self.reserve()? else {
            return Ok(None);
        };
        let version = self.next_version()?;
        if kind == FenceKind::Kick {
            self.ledger.kicked = version;
        }
        if planted!("mute_lost_by_leaving") {
            self.ledger.muted_until = 0;
        }
        self.group.members = self.group.members.saturating_sub(1);
        let Target {
            app, group, number, ..
        } = *self.target;
        effects.delete(keys::member(app, group, number));
        if !planted!("roles_outlive_membership") {
            effects.delete(keys::member_roles(app, group, number));
        }
        Ok(Some((version, self.fence(version, kind, slots, effects))))
    }

    /// Takes the right to send away until a moment. Does nothing and returns `None` while a shard
    /// cannot be told. With 0 the right comes back, which shards need not be told of: no grant must
    /// be refused for it.
    pub(super) fn mute(mut self, until_ms: u64, effects: &mut Effects) -> Result<Option<Made>, ApplyError> {
        let slots = if until_ms == 0 {
            Some(Vec::new())
        } else {
            self.reserve()?
        };
        let Some(slots) = slots else { return Ok(None) };
        let version = self.next_version()?;
        (self.ledger.muted, self.ledger.muted_until) = (version, until_ms);
        if until_ms == 0 {
            self.put(effects);
            return Ok(Some((version, Vec::new())));
        }
        Ok(Some((
            version,
            self.fence(version, FenceKind::Mute, slots, effects),
        )))
    }

    /// Changes what the user may do. Does nothing and returns `None` while a shard cannot be told of permissions that
    /// shrink; of those that only grow no shard need be told.
    pub(super) fn rights(mut self, shrinks: bool, effects: &mut Effects) -> Result<Option<Made>, ApplyError> {
        let slots = match shrinks {
            true => self.reserve()?,
            false => Some(Vec::new()),
        };
        let Some(slots) = slots else { return Ok(None) };
        let version = self.next_version()?;
        if !shrinks {
            effects.put(keys::group(self.target.app, self.target.group), &self.group);
            return Ok(Some((version, Vec::new())));
        }
        Ok(Some((
            version,
            self.fence(version, FenceKind::Rights, slots, effects),
        )))
    }

    /// Takes a place in the outbox of each shard concerned; `None` if one has none left.
    fn reserve(&self) -> Result<Option<Vec<Slot>>, ApplyError> {
        let (from, to) = keys::group_shards(self.target.app, self.target.group);
        let mut slots = Vec::new();
        for (key, _) in self.view.scan(&from, &to, CHANNELS_PER_GROUP_MAX as usize)? {
            let shard =
                keys::group_shard_of(&key).ok_or_else(|| corrupt(&key, "it names no shard".to_owned()))?;
            match outbox::reserve(self.view, shard)? {
                Some(slot) => slots.push(slot),
                None => return Ok(None),
            }
        }
        Ok(Some(slots))
    }

    fn next_version(&mut self) -> Result<u64, ApplyError> {
        let key = keys::group(self.target.app, self.target.group);
        self.group.version = one_more(&key, self.group.version)?;
        Ok(self.group.version)
    }

    fn put(&mut self, effects: &mut Effects) {
        let Target {
            app,
            group,
            user,
            number,
        } = *self.target;
        self.ledger.name = user.clone();
        effects.put(keys::group(app, group), &self.group);
        effects.put(keys::ledger(app, group, number), &self.ledger);
    }

    fn fence(
        mut self,
        version: u64,
        kind: FenceKind,
        slots: Vec<Slot>,
        effects: &mut Effects,
    ) -> Vec<Outgoing> {
        self.group.fenced = version;
        self.ledger.fenced = version;
        self.put(effects);
        let Target {
            app,
            group,
            user,
            number,
        } = *self.target;
        let delivery = Delivery::Fence {
            app: app.clone(),
            group: group.clone(),
            fence: Fence {
                version,
                number,
                kind,
            },
            user: user.clone(),
            at_ms: self.at_ms,
        };
        let fill = |slot: Slot| slot.fill(delivery.clone(), effects);
        slots.into_iter().map(fill).collect()
    }
}

/// The refusal while the outbox towards some shard of a group is full.
pub(super) fn busy(group: &GroupId) -> Reply {
    Reply::refused(
        Code::Unavailable,
        format!("too many records wait for a shard with channels of {group}"),
    )
}
