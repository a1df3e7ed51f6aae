//! The machine against a scripted server: streams that race, repeated and skipped deliveries,
//! refusals after the fact, connections that end at any point.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const CHANNELS: usize = 3;
/// Control stream, two lanes, bulk.
const STREAMS: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    Append(usize, u8),
    Subscribe(usize, u8),
    /// The server handles the client's next frame, and refuses it by chance.
    Serve(u8),
    /// The server delivers entries: channel, how many, stream, what goes wrong.
    Push(usize, u8, usize, u8),
    Flow(usize),
    Disconnect,
    Connect,
    Tick(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let ch = 0..CHANNELS;
    prop_oneof![
        3 => ch.clone().prop_map(Step::Send),
        3 => (ch.clone(), 1u8..5).prop_map(|(ch, n)| Step::Append(ch, n)),
        2 => (ch.clone(), 0u8..3).prop_map(|(ch, from)| Step::Subscribe(ch, from)),
        12 => any::<u8>().prop_map(Step::Serve),
        8 => (ch, 1u8..5, 1..STREAMS, any::<u8>()).prop_map(|(ch, n, to, luck)| Step::Push(ch, n, to, luck)),
        16 => (0..STREAMS).prop_map(Step::Flow),
        1 => Just(Step::Disconnect),
        3 => Just(Step::Connect),
        3 => (1u16..900).prop_map(Step::Tick),
    ]
}

/// One channel's log: who sent what, by client message id; 0 is somebody else.
type Log = Vec<u64>;

#[derive(Default)]
struct Server {
    logs: [Log; CHANNELS],
    connected: bool,
    inbox: VecDeque<Message>,
    streams: [VecDeque<Message>; STREAMS],
    cursors: BTreeMap<usize, u64>,
    /// Sends without an answer on this connection, by channel.
    unanswered: BTreeMap<usize, BTreeSet<RequestId>>,
}

fn index(channel: &ChannelId) -> usize {
    channel.as_str().parse().unwrap()
}

impl Server {
    fn entries(&self, ch: usize, after: u64, count: usize) -> Vec<Entry> {
        let rest = self.logs[ch].iter().enumerate().skip(after as usize).take(count);
        rest.map(|(place, id)| {
            let mut entry = entry(place as u64 + 1);
            entry.client_message_id = ClientMessageId(*id);
            entry
        })
        .collect()
    }

    fn head(&self, ch: usize) -> u64 {
        self.logs[ch].len() as u64
    }

    fn answer(&mut self, message: impl Into<Message>) {
        self.streams[0].push_back(message.into());
    }

    fn begin(&mut self, request: RequestId, place: &Place) {
        let ch = index(&place.channel);
        let head = self.head(ch);
        let (seq, start) = match place.position.epoch {
            Epoch(0) => (head, Start::Head),
            _ => (place.position.seq.0, Start::Resumed),
        };
        assert!(seq <= head, "the client claims no more than it can have");
        self.cursors.insert(ch, seq);
        self.answer(Subscribed {
            request,
            group: group(),
            channel_name: place.channel.clone(),
            channel: ChannelNumber(ch as u64),
            position: at(1, seq),
            head: Seq(head),
            start,
            ts: Ts(0),
        });
    }

    fn page(&self, request: RequestId, ch: usize, after: u64) -> Page {
        Page {
            request,
            channel: ChannelNumber(ch as u64),
            epoch: Epoch(1),
            prev: Seq(after),
            head: Seq(self.head(ch)),
            entries: self.entries(ch, after, 3),
        }
    }

    fn send(&mut self, send: &message::Send, luck: u8) {
        let ch = index(&send.channel);
        let id = send.client_message_id.0;
        if luck % 8 == 1 {
            return self.refuse(send.request);
        }
        let known = self.logs[ch].iter().position(|other| *other == id);
        let place = known.unwrap_or_else(|| {
            self.logs[ch].push(id);
            self.logs[ch].len() - 1
        });
        if luck % 8 == 2 {
            // Stored, and the leader was lost before it could say so.
            return self.refuse(send.request);
        }
        let seq = place as u64 + 1;
        self.answer(Ack {
            request: send.request,
            channel: ChannelNumber(ch as u64),
            epoch: Epoch(1),
            seq: Seq(seq),
            ts: Ts(seq),
            repeat: known.is_some(),
            before: Seq(0),
        });
    }

    fn refuse(&mut self, request: RequestId) {
        self.answer(error(request, Code::Unavailable));
    }

