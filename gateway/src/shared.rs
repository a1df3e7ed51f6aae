//! What all parts of a running edge share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use throng_protocol::ids::SessionId;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::auth::Auth;
use crate::channels::Channels;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::floods::Floods;
use crate::limits::CATCH_UP_READS_MAX;
use crate::metrics::Metrics;
use crate::upstream::Upstream;

/// What clients are told when the edge drains.
#[derive(Debug, Clone)]
pub(crate) struct DrainNotice {
    pub until: Instant,
    pub reason: String,
    pub edges: Arc<[String]>,
}

/// What all parts of a running edge share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub name: String,
    pub clock: Clock,
    pub upstream: Arc<Upstream>,
    pub directory: Arc<Directory>,
    pub auth: Auth,
    pub channels: Arc<Channels>,
    pub metrics: Metrics,
    pub floods: Arc<Floods>,
    /// Set when the edge drains.
    pub drain: watch::Sender<Option<DrainNotice>>,
    /// Bounds the pages read at once for subscribers that are behind.
    pub catch_up: Semaphore,
    sessions: AtomicU64,
}

impl Shared {
    pub fn new(
        name: String,
        clock: Clock,
        upstream: Arc<Upstream>,
        directory: Arc<Directory>,
        channels: Arc<Channels>,
        metrics: Metrics,
    ) -> Self {
        Self {
            name,
            clock,
            directory,
            auth: Auth::new(Arc::clone(&upstream)),
            upstream,
            channels,
            metrics,
            floods: Arc::default(),
            drain: watch::Sender::new(None),
            catch_up: Semaphore::new(CATCH_UP_READS_MAX),
            // The start time above a counter: ids do not repeat when an edge restarts.
            sessions: AtomicU64::new(clock.now_ms() << 20),
        }
    }

    pub fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }
}
