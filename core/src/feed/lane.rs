//! One feed lane: the requests of a follower one way, what its channels append the other.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use throng_protocol::cluster::{self, ChannelInfo, Direction, FeedEvent, FeedRequest, FenceTable, Refusal};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Epoch, Position, Seq};
use throng_protocol::limits::{PAGE_BYTES_TARGET, PAGE_ENTRIES_MAX};
use throng_protocol::placement::Plane;
use throng_state::query::{self, ChannelHead};
use throng_transport::cluster::{LaneReadError, LaneReader, LaneWriteError, LaneWriter};

use super::registry::{Followed, LaneWaker};
use crate::core::Core;
use crate::dispatch::refused;
use crate::limits::{FOLLOW_LINEARIZE_TIMEOUT, FOLLOWED_PER_LANE_MAX};
use crate::replica::Replica;

/// Why a lane ended before its follower finished it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    #[error(transparent)]
    Read(#[from] LaneReadError),
    #[error(transparent)]
    Write(#[from] LaneWriteError),
    #[error(transparent)]
    Decode(#[from] cluster::ClusterDecodeError),
}

/// A followed channel: a position, and nothing else that grows.
#[derive(Debug)]
struct Feed {
    replica: Arc<Replica>,
    epoch: Epoch,
    sent: Seq,
}

/// One follower's lane.
struct Lane<'a> {
    core: &'a Core,
    waker: Arc<LaneWaker>,
    feeds: HashMap<ChannelNumber, Feed>,
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        for (channel, feed) in &self.feeds {
            self.core
                .feeds()
                .unfollow((feed.replica.shard(), *channel), &self.waker);
        }
        let followed = i64::try_from(self.feeds.len()).unwrap_or(i64::MAX);
        self.core.metrics().feed_followers.dec_by(followed);
        self.core.metrics().feed_lanes.dec();
    }
}

/// Serves a lane until its follower finishes it. While a write waits for a slow follower, nothing
/// else of the lane goes on: the follower's requests wait as well.
pub(crate) async fn serve(
    core: &Core,
    mut writer: LaneWriter,
    mut reader: LaneReader,
) -> Result<(), FeedError> {
    core.metrics().feed_lanes.inc();
    let mut lane = Lane {
        core,
        waker: Arc::default(),
        feeds: HashMap::new(),
    };
    let waker = Arc::clone(&lane.waker);
    loop {
        let event = tokio::select! {
            // Requests first: an unfollow ends a feed before it is read again.
            biased;
            request = reader.next() => match request? {
                Some(request) => lane.request(cluster::decode(&request)?).await,
                None => {
                    writer.finish();
                    return Ok(());
                }
            },
            () = waker.marked() => None,
        };
        if let Some(event) = event {
            lane.write(&mut writer, &event).await?;
        }
        // One channel a turn, so that requests are looked at between batches; the waker is told
        // again while channels are left.
        if let Some(channel) = lane.waker.take() {
            if let Some(event) = lane.advance(channel) {
                lane.write(&mut writer, &event).await?;
            }
            lane.waker.again();
        }
    }
}

