//! Requests to message shards: appends, pages, deliveries.

use bytes::Bytes;
use throng_planted::planted;
use throng_protocol::cluster::{Answer, Append, By, Grant, GrantClaims, Permissions, Refusal, Reply};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ChannelNumber, GroupId, ShardId, UserId, UserNumber};
use throng_protocol::limits::{BODY_BYTES_MAX, PAGE_ENTRIES_MAX};
use throng_protocol::placement::Plane;
use throng_state::command::{AppendMessage, Command, MessageCommand};
use throng_state::outbox::Delivery;
use throng_state::query::{PageWanted, Right};
use throng_state::{ApplyError, Reply as StateReply, View, query};

use super::{refused, unexpected};
use crate::core::Core;
use crate::grant;

/// Appends a message. The seal and the age of the grant are judged here, everything else when the
/// command is applied.
pub(super) async fn append(core: &Core, shard: ShardId, append: Append) -> Answer {
    let replica = core.replica_of(shard, Plane::Message)?;
    replica.must_lead()?;
    let bytes = append.body.len();
    if bytes > BODY_BYTES_MAX {
        return Err(refused(
            Code::MessageTooLarge,
            format!("the body has {bytes} bytes, {BODY_BYTES_MAX} are allowed"),
        ));
    }
    let now = core.now_ms();
    let claims = writer(core, append.by, now)?;
    if planted!("fence_not_judged_in_apply")
        && let Some(refusal) = replica.read(|view| unentitled(view, append.channel, &claims))?
    {
        return Err(refusal);
    }
    let command = MessageCommand::Append(AppendMessage {
        channel: append.channel,
        claims,
        client_message_id: append.client_message_id,
        first_attempt_ms: append.first_attempt_ms,
        proposed_ms: now,
        body: append.body,
    });
    match replica.propose(Command::Message(command)).await? {
        StateReply::Appended {
            epoch,
            seq,
            ts,
            repeat,
        } => {
            if !repeat {
                core.metrics().appended.inc();
                core.metrics().appended_bytes.inc_by(bytes as u64);
            }
            Ok(Reply::Appended {
                epoch,
                seq,
                ts,
                repeat,
            })
        }
        other => Err(unexpected(&other)),
    }
}

/// By which right something is written: a member's grant, or the app's own.
pub(super) fn writer(core: &Core, by: By, now_ms: u64) -> Result<GrantClaims, Refusal> {
    match by {
        By::Member(grant) => claims(core, &grant, now_ms),
        By::App { app, group } => of_app(app, group, now_ms),
    }
}

/// What the app itself may do in a group: everything. It writes under its own name, and under the number
/// that no user is given.
fn of_app(app: AppId, group: GroupId, issued_ms: u64) -> Result<GrantClaims, Refusal> {
    let user = UserId::new(app.as_str()).map_err(|error| refused(Code::InvalidField, error.to_string()))?;
    Ok(GrantClaims {
        app,
        group,
        user,
        number: UserNumber(0),
        version: u64::MAX,
        since: 0,
        issued_ms,
        muted_until: 0,
        fenced: 0,
        permissions: Permissions::ALL,
    })
}

/// A page of a channel's log.
pub(super) async fn page(
    core: &Core,
    shard: ShardId,
    channel: ChannelNumber,
    wanted: PageWanted,
    grant: Option<Grant>,
) -> Answer {
    if grant.is_some() && wanted.fences {
        let text = "fences are not told on behalf of a user";
        return Err(refused(Code::InvalidField, text));
    }
    let wanted = PageWanted {
        limit: wanted.limit.clamp(1, PAGE_ENTRIES_MAX),
        ..wanted
    };
    let page = read(core, shard, channel, grant.as_ref(), |view| {
        query::page(view, channel, &wanted)
    })
    .await?;
    page.map(Reply::Page).ok_or_else(|| channel_unknown(channel))
}

/// Reads a channel, confirmed by a quorum, for whoever has a grant, which is judged against the same state that is
/// read; or for the app.
pub(super) async fn read<T>(
    core: &Core,
    shard: ShardId,
    channel: ChannelNumber,
    grant: Option<&Grant>,
    what: impl Fn(&dyn View) -> Result<T, ApplyError>,
) -> Result<T, Refusal> {
    let replica = core.replica_of(shard, Plane::Message)?;
    if !planted!("stale_read") {
        replica.linearize().await?;
    }
    let claims = match grant {
        Some(grant) => Some(claims(core, grant, core.now_ms())?),
        None => None,
    };
    replica.read(|view| {
        if query::channel(view, channel)?.is_none() {
            return Ok(Err(channel_unknown(channel)));
        }
        let refusal = match &claims {
            Some(claims) => unentitled(view, channel, claims)?,
            None => None,
        };
        Ok(match refusal {
            Some(refusal) => Err(refusal),
            None => Ok(what(view)?),
        })
    })?
}

fn channel_unknown(channel: ChannelNumber) -> Refusal {
    refused(
        Code::ChannelUnknown,
        format!("there is no channel {channel} here"),
    )
}

/// The claims of a grant whose seal and age are right.
fn claims(core: &Core, grant: &Grant, now_ms: u64) -> Result<GrantClaims, Refusal> {
    let state = core.cluster()?;
    grant::verify(&state.keys, grant, now_ms).map_err(|error| refused(error.code(), error.to_string()))
}

/// Why the user of a grant may not read a channel.
fn unentitled(
    view: &dyn View,
    channel: ChannelNumber,
    claims: &GrantClaims,
) -> Result<Option<Refusal>, ApplyError> {
    let of_group = query::channel(view, channel)?
        .is_none_or(|info| info.app == claims.app && info.group == claims.group);
    if !of_group {
        let text = format!(
            "the grant is for group {}, the channel is of another",
            claims.group
        );
        return Ok(Some(refused(Code::Forbidden, text)));
    }
    Ok(match query::right_to_read(view, claims)? {
        Right::Held => None,
        Right::Stale => Some(Refusal::GrantStale),
        Right::Early => {
            let text = format!(
                "fence {} of group {} has not arrived here yet",
                claims.fenced, claims.group
            );
            Some(refused(Code::Unavailable, text))
        }
    })
}

/// Takes an outbox record of another shard.
pub(super) async fn deliver(
    core: &Core,
    shard: ShardId,
    source: ShardId,
    number: u64,
    delivery: &Bytes,
) -> Answer {
    let replica = core.replica_of(shard, Plane::Message)?;
    let delivery = Delivery::decode(delivery)
        .map_err(|error| refused(Code::Internal, format!("the delivery cannot be read: {error}")))?;
    let command = MessageCommand::Deliver {
        source,
        number,
        delivery,
    };
    match replica.propose(Command::Message(command)).await? {
        StateReply::Done => Ok(Reply::Done),
        StateReply::OutOfOrder { expected } => Ok(Reply::DeliverFrom { expected }),
        other => Err(unexpected(&other)),
    }
}
