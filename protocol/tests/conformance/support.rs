//! A client machine and a server session, each driven by hand-made frames.

use bytes::{Bytes, BytesMut};
use throng_protocol::code::Code;
use throng_protocol::frame::{self, Frame};
use throng_protocol::ids::{
    ChannelNumber, ClientMessageId, DeviceId, Epoch, Position, Seq, SessionId, Ts, UserId, UserNumber,
};
use throng_protocol::message::{
    Authenticate, Deliver, Error, Hello, HelloOk, Message, RequestId, Send, Start, Subscribed, Welcome,
};
use throng_protocol::session::client::{
    Answer, ClientEvent, ClientMachine, ClientMachineConfig, OpId, RequestError, SubscribeFrom,
};
use throng_protocol::session::server::{ServerEvent, ServerSession};

use crate::samples::{channel, entry, group};

/// A command and its one answer.
pub type Outcome = (OpId, Result<Answer, RequestError>);

pub const NUMBER: ChannelNumber = ChannelNumber(7);

pub fn frame_of(message: impl Into<Message>) -> Frame {
    let mut bytes = BytesMut::from(&message.into().encode()[..]);
    frame::decode(&mut bytes).expect("a frame").expect("whole")
}

pub fn read(bytes: &Bytes) -> Message {
    let frame = frame::decode(&mut BytesMut::from(&bytes[..]))
        .expect("a frame")
        .expect("whole");
    Message::decode(&frame).expect("sound").expect("known")
}

pub fn at(epoch: u32, seq: u64) -> Position {
    Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    }
}

pub fn hello() -> Hello {
    Hello {
        versions: vec![1],
        client: "stranger/1".to_owned(),
    }
}

pub fn authenticate() -> Authenticate {
    Authenticate {
        token: "a.b.c".to_owned(),
        device: DeviceId::new("phone").expect("valid"),
    }
}

pub fn welcome() -> Welcome {
    Welcome {
        session: SessionId(1),
        user: UserId::new("ann").expect("valid"),
        user_number: UserNumber(1),
        server_time_ms: 1_000_000,
        token_expires_ms: u64::MAX,
        idempotency_window_ms: 172_800_000,
        ping_interval_ms: 25_000,
        body_bytes_max: 131_072,
        requests_in_flight_max: 64,
        subscriptions_max: 1_000,
    }
}

/// A server session that is open, everything said so far forgotten.
pub fn open_server() -> ServerSession {
    let mut session = ServerSession::new(0, "edge");
    session.handle_frame(0, &frame_of(hello()));
    session.handle_frame(0, &frame_of(authenticate()));
    session.authenticated(0, welcome());
    told(&mut session);
    while session.poll_event().is_some() {}
    session
}

pub fn told(session: &mut ServerSession) -> Vec<Message> {
    std::iter::from_fn(|| session.poll_transmit())
        .map(|bytes| read(&bytes))
        .collect()
}

pub fn asked_of_shell(session: &mut ServerSession) -> Vec<ServerEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// A client machine with what it said and told, by connection.
pub struct Client {
    pub machine: ClientMachine,
}

impl Client {
    pub fn new() -> Self {
        let device = DeviceId::new("phone").expect("valid");
        Self {
            machine: ClientMachine::new(ClientMachineConfig::new(device, 1)),
        }
    }

    /// Connected and welcomed with `welcome` at `now_ms`; what was said on the way is forgotten.
    pub fn open(now_ms: u64, welcome: Welcome) -> Self {
        let mut client = Self::new();
        client.connect(now_ms, welcome);
        client
    }

    pub fn connect(&mut self, now_ms: u64, welcome: Welcome) {
        self.machine.handle_connected(now_ms);
        self.feed(
            now_ms,
            HelloOk {
                version: 1,
                edge: "edge".to_owned(),
                server_time_ms: 0,
            },
        );
        self.machine.authenticate("token".to_owned());
        self.said();
        self.events();
        self.feed(now_ms, welcome);
        self.events();
    }

    /// Subscribed to the sample channel behind (1, `seq`), at time 0.
    pub fn subscribed(seq: u64) -> Self {
        let mut client = Self::open(0, welcome());
        client
            .machine
            .subscribe(0, group(), channel(), SubscribeFrom::Head)
            .expect("taken");
        let request = request_of(&client.said()[0]);
        client.feed(0, subscribed(request, at(1, seq), Start::Head));
        client.events();
        client
    }

    pub fn feed(&mut self, now_ms: u64, message: impl Into<Message>) {
        self.machine.handle_frame(now_ms, &frame_of(message));
    }

    pub fn said(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.machine.poll_transmit())
            .map(|bytes| read(&bytes))
            .collect()
    }

    pub fn events(&mut self) -> Vec<ClientEvent> {
        std::iter::from_fn(|| self.machine.poll_event()).collect()
    }

    pub fn send(&mut self, now_ms: u64, id: u64) -> OpId {
        let body = Bytes::from_static(b"hi");
        self.machine
            .send(now_ms, group(), channel(), ClientMessageId(id), body)
            .expect("taken")
    }

    pub fn sends(&mut self) -> Vec<Send> {
        let said = self.said().into_iter();
        said.filter_map(|message| {
            if let Message::Send(send) = message {
                Some(send)
            } else {
                None
            }
        })
        .collect()
    }

    /// The seqs of the entries told of.
    pub fn emitted(&mut self) -> Vec<u64> {
        let events = self.events().into_iter();
        let batches = events.filter_map(|event| match event {
            ClientEvent::Entries(batch) => Some(batch.entries),
            _ => None,
        });
        batches.flatten().map(|entry| entry.seq.0).collect()
    }

    pub fn answers(&mut self) -> Vec<Outcome> {
        let events = self.events().into_iter();
        events
            .filter_map(|event| match event {
                ClientEvent::Answered { op, outcome } => Some((op, outcome)),
                _ => None,
            })
            .collect()
    }
}

pub fn request_of(message: &Message) -> RequestId {
    match message {
        Message::Subscribe(m) => m.request,
        Message::Resume(m) => m.request,
        Message::History(m) => m.request,
        Message::Sync(m) => m.request,
        Message::Send(m) => m.request,
        Message::Join(m) => m.request,
        Message::Leave(m) => m.request,
        other => panic!("not one of the requests of these tests: {other:?}"),
    }
}

pub fn subscribed(request: RequestId, position: Position, start: Start) -> Subscribed {
    Subscribed {
        request,
        group: group(),
        channel_name: channel(),
        channel: NUMBER,
        position,
        head: position.seq,
        start,
        ts: Ts(0),
    }
}

pub fn deliver(epoch: u32, prev: u64, seqs: &[u64]) -> Deliver {
    let entries = seqs.iter().map(|seq| entry(*seq, b"x")).collect();
    Deliver {
        channel: NUMBER,
        epoch: Epoch(epoch),
        prev: Seq(prev),
        entries,
    }
}

pub fn error(request: RequestId, code: Code) -> Error {
    Error::new(request, code, "text")
}