    fn serve(&mut self, luck: u8) -> bool {
        let Some(message) = self.inbox.pop_front() else {
            return false;
        };
        match message {
            Message::Hello(_) => self.answer(HelloOk {
                version: 1,
                edge: "e".to_owned(),
                server_time_ms: 0,
            }),
            Message::Authenticate(_) => self.answer(welcome(5_000_000, 4)),
            Message::Send(send) => self.send(&send, luck),
            Message::Subscribe(m) if luck % 8 == 1 => self.refuse(m.request),
            Message::Subscribe(m) => {
                let (channel, position) = (m.channel, m.position);
                self.begin(
                    m.request,
                    &Place {
                        group: group(),
                        channel,
                        position,
                        ts: Ts(0),
                    },
                );
            }
            Message::Resume(resume) => {
                for (place, at) in resume.places.iter().zip(u64::from(luck)..) {
                    if at % 5 == 1 {
                        self.refuse(resume.request);
                    } else {
                        self.begin(resume.request, place);
                    }
                }
                self.answer(Done {
                    request: resume.request,
                });
            }
            Message::History(m) => self.answer(self.page(m.request, index(&m.channel), m.anchor.0)),
            Message::Sync(m) if luck % 8 == 1 => self.refuse(m.request),
            Message::Sync(m) => self.answer(self.page(m.request, index(&m.channel), m.position.seq.0)),
            Message::Ping(ping) => self.answer(Pong {
                nonce: ping.nonce,
                time_ms: 0,
            }),
            Message::ClientAck(ack) => {
                let ch = ack.channel.0 as usize;
                assert!(ack.position.seq.0 <= self.head(ch), "acked before it was there");
            }
            other => panic!("the client sent {other:?}"),
        }
        true
    }

    fn push(&mut self, ch: usize, count: u8, stream: usize, luck: u8) {
        let Some(&cursor) = self.cursors.get(&ch) else {
            return;
        };
        // By chance a batch is sent again from before the cursor, or skipped: a real gap.
        let from = if luck % 4 == 1 {
            cursor.saturating_sub(2)
        } else {
            cursor
        };
        let entries = self.entries(ch, from, usize::from(count));
        let Some(last) = entries.last().map(|entry| entry.seq.0) else {
            return;
        };
        self.cursors.insert(ch, last.max(cursor));
        if luck % 16 != 2 {
            self.streams[stream].push_back(
                Deliver {
                    channel: ChannelNumber(ch as u64),
                    epoch: Epoch(1),
                    prev: Seq(from),
                    entries,
                }
                .into(),
            );
        }
    }
}

struct World {
    machine: ClientMachine,
    server: Server,
    now_ms: u64,
    last_id: u64,
    /// Ids sent, by channel, in order; and each send's answers.
    sent: [Vec<u64>; CHANNELS],
    ops: BTreeMap<OpId, u32>,
    subscribed: BTreeMap<usize, Option<u64>>,
    subscribes: BTreeMap<OpId, usize>,
    received: [Vec<u64>; CHANNELS],
}

impl World {
    fn new() -> Self {
        Self {
            machine: machine(),
            server: Server::default(),
            now_ms: 0,
            last_id: 0,
            sent: Default::default(),
            ops: BTreeMap::new(),
            subscribed: BTreeMap::new(),
            subscribes: BTreeMap::new(),
            received: Default::default(),
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Send(ch) => {
                self.last_id += 1;
                let (id, body) = (ClientMessageId(self.last_id), Bytes::from_static(b"x"));
                let name = channel(&ch.to_string());
                let op = self.machine.send(self.now_ms, group(), name, id, body).unwrap();
                self.sent[ch].push(self.last_id);
                self.ops.insert(op, 0);
            }
            Step::Append(ch, count) => {
                self.server.logs[ch].extend(std::iter::repeat_n(0, usize::from(count)))
            }
            Step::Subscribe(ch, from) => self.subscribe(ch, from),
            Step::Serve(luck) => {
                self.server.serve(luck);
            }
            Step::Push(ch, count, stream, luck) => self.server.push(ch, count, stream, luck),
            Step::Flow(stream) => {
                self.flow(stream);
            }
            Step::Disconnect => self.disconnect(),
            Step::Connect => {
                if !self.server.connected {
                    self.server.connected = true;
                    self.machine.handle_connected(self.now_ms);
                }
            }
            Step::Tick(ms) => {
                self.now_ms += u64::from(ms);
                self.machine.handle_timeout(self.now_ms);
            }
        }
        self.drain();
    }

