//! Deliveries: from frames in any order to entries in one.
//!
//! A channel's frames come over a live lane and, while it catches up, over the bulk stream; pages
//! that fill a gap come over the control stream. All three race. An entry is emitted when the entry
//! before it has been; until then it is held, up to a bound, and what is beyond the bound is asked
//! for again. A gap without progress for [`GAP_WAIT_MS`] is asked for.

use std::collections::{BTreeMap, VecDeque};

use throng_planted::planted;

use super::subscriptions::{GapSync, Subscription, Wire};
use super::{
    AckPace, ClientEvent, ClientMachine, Entries, GAP_WAIT_MS, Key, LAST_ENTRIES_WAIT_MS, Phase, Timer,
};
use crate::code::{Class, Code};
use crate::ids::{ChannelNumber, Position, Seq, SessionId};
use crate::limits::{REORDER_ENTRIES_MAX, SUBSCRIPTIONS_MAX};
use crate::message::{self, ClientAck, Deliver, Ended, Entry};

/// Deliveries of channels whose `Subscribed` is still on its way on another stream.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    waiting: VecDeque<Deliver>,
    entries: usize,
    /// What did not fit: the highest position of each channel.
    lost: BTreeMap<ChannelNumber, Seq>,
    /// Ends of subscriptions that have not begun here yet.
    ended: BTreeMap<ChannelNumber, Ended>,
}

impl Orphans {
    fn push(&mut self, deliver: Deliver) {
        let Some(last) = deliver.entries.last().map(|entry| entry.seq) else {
            return;
        };
        if self.entries + deliver.entries.len() <= REORDER_ENTRIES_MAX {
            self.entries += deliver.entries.len();
            self.waiting.push_back(deliver);
        } else if self.lost.len() < SUBSCRIPTIONS_MAX || self.lost.contains_key(&deliver.channel) {
            let lost = self.lost.entry(deliver.channel).or_default();
            *lost = last.max(*lost);
        }
    }

    /// Takes a channel's deliveries, and the position up to which others were dropped.
    pub(super) fn take(&mut self, channel: ChannelNumber) -> (Vec<Deliver>, Seq) {
        let mut taken = Vec::new();
        let mut rest = VecDeque::with_capacity(self.waiting.len());
        for deliver in self.waiting.drain(..) {
            if deliver.channel == channel {
                self.entries -= deliver.entries.len();
                taken.push(deliver);
            } else {
                rest.push_back(deliver);
            }
        }
        self.waiting = rest;
        (taken, self.lost.remove(&channel).unwrap_or_default())
    }

    /// One for each channel, and no more channels than a session may have subscribed to.
    pub(super) fn push_end(&mut self, ended: Ended) {
        if self.ended.len() < SUBSCRIPTIONS_MAX || self.ended.contains_key(&ended.channel) {
            self.ended.insert(ended.channel, ended);
        }
    }

