//! Watches what clients send below the frames of the protocol: QUIC's own signals.
//!
//! A client can keep an edge busy without one frame: pings, streams reset and stopped, moves to other
//! addresses. quinn answers each, and the task of the session sees none of it. One task looks at the
//! counters of all connections every few seconds, which costs less than a timer each, and tells the
//! session of one that is far above what any client needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use throng_transport::Link;
use tokio::sync::Notify;

use crate::limits::{FLOOD_INTERVAL, FLOOD_SIGNALS_MAX};

/// All connections that are watched.
#[derive(Debug, Default)]
pub(crate) struct Floods {
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    next: u64,
    links: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    link: Weak<dyn Link>,
    flooded: Arc<Notify>,
    /// What the counter said last.
    seen: u64,
}

/// Connections looked at under one lock: a fraction of a millisecond.
const LOOKED_AT: usize = 256;

impl Floods {
    /// Watches a connection until the guard is dropped.
    pub fn watch(self: &Arc<Self>, link: &Arc<dyn Link>) -> FloodGuard {
        let flooded = Arc::new(Notify::new());
        let mut watched = self.watched.lock();
        let id = watched.next;
        watched.next += 1;
        let entry = Entry {
            link: Arc::downgrade(link),
            flooded: Arc::clone(&flooded),
            seen: link.signals(),
        };
        watched.links.insert(id, entry);
        drop(watched);
        FloodGuard {
            floods: Arc::clone(self),
            id,
            flooded,
        }
    }

    /// Looks at all connections again and again.
    pub async fn keep_watch(&self) {
        loop {
            tokio::time::sleep(FLOOD_INTERVAL).await;
            self.look();
        }
    }

    fn look(&self) {
        let mut next = Some(0);
        while let Some(first) = next {
            next = self.look_at_some(first);
        }
    }

    /// Looks at some connections from this one on; where to go on. Whoever comes or goes meanwhile waits for
    /// some of them at most, and the clients of its thread with it.
    fn look_at_some(&self, first: u64) -> Option<u64> {
        let mut watched = self.watched.lock();
        let mut last = None;
        for (id, entry) in watched.links.range_mut(first..).take(LOOKED_AT) {
            last = Some(*id);
            let Some(link) = entry.link.upgrade() else {
                continue;
            };
            let now = link.signals();
            if now.saturating_sub(entry.seen) > FLOOD_SIGNALS_MAX {
                entry.flooded.notify_one();
            }
            entry.seen = now;
        }
        last.map(|last| last + 1)
    }
}

/// Watches a connection while it lives.
#[derive(Debug)]
pub(crate) struct FloodGuard {
    floods: Arc<Floods>,
    id: u64,
    flooded: Arc<Notify>,
}

impl FloodGuard {
    /// Waits until the connection floods the edge. Cancel-safe.
    pub async fn flooded(&self) {
        self.flooded.notified().await;
    }
}

impl Drop for FloodGuard {
    fn drop(&mut self) {
        self.floods.watched.lock().links.remove(&self.id);
    }
}
