//! Commands that wait for an answer: their queue, retries and deadlines.
//!
//! Sends and changes of one channel form a line of which only the first may be in flight. Everything else is
//! independent. A command in flight when its connection ends goes out again on the next one, with
//! the same `client_message_id` and `first_attempt_ms`: every operation of the protocol is
//! idempotent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::{
    Answer, ClientEvent, ClientMachine, CommandError, Key, OpId, Purpose, RequestError, SyncFrom, Timer,
};
use crate::cluster::Change;
use crate::code::{Class, Code};
use crate::ids::{ChannelId, ClientMessageId, GroupId, Position, Seq, Ts, UserId};
use crate::limits::BODY_BYTES_MAX;
use crate::message::{
    self, Ack, Anchor, CreateChannel, CreateGroup, Direction, Expansion, History, Join, Kick, Leave, Message,
    Mute, ReadExpansion, RequestId, Send, Sync,
};
use throng_planted::planted;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Send {
        key: Key,
        id: ClientMessageId,
        body: Bytes,
    },
    Change {
        key: Key,
        id: ClientMessageId,
        target: Position,
        change: Change,
    },
    CreateGroup(GroupId),
    CreateChannel(Key),
    Join(GroupId),
    Leave(GroupId),
    Kick {
        group: GroupId,
        user: UserId,
    },
    Mute {
        group: GroupId,
        user: UserId,
        until_ms: u64,
    },
    History {
        key: Key,
        anchor: Anchor,
        direction: Direction,
        limit: u32,
    },
    Sync {
        key: Key,
        from: SyncFrom,
        limit: u32,
    },
    Changes {
        key: Key,
        from: Position,
        to: Seq,
        since: Seq,
    },
    ReadExpansion {
        key: Key,
        target: Position,
        after: String,
    },
    /// Carried out by the subscription itself; here for its deadline.
    Subscribe(Key),
    Unsubscribe,
}

impl Request {
    fn frame(&self, request: RequestId, first_attempt_ms: u64) -> Option<Message> {
        match self.clone() {
            Self::Send { key, id, body } => Some(Message::from(Send {
                request,
                group: key.0,
                channel: key.1,
                client_message_id: id,
                first_attempt_ms,
                body,
            })),
            Self::Change {
                key,
                id,
                target,
                change,
            } => Some(Message::from(message::Change {
                request,
                group: key.0,
                channel: key.1,
                client_message_id: id,
                first_attempt_ms,
                target,
                change,
            })),
            other => other.group_frame(request).or_else(|| other.read_frame(request)),
        }
    }

    fn group_frame(&self, request: RequestId) -> Option<Message> {
        Some(match self.clone() {
            Self::CreateGroup(group) => CreateGroup { request, group }.into(),
            Self::CreateChannel((group, channel)) => CreateChannel {
                request,
                group,
                channel,
            }
            .into(),
            Self::Join(group) => Join { request, group }.into(),
            Self::Leave(group) => Leave { request, group }.into(),
            Self::Kick { group, user } => Kick { request, group, user }.into(),
            Self::Mute {
                group,
                user,
                until_ms,
            } => Mute {
                request,
                group,
                user,
                until_ms,
            }
            .into(),
            _ => return None,
        })
    }

    fn read_frame(&self, request: RequestId) -> Option<Message> {
        let (group, channel) = self.read_key()?.clone();
        Some(match self.clone() {
            Self::History {
                anchor,
                direction,
                limit,
                ..
            } => {
                let (anchor, ts) = match anchor {
                    Anchor::Seq(seq) => (seq, Ts(0)),
                    // On the wire a stamp of 0 is none. No entry is as old as 1 either.
                    Anchor::Ts(Ts(0)) if direction == Direction::Before => (Seq(0), Ts(1)),
                    Anchor::Ts(ts) => (Seq(0), ts),
                };
                History {
                    request,
                    group,
                    channel,
                    anchor,
                    direction,
                    limit,
                    ts,
                }
                .into()
            }
            Self::Sync { from, limit, .. } => {
                let (position, ts) = match from {
                    SyncFrom::Position(position) => (position, Ts(0)),
                    SyncFrom::Ts(ts) => (Position::default(), ts),
                };
                Sync {
                    request,
                    group,
                    channel,
                    position,
                    limit,
                    ts,
                }
                .into()
            }
            Self::Changes { from, to, since, .. } => message::Changes {
                request,
                group,
                channel,
                from,
                to,
                since,
            }
            .into(),
            Self::ReadExpansion { target, after, .. } => ReadExpansion {
                request,
                group,
                channel,
                target,
                after,
            }
            .into(),
            _ => return None,
        })
    }

