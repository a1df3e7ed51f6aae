//! The fan-out of one followed channel.
//!
//! ```text
//!  feed ── on_opened, on_batch, on_reset ──►┌ ChannelFanout ┐◄── subscribe, take, advance ── sessions
//!  log  ── on_page ───────────────────────►│ ring, cursors │──► Effects
//!                                           └───────────────┘
//! ```

use std::collections::BTreeMap;

use throng_protocol::cluster::Entry;
use throng_protocol::ids::{ChannelNumber, Epoch, Position, Seq, SessionId};
use throng_protocol::message::{self, Deliver, Message, Start};

use crate::LINGER_MS;
use crate::effect::Effect;
use crate::ring::{Ring, RingLimits};
use crate::subscriber::{Lag, Subscriber};

use bytes::Bytes;

/// Where a new subscription's deliveries begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Deliveries begin behind it.
    pub position: Position,
    /// The last entry of the log, as far as the edge knows.
    pub head: Seq,
    /// Why there.
    pub start: Start,
}

/// Why a subscription cannot begin yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeError {
    /// The feed is not open; try again when it is.
    NotOpen,
    /// The position is ahead of everything the feed has brought: it may be behind. Read the log's
    /// head from a quorum and give it along.
    HeadNeeded,
}

/// Frames for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// `Deliver` frames, at least one, to be written in this order.
    pub frames: Vec<Bytes>,
    /// Whether there is more to take.
    pub more: bool,
}

/// What a session gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// Frames; the cursor has moved behind them.
    Chunk(Chunk),
    /// The cursor is older than the ring: read the log behind `from`, then [`ChannelFanout::advance`].
    Behind {
        /// Of this epoch.
        epoch: Epoch,
        /// The cursor.
        from: Seq,
    },
    /// Nothing now; the session is woken when there is.
    Nothing,
}

#[derive(Debug)]
struct Open {
    epoch: Epoch,
    ring: Ring,
    /// The newest entry known to exist; more than the ring's head while a gap is repaired.
    known: Seq,
    refetching: bool,
}

