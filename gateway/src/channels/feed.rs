//! The task that keeps one channel fed: from the leader of its shard if that is known, from any
//! replica otherwise, and from the next one when a feed is lost, refused or silent.
//!
//! A replica that lags may keep its lane alive and say nothing, so the task also asks the leader for
//! the channel's head: often while the feed comes from elsewhere, rarely otherwise. That tells who
//! leads, and what the feed has not brought.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use throng_protocol::cluster::Page;
use throng_protocol::ids::{NodeId, Seq};
use throng_protocol::limits::PAGE_ENTRIES_MAX;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::channel::Jobs;
use super::{Channel, Channels};
use crate::limits::{
    FOLLOW_BACKOFF_MAX, FOLLOW_BACKOFF_MIN, FOLLOW_TIMEOUT, HEAD_INTERVAL, HEAD_INTERVAL_LED, PAGE_RETRY,
};
use crate::upstream::{Deadline, PageAsk, jittered};

/// Where a channel's feed comes from.
struct Feed {
    channels: Arc<Channels>,
    channel: Arc<Channel>,
    node: Option<NodeId>,
    /// When the node must have answered; `None` once it has.
    answer_by: Option<Instant>,
    /// Attempts since a feed last opened.
    attempts: u32,
    /// When the channel's head is asked for.
    head_at: Instant,
}

/// Keeps a channel fed until nobody uses it any more.
pub(super) async fn run(channels: Arc<Channels>, channel: Arc<Channel>) {
    let mut leaders = channels.upstream.leader_changes();
    let mut feed = Feed {
        channels,
        channel,
        node: None,
        answer_by: None,
        attempts: 0,
        head_at: Instant::now(),
    };
    let mut asked: Option<BoxFuture<'static, Option<Page>>> = None;
    loop {
        let jobs = feed.channel.jobs();
        if jobs.unfollow {
            return feed.end();
        }
        feed.work(jobs).await;
        let linger = feed
            .channel
            .poll_timeout()
            .map(|at| feed.channels.clock.instant(at));
        tokio::select! {
            () = feed.channel.signal.notified() => {}
            // Fails only when the upstream is gone, and with it this task.
            Ok(()) = leaders.changed() => feed.move_to_leader().await,
            () = at(feed.answer_by) => {
                tracing::debug!(channel = %feed.channel.info().number, "a node opens no feed");
                feed.follow(None).await;
            }
            () = sleep_until(feed.head_at), if asked.is_none() => asked = Some(feed.ask_head()),
            page = answered(&mut asked) => {
                asked = None;
                feed.on_head(page).await;
            }
            () = at(linger) => feed.channel.handle_timeout(),
        }
    }
}

