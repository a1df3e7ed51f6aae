//! Subscriptions: asking for them, resuming them on a new connection, and giving them up.
//!
//! A subscription holds a position from its first answer on; every later connection continues
//! behind it. One per channel: an application that wants two copies makes them itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use throng_planted::planted;

use super::operations::Request;
use super::{
    Answer, ClientEvent, ClientMachine, CommandError, Key, OpId, Purpose, RequestError, SubscribeFrom,
    SubscribedAt, Timer,
};
use crate::code::Class;
use crate::ids::{ChannelId, ChannelNumber, Epoch, GroupId, Position, Seq, Ts};
use crate::limits::RESUME_POSITIONS_MAX;
use crate::message::{
    self, Direction, Entry, History, Place, RequestId, Start, Subscribe, Sync, Unsubscribe,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Not known at the edge.
    Idle,
    /// A probe, subscribe or resume is in flight.
    Asked,
    /// Deliveries come.
    Active,
    /// An unsubscribe is in flight.
    Closing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GapSync {
    No,
    Due,
    InFlight,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) from: SubscribeFrom,
    pub(super) number: Option<ChannelNumber>,
    /// The request that began it on this connection.
    pub(super) begun_by: RequestId,
    /// The edge has ended it; it is over once everything up to there was emitted.
    pub(super) end: Option<message::Ended>,
    /// Everything up to here was emitted; `None` before the first answer.
    pub(super) position: Option<Position>,
    pub(super) wire: Wire,
    /// The subscribe command while it has no answer.
    op: Option<OpId>,
    /// False once given up; the edge may not know yet.
    pub(super) wanted: bool,
    close_op: Option<OpId>,
    successor: Option<(OpId, SubscribeFrom)>,
    /// Entries behind a gap, with the entry before each.
    pub(super) held: BTreeMap<Seq, (Seq, Entry)>,
    /// Entries up to here came and could not be held.
    pub(super) must_reach: Seq,
    pub(super) gap_at_ms: Option<u64>,
    pub(super) gap_timer: bool,
    pub(super) sync: GapSync,
    /// The edge gives no pages any more: the membership has ended, and its last entries may still be
    /// on their way.
    pub(super) refused: Option<message::Error>,
    attempts: u32,
    pub(super) unacked: u32,
}

impl Subscription {
    fn new(op: OpId, from: SubscribeFrom) -> Self {
        Self {
            from,
            number: None,
            begun_by: 0,
            end: None,
            position: None,
            wire: Wire::Idle,
            op: Some(op),
            wanted: true,
            close_op: None,
            successor: None,
            held: BTreeMap::new(),
            must_reach: Seq(0),
            gap_at_ms: None,
            gap_timer: false,
            sync: GapSync::No,
            refused: None,
            attempts: 0,
            unacked: 0,
        }
    }

    /// Forgets what belongs to one connection.
    pub(super) fn forget_deliveries(&mut self) {
        self.held.clear();
        self.must_reach = Seq(0);
        self.gap_at_ms = None;
        self.sync = GapSync::No;
        self.refused = None;
        self.unacked = 0;
        self.end = None;
    }