    fn subscribe(&mut self, ch: usize, from: u8) {
        let from = match from {
            0 => SubscribeFrom::Head,
            1 => SubscribeFrom::Start,
            _ => SubscribeFrom::Position(at(1, self.server.head(ch) / 2)),
        };
        let name = channel(&ch.to_string());
        match self.machine.subscribe(self.now_ms, group(), name, from) {
            Ok(op) => {
                assert_eq!(self.subscribed.insert(ch, None), None);
                self.subscribes.insert(op, ch);
            }
            Err(error) => assert_eq!(error, CommandError::AlreadySubscribed),
        }
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.server.connected) {
            self.server.inbox.clear();
            self.server.streams = Default::default();
            self.server.cursors.clear();
            self.server.unanswered.clear();
            self.machine.handle_disconnected(self.now_ms);
        }
    }

    fn flow(&mut self, stream: usize) -> bool {
        let Some(message) = self.server.streams[stream].pop_front() else {
            return false;
        };
        if let Message::Ack(ack) = &message {
            self.settle_send(ack.request);
        } else if let Message::Error(error) = &message {
            self.settle_send(error.request);
        }
        feed(&mut self.machine, self.now_ms, message);
        true
    }

    fn settle_send(&mut self, request: RequestId) {
        for requests in self.server.unanswered.values_mut() {
            requests.remove(&request);
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                ClientEvent::TokenNeeded { .. } => self.machine.authenticate("token".to_owned()),
                ClientEvent::Answered { op, outcome } => self.answered(op, outcome),
                ClientEvent::Entries(batch) => {
                    let ch = batch.number.0 as usize;
                    let start = self.subscribed[&ch].expect("entries come after the answer");
                    let before = self.received[ch].last().copied().unwrap_or(start);
                    assert_eq!(batch.prev.0, before);
                    self.received[ch].extend(batch.entries.iter().map(|entry| entry.seq.0));
                }
                ClientEvent::Disconnect(reason) => {
                    assert_eq!(reason, DisconnectReason::Silent, "the server keeps the protocol");
                    self.disconnect();
                }
                ClientEvent::Welcomed(_) | ClientEvent::Attempted { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        for message in sent(&mut self.machine) {
            if let Message::Send(send) = &message {
                let waiting = self.server.unanswered.entry(index(&send.channel)).or_default();
                assert!(waiting.is_empty(), "two sends of one channel are in flight");
                waiting.insert(send.request);
            }
            if self.server.connected {
                self.server.inbox.push_back(message);
            }
        }
    }

    fn answered(&mut self, op: OpId, outcome: Result<Answer, RequestError>) {
        match outcome.expect("nothing is refused for good") {
            Answer::Sent(_) => *self.ops.get_mut(&op).unwrap() += 1,
            Answer::Subscribed(at) => {
                let ch = self.subscribes.remove(&op).expect("answered once");
                self.subscribed.insert(ch, Some(at.position.seq.0));
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Lets everything happen that is still to happen; then one more entry makes gaps show.
    fn settle(&mut self) {
        for round in 0..400 {
            self.run(&Step::Connect);
            if round == 100 {
                (0..CHANNELS).for_each(|ch| self.run(&Step::Append(ch, 1)));
            }
            while self.server.serve(0) {
                self.drain();
            }
            for ch in 0..CHANNELS {
                self.server.push(ch, 4, 1 + ch, 0);
            }
            for stream in 0..STREAMS {
                while self.flow(stream) {
                    self.drain();
                }
            }
            self.run(&Step::Tick(100));
        }
    }

    fn check(&self) {
        assert!(
            self.ops.values().all(|answers| *answers == 1),
            "each send is answered once"
        );
        for ch in 0..CHANNELS {
            let mine: Vec<u64> = self.server.logs[ch]
                .iter()
                .copied()
                .filter(|id| *id != 0)
                .collect();
            assert_eq!(mine, self.sent[ch], "each send is stored once, in order");
            if let Some(start) = self.subscribed.get(&ch) {
                let start = start.expect("each subscription is answered");
                let all: Vec<u64> = (start + 1..=self.server.head(ch)).collect();
                assert_eq!(self.received[ch], all, "every entry once, in order");
            } else {
                assert!(self.received[ch].is_empty());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_entry_comes_once_in_order_and_every_send_is_answered_once(
        steps in proptest::collection::vec(step(), 0..300)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.settle();
        world.check();
    }
}
