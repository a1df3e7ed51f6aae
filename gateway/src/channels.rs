//! The channels this edge follows, each once, and the sessions that get their deliveries.

mod channel;
mod feed;
mod lane;
mod receiver;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_fanout::RingLimits;
use throng_protocol::cluster::ChannelInfo;
use throng_protocol::ids::ChannelNumber;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use channel::{Channel, Due, SubscribeFailure};
pub(crate) use receiver::Receiver;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::limits::HEAD_READS_MAX;
use crate::metrics::{Metrics, gauge};
use crate::upstream::Upstream;
use lane::Lanes;

/// The followed channels of an edge.
#[derive(Debug)]
pub(crate) struct Channels {
    clock: Clock,
    limits: RingLimits,
    upstream: Arc<Upstream>,
    directory: Arc<Directory>,
    lanes: Lanes,
    metrics: Metrics,
    /// Bounds the heads asked for at once.
    heads: Semaphore,
    /// Ends all feeds.
    stop: CancellationToken,
    /// Where feeds run, whoever asks for them.
    runtime: Handle,
    followed: Mutex<HashMap<ChannelNumber, Arc<Channel>>>,
}

impl Channels {
    pub fn new(
        clock: Clock,
        limits: RingLimits,
        upstream: Arc<Upstream>,
        directory: Arc<Directory>,
        metrics: Metrics,
    ) -> Self {
        Self {
            clock,
            limits,
            lanes: Lanes::new(Arc::clone(&upstream)),
            upstream,
            directory,
            metrics,
            heads: Semaphore::new(HEAD_READS_MAX),
            stop: CancellationToken::new(),
            runtime: Handle::current(),
            followed: Mutex::new(HashMap::new()),
        }
    }

    /// The channel, followed from now on if it was not.
    pub fn follow(self: &Arc<Self>, info: &ChannelInfo) -> Arc<Channel> {
        let mut followed = self.followed.lock();
        if let Some(channel) = followed.get(&info.number) {
            return Arc::clone(channel);
        }
        let channel = Arc::new(Channel::new(
            self.clock,
            info.clone(),
            self.limits,
            Arc::clone(&self.directory),
            self.metrics.clone(),
        ));
        followed.insert(info.number, Arc::clone(&channel));
        self.metrics.channels.set(gauge(followed.len()));
        let feed = feed::run(Arc::clone(self), Arc::clone(&channel));
        self.runtime
            .spawn(self.stop.clone().run_until_cancelled_owned(feed));
        channel
    }

    /// Sets the gauges that are read off the channels.
    pub fn observe(&self) {
        let channels: Vec<_> = self.followed.lock().values().cloned().collect();
        let (mut bytes, mut subscribers, mut unacked) = (0, 0, 0);
        for channel in channels {
            let figures = channel.figures();
            bytes += figures.ring_bytes;
            subscribers += figures.subscribers;
            unacked = unacked.max(figures.lag.unacked_max);
        }
        self.metrics.ring_bytes.set(gauge(bytes));
        self.metrics.subscriptions.set(gauge(subscribers));
        self.metrics
            .unacked_max
            .set(i64::try_from(unacked).unwrap_or(i64::MAX));
    }

    /// Ends all feeds; nothing is delivered any more.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    fn forget(&self, channel: ChannelNumber) {
        let mut followed = self.followed.lock();
        followed.remove(&channel);
        self.metrics.channels.set(gauge(followed.len()));
    }
}