    /// The position or time stamp to ask with; `None` when the epoch must be found out first.
    fn ask(&self) -> Option<(Position, Ts)> {
        match (self.position, self.from) {
            (Some(position), _) | (None, SubscribeFrom::Position(position)) => Some((position, Ts(0))),
            // On the wire a stamp of 0 is none; no entry is as old.
            (None, SubscribeFrom::Start | SubscribeFrom::Ts(Ts(0))) => None,
            (None, SubscribeFrom::Ts(ts)) => Some((Position::default(), ts)),
            (None, SubscribeFrom::Head) => Some((Position::default(), Ts(0))),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pub(super) all: BTreeMap<Key, Subscription>,
    pub(super) by_number: BTreeMap<ChannelNumber, Key>,
    pub(super) todo: BTreeSet<Key>,
    resumes: VecDeque<Vec<Key>>,
    pub(super) dirty: BTreeSet<Key>,
}

impl Subscriptions {
    /// A new connection: what holds a position is resumed, the rest asked for one by one.
    pub(super) fn resume_all(&mut self) {
        let mut held = Vec::new();
        for (key, subscription) in &self.all {
            if subscription.position.is_some() {
                held.push(key.clone());
            } else {
                self.todo.insert(key.clone());
            }
        }
        self.resumes = held.chunks(RESUME_POSITIONS_MAX).map(<[Key]>::to_vec).collect();
    }

    pub(super) fn ask_again(&mut self, key: &Key) {
        if self.all.get(key).is_some_and(|s| s.wire == Wire::Idle) {
            self.todo.insert(key.clone());
        }
    }

    pub(super) fn asking(&self) -> bool {
        self.all.values().any(|s| s.wire == Wire::Asked)
    }
}

impl ClientMachine {
    /// Subscribes to a channel; answered once deliveries begin.
    pub fn subscribe(
        &mut self,
        now_ms: u64,
        group: GroupId,
        channel: ChannelId,
        from: SubscribeFrom,
    ) -> Result<OpId, CommandError> {
        let key = (group, channel);
        let present = self.subscriptions.all.get(&key);
        if present.is_some_and(|s| s.wanted || s.successor.is_some()) {
            return Err(CommandError::AlreadySubscribed);
        }
        let op = self.command(now_ms, Request::Subscribe(key.clone()))?;
        match self.subscriptions.all.get_mut(&key) {
            Some(closing) => closing.successor = Some((op, from)),
            None => {
                let subscription = Subscription::new(op, from);
                self.subscriptions.all.insert(key.clone(), subscription);
                self.subscriptions.todo.insert(key);
            }
        }
        self.pump(now_ms);
        Ok(op)
    }

    /// Gives up a subscription. None of its entries is emitted any more.
    pub fn unsubscribe(
        &mut self,
        now_ms: u64,
        group: GroupId,
        channel: ChannelId,
    ) -> Result<OpId, CommandError> {
        let key = (group, channel);
        let present = self.subscriptions.all.get(&key);
        if !present.is_some_and(|s| s.wanted || s.successor.is_some()) {
            return Err(CommandError::NotSubscribed);
        }
        let op = self.command(now_ms, Request::Unsubscribe)?;
        let subscribe_op = match self.subscriptions.all.get_mut(&key) {
            Some(subscription) if subscription.wanted => {
                subscription.close_op = Some(op);
                subscription.op.take()
            }
            Some(closing) => {
                let successor = closing.successor.take().map(|(successor, _)| successor);
                self.answer(op, Ok(Answer::Done));
                successor
            }
            None => None,
        };
        if let Some(subscribe_op) = subscribe_op {
            self.answer(subscribe_op, Err(RequestError::Cancelled));
        }
        self.give_up(&key);
        self.pump(now_ms);
        Ok(op)
    }

    /// The positions of all subscriptions: a resume vector.
    pub fn positions(&self) -> Vec<Place> {
        let places = self.subscriptions.all.iter();
        places
            .filter(|(_, subscription)| subscription.wanted)
            .filter_map(|((group, channel), subscription)| {
                subscription.position.map(|position| Place {
                    group: group.clone(),
                    channel: channel.clone(),
                    position,
                    ts: Ts(0),
                })
            })
            .collect()
    }

    /// The command that asked for a subscription is over before the subscription began. One that waits for
    /// the end of another must not begin afterwards: its application was told that it failed.
    pub(super) fn withdraw(&mut self, key: &Key, op: OpId) {
        match self.subscriptions.all.get_mut(key) {
            Some(closing) if closing.successor.as_ref().is_some_and(|(next, _)| *next == op) => {
                closing.successor = None;
            }
            _ => self.give_up(key),
        }
    }

    pub(super) fn give_up(&mut self, key: &Key) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        subscription.wanted = false;
        subscription.forget_deliveries();
        match subscription.wire {
            Wire::Idle => self.forget(key),
            Wire::Active => {
                self.subscriptions.todo.insert(key.clone());
            }
            Wire::Asked | Wire::Closing => {}
        }
    }

    /// The edge does not know the subscription (any more) and nobody wants it.
    pub(super) fn forget(&mut self, key: &Key) {
        let Some(subscription) = self.subscriptions.all.remove(key) else {
            return;
        };
        if let Some(number) = subscription.number {
            self.subscriptions.by_number.remove(&number);
        }
        self.subscriptions.todo.remove(key);
        self.subscriptions.dirty.remove(key);
        if let Some(op) = subscription.close_op {
            self.answer(op, Ok(Answer::Done));
        }
        if let Some((op, from)) = subscription.successor {
            let successor = Subscription::new(op, from);
            self.subscriptions.all.insert(key.clone(), successor);
            self.subscriptions.todo.insert(key.clone());
        }
    }

    pub(super) fn unsubscribed(&mut self, key: &Key) {
        self.forget(key);
    }

    pub(super) fn subscriptions_lost(&mut self) {
        self.subscriptions.resumes.clear();
        self.subscriptions.todo.clear();
        self.subscriptions.dirty.clear();
        let keys: Vec<Key> = self.subscriptions.all.keys().cloned().collect();
        for key in keys {
            let Some(subscription) = self.subscriptions.all.get_mut(&key) else {
                continue;
            };
            subscription.wire = Wire::Idle;
            subscription.forget_deliveries();
            if !subscription.wanted {
                self.forget(&key);
            }
        }
    }

    /// Sends the next request a subscription needs. The caller has checked for an open slot.
    pub(super) fn start_subscription(&mut self, now_ms: u64) -> bool {
        if let Some(keys) = self.subscriptions.resumes.pop_front() {
            self.start_resume(now_ms, keys);
            return true;
        }
        while let Some(key) = self.subscriptions.todo.pop_first() {
            let Some(subscription) = self.subscriptions.all.get_mut(&key) else {
                continue;
            };
            match (subscription.wanted, subscription.wire) {
                (true, Wire::Idle) => {
                    subscription.wire = Wire::Asked;
                    let ask = subscription.ask();
                    self.start_subscribe(now_ms, key, ask);
                    return true;
                }
                (true, Wire::Active) if subscription.sync == GapSync::Due => {
                    subscription.sync = GapSync::InFlight;
                    let position = subscription.position.unwrap_or_default();
                    self.start_gap_sync(now_ms, key, position);
                    return true;
                }
                (false, Wire::Active) => {
                    if let Some(channel) = subscription.number {
                        subscription.wire = Wire::Closing;
                        self.request(now_ms, Purpose::Unsubscribe(key), |request| {
                            Unsubscribe { request, channel }.into()
                        });
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    fn start_subscribe(&mut self, now_ms: u64, key: Key, ask: Option<(Position, Ts)>) {
        let (group, channel) = key.clone();
        match ask {
            Some((position, ts)) => self.request(now_ms, Purpose::Subscribe(key), |request| {
                Subscribe {
                    request,
                    group,
                    channel,
                    position,
                    ts,
                }
                .into()
            }),
            // A position needs an epoch; the first page tells it, even an empty one.
            None => self.request(now_ms, Purpose::Probe(key), |request| {
                History {
                    request,
                    group,
                    channel,
                    anchor: Seq(0),
                    direction: Direction::After,
                    limit: 1,
                    ts: Ts(0),
                }
                .into()
            }),
        }
    }

    fn start_gap_sync(&mut self, now_ms: u64, key: Key, position: Position) {
        let (group, channel) = key.clone();
        self.request(now_ms, Purpose::GapSync(key), |request| {
            Sync {
                request,
                group,
                channel,
                position,
                limit: 0,
                ts: Ts(0),
            }
            .into()
        });
    }

    pub(super) fn probed(&mut self, key: &Key, epoch: Epoch) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        subscription.wire = Wire::Idle;
        if !subscription.wanted {
            return self.forget(key);
        }
        let seq = Seq(0);
        subscription.from = SubscribeFrom::Position(Position { epoch, seq });
        self.subscriptions.todo.insert(key.clone());
    }

    pub(super) fn handle_subscribed(&mut self, now_ms: u64, subscribed: message::Subscribed) {
        let key = (subscribed.group.clone(), subscribed.channel_name.clone());
        let Some(flight) = self.in_flight.get_mut(&subscribed.request) else {
            return;
        };
        match &mut flight.purpose {
            Purpose::Subscribe(asked) if *asked == key => {
                self.in_flight.remove(&subscribed.request);
            }
            Purpose::Resume(left) if left.contains(&key) => {
                left.remove(&key);
                flight.since_ms = now_ms;
            }
            _ => return self.protocol_error("Subscribed answers another request"),
        }
        self.activate(now_ms, &key, &subscribed);
    }

    fn activate(&mut self, now_ms: u64, key: &Key, subscribed: &message::Subscribed) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        let number = subscribed.channel;
        if let Some(old) = subscription.number.replace(number)
            && old != number
        {
            self.subscriptions.by_number.remove(&old);
        }
        self.subscriptions.by_number.insert(number, key.clone());
        subscription.wire = Wire::Active;
        subscription.attempts = 0;
        subscription.begun_by = subscribed.request;
        subscription.end = None;
        if !subscription.wanted {
            self.subscriptions.todo.insert(key.clone());
            self.orphans.take(number);
            return;
        }
        match subscription.position {
            None => subscription.position = Some(subscribed.position),
            // The same log, but what lies between was not for this user.
            Some(_) if subscribed.start == Start::FullFence => self.reset(key, subscribed.position),
            // The same log: what is held stays held. An edge that sees less of it sends entries
            // again, which are dropped; one that begins later leaves a gap, which is asked for.
            Some(held) if held.epoch == subscribed.position.epoch => {
                subscription.must_reach = subscription.must_reach.max(subscribed.position.seq);
                if planted!("resume_off_by_one") {
                    let seq = held.seq.next().min(subscribed.head);
                    subscription.position = Some(Position { seq, ..held });
                }
            }
            Some(_) => self.reset(key, subscribed.position),
        }
        if let Some(op) = self.subscriptions.all.get_mut(key).and_then(|s| s.op.take()) {
            let at = SubscribedAt {
                number,
                position: subscribed.position,
                head: subscribed.head,
                start: subscribed.start,
                ts: subscribed.ts,
            };
            self.answer(op, Ok(Answer::Subscribed(at)));
        }
        self.deliver_orphans(now_ms, key, number);
    }

    pub(super) fn subscribe_refused(&mut self, now_ms: u64, key: &Key, error: message::Error) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        subscription.wire = Wire::Idle;
        if !subscription.wanted {
            return self.forget(key);
        }
        if error.class == Class::Fatal {
            return self.end_subscription(key, error);
        }
        subscription.attempts += 1;
        let wait_ms = self.jitter.wait_ms(subscription.attempts);
        let at_ms = now_ms + wait_ms.max(u64::from(error.retry_after_ms));
        self.timers.insert((at_ms, Timer::Ask(key.clone())));
    }

    /// The cluster refuses the subscription for good.
    pub(super) fn end_subscription(&mut self, key: &Key, error: message::Error) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        match subscription.op.take() {
            Some(op) => self.answer(op, Err(RequestError::Refused(error))),
            None => {
                let (group, channel) = key.clone();
                self.events.push_back(ClientEvent::SubscriptionEnded {
                    group,
                    channel,
                    error,
                });
            }
        }
        self.give_up(key);
    }
}
