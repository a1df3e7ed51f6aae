//! The fan-out of one followed channel.
//!
//! ```text
//!  feed ── on_opened, on_batch, on_fence, on_reset ──►┌ ChannelFanout  ┐◄── subscribe, take, advance ── sessions
//!  log  ── on_page ─────────────────────────────────►│ ring, fences,  │──► Effects
//!                                                     │ cursors, caps  │
//!                                                     └────────────────┘
//! ```
//!
//! Two rules keep a fence exact. An entry enters the ring only when every fence before it is known:
//! feeds keep that order, and a page whose shard knew more fences than were told here waits. And a
//! fence caps the older subscriptions of its user at its place before anything behind it is taken.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use throng_planted::planted;
use throng_protocol::cluster::{Entry, EntryKind, Fence, FenceTable, Fenced, Hole};
use throng_protocol::code::Code;
use throng_protocol::frame;
use throng_protocol::ids::{ChannelNumber, Epoch, Position, Seq, SessionId, Ts, UserNumber};
use throng_protocol::message::{self, Deliver, Ended, Message, Start};

use crate::LINGER_MS;
use crate::copies::Copies;
use crate::crew::{Crews, Seat, WorkerNumber};
use crate::effect::Effect;
use crate::fences::{Fences, Judged};
use crate::ring::{Edition, Ring, RingLimits};
use crate::subscriber::{Lag, Subscriber};
use crate::subscription::{Advance, Ask, Chunk, SubscribeError, Subscription, Take};

use bytes::{Bytes, BytesMut};

#[derive(Debug)]
struct Open {
    epoch: Epoch,
    ring: Ring,
    /// The newest entry known to exist; more than the ring's head while a gap is repaired.
    known: Seq,
    refetching: bool,
    /// No feed is known to go on from what is held, so there may be fences between that none tells:
    /// feeds are not listened to before one opens that does.
    apart: bool,
}

/// A channel an edge follows once for all its subscribers.
#[derive(Debug)]
pub struct ChannelFanout {
    channel: ChannelNumber,
    limits: RingLimits,
    open: Option<Open>,
    fences: Fences,
    crews: Crews,
    /// The seats of each user, for fences.
    seats: BTreeSet<(UserNumber, Seat)>,
    unused_since_ms: Option<u64>,
    encoded: u64,
}

impl ChannelFanout {
    /// A channel that is not followed yet; asks to follow it at its head. Without a subscriber
    /// within [`LINGER_MS`] it is given up again.
    pub fn new(now_ms: u64, channel: ChannelNumber, limits: RingLimits, effects: &mut Vec<Effect>) -> Self {
        effects.push(Effect::Follow {
            position: Position::default(),
        });
        Self {
            channel,
            limits,
            open: None,
            fences: Fences::default(),
            crews: Crews::default(),
            seats: BTreeSet::new(),
            unused_since_ms: Some(now_ms),
            encoded: 0,
        }
    }

    /// The feed is open and goes on behind `from`; the log ends at `head`.
    pub fn on_opened(
        &mut self,
        epoch: Epoch,
        from: Seq,
        head: Seq,
        fences: &FenceTable,
        effects: &mut Vec<Effect>,
    ) {
        match &mut self.open {
            Some(open) if open.epoch == epoch => {
                open.apart = from > open.ring.head();
                if open.apart {
                    // An answer to an earlier question. Its table has the last fence of each user
                    // only, and one before it may lie behind what is held.
                    let position = self.position().unwrap_or_default();
                    return effects.push(Effect::Follow { position });
                }
            }
            Some(_) => return self.on_reset(epoch, head, fences, effects),
            None => {
                let ring = Ring::new(self.limits, from);
                self.open = Some(Open {
                    epoch,
                    ring,
                    known: from,
                    refetching: false,
                    apart: false,
                });
            }
        }
        self.take_fences(fences, effects);
    }

