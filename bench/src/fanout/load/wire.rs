//! Subscribers that speak the protocol without the SDK: as light as those of the peers, so that what is
//! late is late at the server. They authenticate, read their lanes and ack as the specification asks;
//! they hold nothing, order nothing and come back from nothing, which other tests are for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use throng_protocol::frame;
use throng_protocol::ids::{ChannelId, ChannelNumber, DeviceId, GroupId, Position, SessionId, Ts};
use throng_protocol::message::{Authenticate, ClientAck, Deliver, Hello, Join, Message, Subscribe};
use throng_protocol::session::client::AckPace;
use throng_transport::{ClientEndpoint, FrameReader, FrameWriter, Link, RecvHalf};

use crate::fanout::meter::Meter;

/// Between two looks at who has to ack.
const ACK_LOOK: Duration = Duration::from_millis(50);
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// What a subscriber has not acked.
#[derive(Debug, Default)]
struct Unacked {
    since: Option<Instant>,
    entries: u32,
    position: Position,
}

/// A subscriber whose deliveries are read by a task.
#[derive(Debug)]
pub struct Subscriber {
    channel: ChannelNumber,
    control: FrameWriter,
    unacked: Arc<Mutex<Unacked>>,
    pace: AckPace,
    _link: Arc<dyn Link>,
}

impl Subscriber {
    /// Connects, joins and subscribes at the head.
    pub async fn connect(
        endpoint: &ClientEndpoint,
        edge: &str,
        token: String,
        group: &GroupId,
        channel: &ChannelId,
        meter: Arc<Meter>,
    ) -> Result<Self> {
        let (link, mut control) = Control::open(endpoint, edge, token).await?;
        let pace = AckPace::of(control.session);
        let subscribed = control.enter(group, channel).await?;
        let unacked = Arc::new(Mutex::new(Unacked {
            position: subscribed.1,
            ..Unacked::default()
        }));
        tokio::spawn(read(Arc::clone(&link), Arc::clone(&unacked), meter));
        Ok(Self {
            channel: subscribed.0,
            control: control.writer,
            unacked,
            pace,
            _link: link,
        })
    }

    /// Acks if it is time to.
    async fn ack(&mut self) -> Result<()> {
        let due = {
            let mut unacked = self.unacked.lock();
            let late = Duration::from_millis(self.pace.delay_ms) - ACK_LOOK;
            let late = unacked.since.is_some_and(|since| since.elapsed() >= late);
            if !late && unacked.entries < self.pace.entries {
                return Ok(());
            }
            (unacked.since, unacked.entries) = (None, 0);
            unacked.position
        };
        let ack = ClientAck {
            channel: self.channel,
            position: due,
        };
        let ack = Message::from(ack).encode();
        self.control.write_one(ack).await.context("acking")
    }
}

/// Acks for all of them until one cannot.
pub async fn ack(mut subscribers: Vec<Subscriber>) -> Result<()> {
    let mut looks = tokio::time::interval(ACK_LOOK);
    loop {
        looks.tick().await;
        for subscriber in &mut subscribers {
            subscriber.ack().await?;
        }
    }
}

/// A control stream.
pub struct Control {
    pub writer: FrameWriter,
    reader: FrameReader,
    request: u64,
    session: SessionId,
}

impl Control {
    /// Connects and authenticates.
    pub async fn open(endpoint: &ClientEndpoint, edge: &str, token: String) -> Result<(Arc<dyn Link>, Self)> {
        let mut addresses = tokio::net::lookup_host(edge)
            .await
            .context("looking the edge up")?;
        let address = addresses.next().context("the edge has no address")?;
        let name = edge.rsplit_once(':').map_or(edge, |(name, _)| name);
        let link = endpoint.connect(address, name).await?;
        let (send, receive) = link.open_bi().await?;
        let mut control = Self {
            writer: FrameWriter::new(send),
            reader: FrameReader::new(receive),
            request: 0,
            session: SessionId(0),
        };
        let hello = Hello {
            versions: vec![1],
            client: "throng-bench".to_owned(),
        };
        control.say(hello).await?;
        let device = DeviceId::new("bench")?;
        control.say(Authenticate { token, device }).await?;
        loop {
            match control.hear().await? {
                Message::HelloOk(_) => {}
                Message::Welcome(welcome) => {
                    control.session = welcome.session;
                    return Ok((link, control));
                }
                other => bail!("not welcome: {other:?}"),
            }
        }
    }

    /// The halves of the stream, for whoever goes on by itself.
    pub fn split(self) -> (FrameWriter, FrameReader) {
        (self.writer, self.reader)
    }

    /// Joins a group and subscribes to a channel of it.
    pub async fn enter(&mut self, group: &GroupId, channel: &ChannelId) -> Result<(ChannelNumber, Position)> {
        let (group, channel, request) = (group.clone(), channel.clone(), self.next());
        let join = Join {
            request,
            group: group.clone(),
        };
        self.say(join).await?;
        match self.hear().await? {
            Message::Done(_) => {}
            other => bail!("not a member: {other:?}"),
        }
        let subscribe = Subscribe {
            request: self.next(),
            group,
            channel,
            position: Position::default(),
            ts: Ts(0),
        };
        self.say(subscribe).await?;
        match self.hear().await? {
            Message::Subscribed(subscribed) => Ok((subscribed.channel, subscribed.position)),
            other => bail!("not subscribed: {other:?}"),
        }
    }

    fn next(&mut self) -> u64 {
        self.request += 1;
        self.request
    }

    async fn say(&mut self, message: impl Into<Message>) -> Result<()> {
        let message = message.into().encode();
        self.writer.write_one(message).await.context("writing")
    }

    async fn hear(&mut self) -> Result<Message> {
        let frame = self.reader.next().await?.context("the edge has finished")?;
        Message::decode(&frame)?.context("an unknown message")
    }
}

/// Reads lanes as long as there are any: the deliveries of one channel come on one of them.
async fn read(link: Arc<dyn Link>, unacked: Arc<Mutex<Unacked>>, meter: Arc<Meter>) {
    while let Ok(lane) = link.accept_uni().await {
        tokio::spawn(read_lane(lane, Arc::clone(&unacked), Arc::clone(&meter)));
    }
}

async fn read_lane(mut lane: Box<dyn RecvHalf>, unacked: Arc<Mutex<Unacked>>, meter: Arc<Meter>) {
    let (mut buffer, mut begun) = (BytesMut::new(), false);
    while let Ok(true) = lane.read(&mut buffer, READ_BYTES).await {
        if !begun && !buffer.is_empty() {
            // What the stream is for.
            buffer.advance(1);
            begun = true;
        }
        while let Ok(Some(frame)) = frame::decode(&mut buffer) {
            if let Ok(Some(Message::Deliver(deliver))) = Message::decode(&frame) {
                received(&deliver, &unacked, &meter);
            }
        }
    }
}

fn received(deliver: &Deliver, unacked: &Mutex<Unacked>, meter: &Meter) {
    for entry in &deliver.entries {
        meter.received(&entry.body);
        let mut unacked = unacked.lock();
        unacked.since.get_or_insert_with(Instant::now);
        unacked.entries += 1;
        unacked.position = Position {
            epoch: deliver.epoch,
            seq: entry.seq,
        };
    }
}
