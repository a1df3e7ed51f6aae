//! One followed channel: its fan-out, who is woken, and what its feed task has to do.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_fanout::{
    Advance, Ask, ChannelFanout, Copies, Effect, Lag, RingLimits, Seat, SubscribeError, Subscription, Take,
    WorkerNumber,
};
use throng_protocol::cluster::{ChannelInfo, FeedEvent, Page, Refusal};
use throng_protocol::ids::{Epoch, NodeId, Position, Seq, SessionId, Ts};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::Receiver;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::metrics::Metrics;
use crate::upstream::Deadline;

/// Why a subscription does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubscribeFailure {
    /// The channel was given up a moment ago; ask for it again.
    Gone,
    /// As the fan-out says.
    Fanout(SubscribeError),
}

/// What a channel's feed task has to do; filled by events, emptied by the task.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// Follow from behind here.
    pub follow: Option<Position>,
    /// This node named the leader when it refused.
    pub named: Option<NodeId>,
    /// The feed has been answered.
    pub opened: bool,
    /// Read the log behind here.
    pub refetch: Option<Seq>,
    /// Ask for the head now: somebody waits for what the feed has not told.
    pub look: bool,
    /// Stop.
    pub unfollow: bool,
}

/// Figures of a channel for operators.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub ring_bytes: usize,
    pub subscribers: usize,
    pub lag: Lag,
}

#[derive(Debug)]
struct Inner {
    fanout: ChannelFanout,
    /// Who is told, of each worker: the sessions that are attached.
    receivers: BTreeMap<WorkerNumber, BTreeMap<SessionId, Arc<dyn Receiver>>>,
    jobs: Jobs,
    /// The node whose feed counts.
    node: Option<NodeId>,
    gone: bool,
    /// Entries counted as encoded.
    encoded: u64,
    effects: Vec<Effect>,
}

impl Inner {
    /// A session is told of nothing any more.
    fn forget(&mut self, seat: Seat) {
        if let Some(of_worker) = self.receivers.get_mut(&seat.worker) {
            of_worker.remove(&seat.session);
        }
    }
}

/// A session that has something to take.
#[derive(Debug)]
pub(crate) struct Due {
    pub session: SessionId,
    pub receiver: Arc<dyn Receiver>,
}

/// A channel this edge follows.
#[derive(Debug)]
pub(crate) struct Channel {
    info: ChannelInfo,
    clock: Clock,
    directory: Arc<Directory>,
    metrics: Metrics,
    inner: Mutex<Inner>,
    open: watch::Sender<bool>,
    /// The version up to which fences are known.
    told: watch::Sender<u64>,
    /// Wakes the feed task.
    pub(super) signal: Notify,
}

impl Channel {
    pub(super) fn new(
        clock: Clock,
        info: ChannelInfo,
        limits: RingLimits,
        directory: Arc<Directory>,
        metrics: Metrics,
    ) -> Self {
        // The one effect of a new fan-out is to follow at the head.
        let fanout = ChannelFanout::new(clock.now_ms(), info.number, limits, &mut Vec::new());
        let inner = Inner {
            fanout,
            receivers: BTreeMap::new(),
            jobs: Jobs {
                follow: Some(Position::default()),
                ..Jobs::default()
            },
            node: None,
            gone: false,
            encoded: 0,
            effects: Vec::new(),
        };
        Self {
            info,
            clock,
            directory,
            metrics,
            inner: Mutex::new(inner),
            open: watch::Sender::new(false),
            told: watch::Sender::new(0),
            signal: Notify::new(),
        }
    }

    /// The channel's names, number and shard.
    pub fn info(&self) -> &ChannelInfo {
        &self.info
    }

    /// Waits until the feed has opened; `false` if it has not by then.
    pub async fn opened(&self, by: Deadline) -> bool {
        let mut open = self.open.subscribe();
        let opened = timeout_at(by.at(), open.wait_for(|open| *open)).await;
        matches!(opened, Ok(Ok(_)))
    }

    /// Waits until the feed has told the fences up to a version; `false` if it has not by then.
    pub async fn told(&self, version: u64, by: Instant) -> bool {
        let mut told = self.told.subscribe();
        matches!(
            timeout_at(by, told.wait_for(|told| *told >= version)).await,
            Ok(Ok(_))
        )
    }

    /// Has the leader asked for the channel's head, which also finds a feed that does not lag.
    pub fn look(&self) {
        self.inner.lock().jobs.look = true;
        self.signal.notify_one();
    }

    /// The last entry with this time stamp or an earlier one, if what is held tells which it is.
    pub fn locate(&self, ts: Ts) -> Option<(Position, Ts)> {
        self.inner.lock().fanout.locate(ts)
    }