    /// The channel that is read.
    fn read_key(&self) -> Option<&Key> {
        match self {
            Self::History { key, .. }
            | Self::Sync { key, .. }
            | Self::Changes { key, .. }
            | Self::ReadExpansion { key, .. } => Some(key),
            _ => None,
        }
    }

    /// The channel whose line it stands in: what a user writes there keeps its order.
    fn line(&self) -> Option<&Key> {
        match self {
            Self::Send { key, .. } | Self::Change { key, .. } => Some(key),
            _ => None,
        }
    }

    fn takes(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Sent(_) => self.line().is_some(),
            Answer::Page(_) => matches!(
                self,
                Self::History { .. } | Self::Sync { .. } | Self::Changes { .. }
            ),
            Answer::Expansion(_) => matches!(self, Self::ReadExpansion { .. }),
            Answer::Subscribed(_) => matches!(self, Self::Subscribe(_)),
            Answer::Fenced(_) => matches!(self, Self::Kick { .. } | Self::Mute { .. }),
            Answer::Done => matches!(
                self,
                Self::CreateGroup(_)
                    | Self::CreateChannel(_)
                    | Self::Join(_)
                    | Self::Leave(_)
                    | Self::Unsubscribe
            ),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In `ready`, or behind another send of its channel, or without a connection.
    Waiting,
    InFlight,
    Backoff,
    /// Given up while in flight; its channel waits for the answer or the end of the connection.
    Abandoned,
}

#[derive(Debug)]
struct Operation {
    request: Request,
    state: State,
    deadline_ms: u64,
    attempts: u32,
    /// An earlier attempt may have been carried out: nobody heard its answer, or it was refused for
    /// the moment, which a node also says that does not know.
    tried: bool,
    first_attempt_ms: Option<u64>,
    last: Option<message::Error>,
}

#[derive(Debug, Default)]
pub(super) struct Operations {
    last_id: u64,
    all: BTreeMap<OpId, Operation>,
    ready: BTreeSet<OpId>,
    lines: BTreeMap<Key, VecDeque<OpId>>,
}

impl Operations {
    pub(super) fn ids(&self) -> Vec<OpId> {
        self.all.keys().copied().collect()
    }

    /// Whether nothing stands before it in its channel.
    fn first_in_line(&self, op: OpId) -> bool {
        match self.all.get(&op).map(|operation| &operation.request) {
            Some(Request::Subscribe(_) | Request::Unsubscribe) | None => false,
            Some(request) => request
                .line()
                .is_none_or(|key| self.lines.get(key).and_then(|line| line.front()) == Some(&op)),
        }
    }

    fn waiting(&self, op: OpId) -> bool {
        self.all
            .get(&op)
            .is_some_and(|operation| operation.state == State::Waiting)
    }

    fn ready_if_first(&mut self, op: OpId) {
        if self.waiting(op) && self.first_in_line(op) {
            self.ready.insert(op);
        }
    }

    pub(super) fn make_ready(&mut self) {
        for op in self.ids() {
            self.ready_if_first(op);
        }
    }

    pub(super) fn retry_due(&mut self, op: OpId) {
        if let Some(operation) = self.all.get_mut(&op)
            && operation.state == State::Backoff
        {
            operation.state = State::Waiting;
            self.ready_if_first(op);
        }
    }

