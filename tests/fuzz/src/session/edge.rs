//! The edge's half of the world: its machine, and a shell that answers as an edge would.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use throng_protocol::code::Code;
use throng_protocol::message::{Done, Message, Place};
use throng_protocol::session::server::{ServerEvent, ServerRequest, ServerSession};

use super::model::{self, Cluster, ack, of_name, of_number, subscribed, welcome};

/// Entries of a page: few, so that clients have to go on.
const PAGE: usize = 5;

/// What comes of a request besides the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Good,
    /// Refused, and may be tried again.
    Retry,
    /// Carried out, and the answer is lost on its way to the edge.
    Lost,
    /// Refused for good.
    Never,
}

impl Luck {
    fn of(luck: u8) -> Self {
        match luck % 16 {
            1 => Self::Retry,
            2 => Self::Lost,
            3 => Self::Never,
            _ => Self::Good,
        }
    }
}

/// One connection at the edge.
#[derive(Debug)]
pub struct Edge {
    pub machine: ServerSession,
    /// Requests without an answer.
    pub waiting: Vec<ServerRequest>,
    /// The last entry handed to each subscription.
    pub cursors: BTreeMap<usize, u64>,
    /// Frames of the control stream on their way to the client.
    pub control: VecDeque<Bytes>,
    /// Frames of the streams of deliveries.
    pub lanes: [VecDeque<Bytes>; 2],
    pub judging: bool,
    /// The machine has said that the connection ends.
    pub closed: Option<Code>,
}

impl Edge {
    pub fn new(now_ms: u64) -> Self {
        Self {
            machine: ServerSession::new(now_ms, "edge"),
            waiting: Vec::new(),
            cursors: BTreeMap::new(),
            control: VecDeque::new(),
            lanes: Default::default(),
            judging: false,
            closed: None,
        }
    }

    /// Takes out of the machine what there is. `honest` says that the client keeps the rules.
    pub fn drain(&mut self, honest: bool) {
        while let Some(event) = self.machine.poll_event() {
            assert!(self.closed.is_none(), "an event after the end: {event:?}");
            match event {
                ServerEvent::Authenticate { .. } => {
                    assert!(!self.judging, "two tokens are judged");
                    self.judging = true;
                }
                ServerEvent::Request(request) => {
                    let id = request.request();
                    assert!(id != 0 && self.waiting.iter().all(|other| other.request() != id));
                    if honest {
                        self.one_send_each(&request);
                    }
                    self.waiting.push(request);
                }
                ServerEvent::ClientAck(_) => {}
                ServerEvent::Close { code, reason } => {
                    let innocent = [
                        Code::Timeout,
                        Code::TokenExpired,
                        Code::Draining,
                        Code::Unavailable,
                    ];
                    assert!(
                        !honest || innocent.contains(&code),
                        "the client is accused: {reason}"
                    );
                    self.closed = Some(code);
                }
            }
        }
        while let Some(frame) = self.machine.poll_transmit() {
            self.control.push_back(frame);
        }
        let waiting = if self.closed.is_some() {
            0
        } else {
            self.waiting.len()
        };
        assert_eq!(self.machine.requests_in_flight(), waiting);
        assert_eq!(self.machine.is_closed(), self.closed.is_some());
    }

    /// A client has one send per channel in flight.
    fn one_send_each(&self, request: &ServerRequest) {
        let ServerRequest::Send(send) = request else {
            return;
        };
        let other = self
            .waiting
            .iter()
            .find(|other| matches!(other, ServerRequest::Send(other) if other.channel == send.channel));
        assert!(other.is_none(), "two sends of one channel are in flight");
    }

    pub fn judge(&mut self, now_ms: u64, good: bool) {
        if std::mem::take(&mut self.judging) {
            match good {
                true => self.machine.authenticated(now_ms, welcome(now_ms)),
                false => self.machine.refuse(Code::Unavailable, "later"),
            }
        }
    }

    /// Answers one of the requests that wait.
    pub fn answer(&mut self, cluster: &mut Cluster, which: u8, luck: u8) {
        if self.waiting.is_empty() || self.closed.is_some() {
            return;
        }
        let request = self.waiting.remove(usize::from(which) % self.waiting.len());
        let id = request.request();
        if let ServerRequest::Resume(resume) = request {
            for (place, luck) in resume.places.iter().zip(luck..=u8::MAX) {
                let begun = self.begin(cluster, id, place, Luck::of(luck));
                self.say(id, begun);
            }
            return self.machine.respond(&Done { request: id }.into());
        }
        let answer = self.carry_out(cluster, request, Luck::of(luck));
        self.say(id, answer);
    }

