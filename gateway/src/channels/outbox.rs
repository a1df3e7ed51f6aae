//! What a session's writer has to look at: channels, never messages.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use throng_protocol::ids::ChannelNumber;
use throng_protocol::limits::LIVE_LANES;
use tokio::sync::Notify;

use super::Channel;

/// The channels of a session that have something to take.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Served from rings onto live lanes.
    pub live: Live,
    /// Served from pages onto the bulk stream.
    pub bulk: Queue,
}

/// A queue for each live lane: one whose client does not read it holds up no other.
#[derive(Debug, Default)]
pub(crate) struct Live([Queue; LIVE_LANES as usize]);

impl Live {
    /// Adds a channel to its lane's queue, unless it waits there already.
    pub fn push(&self, channel: &Arc<Channel>) {
        let lane = channel.info().number.0 % u64::from(LIVE_LANES);
        if let Some(queue) = usize::try_from(lane).ok().and_then(|lane| self.0.get(lane)) {
            queue.push(channel);
        }
    }

    /// The lanes' queues.
    pub fn lanes(&self) -> &[Queue] {
        &self.0
    }
}

/// Channels in the order they came, each once: bounded by the session's subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<Arc<Channel>>,
    queued: HashSet<ChannelNumber>,
}

impl Queue {
    /// Adds a channel, unless it waits already.
    pub fn push(&self, channel: &Arc<Channel>) {
        let mut waiting = self.waiting.lock();
        if waiting.queued.insert(channel.info().number) {
            waiting.order.push_back(Arc::clone(channel));
            drop(waiting);
            self.notify.notify_one();
        }
    }

    /// The channel that waits longest. Cancel-safe; for one reader.
    pub async fn next(&self) -> Arc<Channel> {
        loop {
            if let Some(channel) = self.try_next() {
                return channel;
            }
            self.notify.notified().await;
        }
    }

    fn try_next(&self) -> Option<Arc<Channel>> {
        let mut waiting = self.waiting.lock();
        let channel = waiting.order.pop_front()?;
        waiting.queued.remove(&channel.info().number);
        Some(channel)
    }
}
