//! A session's deliveries: rings onto live lanes, pages onto the bulk stream.
//!
//! Nothing is queued here but channels. What a client takes at once is written in a round; when it has
//! to be waited for, a task of its own waits, and messages gather in the channels' rings meanwhile: its
//! next turn takes all of them at once, or finds that the ring has gone on and reads pages instead. A
//! lane whose client does not read it holds up no other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use throng_fanout::{Advance, Copies, Frames, Seat, Take};
use throng_protocol::code::CLOSE_NORMAL;
use throng_protocol::limits::{LIVE_LANES, PAGE_ENTRIES_MAX};
use throng_protocol::session::{STREAM_BULK, STREAM_LIVE};
use throng_transport::{FrameWriter, Link, WriteError};
use tokio::time::sleep;

use super::member::Member;
use super::page;
use super::queue::Queue;
use crate::channels::{Channel, Receiver};
use crate::limits::{BULK_PRIORITY, PAGE_RETRY, TURN_BYTES};
use crate::refused::Refused;
use crate::shared::Shared;
use crate::upstream::{Deadline, PageAsk, jittered};
use crate::workers::Worker;

/// What a session has to be handed, and the streams it goes to.
#[derive(Debug)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    link: Arc<dyn Link>,
    seat: Seat,
    member: Weak<Member>,
    me: Weak<Self>,
    /// Channels with something to take.
    queue: Mutex<Queue>,
    /// It is on the list of those to be served.
    listed: AtomicBool,
    lanes: Mutex<[Lane; LIVE_LANES as usize]>,
    bulk: Mutex<Bulk>,
    /// Nothing is delivered any more.
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Lane {
    stream: Option<FrameWriter>,
    /// Its stream is with a task that waits for the client; channels wait here for that task.
    busy: bool,
    backlog: Queue,
}

#[derive(Debug, Default)]
struct Bulk {
    stream: Option<FrameWriter>,
    /// A task reads pages.
    busy: bool,
    queue: Queue,
}

