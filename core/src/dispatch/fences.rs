//! Requests that change rights: kicks, mutes, roles, archives.
//!
//! The change holds for new grants from its commit, and on a message shard from when that shard has
//! taken the fence. The answer waits for all of them, but not for long: a shard without a quorum can
//! take no message either, and takes the fence before any that came later.

use throng_planted::planted;
use throng_protocol::cluster::{Answer, PENDING_CHANNELS_MAX, Refusal, Reply, Request};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, GroupId, ShardId};
use throng_state::command::{Command, ManagementCommand, RoleChange};
use throng_state::{Outgoing, Reply as StateReply, query};

use super::{refused, unexpected};
use crate::core::Core;
use crate::limits::FENCE_TIMEOUT;
use crate::replica::Replica;

/// Carries a kick, a mute, an archive or a change of roles out.
pub(super) async fn take(core: &Core, request: Request) -> Answer {
    let (app, group, command) = command(request, core.now_ms())?;
    let replica = core.group_replica(&app, &group)?;
    let (version, waits) = match replica.propose(Command::Management(command)).await? {
        StateReply::Fenced {
            version,
            changed: true,
            sent,
        } if !sent.is_empty() => (version, sent),
        // A repeat, maybe of one whose asker heard no answer: its records may wait still. Or it tells no shard, as what
        // adds permissions: then what the group lost before it has to hold too, for the answer says what holds.
        StateReply::Fenced { version, .. } => {
            let waits = replica.read(|view| query::fence_waits(view, &app, &group, version))?;
            (version, waits)
        }
        other => return Err(unexpected(&other)),
    };
    let late = taken_by_all(&replica, waits).await?;
    answer(core, &replica, (&app, &group), version, &late)
}

/// The command of a change of rights, and the group it is in.
fn command(request: Request, proposed_ms: u64) -> Result<(AppId, GroupId, ManagementCommand), Refusal> {
    Ok(match request {
        Request::Kick {
            app,
            group,
            user,
            number,
            by,
            since,
        } => {
            let command = ManagementCommand::Kick {
                app: app.clone(),
                group: group.clone(),
                user,
                number,
                by,
                since,
                proposed_ms,
            };
            (app, group, command)
        }
        Request::Mute {
            app,
            group,
            user,
            number,
            until_ms,
            by,
        } => {
            let command = ManagementCommand::Mute {
                app: app.clone(),
                group: group.clone(),
                user,
                number,
                until_ms,
                by,
                proposed_ms,
            };
            (app, group, command)
        }
        Request::ArchiveChannel {
            app,
            group,
            channel,
            archived,
        } => {
            let command = ManagementCommand::ArchiveChannel {
                app: app.clone(),
                group: group.clone(),
                channel,
                archived,
            };
            (app, group, command)
        }
        request => return roles(request, proposed_ms),
    })
}

/// The command of a change of roles.
fn roles(request: Request, proposed_ms: u64) -> Result<(AppId, GroupId, ManagementCommand), Refusal> {
    let (app, group, change) = match request {
        Request::PutRole {
            app,
            group,
            role,
            permissions,
        } => (app, group, RoleChange::Put { role, permissions }),
        Request::RemoveRole { app, group, role } => (app, group, RoleChange::Remove { role }),
        Request::AssignRoles {
            app,
            group,
            user,
            number,
            roles,
        } => {
            let change = RoleChange::Assign {
                user,
                number,
                roles,
                proposed_ms,
            };
            (app, group, change)
        }
        _ => return Err(refused(Code::Internal, "not a request that changes rights")),
    };
    let command = ManagementCommand::Roles {
        app: app.clone(),
        group: group.clone(),
        change,
    };
    Ok((app, group, command))
}

/// Waits until the targets of outbox records have them; returns those that have not in time.
async fn taken_by_all(replica: &Replica, mut waits: Vec<Outgoing>) -> Result<Vec<ShardId>, Refusal> {
    if planted!("kick_done_early") {
        return Ok(Vec::new());
    }
    let mut acked = replica.outbox().acked();
    let mut leadership = replica.handle().watch_leadership();
    let term = leadership.borrow_and_update().term;
    let wait = async {
        loop {
            acked.mark_unchanged();
            waits = left(replica, &waits)?;
            if waits.is_empty() {
                return Ok(());
            }
            tokio::select! {
                // The sender lives as long as the replica; without it nothing is ever delivered.
                told = acked.changed() => if told.is_err() {
                    return Err(refused(Code::Unavailable, "the node is shutting down"));
                },
                // Another leader delivers now, or has in between; asked again, the leader answers for this
                // change.
                _ = leadership.wait_for(|now| !now.leads || now.term != term) => {
                    // Not that another node leads, which says that nothing was done.
                    let text = "it is done, and another leader waits for the shards to know";
                    return Err(refused(Code::Unavailable, text));
                }
            }
        }
    };
    match tokio::time::timeout(FENCE_TIMEOUT, wait).await {
        Ok(done) => done?,
        Err(_) => {
            waits = left(replica, &waits)?;
            tracing::warn!(shard = %replica.shard(), ?waits, "shards have not taken a fence in time");
        }
    }
    Ok(waits.into_iter().map(|wait| wait.target).collect())
}

/// Those of some outbox records that their targets have not taken.
fn left(replica: &Replica, waits: &[Outgoing]) -> Result<Vec<Outgoing>, Refusal> {
    replica.read(|view| {
        let mut left = Vec::new();
        for wait in waits {
            if query::outbox_acked(view, wait.target)? < wait.number {
                left.push(*wait);
            }
        }
        Ok(left)
    })
}

/// The answer, which names the channels of shards that are late.
fn answer(
    core: &Core,
    replica: &Replica,
    (app, group): (&AppId, &GroupId),
    version: u64,
    late: &[ShardId],
) -> Answer {
    if late.is_empty() {
        return Ok(Reply::Fenced {
            version,
            pending: Vec::new(),
            more: 0,
        });
    }
    core.metrics().fences_pending.inc();
    let mut pending = replica.read(|view| query::channels_on(view, app, group, late))?;
    let more = pending.len().saturating_sub(PENDING_CHANNELS_MAX);
    pending.truncate(PENDING_CHANNELS_MAX);
    Ok(Reply::Fenced {
        version,
        pending,
        more: u32::try_from(more).unwrap_or(u32::MAX),
    })
}
