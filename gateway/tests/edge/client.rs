//! A client that says what a test wants it to say.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use throng_protocol::frame::{self, Frame};
use throng_protocol::ids::{ClientMessageId, DeviceId, Epoch, Position, Seq, Ts};
use throng_protocol::message::{
    self, Authenticate, Deliver, Ended, Hello, Message, Subscribe, Subscribed, Welcome,
};
use throng_protocol::session::STREAM_LIVE;
use throng_transport::{ClientEndpoint, FrameReader, FrameWriter, Link, LinkClosed, RecvHalf, Trust};
use tokio::sync::mpsc;

use crate::stand_in::{EPOCH, Edge, SECRET, channel, group};

/// Longer than anything here takes, so that a test that hangs fails instead.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The claims of a token.
pub fn claims(app: &str, user: &str, from_now_s: i64) -> serde_json::Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    serde_json::json!({ "app": app, "sub": user, "iat": now, "exp": now.saturating_add_signed(from_now_s) })
}

pub fn sign(kid: &str, algorithm: Algorithm, claims: &serde_json::Value, secret: &[u8]) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.to_owned());
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap()
}

pub fn token(user: &str) -> String {
    sign("1", Algorithm::HS256, &claims("app", user, 3_600), SECRET)
}

pub struct Client {
    pub link: Arc<dyn Link>,
    pub reader: FrameReader,
    pub writer: FrameWriter,
    /// Deliveries of all lanes, with the kind of their stream.
    lanes: Option<mpsc::Receiver<(u8, Lane)>>,
    request: u64,
    pub endpoint: ClientEndpoint,
}

impl Client {
    pub async fn connect(edge: &Edge) -> Self {
        let endpoint = ClientEndpoint::new(&Trust::ca_file(&edge.ca).unwrap()).unwrap();
        Self::connect_from(endpoint, edge).await
    }

    async fn connect_from(endpoint: ClientEndpoint, edge: &Edge) -> Self {
        let link = endpoint.connect(edge.addr, "localhost").await.unwrap();
        let (send, recv) = link.open_bi().await.unwrap();
        Self {
            link,
            reader: FrameReader::new(recv),
            writer: FrameWriter::new(send),
            lanes: None,
            request: 0,
            endpoint,
        }
    }

    /// Connects and says hello.
    pub async fn greet(edge: &Edge) -> Self {
        let mut client = Self::connect(edge).await;
        client.hello().await;
        client
    }

    async fn hello(&mut self) {
        self.say(Hello {
            versions: vec![1],
            client: "test".to_owned(),
        })
        .await;
        assert!(matches!(self.hear().await, Message::HelloOk(ok) if ok.edge == "the edge"));
    }

    /// A session of a user.
    pub async fn open(edge: &Edge, user: &str) -> Self {
        let mut client = Self::silent(edge, user).await;
        client.listen();
        client
    }

    /// A session of a user that takes no streams of deliveries.
    pub async fn silent(edge: &Edge, user: &str) -> Self {
        let mut client = Self::greet(edge).await;
        client.log_in(user).await;
        client
    }

    /// A session of a user, over an endpoint of the test's own.
    pub async fn open_from(endpoint: ClientEndpoint, edge: &Edge, user: &str) -> Self {
        let mut client = Self::connect_from(endpoint, edge).await;
        client.hello().await;
        client.log_in(user).await;
        client
    }

    async fn log_in(&mut self, user: &str) {
        let Message::Welcome(welcome) = self.authenticate(token(user)).await else {
            panic!("not welcome");
        };
        assert_eq!(welcome.user.as_str(), user);
        let Welcome {
            idempotency_window_ms,
            ..
        } = welcome;
        assert!(idempotency_window_ms > 0);
    }

    pub async fn authenticate(&mut self, token: String) -> Message {
        let device = DeviceId::new("device").unwrap();
        self.say(Authenticate { token, device }).await;
        self.hear().await
    }

