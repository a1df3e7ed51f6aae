//! Carrying out the requests of a session.
//!
//! Membership comes first, then the channel: whoever may not know that a channel exists is not told.

use std::sync::Arc;

use throng_planted::planted;
use throng_protocol::cluster::{Anchor, Append, By, ChannelInfo, Direction, Grant, Page, Reply, Request};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelId, ChannelNumber, GroupId, Seq, Ts, UserId, UserNumber};
use throng_protocol::limits::PAGE_ENTRIES_DEFAULT;
use throng_protocol::message::{
    self, Ack, CreateChannel, Done, Fenced, History, Kick, Message, Mute, Place, RequestId, Sync,
};
use throng_protocol::placement::PlacementKey;
use throng_protocol::session::server::ServerRequest;

use super::member::Member;
use super::page;
use crate::channels::Channel;
use crate::directory::{Granted, Identity};
use crate::limits::ELECTION_WAIT;
use crate::refused::Refused;
use crate::shared::Shared;
use crate::upstream::{Deadline, PageAsk};

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
                    ts: m.ts,
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
            ServerRequest::Kick(m) => self.kick(m).await,
            ServerRequest::Mute(m) => self.mute(m).await,
            ServerRequest::Change(m) => self.change(m).await,
            ServerRequest::Changes(m) => self.changes(m).await,
            ServerRequest::ReadExpansion(m) => self.read_expansion(m).await,
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
            by: Some(who.number),
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
        let Identity { app, number, .. } = &self.member.who;
        self.shared.directory.forget_grant(app, &group, *number);
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
        self.shared.directory.forget_grant(&who.app, &group, who.number);
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
        let (info, reply) = self
            .ask(&send.group, &send.channel, |info, grant| {
                let append = Append {
                    channel: info.number,
                    by: By::Member(grant),
                    client_message_id: send.client_message_id,
                    first_attempt_ms: send.first_attempt_ms,
                    body: send.body.clone(),
                };
                let shard = info.shard;
                Request::Append { shard, append }
            })
            .await?;
        match reply {
            Reply::Appended {
                epoch,
                seq,
                ts,
                repeat,
            } => Ok(Message::Ack(Ack {
                request: send.request,
                channel: info.number,
                epoch,
                seq,
                ts,
                repeat,
                before: Seq(0),
            })
            .into()),
            other => Err(Refused::unexpected(&other)),
        }
    }

    async fn sync(&self, sync: Sync) -> Result<Answer, Refused> {
        let anchor = match sync.ts {
            Ts(0) => Anchor::Seq(sync.position.seq),
            ts => Anchor::Ts(ts),
        };
        let ask = (anchor, Direction::After, sync.limit);
        let (channel, page) = self.read(&sync.group, &sync.channel, ask).await?;
        Ok(page::answer(sync.request, channel, page, Direction::After).into())
    }

    async fn history(&self, history: History) -> Result<Answer, Refused> {
        let direction = history.direction;
        let anchor = match (direction, history.anchor, history.ts) {
            (Direction::Before, Seq(0), Ts(0)) => Anchor::Seq(Seq(u64::MAX)),
            (_, anchor, Ts(0)) => Anchor::Seq(anchor),
            (_, _, ts) => Anchor::Ts(ts),
        };
        let ask = (anchor, direction, history.limit);
        let (channel, page) = self.read(&history.group, &history.channel, ask).await?;
        Ok(page::answer(history.request, channel, page, direction).into())
    }

    /// A page of a channel, by the right of the session's user.
    async fn read(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        (anchor, direction, limit): (Anchor, Direction, u32),
    ) -> Result<(ChannelNumber, Page), Refused> {
        let by = Deadline::start();
        let (mut granted, info) = self.readable(group, channel, by).await?;
        let limit = if limit == 0 { PAGE_ENTRIES_DEFAULT } else { limit };
        let ask = PageAsk {
            anchor,
            direction,
            limit,
            grant: None,
        };
        let page = self.page(&info, ask, &mut granted, by).await?;
        Ok((info.number, page))
    }

    /// Asks a channel's shard by the right of the session's user, which is renewed when it is outdated.
    pub(super) async fn ask(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        request: impl Fn(&ChannelInfo, Grant) -> Request,
    ) -> Result<(Arc<ChannelInfo>, Reply), Refused> {
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

    /// The channel and the user's right in it: whoever may not know that it exists is not told.
    pub(super) async fn readable(
        &self,
        group: &GroupId,
        channel: &ChannelId,
        by: Deadline,
    ) -> Result<(Granted, Arc<ChannelInfo>), Refused> {
        let directory = &self.shared.directory;
        let who = &self.member.who;
        let granted = directory.grant(who, group, by).await?;
        Ok((granted, directory.channel(&who.app, group, channel, by).await?))
    }

    /// A page that the shard judges by the grant, which is renewed when it is outdated.
    pub(super) async fn page(
        &self,
        info: &ChannelInfo,
        ask: PageAsk,
        granted: &mut Granted,
        by: Deadline,
    ) -> Result<Page, Refused> {
        loop {
            let ask = PageAsk {
                grant: Some(granted.grant.clone()),
                ..ask.clone()
            };
            match self.shared.upstream.page(info, ask, by).await {
                Ok(page) => return Ok(page),
                Err(refused) => self.confirm(refused, granted, &info.group, by).await?,
            }
        }
    }

    /// What follows from a refusal: one that a grant may be the reason of is confirmed with a fresh
    /// one; a channel that management knows and its shard does not is on its way there. Returns if
    /// the request is to be tried again.
    pub(super) async fn confirm(
        &self,
        refused: Refused,
        granted: &mut Granted,
        group: &GroupId,
        by: Deadline,
    ) -> Result<(), Refused> {
        if refused.stale {
            return self.renew(granted, group, by).await;
        }
        if refused.is_of_grant() && !granted.fresh && !planted!("old_grant_is_final") {
            let judged = granted.rights.version;
            self.renew(granted, group, by).await?;
            // The same grant again would be refused again.
            let same = granted.rights.version == judged && refused.code != Code::NotMember;
            return if same { Err(refused) } else { Ok(()) };
        }
        if refused.code != Code::ChannelUnknown {
            return Err(refused);
        }
        by.wait(ELECTION_WAIT).await;
        if by.passed() {
            return Err(Refused::unavailable("the channel is being created"));
        }
        Ok(())
    }

    /// Asks management for the right anew; what it refuses is what the client is told.
    pub(super) async fn renew(
        &self,
        granted: &mut Granted,
        group: &GroupId,
        by: Deadline,
    ) -> Result<(), Refused> {
        if granted.fresh {
            // It was asked for before the fence, or together with others who asked before it.
            by.wait(ELECTION_WAIT).await;
        }
        if by.passed() {
            return Err(Refused::unavailable("the right to do this is being renewed"));
        }
        let directory = &self.shared.directory;
        *granted = directory.fresh_grant(&self.member.who, group, by).await?;
        Ok(())
    }

    async fn kick(&self, kick: Kick) -> Result<Answer, Refused> {
        let Kick { request, group, user } = kick;
        let by = Deadline::fence();
        let number = self.target(&group, &user, by).await?;
        let who = &self.member.who;
        let asked = Request::Kick {
            app: who.app.clone(),
            group: group.clone(),
            user,
            number,
            by: Some(who.number),
            since: None,
        };
        self.fence(request, &group, number, &asked, by).await
    }

    async fn mute(&self, mute: Mute) -> Result<Answer, Refused> {
        let Mute {
            request,
            group,
            user,
            until_ms,
        } = mute;
        let by = Deadline::fence();
        let number = self.target(&group, &user, by).await?;
        let who = &self.member.who;
        let asked = Request::Mute {
            app: who.app.clone(),
            group: group.clone(),
            user,
            number,
            until_ms,
            by: Some(who.number),
        };
        self.fence(request, &group, number, &asked, by).await
    }

    /// The number of the user a right is taken from. A name that has none stands for nobody, by a number that
    /// is never issued: management refuses it as anybody who is no member.
    async fn target(&self, group: &GroupId, user: &UserId, by: Deadline) -> Result<UserNumber, Refused> {
        let directory = &self.shared.directory;
        // Who has which name is told to members only.
        directory.grant(&self.member.who, group, by).await?;
        let known = directory.known_user(&self.member.who.app, user, by).await?;
        Ok(known.unwrap_or_default())
    }

    async fn fence(
        &self,
        id: RequestId,
        group: &GroupId,
        number: UserNumber,
        request: &Request,
        by: Deadline,
    ) -> Result<Answer, Refused> {
        let app = &self.member.who.app;
        let placed = PlacementKey::Group(app, group);
        let reply = self.shared.upstream.call_key(placed, request, by).await;
        self.shared.directory.forget_grant(app, group, number);
        match reply? {
            Reply::Fenced {
                version,
                pending,
                more,
            } => Ok(Message::from(Fenced {
                request: id,
                version,
                pending,
                more,
            })
            .into()),
            other => Err(Refused::unexpected(&other)),
        }
    }
}

fn done(request: RequestId) -> Answer {
    Message::from(Done { request }).into()
}
