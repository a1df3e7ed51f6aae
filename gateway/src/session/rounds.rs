//! Delivers to all sessions of a worker from one task, on the worker's thread.
//!
//! A message to a thousand sessions is a thousand small writes, each cheaper than waking a task. A channel
//! with news gets a round: the sessions that have something to take are handed what they can take at once,
//! some at a time, and what would wait is left to a task of that session's own. Rounds of several channels
//! take turns, and sessions that have something for themselves are served between: nobody waits for the
//! whole of a large channel.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_fanout::{Copies, Take, WorkerNumber};
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::outbox::Outbox;
use crate::channels::{Channel, Due};
use crate::limits::TURN_BYTES;

/// Sessions served before others on the thread have a turn: what they wrote is sent then, in one batch,
/// while it is still in the processor's cache.
const STEP: usize = 32;

/// Who has something to take. Each channel and session is in it once: bounded by those there are.
#[derive(Debug, Default)]
struct Waiting {
    channels: VecDeque<Arc<Channel>>,
    sessions: VecDeque<Arc<Outbox>>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.sessions.is_empty()
    }
}

/// The rounds of a worker.
#[derive(Debug)]
pub(crate) struct Rounds {
    worker: WorkerNumber,
    /// It is the only worker.
    alone: bool,
    waiting: Mutex<Waiting>,
    notify: Notify,
}

/// A channel's round that is under way.
#[derive(Debug)]
struct Round {
    channel: Arc<Channel>,
    copies: Copies,
}

impl Rounds {
    pub fn new(worker: WorkerNumber, alone: bool) -> Self {
        Self {
            worker,
            alone,
            waiting: Mutex::default(),
            notify: Notify::new(),
        }
    }

    /// For frames that a round of this worker hands out. Whoever comes for more by itself gets what all share: a copy
    /// for one session alone is dearer than a count.
    fn copies(&self) -> Copies {
        match self.alone {
            true => Copies::shared(),
            false => Copies::own(),
        }
    }

    /// Begins a round of a channel that has none.
    pub(super) fn begin(&self, channel: &Arc<Channel>) {
        self.add(|waiting| waiting.channels.push_back(Arc::clone(channel)));
    }

    /// Adds a session that is not on the list.
    pub(super) fn push(&self, outbox: Arc<Outbox>) {
        self.add(|waiting| waiting.sessions.push_back(outbox));
    }

    fn add(&self, add: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.lock();
        let first = waiting.is_empty();
        add(&mut waiting);
        drop(waiting);
        if first {
            self.notify.notify_one();
        }
    }

    /// Serves whoever has something to take, for ever.
    pub async fn run(&self) {
        let mut rounds = VecDeque::new();
        let mut sessions = VecDeque::new();
        let mut step = Step::default();
        loop {
            self.gather(&mut rounds, &mut sessions);
            if rounds.is_empty() && sessions.is_empty() {
                self.notify.notified().await;
                continue;
            }
            if let Some(mut round) = rounds.pop_front()
                && step.take(self.worker, &mut round)
            {
                rounds.push_back(round);
            }
            for outbox in sessions.drain(..sessions.len().min(STEP)) {
                outbox.deliver();
            }
            yield_now().await;
        }
    }

    fn gather(&self, rounds: &mut VecDeque<Round>, sessions: &mut VecDeque<Arc<Outbox>>) {
        let mut waiting = self.waiting.lock();
        rounds.extend(waiting.channels.drain(..).map(|channel| Round {
            channel,
            copies: self.copies(),
        }));
        sessions.append(&mut waiting.sessions);
    }
}

/// What a step works with; kept for the room it has.
#[derive(Debug, Default)]
struct Step {
    due: Vec<Due>,
    takes: Vec<Take>,
}

impl Step {
    /// Serves some sessions of a round; whether it goes on.
    fn take(&mut self, worker: WorkerNumber, round: &mut Round) -> bool {
        let Round { channel, copies } = round;
        let goes_on = channel.step(worker, STEP, &mut self.due);
        self.due.retain(|due| due.receiver.is_ready(channel));
        channel.take_all(worker, &self.due, TURN_BYTES, copies, &mut self.takes);
        for (due, take) in self.due.drain(..).zip(self.takes.drain(..)) {
            due.receiver.hand(channel, take);
        }
        goes_on
    }
}
