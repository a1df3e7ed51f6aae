//! Requests to message shards about changes to messages.

use throng_protocol::cluster::{Answer, AppendChange, Grant, Refusal, Reply, Request};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Position, ShardId};
use throng_protocol::placement::Plane;
use throng_state::command::{ChangeMessage, Command, MessageCommand};
use throng_state::query::ChangesWanted;
use throng_state::{Reply as StateReply, query};

use super::message::{read, writer};
use super::{refused, unexpected};
use crate::core::Core;

/// Carries out a request about changes.
pub(super) async fn carry_out(core: &Core, request: Request) -> Answer {
    match request {
        Request::Change {
            shard,
            change: append,
        } => change(core, shard, append).await,
        Request::Changes {
            shard,
            channel,
            from,
            to,
            since,
            grant,
        } => {
            let wanted = ChangesWanted { from, to, since };
            changes(core, shard, channel, &wanted, Some(&grant)).await
        }
        Request::Expansion {
            shard,
            channel,
            target,
            after,
            grant,
        } => expansion(core, shard, channel, (target, &after), grant.as_ref()).await,
        _ => Err(refused(Code::Internal, "not a request about changes")),
    }
}

/// Appends a change and makes it. Its limits, and the seal and the age of the grant, are judged here;
/// everything else when the command is applied.
async fn change(core: &Core, shard: ShardId, append: AppendChange) -> Answer {
    let replica = core.replica_of(shard, Plane::Message)?;
    replica.must_lead()?;
    append
        .change
        .check()
        .map_err(|error| refused(error.code(), error.to_string()))?;
    let now = core.now_ms();
    let claims = writer(core, append.by, now)?;
    let command = MessageCommand::Change(ChangeMessage {
        channel: append.channel,
        claims,
        client_message_id: append.client_message_id,
        first_attempt_ms: append.first_attempt_ms,
        proposed_ms: now,
        target: append.target,
        change: append.change,
    });
    match replica.propose(Command::Message(command)).await? {
        StateReply::Changed {
            epoch,
            seq,
            ts,
            repeat,
            before,
        } => {
            if !repeat {
                core.metrics().changed.inc();
            }
            Ok(Reply::Changed {
                epoch,
                seq,
                ts,
                repeat,
                before,
            })
        }
        other => Err(unexpected(&other)),
    }
}

/// The changed messages of a range, confirmed by a quorum.
async fn changes(
    core: &Core,
    shard: ShardId,
    channel: ChannelNumber,
    wanted: &ChangesWanted,
    grant: Option<&Grant>,
) -> Answer {
    let page = read(core, shard, channel, grant, |view| {
        query::changes(view, channel, wanted)
    })
    .await?;
    page.map(Reply::Page).ok_or_else(|| of_another_epoch(channel))
}

/// Keys of a message's expansion, confirmed by a quorum.
async fn expansion(
    core: &Core,
    shard: ShardId,
    channel: ChannelNumber,
    (target, after): (Position, &str),
    grant: Option<&Grant>,
) -> Answer {
    let found = read(core, shard, channel, grant, |view| {
        query::expansion(view, channel, target, after)
    })
    .await?;
    let Some(found) = found else {
        let text = format!("the log has no message {}", target.seq);
        return Err(refused(Code::TargetUnknown, text));
    };
    Ok(Reply::Expansion {
        epoch: found.epoch,
        version: found.version,
        expansion: found.expansion,
        more: found.more,
    })
}

fn of_another_epoch(channel: ChannelNumber) -> Refusal {
    let text = format!("the log of channel {channel} is of another epoch");
    refused(Code::TargetUnknown, text)
}
