//! Channels that wait for a turn, in the order they came, each once.
//!
//! Most of the time it is one channel, and very many sessions have one at the same moment: the first
//! is held in place, and only with a second is there a list. Bounded by the session's subscriptions.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use throng_protocol::ids::ChannelNumber;

use crate::channels::Channel;

#[derive(Debug, Default)]
pub(super) struct Queue {
    first: Option<Arc<Channel>>,
    /// Gone when nothing is in it.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    order: VecDeque<Arc<Channel>>,
    queued: FxHashSet<ChannelNumber>,
}

impl Queue {
    pub fn push(&mut self, channel: &Arc<Channel>) {
        let Some(first) = &self.first else {
            self.first = Some(Arc::clone(channel));
            return;
        };
        let number = channel.info().number;
        if first.info().number == number {
            return;
        }
        let rest = self.rest.get_or_insert_default();
        if rest.queued.insert(number) {
            rest.order.push_back(Arc::clone(channel));
        }
    }

    pub fn pop(&mut self) -> Option<Arc<Channel>> {
        let first = self.first.take()?;
        if let Some(rest) = &mut self.rest {
            self.first = rest.order.pop_front();
            if let Some(next) = &self.first {
                rest.queued.remove(&next.info().number);
            }
            if rest.order.is_empty() {
                self.rest = None;
            }
        }
        Some(first)
    }
}
