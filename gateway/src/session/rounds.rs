//! Delivers to all sessions of a worker from one task, on the worker's thread.
//!
//! A message to a thousand sessions is a thousand small writes, each cheaper than waking a task. Whoever
//! has something to take is on the list once; a round hands each of them what it can take at once, and
//! leaves what would wait to a task of that session's own.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::outbox::Outbox;

/// Sessions served before others on the thread have a turn: what they wrote is sent then, in one batch,
/// while it is still in the processor's cache.
const ROUND: usize = 32;

/// The sessions that have something to take, each once: bounded by the sessions there are.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    list: Mutex<Vec<Arc<Outbox>>>,
    notify: Notify,
}

impl Rounds {
    /// Adds a session that is not on the list.
    pub(super) fn push(&self, outbox: Arc<Outbox>) {
        let mut list = self.list.lock();
        list.push(outbox);
        let first = list.len() == 1;
        drop(list);
        if first {
            self.notify.notify_one();
        }
    }

    /// Serves whoever is on the list, for ever.
    pub async fn run(&self) {
        let mut list = Vec::new();
        loop {
            std::mem::swap(&mut list, &mut *self.list.lock());
            if list.is_empty() {
                self.notify.notified().await;
            }
            let mut left = list.len();
            for outbox in list.drain(..) {
                outbox.deliver();
                left -= 1;
                if left.is_multiple_of(ROUND) {
                    yield_now().await;
                }
            }
        }
    }
}
