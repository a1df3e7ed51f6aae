//! Roles: what members may do beside the rest, as data. A member has the permissions of everyone and of the roles
//! assigned to them; the group's creator has all.
//!
//! What grows holds for the next grant, and an edge that is refused by an older one asks for it. What shrinks
//! has to reach every shard: for one user as a fence, for a whole role as the version from which on grants of the
//! group count for acting.

use throng_protocol::cluster::{MEMBER_ROLES_MAX, Permissions, ROLES_MAX};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, GroupId, RoleId, UserNumber};

use super::fence::{self, Change, Target};
use super::group;
use crate::command::RoleChange;
use crate::effect::Effects;
use crate::limits::CHANNELS_PER_GROUP_MAX;
use crate::outbox::{self, Delivery, Slot};
use crate::record::{
    AssignedRole, GroupRecord, MemberRecord, MemberRolesRecord, RoleRecord, corrupt, one_more, read,
};
use crate::{ApplyError, Reply, View, keys};

/// What every member may do, unless the group says otherwise under this name.
const EVERYONE: &str = "everyone";

/// What a member may do.
pub(crate) fn permissions(
    view: &dyn View,
    (app, of): (&AppId, &GroupId),
    group: &GroupRecord,
    number: UserNumber,
) -> Result<Permissions, ApplyError> {
    if number == group.creator {
        return Ok(Permissions::ALL);
    }
    let mut permissions = of_everyone(view, (app, of))?;
    for role in assigned(view, (app, of), number)? {
        permissions = permissions.with(role.1.permissions);
    }
    Ok(permissions)
}

fn of_everyone(view: &dyn View, (app, group): (&AppId, &GroupId)) -> Result<Permissions, ApplyError> {
    let key = keys::role_named(app, group, EVERYONE);
    let everyone = read::<RoleRecord>(view, &key)?;
    Ok(everyone.map_or(Permissions::EVERYONE, |role| role.permissions))
}

/// The roles of a member that exist still: one that was made anew under the same name is another one.
pub(crate) fn assigned(
    view: &dyn View,
    (app, group): (&AppId, &GroupId),
    number: UserNumber,
) -> Result<Vec<(RoleId, RoleRecord)>, ApplyError> {
    let Some(assigned) = read::<MemberRolesRecord>(view, &keys::member_roles(app, group, number))? else {
        return Ok(Vec::new());
    };
    let mut roles = Vec::with_capacity(assigned.roles.len());
    for AssignedRole { role, since } in assigned.roles {
        let record = read::<RoleRecord>(view, &keys::role(app, group, &role))?;
        if let Some(record) = record.filter(|record| record.since == since) {
            roles.push((role, record));
        }
    }
    Ok(roles)
}

/// A group whose roles change.
pub(super) struct Roles<'a> {
    pub(super) view: &'a dyn View,
    pub(super) app: &'a AppId,
    pub(super) group: &'a GroupId,
}

