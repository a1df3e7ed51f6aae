//! Reading a management shard.

use throng_protocol::cluster::ChannelInfo;
use throng_protocol::ids::{AppId, ChannelId, GroupId, UserId, UserNumber};

use crate::record::{ChannelRecord, GroupRecord, MemberRecord, NumberStockRecord, UserRecord, read};
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
    },
}

/// How a user stands to a group.
pub fn standing(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    number: UserNumber,
) -> Result<Standing, ApplyError> {
    let Some(GroupRecord { version, .. }) = read(view, &keys::group(app, group))? else {
        return Ok(Standing::GroupUnknown);
    };
    Ok(
        match read::<MemberRecord>(view, &keys::member(app, group, number))? {
            Some(MemberRecord { since, name }) => Standing::Member { version, since, name },
            None => Standing::NotMember { version },
        },
    )
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