    /// Whether a session is subscribed.
    pub fn is_subscribed(&self, seat: Seat) -> bool {
        self.inner.lock().fanout.is_subscribed(seat)
    }

    /// Begins a subscription, or places it anew. Nothing is delivered before [`Self::attach`].
    pub fn subscribe(self: &Arc<Self>, ask: Ask) -> Result<Subscription, SubscribeFailure> {
        let mut inner = self.inner.lock();
        if inner.gone {
            return Err(SubscribeFailure::Gone);
        }
        let begun = inner.fanout.subscribe(ask).map_err(SubscribeFailure::Fanout)?;
        inner.forget(ask.seat);
        Ok(begun)
    }

    /// Lets deliveries of a subscription begin, unless it is over already.
    pub fn attach(self: &Arc<Self>, seat: Seat, receiver: Arc<dyn Receiver>) {
        let mut inner = self.inner.lock();
        let Inner {
            fanout,
            receivers,
            effects,
            ..
        } = &mut *inner;
        if fanout.attach(seat, effects) {
            let of_worker = receivers.entry(seat.worker).or_default();
            of_worker.insert(seat.session, receiver);
            self.settle(&mut inner);
        }
    }

    /// Ends a subscription; `false` if there was none.
    pub fn unsubscribe(&self, seat: Seat) -> bool {
        self.end(&mut self.inner.lock(), seat)
    }

    fn end(&self, inner: &mut Inner, seat: Seat) -> bool {
        inner.forget(seat);
        let was = inner.fanout.unsubscribe(self.clock.now_ms(), seat);
        if was && inner.fanout.subscribers() == 0 {
            // The task waits for the end of the linger from now on.
            self.signal.notify_one();
        }
        was
    }

    /// The next frames for a session. With its end the subscription is over here too.
    pub fn take(&self, seat: Seat, budget: usize, copies: &mut Copies) -> Take {
        self.take_locked(&mut self.inner.lock(), seat, budget, copies)
    }

    fn take_locked(&self, inner: &mut Inner, seat: Seat, budget: usize, copies: &mut Copies) -> Take {
        let take = inner.fanout.take(seat, budget, copies);
        if matches!(take, Take::Ended(_)) {
            self.end(inner, seat);
        }
        take
    }

