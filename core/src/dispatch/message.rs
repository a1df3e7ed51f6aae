//! Requests to message shards: appends, pages, deliveries.

use bytes::Bytes;
use throng_protocol::cluster::{Anchor, Answer, Append, Direction, Reply};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, ShardId};
use throng_protocol::limits::{BODY_BYTES_MAX, PAGE_BYTES_TARGET, PAGE_ENTRIES_MAX};
use throng_protocol::placement::Plane;
use throng_state::command::{AppendMessage, Command, MessageCommand};
use throng_state::outbox::Delivery;
use throng_state::{Reply as StateReply, query};

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
    let (state, now) = (core.cluster()?, core.now_ms());
    let claims = grant::verify(&state.keys, &append.grant, now)
        .map_err(|error| refused(error.code(), error.to_string()))?;
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

/// A page of a channel's log, confirmed by a quorum.
pub(super) async fn page(
    core: &Core,
    shard: ShardId,
    channel: ChannelNumber,
    anchor: Anchor,
    direction: Direction,
    limit: u32,
) -> Answer {
    let Anchor::Seq(anchor) = anchor else {
        return Err(refused(
            Code::Internal,
            "this node does not know anchors by time stamp",
        ));
    };
    let replica = core.replica_of(shard, Plane::Message)?;
    replica.linearize().await?;
    let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
    let page =
        replica.read(|view| query::page(view, channel, anchor, direction, limit, PAGE_BYTES_TARGET))?;
    page.map(Reply::Page).ok_or_else(|| {
        refused(
            Code::ChannelUnknown,
            format!("there is no channel {channel} here"),
        )
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