    pub async fn say(&mut self, message: impl Into<Message>) {
        self.bytes(message.into().encode()).await;
    }

    pub async fn bytes(&mut self, bytes: Bytes) {
        self.writer.write_one(bytes).await.unwrap();
    }

    pub async fn hear(&mut self) -> Message {
        let frame = tokio::time::timeout(PATIENCE, self.reader.next())
            .await
            .expect("an answer in time");
        decoded(&frame.unwrap().expect("the stream goes on"))
    }

    pub fn next_request(&mut self) -> u64 {
        self.request += 1;
        self.request
    }

    /// Sends a message and returns the answer.
    pub async fn send(&mut self, number: u64, key: u64, body: impl Into<Bytes>) -> Message {
        let send = message::Send {
            request: self.next_request(),
            group: group(),
            channel: channel(number),
            client_message_id: ClientMessageId(key),
            first_attempt_ms: 1,
            body: body.into(),
        };
        self.say(send).await;
        self.hear().await
    }

    pub async fn subscribe(&mut self, number: u64, from: Option<u64>) -> Subscribed {
        let position = match from {
            Some(seq) => Position {
                epoch: EPOCH,
                seq: Seq(seq),
            },
            None => Position {
                epoch: Epoch(0),
                seq: Seq(0),
            },
        };
        let request = self.next_request();
        self.say(Subscribe {
            request,
            group: group(),
            channel: channel(number),
            position,
            ts: Ts(0),
        })
        .await;
        match self.hear().await {
            Message::Subscribed(subscribed) => subscribed,
            other => panic!("not subscribed: {other:?}"),
        }
    }

    fn listen(&mut self) {
        let (into, lanes) = mpsc::channel(100_000);
        self.lanes = Some(lanes);
        let link = Arc::clone(&self.link);
        tokio::spawn(async move {
            while let Ok(half) = link.accept_uni().await {
                tokio::spawn(read_lane(half, into.clone()));
            }
        });
    }

    /// Stops reading deliveries for good.
    pub fn deafen(&mut self) {
        self.lanes = None;
    }

    async fn heard(&mut self) -> (u8, Lane) {
        let lanes = self.lanes.as_mut().expect("listens");
        tokio::time::timeout(PATIENCE, lanes.recv())
            .await
            .expect("a delivery in time")
            .expect("the lanes go on")
    }

    pub async fn delivery(&mut self) -> (u8, Deliver) {
        match self.heard().await {
            (kind, Lane::Deliver(deliver)) => (kind, deliver),
            (_, Lane::Ended(ended)) => panic!("ended: {ended:?}"),
        }
    }

    /// Takes deliveries until a subscription ends. Returns its end and all entries, sorted; checks that
    /// none came twice, and that nothing follows the end on its stream.
    pub async fn take_to_end(&mut self) -> (Ended, Vec<u64>) {
        let (mut seqs, mut waiting) = (Vec::new(), None);
        loop {
            match self.heard().await {
                (_, Lane::Deliver(deliver)) => seqs.extend(deliver.entries.iter().map(|entry| entry.seq.0)),
                (kind, Lane::Ended(ended)) => {
                    assert_eq!(kind, STREAM_LIVE);
                    assert!(waiting.replace(ended).is_none(), "it ends once");
                }
            }
            seqs.sort_unstable();
            let twice = seqs.windows(2).any(|pair| pair[0] == pair[1]);
            assert!(!twice, "an entry came twice: {seqs:?}");
            // What lies before the end may come on the bulk stream after it.
            if let Some(ended) = &waiting
                && seqs.last().is_none_or(|last| *last >= ended.position.seq.0)
            {
                return (ended.clone(), seqs);
            }
        }
    }