    pub(super) fn take_end(&mut self, channel: ChannelNumber) -> Option<Ended> {
        self.ended.remove(&channel)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Subscription {
    /// Takes entries of the held epoch in, gives those out that come next. An entry comes next when
    /// the one before it is at or below the position: for this subscriber nothing lies between.
    fn extend(&mut self, mut prev: Seq, entries: Vec<Entry>) -> Vec<Entry> {
        let Some(position) = self.position.as_mut() else {
            return Vec::new();
        };
        // Nothing behind the end is this subscriber's, on whatever stream it came.
        let last = self.end.as_ref().map_or(Seq(u64::MAX), |end| end.position.seq);
        let mut out = Vec::new();
        for entry in entries.into_iter().take_while(|entry| entry.seq <= last) {
            let seq = entry.seq;
            if seq > position.seq || planted!("client_keeps_duplicates") {
                if prev <= position.seq || planted!("client_takes_over_gap") {
                    position.seq = seq;
                    out.push(entry);
                } else {
                    hold(&mut self.held, &mut self.must_reach, prev, entry);
                }
            }
            prev = seq;
        }
        while let Some(first) = self.held.first_entry() {
            if *first.key() <= position.seq {
                first.remove();
            } else if first.get().0 <= position.seq {
                position.seq = *first.key();
                out.push(first.remove().1);
            } else {
                break;
            }
        }
        out
    }

    fn has_gap(&self) -> bool {
        let seq = self.position.unwrap_or_default().seq;
        !self.held.is_empty() || self.must_reach > seq
    }
}

/// Keeps the lowest entries: they are emitted first, and a page brings the others again.
fn hold(held: &mut BTreeMap<Seq, (Seq, Entry)>, must_reach: &mut Seq, prev: Seq, entry: Entry) {
    held.insert(entry.seq, (prev, entry));
    if held.len() > REORDER_ENTRIES_MAX
        && let Some((seq, _)) = held.pop_last()
    {
        *must_reach = seq.max(*must_reach);
    }
}

impl ClientMachine {
    pub(super) fn handle_deliver(&mut self, now_ms: u64, deliver: Deliver) {
        let known = self.subscriptions.by_number.get(&deliver.channel).cloned();
        let Some(key) = known else {
            if self.subscriptions.asking() {
                self.orphans.push(deliver);
            }
            return;
        };
        let Some(subscription) = self.subscriptions.all.get(&key) else {
            return;
        };
        match subscription.wire {
            Wire::Active if subscription.wanted => {
                self.take_entries(now_ms, &key, &deliver);
            }
            Wire::Asked => self.orphans.push(deliver),
            _ => {}
        }
    }

    pub(super) fn deliver_orphans(&mut self, now_ms: u64, key: &Key, number: ChannelNumber) {
        let (delivers, lost) = self.orphans.take(number);
        let ended = self.orphans.take_end(number);
        if let Some(subscription) = self.subscriptions.all.get_mut(key) {
            subscription.must_reach = subscription.must_reach.max(lost);
        }
        // The end first: what lies behind it is among what is kept, if an edge broke the rules.
        if let Some(ended) = ended {
            self.take_end(now_ms, key, ended);
        }
        for deliver in delivers {
            self.take_entries(now_ms, key, &deliver);
        }
        if !self.subscriptions.asking() {
            self.orphans.clear();
        }
        self.watch_gap(now_ms, key, false);
    }

    /// Entries came, by delivery or page. Tells whether the position moved.
    fn take_entries(&mut self, now_ms: u64, key: &Key, deliver: &Deliver) -> bool {
        let Some(held) = self.subscriptions.all.get(key).and_then(|s| s.position) else {
            return false;
        };
        if deliver.epoch < held.epoch {
            return false;
        }
        if deliver.epoch > held.epoch {
            let (epoch, seq) = (deliver.epoch, deliver.prev);
            self.reset(key, Position { epoch, seq });
        }
        let session = self.welcome.as_ref().map(|(welcome, _)| welcome.session);
        let pace = AckPace::of(session.unwrap_or(SessionId(0)));
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return false;
        };
        let prev = subscription.position.unwrap_or_default().seq;
        let entries = subscription.extend(deliver.prev, deliver.entries.clone());
        let moved = !entries.is_empty();
        if moved {
            subscription.unacked = subscription
                .unacked
                .saturating_add(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            let ack_now = subscription.unacked >= pace.entries;
            self.subscriptions.dirty.insert(key.clone());
            self.ack_at_ms.get_or_insert(now_ms + pace.delay_ms);
            let (group, channel) = key.clone();
            self.events.push_back(ClientEvent::Entries(Entries {
                group,
                channel,
                number: deliver.channel,
                epoch: deliver.epoch,
                prev,
                entries,
            }));
            if ack_now {
                self.ack(key);
            }
        }
        self.watch_gap(now_ms, key, moved);
        self.end_if_complete(now_ms, key);
        moved
    }

    pub(super) fn reset(&mut self, key: &Key, to: Position) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        let in_flight = subscription.sync == GapSync::InFlight;
        let end = subscription.end.take_if(|end| end.position.epoch == to.epoch);
        subscription.forget_deliveries();
        subscription.end = end;
        if in_flight {
            subscription.sync = GapSync::InFlight;
        }
        let from = subscription.position.replace(to).unwrap_or_default();
        let (group, channel) = key.clone();
        self.events.push_back(ClientEvent::Reset {
            group,
            channel,
            from,
            to,
        });
    }

    /// Starts, restarts or ends the wait for what is missing.
    pub(super) fn watch_gap(&mut self, now_ms: u64, key: &Key, moved: bool) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        if moved || !subscription.has_gap() {
            subscription.refused = None;
        }
        if !subscription.has_gap() {
            subscription.gap_at_ms = None;
            return;
        }
        if moved || subscription.gap_at_ms.is_none() {
            subscription.gap_at_ms = Some(now_ms + GAP_WAIT_MS);
        }
        // One timer per subscription: it looks again when it fires early.
        if !subscription.gap_timer {
            subscription.gap_timer = true;
            let timer = Timer::Gap(key.clone());
            self.timers.insert((now_ms + GAP_WAIT_MS, timer));
        }
    }