    /// The feed cannot go on where it was, and begins anew behind `head`. In the same epoch the
    /// subscriptions keep their cursors and are served from pages; in another they restart.
    pub fn on_reset(&mut self, epoch: Epoch, head: Seq, fences: &FenceTable, effects: &mut Vec<Effect>) {
        let same = self.open.as_ref().is_some_and(|open| open.epoch == epoch);
        if let Some(open) = self
            .open
            .as_mut()
            .filter(|open| open.epoch == epoch && open.ring.head() >= head)
        {
            open.apart = false;
            return self.take_fences(fences, effects);
        }
        // Before the ring goes on: entries up to its head are those whose fences were known.
        self.lapse_if_unknown(fences, effects);
        let ring = Ring::new(self.limits, head);
        // A page that is being read still comes, and is the only one.
        let refetching = self.open.as_ref().is_some_and(|open| open.refetching);
        self.open = Some(Open {
            epoch,
            ring,
            known: head,
            refetching,
            apart: false,
        });
        if same {
            self.tell_workers(effects);
        } else {
            for (seat, subscriber) in self.crews.iter_mut() {
                // The first delivery of the new epoch tells the client.
                (subscriber.cursor, subscriber.acked) = (head, head);
                if subscriber.is_capped() {
                    subscriber.cap = head;
                    wake(seat, subscriber, effects);
                }
            }
            self.fences.forget_places();
        }
        self.take_fences(fences, effects);
    }

    /// A fence at its place: everything up to `after` has been brought by the feed, nothing behind.
    pub fn on_fence(&mut self, after: Seq, fence: Fence, effects: &mut Vec<Effect>) {
        let Some(open) = self.open.as_mut().filter(|open| !open.apart) else {
            return;
        };
        // What lies before the fence is still due to those it ends.
        open.known = open.known.max(after);
        open.refetch_if_behind(effects);
        if let Some(fenced) = self.fences.pass(after, fence) {
            self.cap(fenced, effects);
        }
    }

    fn take_fences(&mut self, table: &FenceTable, effects: &mut Vec<Effect>) {
        self.lapse_if_unknown(table, effects);
        for fenced in self.fences.take(table) {
            self.cap(fenced, effects);
        }
    }

    /// Fences that were folded before this edge was told of them may have ended any older grant:
    /// what is certain is delivered, and the clients ask again.
    fn lapse_if_unknown(&mut self, table: &FenceTable, effects: &mut Vec<Effect>) {
        let Some(open) = &self.open else { return };
        if table.floor <= self.fences.told() {
            return;
        }
        let head = open.ring.head();
        for (seat, subscriber) in self.crews.iter_mut() {
            if subscriber.version < table.floor && !subscriber.is_capped() {
                (subscriber.cap, subscriber.lapsed) = (head.max(subscriber.cursor), true);
                wake(seat, subscriber, effects);
            }
        }
    }

    /// Ends the subscriptions of a user whose grants are older than a fence, at its place.
    fn cap(&mut self, fenced: Fenced, effects: &mut Vec<Effect>) {
        if planted!("ring_serves_behind_fence") {
            return;
        }
        let first = (fenced.number, Seat::MIN);
        for (_, seat) in self.seats.range(first..=(fenced.number, Seat::MAX)) {
            let Some(subscriber) = self.crews.get_mut(*seat) else {
                continue;
            };
            if subscriber.version < fenced.version && (fenced.after < subscriber.cap || subscriber.lapsed) {
                subscriber.cap = subscriber.cap.min(fenced.after);
                subscriber.lapsed = false;
                wake(*seat, subscriber, effects);
            }
        }
    }

    /// Entries of the feed, ascending; `prev` is the entry before the first. What is held already is
    /// ignored; what does not connect is dropped and asked for.
    pub fn on_batch(&mut self, epoch: Epoch, prev: Seq, entries: &[Entry], effects: &mut Vec<Effect>) {
        if self.open.as_ref().is_some_and(|open| !open.apart) {
            self.take_entries(epoch, prev, entries, effects);
        }
    }

    fn take_entries(&mut self, epoch: Epoch, prev: Seq, entries: &[Entry], effects: &mut Vec<Effect>) {
        let Some(open) = &mut self.open else { return };
        let Some(last) = entries.last().filter(|_| open.epoch == epoch) else {
            return;
        };
        if last.seq <= open.ring.head() {
            return;
        }
        open.known = open.known.max(last.seq);
        if prev > open.ring.head() && !planted!("gap_repair_skips") {
            open.refetch_if_behind(effects);
            return;
        }
        self.encoded += open.extend(self.channel, entries);
        self.tell_workers(effects);
    }

    /// A page read because of [`Effect::Refetch`], empty if reading failed; asks again while
    /// entries are missing. `fenced` is the last fence its shard knew: a page that may hold entries
    /// behind a fence that was not told is not used.
    pub fn on_page(
        &mut self,
        epoch: Epoch,
        prev: Seq,
        entries: &[Entry],
        fenced: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(open) = &mut self.open else { return };
        open.refetching = false;
        if fenced <= self.fences.told() {
            self.take_entries(epoch, prev, entries, effects);
        }
        if let Some(open) = &mut self.open {
            open.refetch_if_behind(effects);
        }
    }

