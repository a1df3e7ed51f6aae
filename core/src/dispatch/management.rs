//! Requests to management shards: groups, members, channels, grants.

use throng_protocol::cluster::{
    Answer, CHANNELS_PAGE_MAX, ChannelInfo, GrantClaims, MEMBERS_PAGE_MAX, Refusal, Reply, Request,
};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ChannelId, GroupId, UserId, UserNumber};
use throng_protocol::placement::PlacementKey;
use throng_state::command::{Command, ManagementCommand};
use throng_state::query::{self, Standing};
use throng_state::{Reply as StateReply, outbox::Delivery};

use super::{refused, unexpected};
use crate::core::Core;
use crate::grant;
use crate::limits::{CHANNEL_OPEN_TIMEOUT, OUTBOX_BATCH};
use crate::replica::Replica;

/// Carries out what is asked of a group.
pub(super) async fn carry_out(core: &Core, request: Request) -> Answer {
    match request {
        Request::CreateGroup {
            app,
            group,
            user,
            number,
        } => create_group(core, app, group, user, number).await,
        Request::CreateChannel {
            app,
            group,
            channel,
            by,
        } => create_channel(core, app, group, channel, by).await,
        Request::Join {
            app,
            group,
            user,
            number,
        } => join(core, app, group, user, number).await,
        Request::Leave { app, group, number } => leave(core, app, group, number).await,
        Request::Grant {
            app,
            group,
            user,
            number,
        } => grant(core, &app, &group, &user, number).await,
        Request::Channel { app, group, channel } => channel_by_name(core, &app, &group, &channel).await,
        Request::Group { app, group } => group_info(core, &app, &group).await,
        Request::Members {
            app,
            group,
            after,
            limit,
        } => members(core, &app, &group, after, limit).await,
        Request::Channels {
            app,
            group,
            after,
            limit,
        } => channels(core, &app, &group, after.as_ref(), limit).await,
        Request::JoinAll { app, group, members } => join_all(core, app, group, members).await,
        Request::Roles { app, group } => roles(core, &app, &group).await,
        _ => Err(refused(Code::Internal, "not a request to a management shard")),
    }
}

/// Creates a group.
async fn create_group(core: &Core, app: AppId, group: GroupId, user: UserId, number: UserNumber) -> Answer {
    let replica = core.group_replica(&app, &group)?;
    let command = ManagementCommand::CreateGroup {
        app,
        group,
        user,
        number,
    };
    match replica.propose(Command::Management(command)).await? {
        StateReply::Group { .. } => Ok(Reply::Done),
        other => Err(unexpected(&other)),
    }
}

/// Makes a user a member.
async fn join(core: &Core, app: AppId, group: GroupId, user: UserId, number: UserNumber) -> Answer {
    let replica = core.group_replica(&app, &group)?;
    let command = ManagementCommand::Join {
        app,
        group,
        user,
        number,
    };
    match replica.propose(Command::Management(command)).await? {
        StateReply::Membership { .. } => Ok(Reply::Done),
        other => Err(unexpected(&other)),
    }
}

/// Makes many users members.
async fn join_all(core: &Core, app: AppId, group: GroupId, members: Vec<(UserId, UserNumber)>) -> Answer {
    let replica = core.group_replica(&app, &group)?;
    let command = ManagementCommand::JoinAll { app, group, members };
    match replica.propose(Command::Management(command)).await? {
        StateReply::Joined { joined } => Ok(Reply::Joined { joined }),
        other => Err(unexpected(&other)),
    }
}

/// What a group is.
async fn group_info(core: &Core, app: &AppId, group: &GroupId) -> Answer {
    let replica = core.group_replica(app, group)?;
    replica.linearize().await?;
    let info = replica.read(|view| query::group_info(view, app, group))?;
    info.map(Reply::Group).ok_or_else(|| group_unknown(group))
}

/// Members of a group, a page of them.
async fn members(core: &Core, app: &AppId, group: &GroupId, after: UserNumber, limit: u32) -> Answer {
    let replica = core.group_replica(app, group)?;
    replica.linearize().await?;
    let limit = limit.clamp(1, MEMBERS_PAGE_MAX) as usize;
    let found = replica.read(|view| {
        Ok(match query::group_info(view, app, group)? {
            Some(_) => Some(query::members(view, app, group, after, limit)?),
            None => None,
        })
    })?;
    found.map(Reply::Members).ok_or_else(|| group_unknown(group))
}

/// Channels of a group, a page of them.
async fn channels(
    core: &Core,
    app: &AppId,
    group: &GroupId,
    after: Option<&ChannelId>,
    limit: u32,
) -> Answer {
    let replica = core.group_replica(app, group)?;
    replica.linearize().await?;
    let limit = limit.clamp(1, CHANNELS_PAGE_MAX) as usize;
    let found = replica.read(|view| {
        Ok(match query::group_info(view, app, group)? {
            Some(_) => Some(query::channels(view, app, group, after, limit)?),
            None => None,
        })
    })?;
    found.map(Reply::Channels).ok_or_else(|| group_unknown(group))
}