    pub(super) fn gap_due(&mut self, now_ms: u64, key: &Key) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        subscription.gap_timer = false;
        let Some(at_ms) = subscription.gap_at_ms else {
            return;
        };
        let again_ms = match subscription.sync {
            _ if self.paused => now_ms + GAP_WAIT_MS,
            GapSync::No if at_ms <= now_ms => {
                if let Some(error) = subscription.refused.take() {
                    return self.end_incomplete(key, error);
                }
                if subscription.wire == Wire::Active {
                    subscription.sync = GapSync::Due;
                    self.subscriptions.todo.insert(key.clone());
                }
                return;
            }
            GapSync::No => at_ms,
            // The page's arrival looks at the gap again.
            GapSync::Due | GapSync::InFlight => return,
        };
        subscription.gap_timer = true;
        self.timers.insert((again_ms, Timer::Gap(key.clone())));
    }

    pub(super) fn gap_page(&mut self, now_ms: u64, key: &Key, page: message::Page) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        subscription.sync = GapSync::No;
        subscription.gap_at_ms = None;
        if !subscription.wanted || subscription.wire != Wire::Active {
            return;
        }
        let deliver = Deliver {
            channel: page.channel,
            epoch: page.epoch,
            prev: page.prev,
            entries: page.entries,
        };
        let moved = self.take_entries(now_ms, key, &deliver);
        self.watch_gap(now_ms, key, false);
        // A page that helped is followed by the next one at once; one that did not, after a wait.
        if let Some(subscription) = self.subscriptions.all.get_mut(key)
            && moved
            && subscription.has_gap()
        {
            subscription.sync = GapSync::Due;
            self.subscriptions.todo.insert(key.clone());
        }
    }

    pub(super) fn gap_refused(&mut self, now_ms: u64, key: &Key, error: message::Error) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        subscription.sync = GapSync::No;
        subscription.gap_at_ms = None;
        if !subscription.wanted {
            return;
        }
        if error.class != Class::Fatal {
            return self.watch_gap(now_ms + u64::from(error.retry_after_ms), key, false);
        }
        let over = error.known_code() == Some(Code::NotMember);
        if !over || subscription.wire != Wire::Active {
            return self.end_subscription(key, error);
        }
        // Pages end with the membership; what was delivered before its end still arrives.
        if subscription.has_gap() {
            subscription.refused = Some(error);
            subscription.gap_at_ms = Some(now_ms + LAST_ENTRIES_WAIT_MS);
            self.watch_gap(now_ms, key, false);
        }
    }

    fn ack(&mut self, key: &Key) {
        self.subscriptions.dirty.remove(key);
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        subscription.unacked = 0;
        let open = matches!(self.phase, Phase::Open | Phase::Leaving { .. });
        if let (true, Wire::Active, Some(channel), Some(position)) = (
            open,
            subscription.wire,
            subscription.number,
            subscription.position,
        ) {
            self.transmit(ClientAck { channel, position });
        }
    }

    pub(super) fn flush_acks(&mut self) {
        self.ack_at_ms = None;
        while let Some(key) = self.subscriptions.dirty.first().cloned() {
            self.ack(&key);
        }
    }
}
