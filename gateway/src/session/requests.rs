//! Carrying out the requests of a session.
//!
//! Membership comes first, then the channel: whoever may not know that a channel exists is not told.

use std::sync::Arc;

use throng_fanout::SubscribeError;
use throng_protocol::cluster::{Append, ChannelInfo, Direction, Reply, Request};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelId, GroupId, Position, Seq};
use throng_protocol::limits::PAGE_ENTRIES_DEFAULT;
use throng_protocol::message::{
    self, Ack, CreateChannel, Done, History, Message, Place, RequestId, Subscribed, Sync,
};
use throng_protocol::placement::PlacementKey;
use throng_protocol::session::server::ServerRequest;
use tokio::time::Duration;

use super::member::{Member, Reserved};
use super::page;
use crate::channels::{Channel, SubscribeFailure};
use crate::directory::Identity;
use crate::limits::ELECTION_WAIT;
use crate::refused::Refused;
use crate::shared::Shared;
use crate::upstream::Deadline;

/// What a request that succeeded is answered with.
pub(super) struct Answer {
    pub message: Message,
    /// Deliveries begin once the message is written.
    pub attach: Option<Arc<Channel>>,
}

impl From<Message> for Answer {
    fn from(message: Message) -> Self {
        Self {
            message,
            attach: None,
        }
    }
}

/// One session's requests.
#[derive(Clone)]
pub(super) struct Requests {
    pub shared: Arc<Shared>,
    pub member: Arc<Member>,
}

impl Requests {
    /// Carries out a request other than a send or a resume.
    pub async fn carry_out(&self, request: ServerRequest) -> Result<Answer, Refused> {
        let id = request.request();
        match request {
            ServerRequest::CreateGroup(m) => self.create_group(id, m.group).await,
            ServerRequest::CreateChannel(m) => self.create_channel(m).await,
            ServerRequest::Join(m) => self.join(id, m.group).await,
            ServerRequest::Leave(m) => self.leave(id, m.group).await,
            ServerRequest::Send(m) => self.send(m).await,
            ServerRequest::Subscribe(m) => {
                let place = Place {
                    group: m.group,
                    channel: m.channel,
                    position: m.position,
                };
                self.subscribe(id, place).await
            }
            ServerRequest::Unsubscribe(m) => match self.member.unsubscribe(m.channel) {
                true => Ok(done(id)),
                false => Err(Refused::new(
                    Code::NotSubscribed,
                    format!("channel {} is not subscribed", m.channel),
                )),
            },
            ServerRequest::Sync(m) => self.sync(m).await,
            ServerRequest::History(m) => self.history(m).await,
            // Taken apart before it comes here.
            ServerRequest::Resume(_) => Ok(done(id)),
        }
    }

    async fn create_group(&self, id: RequestId, group: GroupId) -> Result<Answer, Refused> {
        let Identity { app, user, number } = self.member.who.clone();
        let request = Request::CreateGroup {
            app,
            group: group.clone(),
            user,
            number,
        };
        self.group_command(id, &group, &request).await
    }

    async fn create_channel(&self, create: CreateChannel) -> Result<Answer, Refused> {
        let who = &self.member.who;
        let CreateChannel {
            request: id,
            group,
            channel,
        } = create;
        let request = Request::CreateChannel {
            app: who.app.clone(),
            group: group.clone(),
            channel,
            number: who.number,
        };
        self.group_command(id, &group, &request).await
    }

    async fn join(&self, id: RequestId, group: GroupId) -> Result<Answer, Refused> {
        let Identity { app, user, number } = self.member.who.clone();
        let request = Request::Join {
            app,
            group: group.clone(),
            user,
            number,
        };
        let joined = self.group_command(id, &group, &request).await;
        // The grant held, if any, is of the membership before.
        self.shared.directory.forget_grant(&self.member.who, &group);
        joined
    }

    async fn leave(&self, id: RequestId, group: GroupId) -> Result<Answer, Refused> {
        let who = &self.member.who;
        let request = Request::Leave {
            app: who.app.clone(),
            group: group.clone(),
            number: who.number,
        };
        let left = self.group_command(id, &group, &request).await;
        self.shared.directory.forget_grant(who, &group);
        if left.is_ok() {
            self.member.leave(&group);
        }
        left
    }

    async fn group_command(
        &self,
        id: RequestId,
        group: &GroupId,
        request: &Request,
    ) -> Result<Answer, Refused> {
        let placed = PlacementKey::Group(&self.member.who.app, group);
        match self
            .shared
            .upstream
            .call_key(placed, request, Deadline::start())
            .await?
        {
            Reply::Done | Reply::Channel(_) => Ok(done(id)),
            other => Err(Refused::unexpected(&other)),
        }
    }