    /// The log of an epoch ends at `head`, as a quorum knows it: asks for what the feed has not
    /// brought. Says nothing before the feed opened, or of another epoch; the feed tells of that.
    pub fn on_head(&mut self, epoch: Epoch, head: Seq, effects: &mut Vec<Effect>) {
        if let Some(open) = self.open.as_mut().filter(|open| open.epoch == epoch) {
            open.known = open.known.max(head);
            open.refetch_if_behind(effects);
        }
    }

    /// The channel is followed anew from what is held. What an earlier feed of the same node still
    /// brings is not listened to: some of it, fences too, may have come while another one counted.
    pub fn on_follow(&mut self) {
        if let Some(open) = &mut self.open {
            open.apart = true;
        }
    }

    /// The feed was lost; asks to follow again from what is held.
    pub fn on_lost(&mut self, effects: &mut Vec<Effect>) {
        let position = self.position().unwrap_or_default();
        effects.push(Effect::Follow { position });
    }

    /// Begins a subscription, or places it anew. Nothing is handed out before [`Self::attach`].
    pub fn subscribe(&mut self, ask: Ask) -> Result<Subscription, SubscribeError> {
        let open = self.open.as_ref().ok_or(SubscribeError::NotOpen)?;
        let head = open.known;
        let fence = match self.fences.judge(ask.rights) {
            Judged::Holds(fence) => fence,
            Judged::Stale => return Err(SubscribeError::Stale),
            Judged::NotTold => return Err(SubscribeError::NotTold),
        };
        let (seq, start) = open.begin(ask, fence)?;
        let subscriber = Subscriber::new(seq, ask.rights, ask.request);
        let begun = Subscription {
            position: Position {
                epoch: open.epoch,
                seq,
            },
            head: head.max(seq),
            start,
            ts: open.ring.ts_of(seq),
        };
        self.remove(ask.seat);
        self.seats.insert((ask.rights.number, ask.seat));
        self.crews.insert(ask.seat, subscriber);
        self.unused_since_ms = None;
        Ok(begun)
    }

    /// The client knows of its subscription: it may be handed something, and is woken to look.
    pub fn attach(&mut self, seat: Seat, effects: &mut Vec<Effect>) -> bool {
        let attached = self.crews.attach(seat);
        if attached {
            effects.push(Effect::Wake { seat });
        }
        attached
    }

    fn remove(&mut self, seat: Seat) -> bool {
        let removed = self.crews.remove(seat);
        if let Some(subscriber) = &removed {
            self.seats.remove(&(subscriber.number, seat));
        }
        removed.is_some()
    }

    /// The last entry with this time stamp or an earlier one, if the ring alone tells which it is.
    pub fn locate(&self, ts: Ts) -> Option<(Position, Ts)> {
        let open = self.open.as_ref()?;
        let (seq, ts) = open.ring.locate(ts)?;
        let epoch = open.epoch;
        Some((Position { epoch, seq }, ts))
    }

    /// The version up to which the feed has told the fences of the channel's group.
    pub fn told(&self) -> u64 {
        self.fences.told()
    }

    /// Whether a session is subscribed.
    pub fn is_subscribed(&self, seat: Seat) -> bool {
        self.crews.get(seat).is_some()
    }

    /// Ends a subscription; `false` if there was none.
    pub fn unsubscribe(&mut self, now_ms: u64, seat: Seat) -> bool {
        let was = self.remove(seat);
        if was && self.seats.is_empty() {
            self.unused_since_ms = Some(now_ms);
        }
        was
    }

    /// A step of a worker's round: names sessions that have something to take, each at most once in
    /// a step, until `each` has enough. Whether the round goes on: something is left, or has come.
    pub fn step(&mut self, worker: WorkerNumber, each: impl FnMut(SessionId) -> ControlFlow<()>) -> bool {
        let head = self.open.as_ref().map_or(Seq(0), |open| open.ring.head());
        let crew = self.crews.crew_mut(worker);
        crew.is_some_and(|crew| crew.step(|subscriber| subscriber.is_due(head), each))
    }

