//! Writes a session's deliveries: rings onto live lanes, pages onto the bulk stream.
//!
//! Nothing is queued here. While a write waits for the client, messages gather in the channels'
//! rings; the next turn takes all of them at once, or finds that the ring has gone on and reads
//! pages instead.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use throng_fanout::{Advance, Take};
use throng_protocol::limits::PAGE_ENTRIES_MAX;
use throng_protocol::session::{STREAM_BULK, STREAM_LIVE};
use throng_transport::{FrameWriter, Link, WriteError};
use tokio::time::sleep;

use super::member::Member;
use super::page;
use crate::channels::{Channel, Queue};
use crate::limits::{BULK_PRIORITY, PAGE_RETRY, TURN_BYTES};
use crate::refused::Refused;
use crate::shared::Shared;
use crate::upstream::{Deadline, PageAsk, jittered};

/// What a session's deliveries are written with.
pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub link: Arc<dyn Link>,
    pub member: Arc<Member>,
}

impl Writer {
    /// Writes until the link fails.
    pub async fn run(self) -> WriteError {
        let lanes = self
            .member
            .outbox
            .live
            .lanes()
            .iter()
            .map(|queue| self.live(queue));
        let (live, bulk) = (try_join_all(lanes), self.bulk());
        // None of them ends but by failing.
        let ended = tokio::select! {
            ended = live => ended.err(),
            ended = bulk => ended.err(),
        };
        ended.unwrap_or(WriteError::Finished)
    }

    /// Writes one live lane.
    async fn live(&self, queue: &Queue) -> Result<Infallible, WriteError> {
        let mut lane = None;
        loop {
            let channel = queue.next().await;
            match channel.take(self.member.session, TURN_BYTES) {
                Take::Nothing => {}
                Take::Ended(frame) => {
                    self.member.ended(&channel);
                    let lane = opened(&mut lane, &*self.link, STREAM_LIVE, 0).await?;
                    lane.write_one(frame).await?;
                    self.shared.metrics.ended.inc();
                }
                Take::Behind { .. } => self.member.outbox.bulk.push(&channel),
                Take::Chunk(mut chunk) => {
                    let bytes = total(&chunk.frames);
                    let frames = u64::try_from(chunk.frames.len()).unwrap_or_default();
                    opened(&mut lane, &*self.link, STREAM_LIVE, 0)
                        .await?
                        .write(&mut chunk.frames)
                        .await?;
                    self.shared.metrics.deliveries.inc_by(frames);
                    self.shared.metrics.delivered_bytes.inc_by(bytes);
                    if chunk.more {
                        // Behind the others: channels take turns.
                        queue.push(&channel);
                    }
                }
            }
        }
    }

    async fn bulk(&self) -> Result<Infallible, WriteError> {
        let mut stream = None;
        loop {
            let channel = self.member.outbox.bulk.next().await;
            match self.catch_up(&channel).await {
                Ok(None) => self.member.outbox.live.push(&channel),
                Ok(Some(mut frames)) => {
                    let bytes = total(&frames);
                    let stream = opened(&mut stream, &*self.link, STREAM_BULK, BULK_PRIORITY).await?;
                    stream.write(&mut frames).await?;
                    self.shared.metrics.catch_up_bytes.inc_by(bytes);
                    self.member.outbox.bulk.push(&channel);
                }
                Err(error) => {
                    let channel_number = channel.info().number;
                    tracing::debug!(channel = %channel_number, %error, "a page of catch-up cannot be read yet");
                    self.member.outbox.bulk.push(&channel);
                    sleep(jittered(PAGE_RETRY)).await;
                }
            }
        }
    }

    /// The next page of a subscription behind the ring; `None` if the ring serves it again.
    async fn catch_up(&self, channel: &Channel) -> Result<Option<Vec<Bytes>>, Refused> {
        let Some((epoch, from)) = channel.behind(self.member.session) else {
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
        match channel.advance(self.member.session, from, &page) {
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