    async fn send(&self, send: message::Send) -> Result<Answer, Refused> {
        let by = Deadline::start();
        let directory = &self.shared.directory;
        let who = &self.member.who;
        let mut granted = directory.grant(who, &send.group, by).await?;
        let info = directory
            .channel(&who.app, &send.group, &send.channel, by)
            .await?;
        loop {
            let append = Append {
                channel: info.number,
                grant: granted.grant.clone(),
                client_message_id: send.client_message_id,
                first_attempt_ms: send.first_attempt_ms,
                body: send.body.clone(),
            };
            let request = Request::Append {
                shard: info.shard,
                append,
            };
            match self.shared.upstream.call_shard(info.shard, &request, by).await {
                Ok(Reply::Appended {
                    epoch,
                    seq,
                    ts,
                    repeat,
                }) => {
                    let (request, channel) = (send.request, info.number);
                    return Ok(Message::Ack(Ack {
                        request,
                        channel,
                        epoch,
                        seq,
                        ts,
                        repeat,
                    })
                    .into());
                }
                Ok(other) => return Err(Refused::unexpected(&other)),
                // Computed from a grant that may be out of date: confirmed with a fresh one.
                Err(refused)
                    if matches!(refused.code, Code::NotMember | Code::Forbidden) && !granted.fresh =>
                {
                    granted = directory.fresh_grant(who, &send.group, by).await?;
                }
                Err(refused) => self.settle(refused, by).await?,
            }
        }
    }

    /// A channel that management knows and its shard does not is on its way there: waits a moment.
    async fn settle(&self, refused: Refused, by: Deadline) -> Result<(), Refused> {
        if refused.code != Code::ChannelUnknown {
            return Err(refused);
        }
        by.wait(ELECTION_WAIT).await;
        if by.passed() {
            return Err(Refused::unavailable("the channel is being created"));
        }
        Ok(())
    }

    /// The channel, if the user is a member of its group.
    async fn readable(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        by: Deadline,
    ) -> Result<Arc<ChannelInfo>, Refused> {
        let directory = &self.shared.directory;
        let who = &self.member.who;
        directory.grant(who, group, by).await?;
        directory.channel(&who.app, group, channel, by).await
    }

    /// Begins the deliveries of a channel.
    pub async fn subscribe(&self, id: RequestId, place: Place) -> Result<Answer, Refused> {
        let by = Deadline::start();
        let info = self.readable(&place.group, &place.channel, by).await?;
        let mut log = None;
        let mut reserved = Reserved::Held;
        loop {
            let channel = self.shared.channels.follow(&info);
            if !channel.opened(by).await {
                let refused = Refused::unavailable("the channel could not be followed in time");
                return self.give_up(reserved, &info, refused);
            }
            match self.member.reserve(&channel) {
                Reserved::Full => {
                    let text = "the session is subscribed to as many channels as allowed";
                    return Err(Refused::new(Code::TooManySubscriptions, text));
                }
                Reserved::New => reserved = Reserved::New,
                Reserved::Held => {}
            }
            match channel.subscribe(self.member.session, place.position, log) {
                Ok(begun) => {
                    self.member.hold(&channel);
                    let subscribed = Subscribed {
                        request: id,
                        group: place.group,
                        channel_name: place.channel,
                        channel: info.number,
                        position: begun.position,
                        head: begun.head,
                        start: begun.start,
                    };
                    return Ok(Answer {
                        message: subscribed.into(),
                        attach: Some(channel),
                    });
                }
                Err(SubscribeFailure::Fanout(SubscribeError::HeadNeeded)) if log.is_none() => {
                    log = match self
                        .page(&info, place.position.seq, Direction::After, 1, by)
                        .await
                    {
                        Ok(page) => Some(Position {
                            epoch: page.epoch,
                            seq: page.head,
                        }),
                        Err(refused) => return self.give_up(reserved, &info, refused),
                    };
                }
                // The log that was read is of another epoch than the feed, which is about to follow.
                Err(SubscribeFailure::Fanout(SubscribeError::HeadNeeded)) if !by.passed() => {
                    log = None;
                    by.wait(ELECTION_WAIT).await;
                }
                Err(_) if !by.passed() => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(_) => {
                    let refused = Refused::unavailable("the channel was being given up");
                    return self.give_up(reserved, &info, refused);
                }
            }
        }
    }

    /// Frees what was reserved for a subscription that did not begin.
    fn give_up(&self, reserved: Reserved, info: &ChannelInfo, refused: Refused) -> Result<Answer, Refused> {
        if reserved == Reserved::New {
            self.member.unsubscribe(info.number);
        }
        Err(refused)
    }

    async fn sync(&self, sync: Sync) -> Result<Answer, Refused> {
        let by = Deadline::start();
        let info = self.readable(&sync.group, &sync.channel, by).await?;
        let page = self
            .page(&info, sync.position.seq, Direction::After, sync.limit, by)
            .await?;
        Ok(page::answer(sync.request, info.number, page, Direction::After).into())
    }

    async fn history(&self, history: History) -> Result<Answer, Refused> {
        let by = Deadline::start();
        let info = self.readable(&history.group, &history.channel, by).await?;
        let direction = history.direction;
        let anchor = match (direction, history.anchor) {
            (Direction::Before, Seq(0)) => Seq(u64::MAX),
            (_, anchor) => anchor,
        };
        let page = self.page(&info, anchor, direction, history.limit, by).await?;
        Ok(page::answer(history.request, info.number, page, direction).into())
    }

    async fn page(
        &self,
        info: &ChannelInfo,
        anchor: Seq,
        direction: Direction,
        limit: u32,
        by: Deadline,
    ) -> Result<throng_protocol::cluster::Page, Refused> {
        let limit = if limit == 0 { PAGE_ENTRIES_DEFAULT } else { limit };
        loop {
            match self
                .shared
                .upstream
                .page(info, anchor, direction, limit, by)
                .await
            {
                Err(refused) => self.settle(refused, by).await?,
                page => return page,
            }
        }
    }
}

fn done(request: RequestId) -> Answer {
    Message::from(Done { request }).into()
}