/// A channel an edge follows once for all its subscribers.
#[derive(Debug)]
pub struct ChannelFanout {
    channel: ChannelNumber,
    limits: RingLimits,
    open: Option<Open>,
    subscribers: BTreeMap<SessionId, Subscriber>,
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
            subscribers: BTreeMap::new(),
            unused_since_ms: Some(now_ms),
            encoded: 0,
        }
    }

    /// The feed is open and goes on behind `from`; the log ends at `head`.
    pub fn on_opened(&mut self, epoch: Epoch, from: Seq, head: Seq, effects: &mut Vec<Effect>) {
        match &mut self.open {
            Some(open) if open.epoch == epoch => {
                // What lies between the ring and the feed's beginning will not come by itself.
                open.known = open.known.max(from);
                open.refetch_if_behind(effects);
            }
            Some(_) => self.on_reset(epoch, head, effects),
            None => {
                let ring = Ring::new(self.limits, from);
                self.open = Some(Open {
                    epoch,
                    ring,
                    known: from,
                    refetching: false,
                });
            }
        }
    }

    /// The feed cannot go on where it was, and begins anew behind `head`. In the same epoch the
    /// subscriptions keep their cursors and are served from pages; in another they restart.
    pub fn on_reset(&mut self, epoch: Epoch, head: Seq, effects: &mut Vec<Effect>) {
        let same = self.open.as_ref().is_some_and(|open| open.epoch == epoch);
        if same && self.open.as_ref().is_some_and(|open| open.ring.head() >= head) {
            return;
        }
        let ring = Ring::new(self.limits, head);
        // A page that is being read still comes, and is the only one.
        let refetching = self.open.as_ref().is_some_and(|open| open.refetching);
        self.open = Some(Open {
            epoch,
            ring,
            known: head,
            refetching,
        });
        for (&session, subscriber) in &mut self.subscribers {
            if !same {
                // The first delivery of the new epoch tells the client.
                *subscriber = Subscriber {
                    cursor: head,
                    acked: head,
                    dirty: false,
                };
            } else if subscriber.cursor < head {
                wake(session, subscriber, effects);
            }
        }
    }

    /// Entries of the feed, ascending; `prev` is the entry before the first. What is held already is
    /// ignored; what does not connect is dropped and asked for.
    pub fn on_batch(&mut self, epoch: Epoch, prev: Seq, entries: &[Entry], effects: &mut Vec<Effect>) {
        let Some(open) = &mut self.open else { return };
        let Some(last) = entries.last().filter(|_| open.epoch == epoch) else {
            return;
        };
        if last.seq <= open.ring.head() {
            return;
        }
        open.known = open.known.max(last.seq);
        if prev > open.ring.head() {
            open.refetch_if_behind(effects);
            return;
        }
        self.encoded += open.extend(self.channel, entries);
        self.wake_all(effects);
    }

    /// A page read because of [`Effect::Refetch`], empty if reading failed; asks again while
    /// entries are missing.
    pub fn on_page(&mut self, epoch: Epoch, prev: Seq, entries: &[Entry], effects: &mut Vec<Effect>) {
        let Some(open) = &mut self.open else { return };
        open.refetching = false;
        self.on_batch(epoch, prev, entries, effects);
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

    /// The feed was lost; asks to follow again from what is held.
    pub fn on_lost(&mut self, effects: &mut Vec<Effect>) {
        let position = self.position().unwrap_or_default();
        effects.push(Effect::Follow { position });
    }

    /// Begins a subscription, or places it anew. `log` is the end of the log as a quorum knows it;
    /// needed only when asked for by [`SubscribeError::HeadNeeded`].
    pub fn subscribe(
        &mut self,
        session: SessionId,
        position: Position,
        log: Option<Position>,
        effects: &mut Vec<Effect>,
    ) -> Result<Subscription, SubscribeError> {
        let open = self.open.as_ref().ok_or(SubscribeError::NotOpen)?;
        let head = open.known;
        let (seq, start) = if position.epoch == Epoch(0) {
            (open.ring.head(), Start::Head)
        } else if position.epoch != open.epoch {
            (open.ring.head(), Start::FullEpoch)
        } else if position.seq <= open.known {
            (position.seq, Start::Resumed)
        } else {
            match log.filter(|log| log.epoch == open.epoch) {
                None => return Err(SubscribeError::HeadNeeded),
                Some(log) if log.seq >= position.seq => (position.seq, Start::Resumed),
                Some(log) => (log.seq.max(open.ring.head()), Start::FullAhead),
            }
        };
        let behind = seq < open.ring.head();
        let position = Position {
            epoch: open.epoch,
            seq,
        };
        let mut subscriber = Subscriber {
            cursor: seq,
            acked: seq,
            dirty: false,
        };
        if behind {
            wake(session, &mut subscriber, effects);
        }
        self.subscribers.insert(session, subscriber);
        self.unused_since_ms = None;
        Ok(Subscription {
            position,
            head: head.max(seq),
            start,
        })
    }

    /// Ends a subscription; `false` if there was none.
    pub fn unsubscribe(&mut self, now_ms: u64, session: SessionId) -> bool {
        let was = self.subscribers.remove(&session).is_some();
        if was && self.subscribers.is_empty() {
            self.unused_since_ms = Some(now_ms);
        }
        was
    }

    /// The next frames for a session, up to about `budget` bytes.
    pub fn take(&mut self, session: SessionId, budget: usize) -> Take {
        let (Some(open), Some(subscriber)) = (&self.open, self.subscribers.get_mut(&session)) else {
            return Take::Nothing;
        };
        match open.ring.behind(subscriber.cursor, budget) {
            None => Take::Behind {
                epoch: open.epoch,
                from: subscriber.cursor,
            },
            Some((frames, _)) if frames.is_empty() => {
                subscriber.dirty = false;
                Take::Nothing
            }
            Some((frames, last)) => {
                subscriber.cursor = last;
                let more = last < open.ring.head();
                subscriber.dirty = more;
                Take::Chunk(Chunk { frames, more })
            }
        }
    }

    /// Where a session stands whose cursor is older than the ring; `None` if the ring serves it.
    pub fn behind(&self, session: SessionId) -> Option<(Epoch, Seq)> {
        let (open, subscriber) = (self.open.as_ref()?, self.subscribers.get(&session)?);
        (subscriber.cursor < open.ring.base()).then_some((open.epoch, subscriber.cursor))
    }

    /// A page behind `from` was written to the session instead of frames of the ring: moves its
    /// cursor to the page's last entry. `false` if the subscription has moved or ended meanwhile,
    /// in which case the page must not be written.
    pub fn advance(&mut self, session: SessionId, epoch: Epoch, from: Seq, to: Seq) -> bool {
        let current = self.open.as_ref().is_some_and(|open| open.epoch == epoch);
        match self.subscribers.get_mut(&session) {
            Some(subscriber) if current && subscriber.cursor == from => {
                subscriber.cursor = to.max(from);
                true
            }
            _ => false,
        }
    }

    /// Records a cumulative ack of a client; one of another epoch or of entries never handed out
    /// says nothing.
    pub fn acked(&mut self, session: SessionId, position: Position) {
        let current = self
            .open
            .as_ref()
            .is_some_and(|open| open.epoch == position.epoch);
        if let Some(subscriber) = self.subscribers.get_mut(&session).filter(|_| current) {
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
        self.subscribers.len()
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
            for subscriber in self.subscribers.values() {
                lag.include(open.ring.head(), subscriber);
            }
        }
        lag
    }

    fn wake_all(&mut self, effects: &mut Vec<Effect>) {
        let Some(open) = &self.open else { return };
        let head = open.ring.head();
        for (&session, subscriber) in &mut self.subscribers {
            if subscriber.cursor < head {
                wake(session, subscriber, effects);
            }
        }
    }
}

impl Open {
    /// Adds what is new of connected entries; returns how many were encoded.
    fn extend(&mut self, channel: ChannelNumber, entries: &[Entry]) -> u64 {
        let mut encoded = 0;
        for entry in entries {
            let prev = self.ring.head();
            if entry.seq <= prev {
                continue;
            }
            let entries = vec![client_entry(entry)];
            let deliver = Deliver {
                channel,
                epoch: self.epoch,
                prev,
                entries,
            };
            self.ring.push(entry.seq, Message::Deliver(deliver).encode());
            encoded += 1;
        }
        encoded
    }

    fn refetch_if_behind(&mut self, effects: &mut Vec<Effect>) {
        if self.ring.head() < self.known && !self.refetching {
            self.refetching = true;
            effects.push(Effect::Refetch {
                from: self.ring.head(),
            });
        }
    }
}

fn wake(session: SessionId, subscriber: &mut Subscriber, effects: &mut Vec<Effect>) {
    if !subscriber.dirty {
        subscriber.dirty = true;
        effects.push(Effect::Wake { session });
    }
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
    }
}

#[cfg(test)]
mod tests;