    /// Names the next sessions of a worker that have something to take, at most `most`. Whether its
    /// round goes on.
    pub fn step(&self, worker: WorkerNumber, most: usize, due: &mut Vec<Due>) -> bool {
        let mut inner = self.inner.lock();
        let Inner {
            fanout, receivers, ..
        } = &mut *inner;
        let of_worker = receivers.get(&worker);
        fanout.step(worker, |session| {
            if let Some(receiver) = of_worker.and_then(|of_worker| of_worker.get(&session)) {
                due.push(Due {
                    session,
                    receiver: Arc::clone(receiver),
                });
            }
            match due.len() < most {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })
    }

    /// The next frames for each of these sessions.
    pub fn take_all(
        &self,
        worker: WorkerNumber,
        due: &[Due],
        budget: usize,
        copies: &mut Copies,
        takes: &mut Vec<Take>,
    ) {
        let mut inner = self.inner.lock();
        let seats = due.iter().map(|due| Seat {
            worker,
            session: due.session,
        });
        takes.extend(seats.map(|seat| self.take_locked(&mut inner, seat, budget, copies)));
    }

    /// Where a session stands that must be served from pages.
    pub fn behind(&self, seat: Seat) -> Option<(Epoch, Seq)> {
        self.inner.lock().fanout.behind(seat)
    }

    /// Moves a session's cursor over a page that begins behind `from`.
    pub fn advance(&self, seat: Seat, from: Seq, page: &Page) -> Advance {
        let to = page.entries.last().map_or(from, |entry| entry.seq);
        let mut inner = self.inner.lock();
        inner.fanout.advance(seat, page.epoch, from, to, page.fenced)
    }

    /// Records a client's ack.
    pub fn acked(&self, seat: Seat, position: Position) {
        self.inner.lock().fanout.acked(seat, position);
    }

    /// An event of a node's feed; events of nodes that were left are not listened to.
    pub(super) fn on_event(self: &Arc<Self>, node: NodeId, event: FeedEvent) {
        let mut inner = self.inner.lock();
        if inner.node != Some(node) {
            return;
        }
        let Inner {
            fanout,
            jobs,
            effects,
            ..
        } = &mut *inner;
        match event {
            FeedEvent::Opened {
                epoch,
                from,
                head,
                fences,
                ..
            } => {
                jobs.opened = true;
                fanout.on_opened(epoch, from, head, &fences, effects);
            }
            FeedEvent::Reset {
                epoch, head, fences, ..
            } => {
                jobs.opened = true;
                if fanout.is_open() {
                    fanout.on_reset(epoch, head, &fences, effects);
                } else {
                    fanout.on_opened(epoch, head, head, &fences, effects);
                }
            }
            FeedEvent::Batch {
                epoch, prev, entries, ..
            } => fanout.on_batch(epoch, prev, &entries, effects),
            FeedEvent::Fence { after, fence, .. } => {
                fanout.on_fence(after, fence, effects);
                let ChannelInfo { app, group, .. } = &self.info;
                self.directory.forget_grant(app, group, fence.number);
            }
            FeedEvent::Refused { refusal, .. } => {
                if let Refusal::NotLeader { leader } = refusal {
                    jobs.named = leader.filter(|leader| *leader != node);
                }
                fanout.on_lost(effects);
            }
        }
        self.settle(&mut inner);
    }

    /// The lane to a node has ended.
    pub(super) fn on_lost(self: &Arc<Self>, node: NodeId) {
        let mut inner = self.inner.lock();
        if inner.node == Some(node) {
            let Inner { fanout, effects, .. } = &mut *inner;
            fanout.on_lost(effects);
            self.settle(&mut inner);
        }
    }

    /// A page read for a gap; `None` if reading failed.
    pub(super) fn on_page(self: &Arc<Self>, page: Option<&Page>) {
        let mut inner = self.inner.lock();
        let held = inner.fanout.position().unwrap_or_default();
        let Inner { fanout, effects, .. } = &mut *inner;
        match page {
            Some(page) => fanout.on_page(page.epoch, page.prev, &page.entries, page.fenced, effects),
            None => fanout.on_page(held.epoch, held.seq, &[], 0, effects),
        }
        self.settle(&mut inner);
    }

    /// The end of the log as a quorum knows it; what the feed has not brought is read.
    pub(super) fn on_head(self: &Arc<Self>, epoch: Epoch, head: Seq) {
        let mut inner = self.inner.lock();
        let Inner { fanout, effects, .. } = &mut *inner;
        fanout.on_head(epoch, head, effects);
        self.settle(&mut inner);
    }

    /// The node whose feed counts.
    pub(super) fn source(&self) -> Option<NodeId> {
        self.inner.lock().node
    }

    /// Takes what the feed task has to do.
    pub(super) fn jobs(&self) -> Jobs {
        std::mem::take(&mut self.inner.lock().jobs)
    }

    /// From now on this node's feed counts. Returns the position to follow from.
    pub(super) fn follow_at(&self, node: NodeId) -> Position {
        let mut inner = self.inner.lock();
        inner.node = Some(node);
        inner.jobs.opened = false;
        inner.fanout.on_follow();
        inner.fanout.position().unwrap_or_default()
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.inner.lock().fanout.poll_timeout()
    }

    /// Gives the channel up if nobody used it for long enough.
    pub(super) fn handle_timeout(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        let now_ms = self.clock.now_ms();
        let Inner { fanout, effects, .. } = &mut *inner;
        fanout.handle_timeout(now_ms, effects);
        self.settle(&mut inner);
    }

    pub(super) fn figures(&self) -> Figures {
        let inner = self.inner.lock();
        Figures {
            ring_bytes: inner.fanout.ring_bytes(),
            subscribers: inner.fanout.subscribers(),
            lag: inner.fanout.lag(),
        }
    }
}

impl Channel {
    /// Carries effects out: tells workers and sessions, and the feed task.
    fn settle(self: &Arc<Self>, inner: &mut Inner) {
        let Inner {
            fanout,
            receivers,
            jobs,
            gone,
            encoded,
            effects,
            ..
        } = inner;
        let mut work = false;
        for effect in effects.drain(..) {
            match effect {
                Effect::News { worker } => {
                    // Any of its sessions knows the worker.
                    let of_worker = receivers.get(&worker).and_then(BTreeMap::first_key_value);
                    if let Some((_, receiver)) = of_worker {
                        receiver.news(self);
                    }
                }
                Effect::Wake { seat } => {
                    let of_worker = receivers.get(&seat.worker);
                    if let Some(receiver) = of_worker.and_then(|of_worker| of_worker.get(&seat.session)) {
                        receiver.note(self);
                    }
                }
                Effect::Follow { position } => (jobs.follow, work) = (Some(position), true),
                Effect::Refetch { from } => (jobs.refetch, work) = (Some(from), true),
                Effect::Unfollow => (jobs.unfollow, *gone, work) = (true, true, true),
            }
        }
        if jobs.opened {
            work = true;
            self.open.send_if_modified(|open| !std::mem::replace(open, true));
        }
        let told = fanout.told();
        self.told
            .send_if_modified(|before| std::mem::replace(before, told) != told);
        self.metrics
            .encodes
            .inc_by(fanout.encoded() - std::mem::replace(encoded, fanout.encoded()));
        if work {
            self.signal.notify_one();
        }
    }
}
