//! Commands of the handle, and their answers.

use throng_planted::planted;
use throng_protocol::ids::{ClientMessageId, MessageId, Position};
use throng_protocol::message;
use throng_protocol::session::client::{
    Answer, CommandError, OpId, RequestError as MachineError, SubscribeFrom, SubscribedAt,
};
use tokio::sync::oneshot;

use super::{Answered, Command, Driver, Key, Reply, Request};
use crate::client::{Ack, PendingSend};
use crate::error::{ConnectError, RequestError};
use crate::store::StoredSend;
use crate::subscription::{From, Subscription};
use throng_protocol::code::Class;

impl Driver {
    /// Takes up what an earlier run left.
    pub(super) fn restore(&mut self) -> Result<(), ConnectError> {
        let stored = self.config.store.load()?;
        for place in stored.positions {
            self.saved.insert((place.group, place.channel), place.position);
        }
        let mut pending = Vec::new();
        for send in stored.sends {
            let (reply, answer) = oneshot::channel();
            let (group, channel, id) = (send.group, send.channel, send.client_message_id);
            let taken = self.machine.send_since(
                0,
                group.clone(),
                channel.clone(),
                id,
                send.body.clone(),
                send.first_attempt_ms,
            );
            let waiting = Reply::Send {
                key: (group.clone(), channel.clone()),
                id,
                body: send.body,
                reply,
            };
            self.await_answer(taken, waiting);
            pending.push(PendingSend {
                group,
                channel,
                client_message_id: id,
                answer,
            });
        }
        *self.shared.restored.lock() = pending;
        Ok(())
    }

    pub(super) fn handle_command(&mut self, command: Command) {
        match command {
            Command::Send { key, id, body, reply } => self.handle_send(key, id, body, reply),
            Command::Request { request, reply } => self.handle_request(request, reply),
            Command::Subscribe { key, from, reply } => self.handle_subscribe(key, from, reply),
            Command::Unsubscribe { key, id } => self.drop_sink(&key, id),
        }
    }

    fn handle_send(&mut self, key: Key, id: ClientMessageId, body: bytes::Bytes, reply: Answered<Ack>) {
        let (group, channel) = key.clone();
        let send = StoredSend {
            group: group.clone(),
            channel: channel.clone(),
            client_message_id: id,
            first_attempt_ms: None,
            body: body.clone(),
        };
        if let Err(error) = self.config.store.save_send(&send) {
            let text = format!("the local store does not take the message: {error}");
            let _ = reply.send(Err(RequestError::local(Class::Retryable, text)));
            return;
        }
        let now_ms = self.now_ms();
        let taken = self.machine.send(now_ms, group, channel, id, body.clone());
        if taken.is_err() {
            self.forget_send(&key, id);
        }
        self.await_answer(taken, Reply::Send { key, id, body, reply });
    }

    fn handle_request(&mut self, request: Request, reply: Answered<Answer>) {
        let now_ms = self.now_ms();
        let taken = match request {
            Request::CreateGroup(group) => self.machine.create_group(now_ms, group),
            Request::CreateChannel((group, channel)) => self.machine.create_channel(now_ms, group, channel),
            Request::Join(group) => self.machine.join(now_ms, group),
            Request::Leave(group) => self.machine.leave(now_ms, group),
            Request::Kick(group, user) => self.machine.kick(now_ms, group, user),
            Request::Mute(group, user, until_ms) => self.machine.mute(now_ms, group, user, until_ms),
            Request::MuteFor(group, user, span) => {
                let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                let until_ms = self.machine.server_time_ms(now_ms).saturating_add(span_ms);
                self.machine.mute(now_ms, group, user, until_ms)
            }
            Request::History((group, channel), anchor, direction, limit) => self
                .machine
                .history(now_ms, group, channel, anchor, direction, limit),
            Request::Sync((group, channel), from, limit) => {
                self.machine.sync(now_ms, group, channel, from, limit)
            }
            Request::Change(key, id, target, change) => self.machine.change(now_ms, key, id, target, change),
            Request::Changes(key, from, to, since) => self.machine.changes(now_ms, key, from, to, since),
            Request::Expansion(key, target, after) => self.machine.expansion(now_ms, key, target, after),
        };
        self.await_answer(taken, Reply::Request(reply));
    }

    fn handle_subscribe(&mut self, key: Key, from: From, reply: Answered<Subscription>) {
        if let Some(sink) = self.sinks.get(&key)
            && sink.items.is_closed()
        {
            let id = sink.id;
            self.drop_sink(&key, id);
        }
        let from = match from {
            From::Head => SubscribeFrom::Head,
            From::Start => SubscribeFrom::Start,
            From::Position(position) => SubscribeFrom::Position(position),
            From::Ts(ts) => SubscribeFrom::Ts(ts),
            From::Stored => match self.saved.get(&key) {
                Some(position) => SubscribeFrom::Position(*position),
                None => SubscribeFrom::Head,
            },
        };
        let now_ms = self.now_ms();
        let (group, channel) = key.clone();
        let taken = self.machine.subscribe(now_ms, group, channel, from);
        self.await_answer(taken, Reply::Subscribe { key, reply });
    }

