//! Which lanes follow which channels of this node.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use throng_protocol::cluster::ChannelInfo;
use throng_protocol::ids::{AppId, ChannelNumber, GroupId, ShardId};
use tokio::sync::Notify;

/// A group with channels on a shard.
pub(crate) type FollowedGroup = (ShardId, AppId, GroupId);

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
    followers: RwLock<Followers>,
}

#[derive(Debug, Default)]
struct Followers {
    lanes: HashMap<Followed, Vec<Arc<LaneWaker>>>,
    /// The followed channels of each group, for fences.
    groups: HashMap<FollowedGroup, HashSet<ChannelNumber>>,
}

impl FeedRegistry {
    /// Wakes the lanes that follow a channel. Called for every append: one lookup when nobody does.
    pub fn advanced(&self, channel: Followed) {
        if let Some(wakers) = self.followers.read().lanes.get(&channel) {
            for waker in wakers {
                waker.mark(channel);
            }
        }
    }

    /// Wakes every lane for every channel: for a replica whose state was replaced as a whole.
    pub fn replaced(&self, shard: ShardId) {
        for (channel, wakers) in &self.followers.read().lanes {
            if channel.0 == shard {
                wakers.iter().for_each(|waker| waker.mark(*channel));
            }
        }
    }

    /// Wakes the lanes that follow channels of a group.
    pub fn fenced(&self, group: &FollowedGroup) {
        let followers = self.followers.read();
        for channel in followers.groups.get(group).into_iter().flatten() {
            let channel = (group.0, *channel);
            for waker in followers.lanes.get(&channel).into_iter().flatten() {
                waker.mark(channel);
            }
        }
    }

    /// Adds a lane to a channel's followers.
    pub fn follow(&self, channel: &ChannelInfo, waker: &Arc<LaneWaker>) {
        let mut followers = self.followers.write();
        let wakers = followers
            .lanes
            .entry((channel.shard, channel.number))
            .or_default();
        if !wakers.iter().any(|known| Arc::ptr_eq(known, waker)) {
            wakers.push(Arc::clone(waker));
        }
        let of_group = followers.groups.entry(group_of(channel)).or_default();
        of_group.insert(channel.number);
    }

    /// Removes a lane from a channel's followers.
    pub fn unfollow(&self, channel: &ChannelInfo, waker: &Arc<LaneWaker>) {
        let mut followers = self.followers.write();
        let followed = (channel.shard, channel.number);
        if let Some(wakers) = followers.lanes.get_mut(&followed) {
            wakers.retain(|known| !Arc::ptr_eq(known, waker));
            if wakers.is_empty() {
                followers.forget(channel);
            }
        }
    }
}

impl Followers {
    /// Drops a channel that nobody follows any more.
    fn forget(&mut self, channel: &ChannelInfo) {
        self.lanes.remove(&(channel.shard, channel.number));
        let group = group_of(channel);
        if let Some(channels) = self.groups.get_mut(&group) {
            channels.remove(&channel.number);
            if channels.is_empty() {
                self.groups.remove(&group);
            }
        }
    }
}

fn group_of(channel: &ChannelInfo) -> FollowedGroup {
    (channel.shard, channel.app.clone(), channel.group.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: Followed = (ShardId(101), ChannelNumber(7));

    fn info(group: &str, number: u64) -> ChannelInfo {
        ChannelInfo {
            app: AppId::new("app").unwrap(),
            group: GroupId::new(group).unwrap(),
            channel: throng_protocol::ids::ChannelId::new("c").unwrap(),
            number: ChannelNumber(number),
            shard: CHANNEL.0,
        }
    }

    #[test]
    fn a_lane_hears_once_of_a_channel_that_grew_twice() {
        let registry = FeedRegistry::default();
        let waker = Arc::new(LaneWaker::default());
        registry.follow(&info("g", 7), &waker);
        registry.follow(&info("g", 7), &waker);
        registry.advanced(CHANNEL);
        registry.advanced(CHANNEL);
        registry.advanced((ShardId(101), ChannelNumber(8)));
        assert_eq!(waker.take(), Some(CHANNEL));
        assert_eq!(waker.take(), None);
        registry.advanced(CHANNEL);
        assert_eq!(waker.take(), Some(CHANNEL));
        registry.unfollow(&info("g", 7), &waker);
        registry.advanced(CHANNEL);
        assert_eq!(waker.take(), None);
        let followers = registry.followers.read();
        assert!(followers.lanes.is_empty() && followers.groups.is_empty());
    }

    #[test]
    fn a_replaced_state_wakes_the_channels_of_its_shard_only() {
        let registry = FeedRegistry::default();
        let waker = Arc::new(LaneWaker::default());
        registry.follow(&info("g", 7), &waker);
        registry.replaced(ShardId(102));
        assert_eq!(waker.take(), None);
        registry.replaced(ShardId(101));
        assert_eq!(waker.take(), Some(CHANNEL));
    }

    #[test]
    fn a_fence_wakes_the_channels_of_its_group_only() {
        let registry = FeedRegistry::default();
        let waker = Arc::new(LaneWaker::default());
        let (first, second, other) = (info("g", 7), info("g", 8), info("h", 9));
        for channel in [&first, &second, &other] {
            registry.follow(channel, &waker);
        }
        registry.fenced(&group_of(&first));
        let mut woken = [waker.take(), waker.take()].map(|channel| channel.unwrap().1.0);
        woken.sort_unstable();
        assert_eq!((woken, waker.take()), ([7, 8], None));
        registry.unfollow(&first, &waker);
        registry.fenced(&group_of(&first));
        assert_eq!(waker.take(), Some((CHANNEL.0, second.number)));
        assert_eq!(waker.take(), None);
        let mut elsewhere = group_of(&first);
        elsewhere.0 = ShardId(102);
        registry.fenced(&elsewhere);
        assert_eq!(waker.take(), None);
    }
}