    fn say(&mut self, request: u64, answer: Result<Message, Code>) {
        match answer {
            Ok(message) => self.machine.respond(&message),
            Err(code) => self.machine.error(request, code, "so it is", 0),
        }
    }

    fn carry_out(
        &mut self,
        cluster: &mut Cluster,
        request: ServerRequest,
        luck: Luck,
    ) -> Result<Message, Code> {
        let id = request.request();
        match (luck, &request) {
            (Luck::Retry, _) => return Err(Code::Unavailable),
            (Luck::Never, ServerRequest::Unsubscribe(_)) => {}
            (Luck::Never, _) => return Err(Code::NotMember),
            _ => {}
        }
        match request {
            ServerRequest::Send(send) => {
                let channel = of_name(&send.channel).ok_or(Code::ChannelUnknown)?;
                let (seq, repeat) = cluster.store(channel, send.client_message_id.0);
                match luck {
                    Luck::Lost => Err(Code::Unavailable),
                    _ => Ok(ack(id, channel, seq, repeat).into()),
                }
            }
            ServerRequest::Subscribe(m) => {
                let channel = of_name(&m.channel).ok_or(Code::ChannelUnknown)?;
                self.subscribe(cluster, id, channel, cluster.begin(channel, m.position))
            }
            ServerRequest::Unsubscribe(m) => {
                let channel = of_number(m.channel).ok_or(Code::NotSubscribed)?;
                match self.cursors.remove(&channel) {
                    Some(_) => Ok(Done { request: id }.into()),
                    None => Err(Code::NotSubscribed),
                }
            }
            ServerRequest::Sync(m) => {
                let channel = of_name(&m.channel).ok_or(Code::ChannelUnknown)?;
                let entries = cluster.entries(channel, m.position.seq.0, PAGE);
                Ok(cluster.page(id, channel, m.position.seq.0, entries).into())
            }
            ServerRequest::History(m) => {
                let channel = of_name(&m.channel).ok_or(Code::ChannelUnknown)?;
                let anchor = m.anchor.0;
                let entries = match m.direction {
                    throng_protocol::message::Direction::After => cluster.entries(channel, anchor, PAGE),
                    throng_protocol::message::Direction::Before => cluster.before(channel, anchor, PAGE),
                };
                Ok(cluster.page(id, channel, anchor, entries).into())
            }
            _ => Ok(Done { request: id }.into()),
        }
    }

    fn begin(&mut self, cluster: &Cluster, id: u64, place: &Place, luck: Luck) -> Result<Message, Code> {
        let channel = of_name(&place.channel).ok_or(Code::ChannelUnknown)?;
        match luck {
            Luck::Retry | Luck::Lost => Err(Code::Unavailable),
            Luck::Never => Err(Code::NotMember),
            Luck::Good => self.subscribe(cluster, id, channel, cluster.begin(channel, place.position)),
        }
    }

    fn subscribe(
        &mut self,
        cluster: &Cluster,
        id: u64,
        channel: usize,
        begun: (u64, throng_protocol::message::Start),
    ) -> Result<Message, Code> {
        self.cursors.insert(channel, begun.0);
        Ok(subscribed(id, channel, begun, cluster.head(channel)).into())
    }

    /// Delivers what a subscription lacks: by chance some of it again, or some of it never.
    pub fn deliver(&mut self, cluster: &Cluster, channel: usize, count: u8, luck: u8) {
        if self.closed.is_some() {
            return;
        }
        let Some(&cursor) = self.cursors.get(&channel) else {
            return;
        };
        let from = if luck % 8 == 1 {
            cursor.saturating_sub(2)
        } else {
            cursor
        };
        let entries = cluster.entries(channel, from, usize::from(count));
        let Some(last) = entries.last().map(|entry| entry.seq.0) else {
            return;
        };
        self.cursors.insert(channel, last.max(cursor));
        if luck % 16 != 2 {
            let frame = Message::from(model::deliver(channel, from, entries)).encode();
            self.lanes[usize::from(luck & 1)].push_back(frame);
        }
    }
}
