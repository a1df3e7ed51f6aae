//! Which lanes follow which channels of this node.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use throng_protocol::ids::{ChannelNumber, ShardId};
use tokio::sync::Notify;

/// A channel as this node's registry knows it; numbers are unique in an app only, but a shard's
/// numbers come from one issuer each and never repeat inside a cluster.
pub(crate) type Followed = (ShardId, ChannelNumber);

/// Wakes one lane for the channels that have grown. Holds each channel once, so its size is bounded
/// by what the lane follows.
#[derive(Debug, Default)]
pub(crate) struct LaneWaker {
    dirty: Mutex<Dirty>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Dirty {
    queued: HashSet<Followed>,
    order: VecDeque<Followed>,
}

impl LaneWaker {
    /// Queues a channel to be read, unless it is queued.
    pub fn mark(&self, channel: Followed) {
        let added = {
            let mut dirty = self.dirty.lock();
            let added = dirty.queued.insert(channel);
            if added {
                dirty.order.push_back(channel);
            }
            added
        };
        if added {
            self.notify.notify_one();
        }
    }

    /// The channel that waits longest.
    pub fn take(&self) -> Option<Followed> {
        let mut dirty = self.dirty.lock();
        let channel = dirty.order.pop_front()?;
        dirty.queued.remove(&channel);
        Some(channel)
    }

    /// Has [`Self::marked`] return once more if channels are left.
    pub fn again(&self) {
        if !self.dirty.lock().order.is_empty() {
            self.notify.notify_one();
        }
    }

    /// Waits until a channel may be queued. Cancel-safe.
    pub async fn marked(&self) {
        self.notify.notified().await;
    }
}

/// Which lanes follow which channels.
#[derive(Debug, Default)]
pub(crate) struct FeedRegistry {
    lanes: RwLock<HashMap<Followed, Vec<Arc<LaneWaker>>>>,
}

impl FeedRegistry {
    /// Wakes the lanes that follow a channel. Called for every append: one lookup when nobody does.
    pub fn advanced(&self, channel: Followed) {
        if let Some(wakers) = self.lanes.read().get(&channel) {
            for waker in wakers {
                waker.mark(channel);
            }
        }
    }

    /// Wakes every lane for every channel: for a replica whose state was replaced as a whole.
    pub fn replaced(&self, shard: ShardId) {
        for (channel, wakers) in &*self.lanes.read() {
            if channel.0 == shard {
                wakers.iter().for_each(|waker| waker.mark(*channel));
            }
        }
    }

    /// Adds a lane to a channel's followers.
    pub fn follow(&self, channel: Followed, waker: &Arc<LaneWaker>) {
        let mut lanes = self.lanes.write();
        let wakers = lanes.entry(channel).or_default();
        if !wakers.iter().any(|known| Arc::ptr_eq(known, waker)) {
            wakers.push(Arc::clone(waker));
        }
    }

    /// Removes a lane from a channel's followers.
    pub fn unfollow(&self, channel: Followed, waker: &Arc<LaneWaker>) {
        let mut lanes = self.lanes.write();
        if let Some(wakers) = lanes.get_mut(&channel) {
            wakers.retain(|known| !Arc::ptr_eq(known, waker));
            if wakers.is_empty() {
                lanes.remove(&channel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: Followed = (ShardId(101), ChannelNumber(7));

    #[test]
    fn a_lane_hears_once_of_a_channel_that_grew_twice() {
        let registry = FeedRegistry::default();
        let waker = Arc::new(LaneWaker::default());
        registry.follow(CHANNEL, &waker);
        registry.follow(CHANNEL, &waker);
        registry.advanced(CHANNEL);
        registry.advanced(CHANNEL);
        registry.advanced((ShardId(101), ChannelNumber(8)));
        assert_eq!(waker.take(), Some(CHANNEL));
        assert_eq!(waker.take(), None);
        registry.advanced(CHANNEL);
        assert_eq!(waker.take(), Some(CHANNEL));
        registry.unfollow(CHANNEL, &waker);
        registry.advanced(CHANNEL);
        assert_eq!(waker.take(), None);
        assert!(registry.lanes.read().is_empty());
    }

    #[test]
    fn a_replaced_state_wakes_the_channels_of_its_shard_only() {
        let registry = FeedRegistry::default();
        let waker = Arc::new(LaneWaker::default());
        registry.follow(CHANNEL, &waker);
        registry.replaced(ShardId(102));
        assert_eq!(waker.take(), None);
        registry.replaced(ShardId(101));
        assert_eq!(waker.take(), Some(CHANNEL));
    }
}