    pub(super) fn unsubscribe(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let (group, channel) = key.clone();
        match self.machine.unsubscribe(now_ms, group, channel) {
            Ok(op) => {
                self.replies.insert(op, Reply::Nobody);
            }
            Err(CommandError::QueueFull(_)) => self.abandoned.push(key),
            Err(_) => {}
        }
    }

    pub(super) fn give_up_abandoned(&mut self) {
        if self.machine.has_room() {
            for key in std::mem::take(&mut self.abandoned) {
                self.unsubscribe(key);
            }
        }
    }

    fn await_answer(&mut self, taken: Result<OpId, CommandError>, reply: Reply) {
        match taken {
            Ok(op) => {
                self.replies.insert(op, reply);
            }
            Err(error) => self.fail(reply, error.into()),
        }
    }

    fn fail(&mut self, reply: Reply, error: RequestError) {
        // A caller that is gone does not wait for its answer.
        match reply {
            Reply::Send { reply, .. } => drop(reply.send(Err(error))),
            Reply::Request(reply) => drop(reply.send(Err(error))),
            Reply::Subscribe { reply, .. } => drop(reply.send(Err(error))),
            Reply::Nobody => {}
        }
    }

    pub(super) fn answered(&mut self, op: OpId, outcome: Result<Answer, MachineError>) {
        let Some(reply) = self.replies.remove(&op) else {
            return;
        };
        if let Reply::Send { key, id, .. } = &reply {
            // A send that is only given up by this process is tried again by the next.
            if !matches!(outcome, Err(MachineError::Closed(_))) {
                self.forget_send(&key.clone(), *id);
            }
        }
        match (reply, outcome) {
            (reply, Err(error)) => self.fail(reply, error.into()),
            (Reply::Send { id, reply, .. }, Ok(Answer::Sent(ack))) => {
                let _ = reply.send(Ok(acked(&ack, id)));
            }
            (Reply::Request(reply), Ok(answer)) => {
                let _ = reply.send(Ok(answer));
            }
            (Reply::Subscribe { key, reply }, Ok(Answer::Subscribed(at))) => {
                self.begin_subscription(key, &at, reply);
            }
            (reply, Ok(_)) => {
                let error = RequestError::local(Class::Fatal, "an answer of another kind");
                self.fail(reply, error);
            }
        }
    }

    fn begin_subscription(&mut self, key: Key, at: &SubscribedAt, reply: Answered<Subscription>) {
        let subscription = self.add_sink(key, at);
        if let Err(Ok(unclaimed)) = reply.send(Ok(subscription)) {
            // The caller is gone; dropping the subscription gives it up.
            drop(unclaimed);
        }
    }

    pub(super) fn save_attempt(&mut self, op: OpId, first_attempt_ms: u64) {
        if let Some(Reply::Send { key, id, body, .. }) = self.replies.get(&op) {
            let send = StoredSend {
                group: key.0.clone(),
                channel: key.1.clone(),
                client_message_id: *id,
                first_attempt_ms: Some(first_attempt_ms),
                body: body.clone(),
            };
            if let Err(error) = self.config.store.save_send(&send) {
                tracing::warn!(%error, "the local store does not keep a send's first attempt");
            }
        }
    }

    fn forget_send(&self, (group, channel): &Key, id: ClientMessageId) {
        if let Err(error) = self.config.store.remove_send(group, channel, id) {
            tracing::warn!(%error, "the local store does not forget a send; it will be repeated");
        }
    }

    pub(super) fn save_positions(&mut self) {
        let ahead = planted!("position_saved_ahead").then(|| self.machine.positions());
        for place in ahead.unwrap_or_else(|| self.shared.positions()) {
            self.save_position(&place);
        }
    }

    pub(super) fn save_position(&mut self, place: &message::Place) {
        let key = (place.group.clone(), place.channel.clone());
        if self.saved.get(&key) == Some(&place.position) || place.position == Position::default() {
            return;
        }
        match self.config.store.save_position(place) {
            Ok(()) => drop(self.saved.insert(key, place.position)),
            Err(error) => tracing::warn!(%error, "the local store does not keep a position"),
        }
    }
}

fn acked(ack: &message::Ack, client_message_id: ClientMessageId) -> Ack {
    Ack {
        id: MessageId {
            channel: ack.channel,
            epoch: ack.epoch,
            seq: ack.seq,
        },
        channel: ack.channel,
        epoch: ack.epoch,
        seq: ack.seq,
        ts: ack.ts,
        repeat: ack.repeat,
        client_message_id,
    }
}
