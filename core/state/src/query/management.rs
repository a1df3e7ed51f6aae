//! Reading a management shard.

use bytes::Bytes;
use throng_protocol::cluster::{
    ChannelInfo, GroupInfo, ListedChannel, MemberInfo, Permissions, ROLES_MAX, RoleInfo,
};
use throng_protocol::ids::{AppId, ChannelId, GroupId, RoleId, ShardId, UserId, UserNumber};

use crate::management::role;

use crate::limits::CHANNELS_PER_GROUP_MAX;
use crate::record::{
    ChannelRecord, GroupRecord, LedgerRecord, MemberRecord, NumberStockRecord, Record, RoleRecord,
    UserRecord, corrupt, read,
};
use crate::{ApplyError, View, keys};

/// How a user stands to a group; what a grant is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is no such group.
    GroupUnknown,
    /// The user is not a member.
    NotMember {
        /// The version of the group's management state.
        version: u64,
    },
    /// The user is a member.
    Member {
        /// The version of the group's management state.
        version: u64,
        /// The version at which this membership began.
        since: u64,
        /// The member's name.
        name: UserId,
        /// The version of the last fence that touched the user; 0 for none.
        fenced: u64,
        /// Until when the user may not send, Unix milliseconds; 0 for a user who is not muted.
        muted_until: u64,
        /// What the member may do.
        permissions: Permissions,
    },
}

/// How a user stands to a group.
pub fn standing(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    number: UserNumber,
) -> Result<Standing, ApplyError> {
    let Some(record) = read::<GroupRecord>(view, &keys::group(app, group))? else {
        return Ok(Standing::GroupUnknown);
    };
    let version = record.version;
    let Some(MemberRecord { since, name }) = read(view, &keys::member(app, group, number))? else {
        return Ok(Standing::NotMember { version });
    };
    let ledger = read::<LedgerRecord>(view, &keys::ledger(app, group, number))?;
    let (fenced, muted_until) = ledger.map_or((0, 0), |ledger| (ledger.fenced, ledger.muted_until));
    Ok(Standing::Member {
        version,
        since,
        name,
        fenced,
        muted_until,
        permissions: role::permissions(view, (app, group), &record, number)?,
    })
}

/// What a group is; `None` for one that does not exist.
pub fn group_info(view: &dyn View, app: &AppId, group: &GroupId) -> Result<Option<GroupInfo>, ApplyError> {
    let Some(record) = read::<GroupRecord>(view, &keys::group(app, group))? else {
        return Ok(None);
    };
    let creator = read::<MemberRecord>(view, &keys::member(app, group, record.creator))?;
    Ok(Some(GroupInfo {
        version: record.version,
        creator: creator.map(|member| member.name),
        members: record.members,
        channels: record.channels,
    }))
}

/// At most `limit` members of a group with a number above `after`, ascending.
pub fn members(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    after: UserNumber,
    limit: usize,
) -> Result<Vec<MemberInfo>, ApplyError> {
    let (from, to) = keys::members_after(app, group, after);
    let member = |(key, value): (Bytes, Bytes)| {
        let MemberRecord { since, name } = MemberRecord::decode(&key, &value)?;
        let number =
            keys::member_number(&key).ok_or_else(|| corrupt(&key, "its key ends early".to_owned()))?;
        let ledger = read::<LedgerRecord>(view, &keys::ledger(app, group, number))?;
        Ok(MemberInfo {
            user: name,
            number,
            since,
            muted_until: ledger.map_or(0, |ledger| ledger.muted_until),
            roles: role::assigned(view, (app, group), number)?
                .into_iter()
                .map(|(role, _)| role)
                .collect(),
        })
    };
    view.scan(&from, &to, limit)?.into_iter().map(member).collect()
}

/// The roles of a group, in the order of their names.
pub fn roles(view: &dyn View, app: &AppId, group: &GroupId) -> Result<Vec<RoleInfo>, ApplyError> {
    let (from, to) = keys::roles(app, group);
    let role = |(key, value): (Bytes, Bytes)| {
        let name = keys::role_name(&key).and_then(|name| RoleId::new(name).ok());
        let name = name.ok_or_else(|| corrupt(&key, "it names no role".to_owned()))?;
        let RoleRecord { permissions, .. } = RoleRecord::decode(&key, &value)?;
        Ok(RoleInfo {
            role: name,
            permissions,
        })
    };
    view.scan(&from, &to, ROLES_MAX + 1)?
        .into_iter()
        .map(role)
        .collect()
}

/// At most `limit` channels of a group with a name above `after`, in the order of their names.
pub fn channels(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    after: Option<&ChannelId>,
    limit: usize,
) -> Result<Vec<ListedChannel>, ApplyError> {
    let (from, to) = match after {
        Some(after) => keys::channels_after(app, group, after),
        None => keys::channels(app, group),
    };
    let found = view.scan(&from, &to, limit)?;
    found
        .iter()
        .map(|(key, value)| {
            let ChannelRecord { info, archived, .. } = ChannelRecord::decode(key, value)?;
            Ok(ListedChannel { info, archived })
        })
        .collect()
}

/// The channels of a group whose log is on one of `shards`, in the order of their names.
pub fn channels_on(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    shards: &[ShardId],
) -> Result<Vec<ChannelId>, ApplyError> {
    let (from, to) = keys::channels(app, group);
    let mut found = Vec::new();
    for (key, value) in view.scan(&from, &to, CHANNELS_PER_GROUP_MAX as usize)? {
        let info = ChannelRecord::decode(&key, &value)?.info;
        if shards.contains(&info.shard) {
            found.push(info.channel);
        }
    }
    Ok(found)
}

/// A channel by its name; `None` if the group has none of it, or does not exist.
pub fn channel_by_name(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    channel: &ChannelId,
) -> Result<Option<ChannelInfo>, ApplyError> {
    Ok(read::<ChannelRecord>(view, &keys::channel(app, group, channel))?.map(|record| record.info))
}

/// A user's number; `None` for a user who was never registered.
pub fn user_number(view: &dyn View, app: &AppId, user: &UserId) -> Result<Option<UserNumber>, ApplyError> {
    Ok(read::<UserRecord>(view, &keys::user(app, user))?.map(|record| record.number))
}

/// The user numbers a management shard has in stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberStock {
    /// Numbers left to issue.
    pub left: u64,
    /// The `request` of the lease that comes next: the same until its range has been added, so that
    /// a retry, also by another leader, leases nothing new.
    pub next_request: u64,
}

/// The user numbers this shard has in stock.
pub fn number_stock(view: &dyn View) -> Result<NumberStock, ApplyError> {
    let Some(stock) = read::<NumberStockRecord>(view, &keys::number_stock())? else {
        return Ok(NumberStock {
            left: 0,
            next_request: 1,
        });
    };
    let left = stock.ranges.iter().fold(0_u64, |left, range| {
        left.saturating_add(range.end.saturating_sub(range.start))
    });
    Ok(NumberStock {
        left,
        next_request: stock.added.saturating_add(1),
    })
}
