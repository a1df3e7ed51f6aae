//! Resuming on a new connection: many positions in one frame.

use std::collections::BTreeSet;

use super::subscriptions::Wire;
use super::{ClientMachine, Key, Phase, Purpose, Timer};
use crate::code::Code;
use crate::ids::Ts;
use crate::message::{self, Place, RequestId, Resume};

/// Milliseconds without progress after which a resume is taken apart into single subscribes.
const RESUME_STALL_MS: u64 = 10_000;

impl ClientMachine {
    pub(super) fn start_resume(&mut self, now_ms: u64, keys: Vec<Key>) {
        let mut places = Vec::with_capacity(keys.len());
        let mut left = BTreeSet::new();
        for key in keys {
            if let Some(subscription) = self.subscriptions.all.get_mut(&key)
                && let (true, Wire::Idle, Some(position)) =
                    (subscription.wanted, subscription.wire, subscription.position)
            {
                subscription.wire = Wire::Asked;
                let (group, channel) = key.clone();
                places.push(Place {
                    group,
                    channel,
                    position,
                    ts: Ts(0),
                });
                left.insert(key);
            }
        }
        if places.is_empty() {
            return;
        }
        let timer = Timer::ResumeStall(self.next_request);
        self.timers.insert((now_ms + RESUME_STALL_MS, timer));
        self.request(now_ms, Purpose::Resume(left), |request| {
            Resume { request, places }.into()
        });
    }

    /// An error with a resume's request is about one of its places, and does not say which; places
    /// without an answer at the end are asked for one by one. Two codes are about the whole.
    pub(super) fn resume_error(&mut self, now_ms: u64, error: &message::Error) {
        let whole = matches!(
            error.known_code(),
            Some(Code::TooManyRequests | Code::InvalidField)
        ) || self.phase != Phase::Open;
        if !whole {
            if let Some(flight) = self.in_flight.get_mut(&error.request) {
                flight.since_ms = now_ms;
            }
            return;
        }
        if let Some(Purpose::Resume(left)) = self.in_flight.remove(&error.request).map(|f| f.purpose) {
            let wait_ms = self.jitter.wait_ms(1).max(u64::from(error.retry_after_ms));
            for key in left {
                self.back_to_idle(&key);
                self.timers.insert((now_ms + wait_ms, Timer::Ask(key)));
            }
        }
    }

    fn back_to_idle(&mut self, key: &Key) {
        if let Some(subscription) = self.subscriptions.all.get_mut(key) {
            subscription.wire = Wire::Idle;
            if !subscription.wanted {
                self.forget(key);
            }
        }
    }

    pub(super) fn resume_done(&mut self, left: BTreeSet<Key>) {
        for key in left {
            self.back_to_idle(&key);
            self.subscriptions.ask_again(&key);
        }
    }

    pub(super) fn resume_stalled(&mut self, now_ms: u64, request: RequestId) {
        let Some(flight) = self.in_flight.get(&request) else {
            return;
        };
        let due_ms = flight.since_ms + RESUME_STALL_MS;
        if due_ms > now_ms {
            self.timers.insert((due_ms, Timer::ResumeStall(request)));
        } else if let Some(Purpose::Resume(left)) = self.in_flight.remove(&request).map(|f| f.purpose) {
            self.resume_done(left);
        }
    }
}