impl Outbox {
    pub fn new(
        shared: Arc<Shared>,
        worker: Arc<Worker>,
        link: Arc<dyn Link>,
        seat: Seat,
        member: Weak<Member>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            shared,
            worker,
            link,
            seat,
            member,
            me: me.clone(),
            queue: Mutex::default(),
            listed: AtomicBool::new(false),
            lanes: Mutex::default(),
            bulk: Mutex::default(),
            stopped: AtomicBool::new(false),
        })
    }

    /// Delivers nothing any more: the last frames of the control stream come next.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Hands over what the client takes at once, of all channels that have noted something for it.
    pub fn deliver(&self) {
        self.listed.store(false, Ordering::Release);
        while !self.is_stopped() {
            let Some(channel) = self.queue.lock().pop() else {
                return;
            };
            if self.is_ready(&channel) {
                let take = channel.take(self.seat, TURN_BYTES, &mut Copies::shared());
                self.hand(&channel, take);
            }
        }
    }

    /// Puts frames on a channel's lane; a task waits for the client if it does not take them at once.
    fn write(&self, channel: &Arc<Channel>, mut frames: Frames, more: bool) {
        let mut lanes = self.lanes.lock();
        let Some((number, lane)) = lane_of(&mut *lanes, channel) else {
            return;
        };
        let written = match &mut lane.stream {
            Some(stream) => stream.try_write(&mut frames),
            None => Ok(false),
        };
        match written {
            Ok(true) if more => self.note(channel),
            Ok(true) => {}
            Ok(false) => {
                let Some(me) = self.me.upgrade() else { return };
                lane.busy = true;
                lane.backlog.push(channel);
                let stream = lane.stream.take();
                tokio::spawn(me.wait(number, stream, frames));
            }
            Err(error) => self.fail(&error),
        }
    }

    /// What is to be written of what a channel had, and whether there is more.
    fn frames(&self, channel: &Arc<Channel>, take: Take) -> Option<(Frames, bool)> {
        match take {
            Take::Nothing => None,
            Take::Ended(frame) => {
                if let Some(member) = self.member.upgrade() {
                    member.ended(channel);
                }
                self.shared.metrics.ended.inc();
                Some((Frames::from_iter([frame]), false))
            }
            Take::Behind { .. } => {
                self.catch_up(channel);
                None
            }
            Take::Chunk(chunk) => {
                self.worker
                    .delivered
                    .add(chunk.frames.len(), total(&chunk.frames));
                Some((chunk.frames, chunk.more))
            }
        }
    }

    /// Writes to a lane while it has to be waited for its client.
    async fn wait(self: Arc<Self>, number: usize, mut stream: Option<FrameWriter>, mut frames: Frames) {
        loop {
            let written = async {
                let stream = opened(&mut stream, &*self.link, STREAM_LIVE, 0).await?;
                stream.write(&mut frames).await
            };
            if let Err(error) = written.await {
                return self.fail(&error);
            }
            frames = loop {
                let next = self.next(number, &mut stream);
                let Some(channel) = next.filter(|_| !self.is_stopped()) else {
                    return;
                };
                let take = channel.take(self.seat, TURN_BYTES, &mut Copies::shared());
                if let Some((frames, more)) = self.frames(&channel, take) {
                    if more {
                        self.again(number, &channel);
                    }
                    break frames;
                }
            };
        }
    }

    /// The channel whose turn it is on a busy lane; gives the stream back when there is none.
    fn next(&self, number: usize, stream: &mut Option<FrameWriter>) -> Option<Arc<Channel>> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.get_mut(number)?;
        let next = lane.backlog.pop();
        if next.is_none() {
            (lane.busy, lane.stream) = (false, stream.take());
        }
        next
    }

    fn again(&self, number: usize, channel: &Arc<Channel>) {
        if let Some(lane) = self.lanes.lock().get_mut(number) {
            lane.backlog.push(channel);
        }
    }

    /// The link is of no use: a client that stops its lanes cannot be delivered to.
    fn fail(&self, error: &WriteError) {
        self.stop();
        self.link.close(CLOSE_NORMAL, &error.to_string());
    }

    /// Serves a channel from pages until its ring has what the session lacks.
    fn catch_up(&self, channel: &Arc<Channel>) {
        let mut bulk = self.bulk.lock();
        bulk.queue.push(channel);
        if !bulk.busy
            && let Some(me) = self.me.upgrade()
        {
            bulk.busy = true;
            let stream = bulk.stream.take();
            tokio::spawn(me.pages(stream));
        }
    }

    async fn pages(self: Arc<Self>, mut stream: Option<FrameWriter>) {
        while let Some(channel) = self.next_behind(&mut stream).filter(|_| !self.is_stopped()) {
            match self.page(&channel).await {
                Ok(None) => self.note(&channel),
                Ok(Some(mut frames)) => {
                    let bytes = total(&frames);
                    let written = async {
                        let stream = opened(&mut stream, &*self.link, STREAM_BULK, BULK_PRIORITY).await?;
                        stream.write(&mut frames).await
                    };
                    if let Err(error) = written.await {
                        return self.fail(&error);
                    }
                    self.shared.metrics.catch_up_bytes.inc_by(bytes);
                    self.bulk.lock().queue.push(&channel);
                }
                Err(error) => {
                    let channel_number = channel.info().number;
                    tracing::debug!(channel = %channel_number, %error, "a page of catch-up cannot be read yet");
                    self.bulk.lock().queue.push(&channel);
                    sleep(jittered(PAGE_RETRY)).await;
                }
            }
        }
    }

    fn next_behind(&self, stream: &mut Option<FrameWriter>) -> Option<Arc<Channel>> {
        let mut bulk = self.bulk.lock();
        let next = bulk.queue.pop();
        if next.is_none() {
            (bulk.busy, bulk.stream) = (false, stream.take());
        }
        next
    }

    /// The next page of a subscription behind the ring; `None` if the ring serves it again.
    async fn page(&self, channel: &Channel) -> Result<Option<Vec<Bytes>>, Refused> {
        let Some((epoch, from)) = channel.behind(self.seat) else {
            return Ok(None);
        };
        let info = channel.info();
        let page = {
            // Never closed.
            let _reading = self.shared.catch_up.acquire().await;
            let upstream = &self.shared.upstream;
            let ask = PageAsk::behind(from, PAGE_ENTRIES_MAX);
            upstream.page(info, ask, Deadline::start()).await?
        };
        self.shared.metrics.catch_up_pages.inc();
        if page.epoch != epoch || page.entries.is_empty() {
            // The feed is about to say that the log was rebuilt.
            return Err(Refused::unavailable(
                "the page does not go on where the ring began",
            ));
        }
        match channel.advance(self.seat, from, &page) {
            Advance::Gone => Ok(None),
            Advance::NotTold => {
                channel.look();
                Err(Refused::unavailable(
                    "the feed has not told all fences of the page",
                ))
            }
            Advance::To(last) => {
                let mut page = page;
                page.entries.retain(|entry| entry.seq <= last);
                Ok(Some(page::deliveries(info.number, &page)))
            }
        }
    }
}

impl Receiver for Outbox {
    fn news(&self, channel: &Arc<Channel>) {
        self.worker.rounds.begin(channel);
    }

    fn is_ready(&self, channel: &Arc<Channel>) -> bool {
        let mut lanes = self.lanes.lock();
        let Some((_, lane)) = lane_of(&mut *lanes, channel) else {
            return false;
        };
        if lane.busy {
            lane.backlog.push(channel);
        }
        !lane.busy
    }

    fn hand(&self, channel: &Arc<Channel>, take: Take) {
        if let Some((frames, more)) = self.frames(channel, take).filter(|_| !self.is_stopped()) {
            self.write(channel, frames, more);
        }
    }

    fn note(&self, channel: &Arc<Channel>) {
        self.queue.lock().push(channel);
        if !self.listed.swap(true, Ordering::AcqRel)
            && let Some(me) = self.me.upgrade()
        {
            self.worker.rounds.push(me);
        }
    }
}

/// A channel's live deliveries all come on one lane.
fn lane_of<'a>(lanes: &'a mut [Lane], channel: &Channel) -> Option<(usize, &'a mut Lane)> {
    let number = usize::try_from(channel.info().number.0 % u64::from(LIVE_LANES)).ok()?;
    Some((number, lanes.get_mut(number)?))
}

fn total(frames: &[Bytes]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}

/// The stream, opened at its first use: its first byte says what it is for.
async fn opened<'a>(
    stream: &'a mut Option<FrameWriter>,
    link: &dyn Link,
    kind: u8,
    priority: i32,
) -> Result<&'a mut FrameWriter, WriteError> {
    let writer = match stream.take() {
        Some(writer) => writer,
        None => {
            let mut writer = FrameWriter::new(link.open_uni().await?);
            writer.set_priority(priority);
            writer.write_one(Bytes::copy_from_slice(&[kind])).await?;
            writer
        }
    };
    Ok(stream.insert(writer))
}