impl Lane<'_> {
    async fn request(&mut self, request: FeedRequest) -> Option<FeedEvent> {
        match request {
            FeedRequest::Follow { channel, position } => {
                let number = channel.number;
                Some(match self.follow(channel, position).await {
                    Ok(event) => event,
                    Err(refusal) => {
                        self.core.metrics().answered(&Err(refusal.clone()));
                        FeedEvent::Refused {
                            channel: number,
                            refusal,
                        }
                    }
                })
            }
            FeedRequest::Unfollow { channel } => {
                self.drop_feed(channel);
                None
            }
        }
    }

    async fn follow(&mut self, info: ChannelInfo, position: Position) -> Result<FeedEvent, Refusal> {
        let channel = info.number;
        if self.feeds.len() >= FOLLOWED_PER_LANE_MAX {
            let text = format!("a lane follows at most {FOLLOWED_PER_LANE_MAX} channels");
            return Err(refused(Code::Overloaded, text));
        }
        let replica = self.core.replica_of(info.shard, Plane::Message)?;
        let head = self.head(&replica, channel, position).await?;
        let ChannelHead {
            epoch, head, oldest, ..
        } = head;
        let from_head = position == Position::default();
        let reset =
            !from_head && (position.epoch != epoch || position.seq > head || position.seq.next() < oldest);
        let from = if from_head || reset { head } else { position.seq };
        self.drop_feed(channel);
        let followed: Followed = (info.shard, channel);
        self.core.feeds().follow(followed, &self.waker);
        self.core.metrics().feed_followers.inc();
        let feed = Feed {
            replica,
            epoch,
            sent: from,
        };
        self.feeds.insert(channel, feed);
        // What was applied since the head was read is found by the first look.
        self.waker.mark(followed);
        Ok(if reset {
            FeedEvent::Reset {
                channel,
                epoch,
                head,
                fences: FenceTable::default(),
            }
        } else {
            FeedEvent::Opened {
                channel,
                epoch,
                from,
                head,
                fences: FenceTable::default(),
            }
        })
    }

    /// The ends of a channel's log, as far as this replica can say: one that is behind the position,
    /// or does not know the channel, asks the quorum if it leads and names the leader otherwise.
    async fn head(
        &self,
        replica: &Replica,
        channel: ChannelNumber,
        position: Position,
    ) -> Result<ChannelHead, Refusal> {
        let read = || replica.read(|view| query::channel_head(view, channel));
        let settled = |head: &ChannelHead| {
            position == Position::default() || (head.epoch == position.epoch && position.seq <= head.head)
        };
        if let Some(head) = read()?.filter(settled) {
            return Ok(head);
        }
        // Bounded: the other channels of the lane wait meanwhile.
        match tokio::time::timeout(FOLLOW_LINEARIZE_TIMEOUT, replica.linearize()).await {
            Ok(confirmed) => confirmed?,
            Err(_) => return Err(refused(Code::Unavailable, "no quorum confirms the log's end")),
        }
        read()?.ok_or_else(|| {
            refused(
                Code::ChannelUnknown,
                format!("there is no channel {channel} here"),
            )
        })
    }

    /// What a channel has that was not sent, one batch of it.
    fn advance(&mut self, followed: Followed) -> Option<FeedEvent> {
        let (_, channel) = followed;
        let feed = self.feeds.get_mut(&channel)?;
        let page = feed.replica.read(|view| {
            query::page(
                view,
                channel,
                feed.sent,
                Direction::After,
                PAGE_ENTRIES_MAX,
                PAGE_BYTES_TARGET,
            )
        });
        let page = match page {
            Ok(Some(page)) => page,
            Ok(None) => {
                let refusal = refused(Code::ChannelUnknown, format!("channel {channel} is gone"));
                return Some(self.refuse(channel, refusal));
            }
            Err(refusal) => return Some(self.refuse(channel, refusal)),
        };
        let last = page.entries.last()?.seq;
        if page.epoch != feed.epoch || page.prev != feed.sent {
            // The log was rebuilt, or entries behind the position are gone.
            (feed.epoch, feed.sent) = (page.epoch, page.head);
            return Some(FeedEvent::Reset {
                channel,
                epoch: page.epoch,
                head: page.head,
                fences: FenceTable::default(),
            });
        }
        let prev = feed.sent;
        feed.sent = last;
        if last < page.head {
            self.waker.mark(followed);
        }
        self.core.metrics().feed_entries.inc_by(page.entries.len() as u64);
        Some(FeedEvent::Batch {
            channel,
            epoch: page.epoch,
            prev,
            entries: page.entries,
        })
    }

    /// Ends a feed and says why.
    fn refuse(&mut self, channel: ChannelNumber, refusal: Refusal) -> FeedEvent {
        self.drop_feed(channel);
        FeedEvent::Refused { channel, refusal }
    }

    fn drop_feed(&mut self, channel: ChannelNumber) {
        if let Some(feed) = self.feeds.remove(&channel) {
            self.core
                .feeds()
                .unfollow((feed.replica.shard(), channel), &self.waker);
            self.core.metrics().feed_followers.dec();
        }
    }

    async fn write(&self, writer: &mut LaneWriter, event: &FeedEvent) -> Result<(), LaneWriteError> {
        let frame: Bytes = cluster::encode(event);
        self.core.metrics().feed_bytes.inc_by(frame.len() as u64);
        writer.write_one(frame).await
    }
}