    fn remove(&mut self, op: OpId) -> Option<Operation> {
        let operation = self.all.remove(&op)?;
        self.ready.remove(&op);
        if let Some(key) = operation.request.line()
            && let Some(line) = self.lines.get_mut(key)
        {
            line.retain(|other| *other != op);
            match line.front().copied() {
                Some(next) => self.ready_if_first(next),
                None => {
                    self.lines.remove(key);
                }
            }
        }
        Some(operation)
    }
}

impl ClientMachine {
    /// Sends a message. The answer comes once, however often it has to be tried.
    pub fn send(
        &mut self,
        now_ms: u64,
        group: GroupId,
        channel: ChannelId,
        id: ClientMessageId,
        body: Bytes,
    ) -> Result<OpId, CommandError> {
        self.send_since(now_ms, group, channel, id, body, None)
    }

    /// Sends a message that an earlier run of this client may have sent already.
    pub fn send_since(
        &mut self,
        now_ms: u64,
        group: GroupId,
        channel: ChannelId,
        id: ClientMessageId,
        body: Bytes,
        first_attempt_ms: Option<u64>,
    ) -> Result<OpId, CommandError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(CommandError::BodyTooLarge(body.len()));
        }
        let key = (group, channel);
        let op = self.command(
            now_ms,
            Request::Send {
                key: key.clone(),
                id,
                body,
            },
        )?;
        if let Some(operation) = self.operations.all.get_mut(&op) {
            operation.first_attempt_ms = first_attempt_ms;
            operation.tried = first_attempt_ms.is_some();
        }
        self.operations.lines.entry(key).or_default().push_back(op);
        Ok(self.begin(now_ms, op))
    }

    /// Changes a message. The answer comes once, however often it has to be tried.
    pub fn change(
        &mut self,
        now_ms: u64,
        (group, channel): (GroupId, ChannelId),
        id: ClientMessageId,
        target: Position,
        change: Change,
    ) -> Result<OpId, CommandError> {
        change.check().map_err(CommandError::Change)?;
        let key = (group, channel);
        let request = Request::Change {
            key: key.clone(),
            id,
            target,
            change,
        };
        let op = self.command(now_ms, request)?;
        self.operations.lines.entry(key).or_default().push_back(op);
        Ok(self.begin(now_ms, op))
    }

    /// Asks which messages of a range have changed behind an entry.
    pub fn changes(
        &mut self,
        now_ms: u64,
        key: (GroupId, ChannelId),
        from: Position,
        to: Seq,
        since: Seq,
    ) -> Result<OpId, CommandError> {
        let request = Request::Changes { key, from, to, since };
        let op = self.command(now_ms, request)?;
        Ok(self.begin(now_ms, op))
    }

    /// Asks for the keys of a message's expansion behind one; behind the empty one for the first.
    pub fn expansion(
        &mut self,
        now_ms: u64,
        key: (GroupId, ChannelId),
        target: Position,
        after: String,
    ) -> Result<OpId, CommandError> {
        let op = self.command(now_ms, Request::ReadExpansion { key, target, after })?;
        Ok(self.begin(now_ms, op))
    }

    /// Creates a group; succeeds again for its creator.
    pub fn create_group(&mut self, now_ms: u64, group: GroupId) -> Result<OpId, CommandError> {
        let op = self.command(now_ms, Request::CreateGroup(group))?;
        Ok(self.begin(now_ms, op))
    }

    /// Creates a channel.
    pub fn create_channel(
        &mut self,
        now_ms: u64,
        group: GroupId,
        channel: ChannelId,
    ) -> Result<OpId, CommandError> {
        let op = self.command(now_ms, Request::CreateChannel((group, channel)))?;
        Ok(self.begin(now_ms, op))
    }

    /// Joins a group; succeeds again for a member.
    pub fn join(&mut self, now_ms: u64, group: GroupId) -> Result<OpId, CommandError> {
        let op = self.command(now_ms, Request::Join(group))?;
        Ok(self.begin(now_ms, op))
    }

    /// Leaves a group.
    pub fn leave(&mut self, now_ms: u64, group: GroupId) -> Result<OpId, CommandError> {
        let op = self.command(now_ms, Request::Leave(group))?;
        Ok(self.begin(now_ms, op))
    }

    /// Ends a user's membership.
    pub fn kick(&mut self, now_ms: u64, group: GroupId, user: UserId) -> Result<OpId, CommandError> {
        let op = self.command(now_ms, Request::Kick { group, user })?;
        Ok(self.begin(now_ms, op))
    }

    /// Takes a user's right to send away until a moment of the cluster's clock, Unix milliseconds;
    /// 0 gives it back.
    pub fn mute(
        &mut self,
        now_ms: u64,
        group: GroupId,
        user: UserId,
        until_ms: u64,
    ) -> Result<OpId, CommandError> {
        let request = Request::Mute {
            group,
            user,
            until_ms,
        };
        let op = self.command(now_ms, request)?;
        Ok(self.begin(now_ms, op))
    }

    /// Asks for a page of history.
    pub fn history(
        &mut self,
        now_ms: u64,
        group: GroupId,
        channel: ChannelId,
        anchor: impl Into<Anchor>,
        direction: Direction,
        limit: u32,
    ) -> Result<OpId, CommandError> {
        let key = (group, channel);
        let anchor = anchor.into();
        let request = Request::History {
            key,
            anchor,
            direction,
            limit,
        };
        let op = self.command(now_ms, request)?;
        Ok(self.begin(now_ms, op))
    }

    /// Asks for the entries behind a position, or with a time stamp later than one.
    pub fn sync(
        &mut self,
        now_ms: u64,
        group: GroupId,
        channel: ChannelId,
        from: impl Into<SyncFrom>,
        limit: u32,
    ) -> Result<OpId, CommandError> {
        let (key, from) = ((group, channel), from.into());
        let op = self.command(now_ms, Request::Sync { key, from, limit })?;
        Ok(self.begin(now_ms, op))
    }

    /// Whether another command is taken.
    pub fn has_room(&self) -> bool {
        self.operations.all.len() < self.config.operations_max
    }

    /// Requests sent and not yet answered.
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn command(&mut self, now_ms: u64, request: Request) -> Result<OpId, CommandError> {
        if !self.has_room() {
            return Err(CommandError::QueueFull(self.config.operations_max));
        }
        self.operations.last_id += 1;
        let op = OpId(self.operations.last_id);
        let deadline_ms = now_ms.saturating_add(self.config.request_deadline_ms);
        let operation = Operation {
            request,
            state: State::Waiting,
            deadline_ms,
            attempts: 0,
            tried: false,
            first_attempt_ms: None,
            last: None,
        };
        self.operations.all.insert(op, operation);
        self.timers.insert((deadline_ms, Timer::Deadline(op)));
        Ok(op)
    }

    fn begin(&mut self, now_ms: u64, op: OpId) -> OpId {
        self.operations.ready_if_first(op);
        self.pump(now_ms);
        op
    }

    /// Sends the first command that is ready. The caller has checked for an open slot.
    pub(super) fn start_operation(&mut self, now_ms: u64) -> bool {
        let server_ms = self.server_time_ms(now_ms);
        let Some(op) = self.operations.ready.pop_first() else {
            return false;
        };
        let Some(operation) = self.operations.all.get_mut(&op) else {
            return true;
        };
        let writes = operation.request.line().is_some();
        if writes && operation.first_attempt_ms.is_none() {
            let first_attempt_ms = server_ms;
            self.events
                .push_back(ClientEvent::Attempted { op, first_attempt_ms });
        }
        let first_attempt_ms = *operation.first_attempt_ms.get_or_insert(server_ms);
        operation.state = State::InFlight;
        let request = self.next_request;
        if let Some(message) = operation.request.frame(request, first_attempt_ms) {
            self.request(now_ms, Purpose::Operation(op), |_| message);
        }
        true
    }

    pub(super) fn handle_expansion(&mut self, expansion: Expansion) {
        let flight = self.in_flight.remove(&expansion.request);
        match flight.map(|flight| flight.purpose) {
            Some(Purpose::Operation(op)) => self.answer_with(op, Answer::Expansion(expansion)),
            Some(_) => self.protocol_error("Expansion answers a request that has another answer"),
            None => {}
        }
    }

    pub(super) fn operation_acked(&mut self, ack: Ack) {
        match self.in_flight.remove(&ack.request).map(|flight| flight.purpose) {
            Some(Purpose::Operation(op)) => self.answer_with(op, Answer::Sent(ack)),
            Some(_) => self.protocol_error("Ack answers a request that has another answer"),
            None => {}
        }
    }

    /// An answer from the server; one of the wrong kind ends the connection, and the command goes
    /// out again on the next.
    pub(super) fn answer_with(&mut self, op: OpId, answer: Answer) {
        let request = self.operations.all.get(&op).map(|operation| &operation.request);
        if request.is_none_or(|request| request.takes(&answer)) {
            let left = match request {
                Some(Request::Leave(group)) => Some(group.clone()),
                _ => None,
            };
            self.answer(op, Ok(answer));
            if let Some(group) = left {
                self.group_left(&group);
            }
        } else {
            self.operation_lost(op);
            self.protocol_error("an answer is of another kind than its request");
        }
    }

    /// Ends a command. Does nothing for one that has ended.
    pub(super) fn answer(&mut self, op: OpId, outcome: Result<Answer, RequestError>) {
        let Some(operation) = self.operations.remove(op) else {
            return;
        };
        self.timers.remove(&(operation.deadline_ms, Timer::Deadline(op)));
        if operation.state != State::Abandoned {
            self.events.push_back(ClientEvent::Answered { op, outcome });
        }
    }

    pub(super) fn operation_refused(&mut self, now_ms: u64, op: OpId, error: message::Error) {
        let Some(operation) = self.operations.all.get_mut(&op) else {
            return;
        };
        if operation.state == State::Abandoned || error.class == Class::Fatal {
            // A conflict says itself that no attempt of this message was stored.
            let certain = !operation.tried || error.known_code() == Some(Code::IdempotencyConflict);
            let refused = if certain {
                RequestError::Refused(error)
            } else {
                RequestError::RefusedLater(error)
            };
            return self.answer(op, Err(refused));
        }
        operation.tried = true;
        operation.attempts += 1;
        operation.state = State::Backoff;
        let wait_ms = self
            .jitter
            .wait_ms(operation.attempts)
            .max(u64::from(error.retry_after_ms));
        operation.last = Some(error);
        self.timers.insert((now_ms + wait_ms, Timer::Retry(op)));
    }

    /// The connection ended under a command in flight.
    pub(super) fn operation_lost(&mut self, op: OpId) {
        let Some(operation) = self.operations.all.get_mut(&op) else {
            return;
        };
        match operation.state {
            State::Abandoned => self.answer(op, Ok(Answer::Done)),
            _ => {
                operation.state = State::Waiting;
                operation.tried = true;
                if let (true, Request::Send { id, .. }) =
                    (planted!("retry_under_new_key"), &mut operation.request)
                {
                    id.0 ^= 1;
                }
            }
        }
    }

    pub(super) fn operation_deadline(&mut self, op: OpId) {
        let Some(operation) = self.operations.all.get_mut(&op) else {
            return;
        };
        let error = RequestError::Deadline {
            attempted: operation.first_attempt_ms.is_some(),
            last: operation.last.take(),
        };
        if let Request::Subscribe(key) = &operation.request {
            let key = key.clone();
            self.answer(op, Err(error));
            self.withdraw(&key, op);
        } else if operation.state == State::InFlight {
            operation.state = State::Abandoned;
            let outcome = Err(error);
            self.events.push_back(ClientEvent::Answered { op, outcome });
        } else {
            self.answer(op, Err(error));
        }
    }
}