    /// The next frames for a session, up to about `budget` bytes, out of its worker's copies.
    pub fn take(&mut self, seat: Seat, budget: usize, copies: &mut Copies) -> Take {
        let (Some(open), Some(subscriber)) = (&self.open, self.crews.get_mut(seat)) else {
            return Take::Nothing;
        };
        if subscriber.is_over() {
            return Take::Ended(ended(self.channel, open.epoch, subscriber));
        }
        let edition = Edition {
            epoch: open.epoch,
            replaced: open.ring.replaced(),
        };
        copies.follow(edition, open.ring.base());
        match open
            .ring
            .behind(subscriber.cursor, subscriber.cap, budget, copies)
        {
            None => Take::Behind {
                epoch: open.epoch,
                from: subscriber.cursor,
            },
            Some((frames, _)) if frames.is_empty() => Take::Nothing,
            Some((frames, last)) => {
                subscriber.cursor = last;
                let more = subscriber.is_due(open.ring.head());
                Take::Chunk(Chunk { frames, more })
            }
        }
    }

    /// Where a session stands whose cursor is older than the ring; `None` if the ring serves it, or
    /// nothing more is its.
    pub fn behind(&self, seat: Seat) -> Option<(Epoch, Seq)> {
        let (open, subscriber) = (self.open.as_ref()?, self.crews.get(seat)?);
        let behind = subscriber.cursor < open.ring.base() && !subscriber.is_over();
        behind.then_some((open.epoch, subscriber.cursor))
    }

    /// A page behind `from` that ends at `to` is about to be written to the session instead of frames
    /// of the ring: moves its cursor, no further than what is the session's. `fenced` is the last
    /// fence the page's shard knew; a fence that it did not know lies behind the whole page.
    pub fn advance(&mut self, seat: Seat, epoch: Epoch, from: Seq, to: Seq, fenced: u64) -> Advance {
        let current = self.open.as_ref().is_some_and(|open| open.epoch == epoch);
        match self.crews.get_mut(seat) {
            Some(subscriber) if current && subscriber.cursor == from => {
                if fenced > self.fences.told() && !planted!("page_serves_behind_fence") {
                    return Advance::NotTold;
                }
                subscriber.cursor = to.min(subscriber.cap).max(from);
                Advance::To(subscriber.cursor)
            }
            _ => Advance::Gone,
        }
    }

    /// Records a cumulative ack of a client; one of another epoch or of entries never handed out
    /// says nothing.
    pub fn acked(&mut self, seat: Seat, position: Position) {
        let current = self
            .open
            .as_ref()
            .is_some_and(|open| open.epoch == position.epoch);
        if let Some(subscriber) = self.crews.get_mut(seat).filter(|_| current) {
            subscriber.acked = subscriber.acked.max(position.seq.min(subscriber.cursor));
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.unused_since_ms.map(|since| since.saturating_add(LINGER_MS))
    }

    /// Gives the channel up if nobody was subscribed for [`LINGER_MS`].
    pub fn handle_timeout(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.poll_timeout().is_some_and(|at| at <= now_ms) {
            self.unused_since_ms = None;
            effects.push(Effect::Unfollow);
        }
    }

    /// The position up to which everything was held or handed on; `None` before the feed opened.
    pub fn position(&self) -> Option<Position> {
        self.open.as_ref().map(|open| Position {
            epoch: open.epoch,
            seq: open.ring.head(),
        })
    }

    /// Whether the feed has opened once.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Subscriptions.
    pub fn subscribers(&self) -> usize {
        self.seats.len()
    }

    /// Bytes of frames held.
    pub fn ring_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.ring.bytes())
    }

    /// Entries encoded so far; each once, however many subscribers there are.
    pub fn encoded(&self) -> u64 {
        self.encoded
    }

    /// How far the slowest subscriptions are behind.
    pub fn lag(&self) -> Lag {
        let mut lag = Lag::default();
        if let Some(open) = &self.open {
            for subscriber in self.crews.iter() {
                lag.include(open.ring.head(), subscriber);
            }
        }
        lag
    }

    /// Something has come for all.
    fn tell_workers(&mut self, effects: &mut Vec<Effect>) {
        for (worker, crew) in self.crews.workers() {
            if crew.news() {
                effects.push(Effect::News { worker });
            }
        }
    }
}

