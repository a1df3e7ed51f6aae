//! Subscriptions that the edge ends, and what follows from a membership's end.
//!
//! An end names the last entry that is the subscriber's. The entries up to it may still be on their
//! way on another stream, so the subscription is over only when all of them were emitted; what lies
//! behind it is dropped whatever brings it.

use super::subscriptions::{GapSync, Wire};
use super::{Answer, ClientMachine, Key, Purpose};
use crate::code::{Class, Code};
use crate::ids::{GroupId, Seq};
use crate::message::{self, Ended, Fenced};

impl ClientMachine {
    pub(super) fn handle_fenced(&mut self, fenced: Fenced) {
        match self
            .in_flight
            .remove(&fenced.request)
            .map(|flight| flight.purpose)
        {
            Some(Purpose::Operation(op)) => self.answer_with(op, Answer::Fenced(fenced)),
            Some(_) => self.protocol_error("Fenced answers a request that has another answer"),
            None => {}
        }
    }

    /// An end of a subscription that was begun anew since is late news of the one before.
    pub(super) fn handle_ended(&mut self, now_ms: u64, ended: Ended) {
        let known = self.subscriptions.by_number.get(&ended.channel).cloned();
        let current = known.filter(|key| {
            let subscription = self.subscriptions.all.get(key);
            subscription.is_some_and(|s| s.wire == Wire::Active && s.begun_by == ended.request)
        });
        match current {
            Some(key) => self.take_end(now_ms, &key, ended),
            None if self.in_flight.contains_key(&ended.request) => self.orphans.push_end(ended),
            None => {}
        }
    }

    pub(super) fn take_end(&mut self, now_ms: u64, key: &Key, ended: Ended) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        if subscription.begun_by != ended.request || subscription.wire != Wire::Active {
            return;
        }
        if !subscription.wanted {
            subscription.wire = Wire::Idle;
            return self.forget(key);
        }
        let last = ended.position.seq;
        subscription.held.retain(|seq, _| *seq <= last);
        // What was dropped for want of room is not asked for beyond the end either.
        subscription.must_reach = last;
        subscription.end = Some(ended);
        self.watch_gap(now_ms, key, false);
        self.end_if_complete(now_ms, key);
    }

    /// Ends a subscription whose last entry was emitted.
    pub(super) fn end_if_complete(&mut self, now_ms: u64, key: &Key) {
        let Some(subscription) = self.subscriptions.all.get_mut(key) else {
            return;
        };
        let held = subscription.position.unwrap_or_default();
        // Of a log that was rebuilt meanwhile the client holds nothing, and gets nothing any more.
        let complete = |end: &mut Ended| end.position.epoch != held.epoch || end.position.seq <= held.seq;
        let Some(ended) = subscription.end.take_if(complete) else {
            return;
        };
        subscription.wire = Wire::Idle;
        subscription.must_reach = Seq(0);
        subscription.gap_at_ms = None;
        subscription.refused = None;
        if subscription.sync == GapSync::Due {
            subscription.sync = GapSync::No;
        }
        let class = ended.known_code().map_or(Class::Fatal, Code::class);
        let error = message::Error {
            request: 0,
            code: ended.code,
            class,
            message: ended.message,
            retry_after_ms: 0,
        };
        match class {
            Class::Fatal => self.end_subscription(key, error),
            // The edge lost track of the right, not the user the right: asked again, it looks anew.
            Class::Retryable | Class::Redirect => self.subscribe_refused(now_ms, key, error),
        }
    }

    /// Ends a subscription whose last entries did not arrive in time.
    pub(super) fn end_incomplete(&mut self, key: &Key, error: message::Error) {
        if let Some(subscription) = self.subscriptions.all.get_mut(key)
            && subscription.end.take().is_some()
        {
            // The edge has ended it already.
            subscription.wire = Wire::Idle;
        }
        self.end_subscription(key, error);
    }

    /// The application has left the group: no edge delivers its channels any more.
    pub(super) fn group_left(&mut self, group: &GroupId) {
        let keys: Vec<Key> = self.subscriptions.all.keys().cloned().collect();
        for key in keys.into_iter().filter(|key| key.0 == *group) {
            let Some(subscription) = self.subscriptions.all.get_mut(&key) else {
                continue;
            };
            // One that is being asked for is judged by the edge.
            if subscription.wanted && subscription.wire == Wire::Active {
                subscription.wire = Wire::Idle;
                let error = message::Error::new(0, Code::NotMember, "the group was left");
                self.end_subscription(&key, error);
            }
        }
    }
}
