//! One client of a crowd.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::{Buf as _, Bytes, BytesMut};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use throng_protocol::frame;
use throng_protocol::ids::{ChannelId, ChannelNumber, ClientMessageId, GroupId, Position, Seq};
use throng_protocol::message::{ClientAck, Deliver, Error, Message, Ping, Send};
use throng_transport::{FrameReader, FrameWriter, Link, RecvHalf};

use super::CHANNEL;
use crate::fanout::load::throng::Factory;
use crate::fanout::load::wire::Control;

/// Bytes read at once.
const READ_BYTES: usize = 4 * 1024;

/// Refusals that are told in full.
const REFUSALS_TOLD: u64 = 5;

/// What a crowd has heard, all of it together.
#[derive(Debug)]
pub struct Heard {
    began: Instant,
    /// By group: messages acked.
    pub acked: Vec<AtomicU64>,
    pub refused: AtomicU64,
    pub delivered: AtomicU64,
    /// Deliveries of what was delivered before.
    pub repeated: AtomicU64,
    /// Deliveries that do not follow the one before them.
    pub gaps: AtomicU64,
    /// Members with something to ack, and since when.
    pub unacked: Mutex<Vec<(Instant, usize)>>,
    /// Microseconds from when a message was due to its deliveries.
    pub late_us: Mutex<Histogram<u64>>,
}

impl Heard {
    pub fn new(groups: usize) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            began: Instant::now(),
            acked: (0..groups).map(|_| AtomicU64::new(0)).collect(),
            refused: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            unacked: Mutex::default(),
            late_us: Mutex::new(Histogram::new_with_bounds(1, 600_000_000, 2)?),
        }))
    }

    /// A body that says when it is due.
    pub fn body(&self, due: Instant, size: usize) -> Bytes {
        let mut body = vec![b'x'; size.max(8)];
        let due = due.saturating_duration_since(self.began).as_micros();
        body[..8].copy_from_slice(&u64::try_from(due).unwrap_or(u64::MAX).to_be_bytes());
        body.into()
    }

    fn arrived(&self, body: &[u8]) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        let due = body.first_chunk::<8>().map_or(0, |due| u64::from_be_bytes(*due));
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.late_us
            .lock()
            .saturating_record(now.saturating_sub(due).max(1));
    }

    /// An error has come. The first few say what is wrong; they may be tens of thousands.
    fn refused(&self, error: &Error) {
        if self.refused.fetch_add(1, Ordering::Relaxed) < REFUSALS_TOLD {
            eprintln!("refused: {error:?}");
        }
    }

    /// Messages acked, of all groups.
    pub fn acked(&self) -> u64 {
        self.acked.iter().map(|acked| acked.load(Ordering::Relaxed)).sum()
    }
}

/// How far a member is in its channel.
#[derive(Debug)]
struct Place {
    position: Position,
    /// It is on the list of those with something to ack.
    listed: bool,
}

/// A connected client with its subscriptions.
#[derive(Debug)]
pub struct Member {
    link: Arc<dyn Link>,
    writer: FrameWriter,
    group: GroupId,
    channel: ChannelNumber,
    place: Arc<Mutex<Place>>,
    requests: u64,
}

impl Member {
    /// Connects, joins groups and subscribes to the channel of each; sends go to the first.
    pub async fn connect(
        factory: &Factory,
        number: usize,
        groups: &[String],
        first: usize,
        heard: &Arc<Heard>,
    ) -> Result<Self> {
        let token = factory.token(&format!("member-{number}"))?;
        let (link, mut control) = Control::open(factory.endpoint(number), factory.edge()?, token).await?;
        let mut places = Vec::new();
        for group in groups {
            places.push(
                control
                    .enter(&GroupId::new(group)?, &ChannelId::new(CHANNEL)?)
                    .await?,
            );
        }
        let &(channel, position) = places.first().context("a member is in a group at least")?;
        let place = Arc::new(Mutex::new(Place {
            position,
            listed: false,
        }));
        let (writer, reader) = control.split();
        tokio::spawn(answers(reader, Arc::clone(heard), first));
        let lanes = Lanes {
            number,
            channel,
            place: Arc::clone(&place),
            heard: Arc::clone(heard),
        };
        tokio::spawn(read(Arc::clone(&link), Arc::new(lanes)));
        Ok(Self {
            link,
            writer,
            group: GroupId::new(&groups[0])?,
            channel,
            place,
            // Those of entering are below.
            requests: 1_000,
        })
    }

    /// Whether the connection still stands.
    pub fn lives(&self) -> bool {
        self.link.ended().is_none()
    }

    pub async fn ping(&mut self) -> Result<()> {
        self.say(Ping { nonce: 0 }).await
    }

    pub async fn send(&mut self, number: u64, now_ms: u64, body: Bytes) -> Result<()> {
        self.requests += 1;
        let send = Send {
            request: self.requests,
            group: self.group.clone(),
            channel: ChannelId::new(CHANNEL)?,
            client_message_id: ClientMessageId(number),
            first_attempt_ms: now_ms,
            body,
        };
        self.say(send).await
    }

    /// Acks what has arrived.
    pub async fn ack(&mut self) -> Result<()> {
        let position = {
            let mut place = self.place.lock();
            place.listed = false;
            place.position
        };
        let channel = self.channel;
        self.say(ClientAck { channel, position }).await
    }

