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
        for entry in self.watched.lock().links.values_mut() {
            let Some(link) = entry.link.upgrade() else {
                continue;
            };
            let now = link.signals();
            if now.saturating_sub(entry.seen) > FLOOD_SIGNALS_MAX {
                entry.flooded.notify_one();
            }
            entry.seen = now;
        }
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