/// Waits for a moment, or for ever.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Waits for an answer, for ever if nothing is asked. Cancel-safe.
async fn answered(asked: &mut Option<BoxFuture<'static, Option<Page>>>) -> Option<Page> {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}

impl Feed {
    async fn work(&mut self, jobs: Jobs) {
        if jobs.look {
            self.head_at = Instant::now();
        }
        if jobs.opened {
            (self.answer_by, self.attempts) = (None, 0);
        }
        if jobs.follow.is_some() {
            self.follow(jobs.named).await;
        }
        if jobs.refetch.is_some() {
            self.channels.metrics.refetches.inc();
            self.refetch(jobs.refetch.unwrap_or_default()).await;
        }
    }

    /// Follows at a node; the fan-out says from where. Waits a little longer after each failure.
    async fn follow(&mut self, named: Option<NodeId>) {
        if self.attempts > 0 {
            self.channels.metrics.refollows.inc();
            let doubled = FOLLOW_BACKOFF_MIN * 2u32.pow(self.attempts.min(8) - 1);
            sleep(jittered(doubled.min(FOLLOW_BACKOFF_MAX))).await;
        }
        let node = named.or_else(|| self.next_node());
        self.attempts += 1;
        let Some(node) = node else {
            // No map yet: comes back with the next attempt.
            self.answer_by = Some(Instant::now() + Duration::from_millis(100));
            return;
        };
        self.follow_at(node).await;
    }

    async fn follow_at(&mut self, node: NodeId) {
        let number = self.channel.info().number;
        if let Some(before) = self.node.filter(|before| *before != node) {
            self.channels.lanes.unfollow(before, number);
        }
        self.node = Some(node);
        self.head_at = self.head_at.min(Instant::now() + jittered(HEAD_INTERVAL));
        let position = self.channel.follow_at(node);
        self.answer_by = Some(Instant::now() + FOLLOW_TIMEOUT);
        if let Err(error) = self.channels.lanes.follow(node, &self.channel, position).await {
            tracing::debug!(%number, %node, error, "a channel cannot be followed there");
            self.answer_by = Some(Instant::now());
        }
    }

    /// The leader first, then one replica after the other, beginning with another for each channel.
    fn next_node(&self) -> Option<NodeId> {
        let info = self.channel.info();
        let leader = self.channels.upstream.leader(info.shard);
        if self.attempts == 0 && leader.is_some() {
            return leader;
        }
        let voters = self.channels.upstream.voters(info.shard);
        let turn = info.number.0.wrapping_add(u64::from(self.attempts));
        let place = turn.checked_rem(u64::try_from(voters.len()).ok()?)?;
        voters.get(usize::try_from(place).ok()?).copied()
    }

    async fn move_to_leader(&mut self) {
        let leader = self.channels.upstream.leader(self.channel.info().shard);
        if let Some(leader) = leader.filter(|leader| Some(*leader) != self.node) {
            self.channels.metrics.refollows.inc();
            self.follow_at(leader).await;
        }
    }

    /// Asks for the end of the log, unless the feed's node was a moment ago the leader.
    fn ask_head(&self) -> BoxFuture<'static, Option<Page>> {
        let (channels, channel) = (Arc::clone(&self.channels), Arc::clone(&self.channel));
        Box::pin(async move {
            // Never closed.
            let _asking = channels.heads.acquire().await;
            let (upstream, info) = (&channels.upstream, channel.info());
            let led = |node| upstream.led_by(info.shard, node, HEAD_INTERVAL_LED);
            if channel.source().is_some_and(led) {
                return None;
            }
            let by = Deadline::start();
            let newest = upstream.page(info, PageAsk::newest(), by);
            match newest.await {
                Ok(page) => Some(page),
                Err(error) => {
                    tracing::debug!(channel = %info.number, %error, "a channel's head cannot be read");
                    None
                }
            }
        })
    }

    async fn on_head(&mut self, page: Option<Page>) {
        if let Some(page) = page {
            self.channel.on_head(page.epoch, page.head);
            self.move_to_leader().await;
        }
        let leader = self.channels.upstream.leader(self.channel.info().shard);
        let led = leader.is_some() && leader == self.node;
        let interval = if led { HEAD_INTERVAL_LED } else { HEAD_INTERVAL };
        self.head_at = Instant::now() + jittered(interval);
    }

    async fn refetch(&self, from: Seq) {
        let ask = PageAsk::behind(from, PAGE_ENTRIES_MAX);
        let read = self
            .channels
            .upstream
            .page(self.channel.info(), ask, Deadline::start());
        match read.await {
            Ok(page) => {
                // A page that tells of more fences than the feed has is of no use before the feed has.
                let by = Instant::now() + jittered(PAGE_RETRY);
                self.channel.told(page.fenced, by).await;
                self.channel.on_page(Some(&page));
            }
            Err(error) => {
                tracing::warn!(channel = %self.channel.info().number, %error, "a gap cannot be read yet");
                sleep(jittered(PAGE_RETRY)).await;
                self.channel.on_page(None);
            }
        }
    }

    fn end(self) {
        let number = self.channel.info().number;
        if let Some(node) = self.node {
            self.channels.lanes.unfollow(node, number);
        }
        self.channels.forget(number);
    }
}
