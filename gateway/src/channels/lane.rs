//! Feed lanes: one to each core node that feeds channels to this edge.
//!
//! A lane that ends tells all its channels; their feed tasks go elsewhere. It is opened again by
//! whoever needs that node next.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_protocol::cluster::{self, FEED_LANE, FeedEvent, FeedRequest};
use throng_protocol::ids::{ChannelNumber, NodeId, Position};
use throng_transport::cluster::{LaneReader, LaneWriter};
use tokio::sync::mpsc;

use super::Channel;
use crate::limits::FEED_QUEUE_MAX;
use crate::upstream::Upstream;

/// The feed lanes of an edge.
#[derive(Debug)]
pub(super) struct Lanes {
    upstream: Arc<Upstream>,
    open: Mutex<HashMap<NodeId, Arc<Lane>>>,
    /// Held while a lane is opened, so that one is enough for all who need it.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Lane {
    node: NodeId,
    requests: mpsc::Sender<FeedRequest>,
    /// `None` once the lane has ended.
    channels: Mutex<Option<HashMap<ChannelNumber, Arc<Channel>>>>,
}

impl Lanes {
    pub fn new(upstream: Arc<Upstream>) -> Self {
        Self {
            upstream,
            open: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Asks a node to feed a channel from behind a position. The answer comes as an event.
    pub async fn follow(
        &self,
        node: NodeId,
        channel: &Arc<Channel>,
        position: Position,
    ) -> Result<(), String> {
        let lane = self.lane(node).await?;
        let number = channel.info().number;
        match lane.channels.lock().as_mut() {
            Some(channels) => channels.insert(number, Arc::clone(channel)),
            None => return Err(format!("the lane to core node {node} has just ended")),
        };
        let request = FeedRequest::Follow {
            channel: channel.info().clone(),
            position,
        };
        let sent = lane.requests.send(request).await;
        sent.map_err(|_| format!("the lane to core node {node} has just ended"))
    }

    /// Tells a node to stop feeding a channel. Does not wait: a node that goes on is not listened to,
    /// and told again.
    pub fn unfollow(&self, node: NodeId, channel: ChannelNumber) {
        let Some(lane) = self.open.lock().get(&node).cloned() else {
            return;
        };
        if let Some(channels) = lane.channels.lock().as_mut() {
            channels.remove(&channel);
        }
        let _ = lane.requests.try_send(FeedRequest::Unfollow { channel });
    }

    async fn lane(&self, node: NodeId) -> Result<Arc<Lane>, String> {
        let ready = || self.open.lock().get(&node).filter(|lane| lane.is_open()).cloned();
        if let Some(lane) = ready() {
            return Ok(lane);
        }
        let connection = self.upstream.connection(node).await?;
        let _opening = self.opening.lock().await;
        if let Some(lane) = ready() {
            return Ok(lane);
        }
        let (writer, reader) = connection
            .open_lane(FEED_LANE)
            .await
            .map_err(|error| error.to_string())?;
        let (requests, queued) = mpsc::channel(FEED_QUEUE_MAX);
        let lane = Arc::new(Lane {
            node,
            requests,
            channels: Mutex::new(Some(HashMap::new())),
        });
        self.open.lock().insert(node, Arc::clone(&lane));
        tokio::spawn(Arc::clone(&lane).run(writer, reader, queued));
        Ok(lane)
    }
}

impl Lane {
    fn is_open(&self) -> bool {
        self.channels.lock().is_some()
    }

    async fn run(
        self: Arc<Self>,
        writer: LaneWriter,
        reader: LaneReader,
        queued: mpsc::Receiver<FeedRequest>,
    ) {
        let reason = tokio::select! {
            reason = write(writer, queued) => reason,
            reason = self.read(reader) => reason,
        };
        let channels = self.channels.lock().take().unwrap_or_default();
        let (node, count) = (self.node, channels.len());
        tracing::info!(%node, channels = count, reason, "a feed lane has ended");
        for channel in channels.values() {
            channel.on_lost(node);
        }
    }

    async fn read(&self, mut reader: LaneReader) -> String {
        loop {
            let event = match reader.next().await {
                Ok(Some(frame)) => cluster::decode::<FeedEvent>(&frame),
                Ok(None) => return "the node has finished it".to_owned(),
                Err(error) => return error.to_string(),
            };
            match event {
                Ok(event) => self.dispatch(event),
                Err(error) => return error.to_string(),
            }
        }
    }

    fn dispatch(&self, event: FeedEvent) {
        let number = match &event {
            FeedEvent::Opened { channel, .. }
            | FeedEvent::Batch { channel, .. }
            | FeedEvent::Reset { channel, .. }
            | FeedEvent::Fence { channel, .. }
            | FeedEvent::Refused { channel, .. } => *channel,
        };
        let channel = {
            let channels = self.channels.lock();
            let Some(channels) = channels.as_ref() else { return };
            let channel = channels.get(&number).cloned();
            if channel.is_none() && !matches!(event, FeedEvent::Refused { .. }) {
                // It was unfollowed: the event was on its way, or the node was not told because the
                // queue was full. Under the lock, so that it comes before whoever follows it anew.
                let _ = self.requests.try_send(FeedRequest::Unfollow { channel: number });
            }
            channel
        };
        if let Some(channel) = channel {
            channel.on_event(self.node, event);
        }
    }
}

async fn write(mut writer: LaneWriter, mut queued: mpsc::Receiver<FeedRequest>) -> String {
    while let Some(request) = queued.recv().await {
        if let Err(error) = writer.write_one(cluster::encode(&request)).await {
            return error.to_string();
        }
    }
    "nobody uses it any more".to_owned()
}

#[cfg(test)]
mod tests {
    use throng_protocol::ids::{Epoch, Seq};

    use super::*;

    #[test]
    fn a_node_that_feeds_a_channel_nobody_follows_is_told_to_stop() {
        let (requests, mut queued) = mpsc::channel(1);
        let lane = Lane {
            node: NodeId(1),
            requests,
            channels: Mutex::new(Some(HashMap::new())),
        };
        let channel = ChannelNumber(7);
        let batch = FeedEvent::Batch {
            channel,
            epoch: Epoch(1),
            prev: Seq(0),
            entries: Vec::new(),
        };
        lane.dispatch(batch.clone());
        assert!(matches!(queued.try_recv(), Ok(FeedRequest::Unfollow { channel: told }) if told == channel));
        // With a full queue the next event tells it.
        lane.dispatch(batch.clone());
        lane.dispatch(batch);
        assert!(queued.try_recv().is_ok() && queued.try_recv().is_err());
    }
}
