//! What clients ask for, as calls of the SDK.

use throng_client::{Ack, Client as Sdk, Fenced, RequestError, SendError};
use throng_protocol::message;

use super::refused;
use crate::changes;
use crate::history::{Anchor, Answer, Ask, Channel, Direction, Page};
use crate::workload;

/// Asks, and waits for the answer.
pub(super) async fn answer(sdk: &Sdk, ask: Ask) -> Answer {
    let answered = match ask {
        Ask::Send { channel, key, hash } => {
            let (Some(body), Some((group, channel))) = (workload::body_of(key, hash), names(channel)) else {
                return unnamed();
            };
            return sent(sdk.send_with_id(&group, &channel, key, body).await);
        }
        Ask::Change { channel, key, change } => {
            let (Some(wire), Some((group, channel))) = (change.wire(key), names(channel)) else {
                return unnamed();
            };
            let changed = sdk.change_with_id(&group, &channel, key, change.target, wire);
            changed.await.map(|changed| Answer::Acked {
                epoch: changed.position.epoch,
                seq: changed.position.seq,
                ts: changed.ts,
                repeat: changed.repeat,
            })
        }
        Ask::Join { group } => match group.id() {
            Ok(group) => sdk.join(&group).await.map(|()| Answer::Done),
            Err(_) => return unnamed(),
        },
        Ask::Leave { group } => match group.id() {
            Ok(group) => sdk.leave(&group).await.map(|()| Answer::Done),
            Err(_) => return unnamed(),
        },
        Ask::Page {
            channel,
            anchor,
            direction,
            limit,
        } => page(sdk, channel, anchor, direction, limit).await,
        Ask::Kick { group, user } => match (group.id(), user.id()) {
            (Ok(group), Ok(user)) => sdk.kick(&group, &user).await.map(fenced),
            _ => return unnamed(),
        },
        Ask::Mute {
            group,
            user,
            until_ms,
        } => match (group.id(), user.id()) {
            (Ok(group), Ok(user)) => sdk.mute_until(&group, &user, until_ms).await.map(fenced),
            _ => return unnamed(),
        },
        // Their answers come from elsewhere: `follow` asks, and the back end.
        Ask::Subscribe { .. } | Ask::Assign { .. } | Ask::Permit { .. } => return unnamed(),
    };
    answered.unwrap_or_else(|error| refused(&error))
}

/// The answer to a send.
pub(super) fn sent(sent: Result<Ack, SendError>) -> Answer {
    match sent {
        Ok(Ack {
            epoch,
            seq,
            ts,
            repeat,
            ..
        }) => Answer::Acked {
            epoch,
            seq,
            ts,
            repeat,
        },
        Err(error) => refused(&error),
    }
}

async fn page(
    sdk: &Sdk,
    channel: Channel,
    anchor: Anchor,
    direction: Direction,
    limit: u32,
) -> Result<Answer, RequestError> {
    let Some((group, id)) = names(channel) else {
        return Ok(unnamed());
    };
    let direction = match direction {
        Direction::After => message::Direction::After,
        Direction::Before => message::Direction::Before,
    };
    let anchor = match anchor {
        Anchor::Seq(seq) => message::Anchor::Seq(seq),
        Anchor::Ts(ts) => message::Anchor::Ts(ts),
    };
    let page = sdk.history(&group, &id, anchor, direction, limit).await?;
    let (entries, shown) = page.entries.iter().filter_map(changes::seen).unzip();
    Ok(Answer::Page(Page {
        epoch: page.epoch,
        prev: page.prev,
        head: page.head,
        entries,
        shown,
    }))
}

fn fenced(fenced: Fenced) -> Answer {
    Answer::Fenced {
        version: fenced.version,
        pending: fenced.pending.iter().filter_map(Channel::named).collect(),
        more: fenced.more,
    }
}

fn names(channel: Channel) -> Option<(throng_protocol::ids::GroupId, throng_protocol::ids::ChannelId)> {
    Some((channel.group().id().ok()?, channel.id().ok()?))
}

/// The world has no such name: the workload and this driver do not fit.
fn unnamed() -> Answer {
    Answer::Refused {
        code: throng_protocol::code::Code::Forbidden.number(),
        unknown: false,
    }
}
