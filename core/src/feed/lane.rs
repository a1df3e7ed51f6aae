//! One feed lane: the requests of a follower one way, what its channels append the other.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use throng_planted::planted;
use throng_protocol::cluster::{self, ChannelInfo, FeedEvent, FeedRequest, FenceTable, Refusal};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Epoch, Position, Seq};
use throng_protocol::placement::Plane;
use throng_state::query::{self, ChannelHead, FeedPosition, FeedStep};
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
    info: ChannelInfo,
    position: FeedPosition,
}

/// One follower's lane.
struct Lane<'a> {
    core: &'a Core,
    waker: Arc<LaneWaker>,
    feeds: HashMap<ChannelNumber, Feed>,
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        for feed in self.feeds.values() {
            self.core.feeds().unfollow(&feed.info, &self.waker);
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
        let fences = fence_table(&replica, channel, from)?;
        self.drop_feed(channel);
        self.core.feeds().follow(&info, &self.waker);
        self.core.metrics().feed_followers.inc();
        let position = FeedPosition {
            epoch,
            sent: from,
            fenced: fences.last,
        };
        // What was applied since the head was read is found by the first look.
        self.waker.mark((info.shard, channel));
        let feed = Feed {
            replica,
            info,
            position,
        };
        self.feeds.insert(channel, feed);
        Ok(if reset {
            FeedEvent::Reset {
                channel,
                epoch,
                head,
                fences,
            }
        } else {
            FeedEvent::Opened {
                channel,
                epoch,
                from,
                head,
                fences,
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
        read()?.ok_or_else(|| unknown(channel))
    }

    /// What a channel has that was not told, one event of it.
    fn advance(&mut self, followed: Followed) -> Option<FeedEvent> {
        let (_, channel) = followed;
        let feed = self.feeds.get_mut(&channel)?;
        let step = feed
            .replica
            .read(|view| query::feed_step(view, channel, &feed.position));
        let step = match step {
            Ok(Some(step)) => step,
            Ok(None) => {
                let refusal = refused(Code::ChannelUnknown, format!("channel {channel} is gone"));
                return Some(self.refuse(channel, refusal));
            }
            Err(refusal) => return Some(self.refuse(channel, refusal)),
        };
        match step {
            FeedStep::Nothing => None,
            FeedStep::Entries { page, more } => {
                if more {
                    self.waker.mark(followed);
                }
                let prev = feed.position.sent;
                feed.position.sent = page.entries.last()?.seq;
                self.core.metrics().feed_entries.inc_by(page.entries.len() as u64);
                Some(FeedEvent::Batch {
                    channel,
                    epoch: page.epoch,
                    prev,
                    entries: page.entries,
                })
            }
            FeedStep::Fence { after, fence } => {
                self.waker.mark(followed);
                feed.position.fenced = fence.version;
                self.core.metrics().feed_fences.inc();
                Some(FeedEvent::Fence {
                    channel,
                    after,
                    fence,
                })
            }
            FeedStep::Folded => self.begin_anew(followed, None),
            FeedStep::Reset { epoch, head } => self.begin_anew(followed, Some((epoch, head))),
        }
    }

    /// Begins a feed anew with a fresh table of fences, where it is or at the end of a log that is
    /// not the one it was of.
    fn begin_anew(&mut self, followed: Followed, reset: Option<(Epoch, Seq)>) -> Option<FeedEvent> {
        let (_, channel) = followed;
        let feed = self.feeds.get_mut(&channel)?;
        let from = reset.map_or(feed.position.sent, |(_, head)| head);
        let begun = fence_table(&feed.replica, channel, from).and_then(|fences| {
            let head = feed.replica.read(|view| query::channel_head(view, channel))?;
            Ok((fences, head.map_or(from, |head| head.head)))
        });
        let (fences, head) = match begun {
            Ok(begun) => begun,
            Err(refusal) => return Some(self.refuse(channel, refusal)),
        };
        self.waker.mark(followed);
        (feed.position.sent, feed.position.fenced) = (from, fences.last);
        Some(if let Some((epoch, head)) = reset {
            feed.position.epoch = epoch;
            FeedEvent::Reset {
                channel,
                epoch,
                head,
                fences,
            }
        } else {
            FeedEvent::Opened {
                channel,
                epoch: feed.position.epoch,
                from,
                head,
                fences,
            }
        })
    }

    /// Ends a feed and says why.
    fn refuse(&mut self, channel: ChannelNumber, refusal: Refusal) -> FeedEvent {
        self.drop_feed(channel);
        FeedEvent::Refused { channel, refusal }
    }

    fn drop_feed(&mut self, channel: ChannelNumber) {
        if let Some(feed) = self.feeds.remove(&channel) {
            self.core.feeds().unfollow(&feed.info, &self.waker);
            self.core.metrics().feed_followers.dec();
        }
    }

    async fn write(&self, writer: &mut LaneWriter, event: &FeedEvent) -> Result<(), LaneWriteError> {
        let frame: Bytes = cluster::encode(event);
        self.core.metrics().feed_bytes.inc_by(frame.len() as u64);
        writer.write_one(frame).await
    }
}

/// The fences a feed of a channel begins with.
fn fence_table(replica: &Replica, channel: ChannelNumber, from: Seq) -> Result<FenceTable, Refusal> {
    let mut table = replica.read(|view| query::fence_table(view, channel, from))?;
    if planted!("feed_without_fences") {
        table.iter_mut().for_each(|table| table.fenced.clear());
    }
    table.ok_or_else(|| unknown(channel))
}

fn unknown(channel: ChannelNumber) -> Refusal {
    refused(
        Code::ChannelUnknown,
        format!("there is no channel {channel} here"),
    )
}
