//! Carrying out what a session asks about changes to messages.

use throng_protocol::cluster::{AppendChange, By, Direction, Reply, Request};
use throng_protocol::message::{Ack, Change, Changes, Expansion, Message, ReadExpansion};

use super::page;
use super::requests::{Answer, Requests};
use crate::refused::Refused;

impl Requests {
    pub(super) async fn change(&self, change: Change) -> Result<Answer, Refused> {
        let (info, reply) = self
            .ask(&change.group, &change.channel, |info, grant| {
                let change = AppendChange {
                    channel: info.number,
                    by: By::Member(grant),
                    client_message_id: change.client_message_id,
                    first_attempt_ms: change.first_attempt_ms,
                    target: change.target,
                    change: change.change.clone(),
                };
                let shard = info.shard;
                Request::Change { shard, change }
            })
            .await?;
        match reply {
            Reply::Changed {
                epoch,
                seq,
                ts,
                repeat,
                before,
            } => Ok(Message::from(Ack {
                request: change.request,
                channel: info.number,
                epoch,
                seq,
                ts,
                repeat,
                before,
            })
            .into()),
            other => Err(Refused::unexpected(&other)),
        }
    }

    pub(super) async fn changes(&self, changes: Changes) -> Result<Answer, Refused> {
        let (info, reply) = self
            .ask(&changes.group, &changes.channel, |info, grant| Request::Changes {
                shard: info.shard,
                channel: info.number,
                from: changes.from,
                to: changes.to,
                since: changes.since,
                grant,
            })
            .await?;
        match reply {
            Reply::Page(found) => {
                Ok(page::answer(changes.request, info.number, found, Direction::After).into())
            }
            other => Err(Refused::unexpected(&other)),
        }
    }

    pub(super) async fn read_expansion(&self, read: ReadExpansion) -> Result<Answer, Refused> {
        let (info, reply) = self
            .ask(&read.group, &read.channel, |info, grant| Request::Expansion {
                shard: info.shard,
                channel: info.number,
                target: read.target,
                after: read.after.clone(),
                grant: Some(grant),
            })
            .await?;
        match reply {
            Reply::Expansion {
                epoch: _,
                version,
                expansion,
                more,
            } => Ok(Message::from(Expansion {
                request: read.request,
                channel: info.number,
                target: read.target,
                version,
                expansion,
                more,
            })
            .into()),
            other => Err(Refused::unexpected(&other)),
        }
    }
}