impl Open {
    /// Where deliveries begin: nowhere before `fence`, behind which the user is a member again.
    fn begin(&self, ask: Ask, fence: Seq) -> Result<(Seq, Start), SubscribeError> {
        let (position, head) = (ask.position, self.ring.head().max(fence));
        if position.epoch == Epoch(0) {
            return Ok((head, Start::Head));
        }
        if position.epoch != self.epoch {
            return match ask.located {
                true => Err(SubscribeError::HeadNeeded),
                false => Ok((head, Start::FullEpoch)),
            };
        }
        if position.seq < fence {
            return Ok((head, Start::FullFence));
        }
        if position.seq <= self.known {
            return Ok((position.seq, Start::Resumed));
        }
        match ask.log.filter(|log| log.epoch == self.epoch) {
            None => Err(SubscribeError::HeadNeeded),
            Some(log) if log.seq >= position.seq => Ok((position.seq, Start::Resumed)),
            Some(log) => Ok((log.seq.max(head), Start::FullAhead)),
        }
    }

    /// Adds what is new of connected entries; returns how many were encoded.
    fn extend(&mut self, channel: ChannelNumber, entries: &[Entry]) -> u64 {
        let mut encoded = 0;
        for entry in entries {
            let prev = self.ring.head();
            if entry.seq <= prev {
                continue;
            }
            if let Some(hole) = ends(entry.kind).filter(|_| !planted!("ring_keeps_recalled")) {
                // Whoever comes from further back finds nothing of the message either.
                self.ring
                    .replace(entry.target, |frame| emptied(frame, hole, entry.seq));
            }
            let entries = vec![client_entry(entry)];
            let deliver = Deliver {
                channel,
                epoch: self.epoch,
                prev,
                entries,
            };
            let frame = Message::Deliver(deliver).encode();
            self.ring.push_change(entry.seq, entry.ts, entry.target, frame);
            encoded += 1;
        }
        encoded
    }

    fn refetch_if_behind(&mut self, effects: &mut Vec<Effect>) {
        if self.ring.head() < self.known && !self.refetching {
            self.refetching = true;
            let skipped = u64::from(planted!("gap_repair_skips"));
            effects.push(Effect::Refetch {
                from: Seq(self.ring.head().0 + skipped),
            });
        }
    }
}

/// One that is not attached yet looks when it is.
fn wake(seat: Seat, subscriber: &Subscriber, effects: &mut Vec<Effect>) {
    if subscriber.attached {
        effects.push(Effect::Wake { seat });
    }
}

/// The hole that a change leaves of its message.
fn ends(kind: EntryKind) -> Option<Hole> {
    match kind {
        EntryKind::Recall => Some(Hole::Recalled),
        EntryKind::Delete => Some(Hole::Deleted),
        _ => None,
    }
}

/// The delivery of a message, or of a change to it, as it is since the change at `version` has left a hole.
fn emptied(delivery: &Bytes, hole: Hole, version: Seq) -> Bytes {
    let mut bytes = BytesMut::from(&delivery[..]);
    let frame = frame::decode(&mut bytes).ok().flatten();
    let message = frame.and_then(|frame| Message::decode(&frame).ok().flatten());
    let Some(Message::Deliver(mut deliver)) = message else {
        return Bytes::new();
    };
    for entry in &mut deliver.entries {
        entry.body = Bytes::new();
        entry.hole = hole.number();
        if entry.target == Seq(0) {
            entry.version = version;
        }
        entry.expansion.clear();
        entry.removed.clear();
        entry.keys_elsewhere = false;
    }
    Message::Deliver(deliver).encode()
}

/// The last frame of a subscription.
fn ended(channel: ChannelNumber, epoch: Epoch, subscriber: &Subscriber) -> Bytes {
    let (code, text) = if subscriber.lapsed {
        (
            Code::Unavailable,
            "the edge has lost track of the group; subscribe again",
        )
    } else {
        (Code::NotMember, "the membership has ended")
    };
    let seq = subscriber.cap;
    Message::Ended(Ended {
        request: subscriber.request,
        channel,
        position: Position { epoch, seq },
        code: code.number(),
        message: text.to_owned(),
    })
    .encode()
}

/// An entry of the cluster wire as clients see it.
pub fn client_entry(entry: &Entry) -> message::Entry {
    message::Entry {
        seq: entry.seq,
        ts: entry.ts,
        kind: entry.kind.number(),
        sender: entry.sender.clone(),
        sender_number: entry.sender_number,
        client_message_id: entry.client_message_id,
        body: entry.body.clone(),
        target: entry.target,
        version: entry.version,
        hole: entry.hole.number(),
        expansion: entry.expansion.clone(),
        removed: entry.removed.clone(),
        keys_elsewhere: entry.keys_elsewhere,
    }
}

#[cfg(test)]
mod tests;
