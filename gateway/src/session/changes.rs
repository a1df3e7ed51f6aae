//! Carrying out what a session asks about changes to messages.

use throng_protocol::cluster::{AppendChange, By, ChannelInfo, Direction, Grant, Reply, Request};
use throng_protocol::ids::{ChannelId, GroupId};
use throng_protocol::message::{Ack, Change, Changes, Expansion, Message, ReadExpansion};

use super::page;
use super::requests::{Answer, Requests};
use crate::refused::Refused;
use crate::upstream::Deadline;

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

    /// Asks a channel's shard by the right of the session's user, which is renewed when it is outdated.
    async fn ask(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        request: impl Fn(&ChannelInfo, Grant) -> Request,
    ) -> Result<(std::sync::Arc<ChannelInfo>, Reply), Refused> {
        let by = Deadline::start();
        let (mut granted, info) = self.readable(group, channel, by).await?;
        loop {
            let request = request(&info, granted.grant.clone());
            match self.shared.upstream.call_shard(info.shard, &request, by).await {
                Ok(reply) => return Ok((info, reply)),
                Err(refused) => self.confirm(refused, &mut granted, group, by).await?,
            }
        }
    }
}