    /// Expects that nothing has been delivered and nothing is: whatever the edge had to say before its
    /// answer to a ping and to a message in another channel would have come.
    pub async fn expect_silence(&mut self, edge: &Edge, other: u64) {
        self.subscribe(other, None).await;
        edge.core.append(other, 1, Bytes::from_static(b"x"));
        let (_, deliver) = self.delivery().await;
        assert_eq!(deliver.channel.0, other, "something else was delivered");
    }

    /// Takes deliveries of a channel until `last`, in whatever order their streams bring them, and
    /// checks that every entry behind `first` comes exactly once. Returns the kinds of streams.
    pub async fn take(&mut self, number: u64, first: u64, last: u64) -> Vec<u8> {
        let mut waiting: VecDeque<Deliver> = VecDeque::new();
        let (mut held, mut kinds) = (first, Vec::new());
        while held < last {
            let (kind, deliver) = self.delivery().await;
            assert_eq!((deliver.channel.0, deliver.epoch), (number, EPOCH));
            kinds.push(kind);
            waiting.push_back(deliver);
            while let Some(place) = waiting.iter().position(|deliver| deliver.prev.0 <= held) {
                for entry in waiting.remove(place).unwrap().entries {
                    assert_eq!(entry.seq.0, held + 1, "every entry once and in order");
                    held += 1;
                }
            }
        }
        assert_eq!((held, waiting.len()), (last, 0));
        kinds
    }

    /// Expects an error about the connection and its end with the same code.
    pub async fn expect_close(mut self, code: u16) {
        let told = loop {
            match self.hear().await {
                Message::Error(error) => break error,
                Message::Pong(_) | Message::Drain(_) => {}
                other => panic!("expected an error, heard {other:?}"),
            }
        };
        assert_eq!((told.request, told.code), (0, code), "{}", told.message);
        self.expect_closed(code).await;
    }

    pub async fn expect_closed(&self, code: u16) {
        let closed = tokio::time::timeout(PATIENCE, self.link.closed())
            .await
            .expect("closed in time");
        assert!(
            matches!(closed, LinkClosed::Peer { code: closed, .. } if closed == u32::from(code)),
            "expected {code}, got {closed:?}"
        );
    }

    /// Expects that an answer refuses a request and the session goes on.
    pub async fn expect_refusal(&mut self, code: u16) {
        match self.hear().await {
            Message::Error(error) => {
                assert_eq!(
                    (error.request, error.code),
                    (self.request, code),
                    "{}",
                    error.message
                );
            }
            other => panic!("expected error {code}, heard {other:?}"),
        }
        self.ping().await;
    }

    pub async fn ping(&mut self) {
        self.say(message::Ping { nonce: 77 }).await;
        assert!(matches!(self.hear().await, Message::Pong(pong) if pong.nonce == 77));
    }
}

/// What comes on a stream of the edge.
#[derive(Debug)]
pub enum Lane {
    Deliver(Deliver),
    Ended(Ended),
}

async fn read_lane(mut half: Box<dyn RecvHalf>, into: mpsc::Sender<(u8, Lane)>) {
    let kind = half.read_chunk(1).await.unwrap().unwrap()[0];
    let mut reader = FrameReader::new(half);
    while let Ok(Some(frame)) = reader.next().await {
        let lane = match decoded(&frame) {
            Message::Deliver(deliver) => Lane::Deliver(deliver),
            Message::Ended(ended) => Lane::Ended(ended),
            other => panic!("not a delivery: {other:?}"),
        };
        if into.send((kind, lane)).await.is_err() {
            // Deaf: holds the stream open and reads no more.
            return std::future::pending().await;
        }
    }
}

fn decoded(frame: &Frame) -> Message {
    Message::decode(frame).unwrap().expect("a known frame")
}

/// A frame cut out of encoded bytes, to be changed.
pub fn frame_of(message: impl Into<Message>) -> Frame {
    frame::decode(&mut BytesMut::from(&message.into().encode()[..]))
        .unwrap()
        .unwrap()
}