impl Roles<'_> {
    /// Makes one change.
    pub(super) fn change(&self, change: &RoleChange, effects: &mut Effects) -> Result<Reply, ApplyError> {
        match change {
            RoleChange::Put { role, permissions } => self.put(role, *permissions, effects),
            RoleChange::Remove { role } => self.remove(role, effects),
            RoleChange::Assign {
                user,
                number,
                roles,
                proposed_ms,
            } => {
                let target = Target::new(self.app, self.group, user, *number);
                self.assign(&target, roles, *proposed_ms, effects)
            }
        }
    }

    /// Makes a role, or gives it other permissions.
    fn put(
        &self,
        role: &RoleId,
        permissions: Permissions,
        effects: &mut Effects,
    ) -> Result<Reply, ApplyError> {
        let Some(mut record) = read::<GroupRecord>(self.view, &keys::group(self.app, self.group))? else {
            return Ok(group::unknown(self.group));
        };
        let key = keys::role(self.app, self.group, role);
        let existing = read::<RoleRecord>(self.view, &key)?;
        let everyone = role.as_str() == EVERYONE;
        let before = match &existing {
            Some(existing) => existing.permissions,
            None if everyone => Permissions::EVERYONE,
            None => Permissions::NONE,
        };
        if let Some(existing) = &existing
            && existing.permissions == permissions
        {
            return Ok(unchanged(existing.version));
        }
        if existing.is_none() && !everyone && self.count()? >= ROLES_MAX {
            let text = format!("the group has {ROLES_MAX} roles, as many as allowed");
            return Ok(Reply::refused(Code::Forbidden, text));
        }
        let Some((version, sent)) = self.tell(&mut record, !permissions.has(before), effects)? else {
            return Ok(fence::busy(self.group));
        };
        let since = existing.map_or(version, |existing| existing.since);
        effects.put(
            key,
            &RoleRecord {
                permissions,
                since,
                version,
            },
        );
        Ok(Reply::Fenced {
            version,
            changed: true,
            sent,
        })
    }

    /// Removes a role from the group and from every member; everyone's goes back to what it is by default.
    fn remove(&self, role: &RoleId, effects: &mut Effects) -> Result<Reply, ApplyError> {
        let Some(mut record) = read::<GroupRecord>(self.view, &keys::group(self.app, self.group))? else {
            return Ok(group::unknown(self.group));
        };
        let key = keys::role(self.app, self.group, role);
        let Some(existing) = read::<RoleRecord>(self.view, &key)? else {
            // Whoever heard no answer waits with this for what the shards have not taken, here as below.
            return Ok(unchanged(last_loss(&record)));
        };
        let after = match role.as_str() {
            EVERYONE => Permissions::EVERYONE,
            _ => Permissions::NONE,
        };
        let shrinks = !after.has(existing.permissions);
        let Some((version, sent)) = self.tell(&mut record, shrinks, effects)? else {
            return Ok(fence::busy(self.group));
        };
        effects.delete(key);
        Ok(Reply::Fenced {
            version,
            changed: true,
            sent,
        })
    }

    /// Gives a member these roles and no others.
    fn assign(
        &self,
        target: &Target<'_>,
        roles: &[RoleId],
        proposed_ms: u64,
        effects: &mut Effects,
    ) -> Result<Reply, ApplyError> {
        let of = (self.app, self.group);
        let Some(record) = read::<GroupRecord>(self.view, &keys::group(self.app, self.group))? else {
            return Ok(group::unknown(self.group));
        };
        let member = read::<MemberRecord>(self.view, &keys::member(self.app, self.group, target.number))?;
        if member.is_none_or(|member| member.name != *target.user) {
            return Ok(target.not_member());
        }
        if roles.len() > MEMBER_ROLES_MAX {
            let text = format!("{} roles, a member has at most {MEMBER_ROLES_MAX}", roles.len());
            return Ok(Reply::refused(Code::InvalidField, text));
        }
        let mut roles = roles.to_vec();
        roles.sort();
        roles.dedup();
        let (mut assigned, mut after) = (Vec::new(), of_everyone(self.view, of)?);
        for role in roles {
            let key = keys::role(self.app, self.group, &role);
            let existing = read::<RoleRecord>(self.view, &key)?;
            let Some(existing) = existing.filter(|_| role.as_str() != EVERYONE) else {
                let text = format!("the group has no role {role} to assign");
                return Ok(Reply::refused(Code::RoleUnknown, text));
            };
            after = after.with(existing.permissions);
            let since = existing.since;
            assigned.push(AssignedRole { role, since });
        }
        let key = keys::member_roles(self.app, self.group, target.number);
        let before = read::<MemberRolesRecord>(self.view, &key)?.map_or(Vec::new(), |record| record.roles);
        if before == assigned {
            return Ok(unchanged(last_loss(&record)));
        }
        let shrinks = !after.has(permissions(self.view, of, &record, target.number)?)
            && target.number != record.creator;
        let change = Change::begin(self.view, target, record, proposed_ms)?;
        let Some((version, sent)) = change.rights(shrinks, effects)? else {
            return Ok(fence::busy(self.group));
        };
        if assigned.is_empty() {
            effects.delete(key);
        } else {
            effects.put(key, &MemberRolesRecord { roles: assigned });
        }
        Ok(Reply::Fenced {
            version,
            changed: true,
            sent,
        })
    }

    /// The roles of the group beside everyone's.
    fn count(&self) -> Result<usize, ApplyError> {
        let (from, to) = keys::roles(self.app, self.group);
        let everyone = keys::role_named(self.app, self.group, EVERYONE);
        let roles = self.view.scan(&from, &to, ROLES_MAX + 1)?;
        Ok(roles.iter().filter(|(key, _)| *key != everyone).count())
    }

    /// Gives the group its next version; where permissions shrink, every shard with channels of the group is told
    /// that older grants do not count for acting. `None` while one cannot be told.
    fn tell(
        &self,
        record: &mut GroupRecord,
        shrinks: bool,
        effects: &mut Effects,
    ) -> Result<Option<fence::Made>, ApplyError> {
        let slots = match shrinks {
            true => self.reserve()?,
            false => Some(Vec::new()),
        };
        let Some(slots) = slots else { return Ok(None) };
        let group_key = keys::group(self.app, self.group);
        record.version = one_more(&group_key, record.version)?;
        let version = record.version;
        if shrinks {
            // A shard that hears of the group later takes no grant from before either.
            record.fenced = version;
        }
        effects.put(group_key, record);
        let delivery = Delivery::Rights {
            app: self.app.clone(),
            group: self.group.clone(),
            version,
        };
        let fill = |slot: Slot| slot.fill(delivery.clone(), effects);
        Ok(Some((version, slots.into_iter().map(fill).collect())))
    }

    fn reserve(&self) -> Result<Option<Vec<Slot>>, ApplyError> {
        let (from, to) = keys::group_shards(self.app, self.group);
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
}

/// The version that made the members of a group lose something last.
fn last_loss(group: &GroupRecord) -> u64 {
    if group.fenced == 0 {
        group.version
    } else {
        group.fenced
    }
}

fn unchanged(version: u64) -> Reply {
    Reply::Fenced {
        version,
        changed: false,
        sent: Vec::new(),
    }
}