/// The roles of a group.
async fn roles(core: &Core, app: &AppId, group: &GroupId) -> Answer {
    let replica = core.group_replica(app, group)?;
    replica.linearize().await?;
    let found = replica.read(|view| {
        Ok(match query::group_info(view, app, group)? {
            Some(_) => Some(query::roles(view, app, group)?),
            None => None,
        })
    })?;
    found.map(Reply::Roles).ok_or_else(|| group_unknown(group))
}

fn group_unknown(group: &GroupId) -> Refusal {
    refused(Code::GroupUnknown, format!("there is no group {group}"))
}

/// Ends a membership.
async fn leave(core: &Core, app: AppId, group: GroupId, number: UserNumber) -> Answer {
    let replica = core.group_replica(&app, &group)?;
    let command = ManagementCommand::Leave {
        app,
        group,
        number,
        proposed_ms: core.now_ms(),
    };
    match replica.propose(Command::Management(command)).await? {
        StateReply::Membership { .. } => Ok(Reply::Done),
        other => Err(unexpected(&other)),
    }
}

/// Creates a channel; answers when its log is open, so that the asker can send at once.
async fn create_channel(
    core: &Core,
    app: AppId,
    group: GroupId,
    channel: ChannelId,
    by: Option<UserNumber>,
) -> Answer {
    let replica = core.group_replica(&app, &group)?;
    let target = core.shard_of(PlacementKey::Channel(&app, &group, &channel))?;
    let command = ManagementCommand::CreateChannel {
        app,
        group,
        channel,
        by,
        issuer: replica.shard(),
        target,
    };
    match replica.propose(Command::Management(command)).await? {
        StateReply::Channel { info, .. } => opened(&replica, info).await,
        other => Err(unexpected(&other)),
    }
}

/// A channel by name; like creation, answers when its log is open.
async fn channel_by_name(core: &Core, app: &AppId, group: &GroupId, channel: &ChannelId) -> Answer {
    let replica = core.group_replica(app, group)?;
    replica.linearize().await?;
    let found = replica.read(|view| query::channel_by_name(view, app, group, channel))?;
    match found {
        Some(info) => opened(&replica, info).await,
        None => {
            let number = UserNumber::default();
            let standing = replica.read(|view| query::standing(view, app, group, number))?;
            Err(match standing {
                Standing::GroupUnknown => group_unknown(group),
                Standing::Member { .. } | Standing::NotMember { .. } => refused(
                    Code::ChannelUnknown,
                    format!("group {group} has no channel {channel}"),
                ),
            })
        }
    }
}

/// Waits until the outbox record that opens a channel's log has been delivered.
async fn opened(replica: &Replica, info: ChannelInfo) -> Answer {
    let mut acked = replica.outbox().acked();
    let wait = async {
        loop {
            acked.mark_unchanged();
            if !opening(replica, &info)? {
                return Ok(());
            }
            // The sender lives as long as the replica; without it nothing is ever delivered.
            if acked.changed().await.is_err() {
                return Err(refused(Code::Unavailable, "the node is shutting down"));
            }
        }
    };
    match tokio::time::timeout(CHANNEL_OPEN_TIMEOUT, wait).await {
        Ok(done) => done.map(|()| Reply::Channel(info)),
        Err(_) => Err(refused(
            Code::Unavailable,
            format!(
                "channel {} exists, but shard {} has not opened its log yet",
                info.channel, info.shard
            ),
        )),
    }
}

/// Whether the record that opens a channel's log still waits.
fn opening(replica: &Replica, info: &ChannelInfo) -> Result<bool, Refusal> {
    let mut after = 0;
    loop {
        let pending = replica.read(|view| query::outbox_pending(view, info.shard, after, OUTBOX_BATCH))?;
        let opens = |delivery: &Delivery| matches!(delivery, Delivery::OpenChannel { info: opened, .. } if opened.number == info.number);
        if pending.iter().any(|pending| opens(&pending.delivery)) {
            return Ok(true);
        }
        match pending.last() {
            Some(last) => after = last.number,
            None => return Ok(false),
        }
    }
}

/// A grant for a member.
async fn grant(core: &Core, app: &AppId, group: &GroupId, user: &UserId, number: UserNumber) -> Answer {
    let replica = core.group_replica(app, group)?;
    replica.linearize().await?;
    let standing = replica.read(|view| query::standing(view, app, group, number))?;
    let claims = match standing {
        Standing::GroupUnknown => {
            return Err(group_unknown(group));
        }
        Standing::Member {
            version,
            since,
            name,
            fenced,
            muted_until,
            permissions,
        } if name == *user => GrantClaims {
            app: app.clone(),
            group: group.clone(),
            user: name,
            number,
            version,
            since,
            issued_ms: core.now_ms(),
            muted_until,
            fenced,
            permissions,
        },
        // The number is another user's: the asker's idea of it is wrong.
        Standing::Member { .. } | Standing::NotMember { .. } => {
            return Err(refused(
                Code::NotMember,
                format!("{user} is not a member of {group}"),
            ));
        }
    };
    let state = core.cluster()?;
    let key = state
        .sealing_key()
        .ok_or_else(|| refused(Code::Unavailable, "this node knows no cluster key yet"))?;
    Ok(Reply::Grant(grant::seal(key, &claims)))
}