    async fn say(&mut self, message: impl Into<Message>) -> Result<()> {
        let message = message.into().encode();
        self.writer.write_one(message).await.context("writing")
    }
}

/// Reads the control stream for as long as there is one.
async fn answers(mut reader: FrameReader, heard: Arc<Heard>, group: usize) {
    while let Ok(Some(frame)) = reader.next().await {
        match Message::decode(&frame) {
            Ok(Some(Message::Ack(_))) => {
                heard.acked[group].fetch_add(1, Ordering::Relaxed);
            }
            Ok(Some(Message::Error(error))) => heard.refused(&error),
            _ => {}
        }
    }
}

/// What the lanes of a member share.
struct Lanes {
    number: usize,
    channel: ChannelNumber,
    place: Arc<Mutex<Place>>,
    heard: Arc<Heard>,
}

async fn read(link: Arc<dyn Link>, lanes: Arc<Lanes>) {
    while let Ok(lane) = link.accept_uni().await {
        tokio::spawn(read_lane(lane, Arc::clone(&lanes)));
    }
}

async fn read_lane(mut lane: Box<dyn RecvHalf>, lanes: Arc<Lanes>) {
    let (mut buffer, mut begun) = (BytesMut::new(), false);
    while let Ok(true) = lane.read(&mut buffer, READ_BYTES).await {
        if !begun && !buffer.is_empty() {
            // What the stream is for.
            buffer.advance(1);
            begun = true;
        }
        while let Ok(Some(frame)) = frame::decode(&mut buffer) {
            if let Ok(Some(Message::Deliver(deliver))) = Message::decode(&frame) {
                lanes.received(&deliver);
            }
        }
        if buffer.is_empty() {
            // Very many members hold nothing between two messages.
            buffer = BytesMut::new();
        }
    }
}

impl Lanes {
    fn received(&self, deliver: &Deliver) {
        if deliver.channel != self.channel {
            return;
        }
        let mut place = self.place.lock();
        let mut previous = deliver.prev;
        for entry in &deliver.entries {
            self.judge(&mut place.position, previous, entry.seq, &entry.body);
            previous = entry.seq;
        }
        place.position.epoch = deliver.epoch;
        if !std::mem::replace(&mut place.listed, true) {
            self.heard.unacked.lock().push((Instant::now(), self.number));
        }
    }

    fn judge(&self, position: &mut Position, previous: Seq, seq: Seq, body: &[u8]) {
        if seq <= position.seq {
            self.heard.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if previous != position.seq {
            self.heard.gaps.fetch_add(1, Ordering::Relaxed);
        }
        position.seq = seq;
        self.heard.arrived(body);
    }
}

#[cfg(test)]
mod tests {
    use throng_protocol::ids::{Epoch, Ts};
    use throng_protocol::message::Entry;

    use super::*;

    fn lanes() -> Lanes {
        Lanes {
            number: 7,
            channel: ChannelNumber(1),
            place: Arc::new(Mutex::new(Place {
                position: Position {
                    epoch: Epoch(1),
                    seq: Seq(10),
                },
                listed: false,
            })),
            heard: Heard::new(1).unwrap(),
        }
    }

    fn deliver(prev: u64, seqs: &[u64]) -> Deliver {
        let entry = |seq: &u64| Entry {
            seq: Seq(*seq),
            ts: Ts(*seq),
            kind: 1,
            sender: throng_protocol::ids::UserId::new("ann").unwrap(),
            sender_number: throng_protocol::ids::UserNumber(1),
            client_message_id: ClientMessageId(*seq),
            body: Bytes::from_static(b"12345678"),
            target: Seq(0),
            version: Seq(0),
            hole: 0,
            expansion: Vec::new(),
            removed: Vec::new(),
            keys_elsewhere: false,
        };
        Deliver {
            channel: ChannelNumber(1),
            epoch: Epoch(1),
            prev: Seq(prev),
            entries: seqs.iter().map(entry).collect(),
        }
    }

    fn counts(lanes: &Lanes) -> (u64, u64, u64) {
        let heard = &lanes.heard;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&heard.delivered), of(&heard.repeated), of(&heard.gaps))
    }

    #[test]
    fn what_comes_once_and_in_order_is_delivered_and_acked_once() {
        let lanes = lanes();
        lanes.received(&deliver(10, &[11, 12]));
        lanes.received(&deliver(12, &[13]));
        assert_eq!(counts(&lanes), (3, 0, 0));
        assert_eq!(lanes.heard.unacked.lock().len(), 1);
        assert_eq!(lanes.place.lock().position.seq, Seq(13));
    }

    #[test]
    fn what_comes_again_is_no_delivery_and_what_is_skipped_is_a_gap() {
        let lanes = lanes();
        lanes.received(&deliver(10, &[11]));
        lanes.received(&deliver(10, &[11]));
        lanes.received(&deliver(12, &[13]));
        assert_eq!(counts(&lanes), (2, 1, 1));
        lanes.received(&Deliver {
            channel: ChannelNumber(2),
            ..deliver(0, &[1])
        });
        assert_eq!(
            counts(&lanes),
            (2, 1, 1),
            "another channel is not what is counted"
        );
    }
}
