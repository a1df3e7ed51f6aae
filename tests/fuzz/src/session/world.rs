//! Both halves, the wire between them, and the model of what an application must see.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use throng_protocol::frame::{self, Frame};
use throng_protocol::ids::{ClientMessageId, Seq};
use throng_protocol::limits::REQUESTS_IN_FLIGHT_MAX;
use throng_protocol::message::Direction;
use throng_protocol::session::client::{
    Answer, ClientEvent, ClientMachine, ClientMachineConfig, DisconnectReason, OpId, RequestError,
    SubscribeFrom,
};

use super::edge::Edge;
use super::model::{CHANNELS, Cluster, at, device, group, name, of_number};
use super::{OPERATIONS_MAX, Operation};

/// Timers that may be due at one moment, one after the other, before something is wrong.
const WAKES_MAX: usize = 10_000;
/// Most rounds in which everything that is still to happen happens (a channel's sends go one a round),
/// and their length.
const ROUNDS: usize = OPERATIONS_MAX + 200;
const ROUND_MS: u64 = 500;
/// The round in which one more entry is written to each channel, which makes gaps show.
const APPEND_AT: usize = 4;

/// What a command without an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Send { channel: usize, id: u64 },
    Subscribe(usize),
    Other,
}

#[derive(Debug)]
pub struct World {
    hostile: bool,
    now_ms: u64,
    client: ClientMachine,
    paused: bool,
    /// Frames on their way to the edge.
    up: VecDeque<Bytes>,
    edge: Option<Edge>,
    cluster: Cluster,
    commands: BTreeMap<OpId, Purpose>,
    last_id: u64,
    /// Ids in the order the application sent them.
    sent: [Vec<u64>; CHANNELS],
    /// Where each subscription is; `Some(None)` while it has not begun.
    held: [Option<Option<u64>>; CHANNELS],
    taken: u64,
}

impl World {
    pub fn new(hostile: bool) -> Self {
        Self {
            hostile,
            now_ms: 1_700_000_000_000,
            client: ClientMachine::new(ClientMachineConfig::new(device(), 7)),
            paused: false,
            up: VecDeque::new(),
            edge: None,
            cluster: Cluster::default(),
            commands: BTreeMap::new(),
            last_id: 0,
            sent: Default::default(),
            held: [None; CHANNELS],
            taken: 0,
        }
    }

    /// Entries the application was given.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    pub fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Send { channel, bytes } => self.send(ours(channel), bytes),
            Operation::Subscribe { channel, from } => self.subscribe(ours(channel), from),
            Operation::Unsubscribe(channel) => self.unsubscribe(ours(channel)),
            Operation::Member(joins) => {
                let op = match joins {
                    true => self.client.join(self.now_ms, group()),
                    false => self.client.leave(self.now_ms, group()),
                };
                self.command(op.ok(), Purpose::Other);
            }
            Operation::Page {
                channel,
                anchor,
                before,
            } => self.page(ours(channel), anchor, before),
            Operation::Pause(paused) => {
                self.paused = paused;
                self.client.set_paused(paused);
            }
            Operation::Connect => self.connect(),
            Operation::Disconnect => self.disconnect(),
            Operation::ToEdge(count) => (0..=count).for_each(|_| self.edge_reads()),
            Operation::ToClient(count) => (0..=count).for_each(|_| self.client_reads_next()),
            Operation::Delivery(lane) => self.delivery(usize::from(lane & 1)),
            Operation::Append(channel) => self.cluster.append_others(ours(channel)),
            Operation::Tick(ms) => self.tick(u64::from(ms)),
            other => self.at_edge(other),
        }
        self.drain();
    }

    /// What happens at the edge, if there is a connection.
    fn at_edge(&mut self, operation: Operation) {
        let Some(edge) = &mut self.edge else { return };
        let now_ms = self.now_ms;
        match operation {
            Operation::Answer { which, luck } => edge.answer(&mut self.cluster, which, luck),
            Operation::Deliver { channel, count, luck } => {
                edge.deliver(&self.cluster, ours(channel), count % 8, luck);
            }
            Operation::Judge(good) => edge.judge(now_ms, good),
            Operation::Drain(ms) => edge.machine.drain(now_ms, u32::from(ms), "stopping", Vec::new()),
            Operation::Begun => edge.machine.frame_begun(now_ms),
            Operation::Forge {
                to_client,
                kind,
                payload,
            } if self.hostile => {
                let payload = Bytes::from(payload);
                let frame = Frame { kind, payload };
                match to_client {
                    true => self.client.handle_frame(now_ms, &frame),
                    false => edge.machine.handle_frame(now_ms, &frame),
                }
            }
            Operation::Twist { to_client, at, with } if self.hostile => {
                let queue = if to_client {
                    &mut edge.control
                } else {
                    &mut self.up
                };
                if let Some(bytes) = queue.front_mut() {
                    let mut twisted = bytes.to_vec();
                    let at = usize::from(at) % twisted.len().max(1);
                    if let Some(byte) = twisted.get_mut(at) {
                        *byte = with;
                    }
                    *bytes = Bytes::from(twisted);
                }
            }
            _ => {}
        }
    }

    fn command(&mut self, op: Option<OpId>, purpose: Purpose) {
        if let Some(op) = op {
            assert_eq!(self.commands.insert(op, purpose), None, "ids of commands are new");
        }
    }

    fn send(&mut self, channel: usize, bytes: u8) {
        self.last_id += 1;
        let (id, body) = (self.last_id, Bytes::from(vec![b'x'; usize::from(bytes)]));
        let sent = self
            .client
            .send(self.now_ms, group(), name(channel), ClientMessageId(id), body);
        if let Ok(op) = sent {
            self.sent[channel].push(id);
            self.command(Some(op), Purpose::Send { channel, id });
        }
    }

    fn subscribe(&mut self, channel: usize, from: u8) {
        let from = match from % 3 {
            0 => SubscribeFrom::Head,
            1 => SubscribeFrom::Start,
            _ => SubscribeFrom::Position(at(self.cluster.head(channel) / 2)),
        };
        let op = self.client.subscribe(self.now_ms, group(), name(channel), from);
        if let Ok(op) = op {
            assert_eq!(self.held[channel], None, "subscribed twice");
            self.held[channel] = Some(None);
            self.command(Some(op), Purpose::Subscribe(channel));
        }
    }

    fn unsubscribe(&mut self, channel: usize) {
        let op = self.client.unsubscribe(self.now_ms, group(), name(channel));
        if op.is_ok() {
            assert!(self.held[channel].is_some(), "given up without being held");
            self.held[channel] = None;
        }
        self.command(op.ok(), Purpose::Other);
    }

    fn page(&mut self, channel: usize, anchor: u8, before: bool) {
        let anchor = u64::from(anchor);
        let (now, group, name) = (self.now_ms, group(), name(channel));
        let op = match before {
            true => self
                .client
                .history(now, group, name, Seq(anchor), Direction::Before, 0),
            false => self.client.sync(now, group, name, at(anchor), 0),
        };
        self.command(op.ok(), Purpose::Other);
    }

    fn connect(&mut self) {
        if self.edge.is_none() {
            self.up.clear();
            self.edge = Some(Edge::new(self.now_ms));
            self.client.handle_connected(self.now_ms);
        }
    }

    fn disconnect(&mut self) {
        if self.edge.take().is_some() {
            self.up.clear();
            self.client.handle_disconnected(self.now_ms);
        }
    }

    fn edge_reads(&mut self) {
        let Some(edge) = &mut self.edge else { return };
        let Some(bytes) = self.up.pop_front() else { return };
        match frame::decode(&mut BytesMut::from(&bytes[..])) {
            Ok(Some(frame)) => edge.machine.handle_frame(self.now_ms, &frame),
            Ok(None) => assert!(self.hostile, "a frame that is not whole was sent"),
            Err(error) => edge.machine.handle_frame_error(error),
        }
        // A shell takes everything out before it reads another frame.
        edge.drain(!self.hostile);
    }

    fn client_reads_next(&mut self) {
        let Some(bytes) = self.edge.as_mut().and_then(|edge| edge.control.pop_front()) else {
            return;
        };
        self.client_reads(&bytes);
    }

    fn delivery(&mut self, lane: usize) {
        if self.paused {
            return;
        }
        if let Some(bytes) = self.edge.as_mut().and_then(|edge| edge.lanes[lane].pop_front()) {
            self.client_reads(&bytes);
        }
    }

    fn client_reads(&mut self, bytes: &Bytes) {
        match frame::decode(&mut BytesMut::from(&bytes[..])) {
            Ok(Some(frame)) => self.client.handle_frame(self.now_ms, &frame),
            Ok(None) | Err(_) => {
                assert!(self.hostile, "no frame was sent");
                self.disconnect();
            }
        }
        self.drain();
    }

    fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        let now_ms = self.now_ms;
        for _ in 0..WAKES_MAX {
            if self.client.poll_timeout().is_none_or(|(at_ms, _)| at_ms > now_ms) {
                break;
            }
            self.client.handle_timeout(now_ms);
            self.drain();
        }
        let due = self.client.poll_timeout();
        assert!(
            due.is_none_or(|(at_ms, _)| at_ms > now_ms),
            "the client is never done: {due:?}"
        );
        if let Some(edge) = &mut self.edge {
            edge.machine.handle_timeout(now_ms);
            let due = edge.machine.poll_timeout();
            assert!(
                due.is_none_or(|(at_ms, _)| at_ms > now_ms),
                "the edge is never done: {due:?}"
            );
        }
    }

    /// Takes everything out of both machines.
    fn drain(&mut self) {
        loop {
            let mut nothing = true;
            while let Some(event) = self.client.poll_event() {
                nothing = false;
                self.event(event);
            }
            while let Some(bytes) = self.client.poll_transmit() {
                if self.edge.is_some() {
                    self.up.push_back(bytes);
                }
            }
            if nothing {
                break;
            }
        }
        assert!(self.client.requests_in_flight() <= REQUESTS_IN_FLIGHT_MAX);
        let Some(edge) = &mut self.edge else { return };
        edge.drain(!self.hostile);
        if edge.closed.is_some() {
            // What was said last arrives, and then the connection is gone.
            let last = std::mem::take(&mut edge.control);
            for bytes in last {
                if self.edge.is_some() {
                    self.client_reads_last(&bytes);
                }
            }
            self.disconnect();
        }
    }

    fn client_reads_last(&mut self, bytes: &Bytes) {
        if let Ok(Some(frame)) = frame::decode(&mut BytesMut::from(&bytes[..])) {
            self.client.handle_frame(self.now_ms, &frame);
        }
        while let Some(event) = self.client.poll_event() {
            self.event(event);
        }
        while self.client.poll_transmit().is_some() {}
    }

    fn event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::TokenNeeded { .. } => self.client.authenticate("token".to_owned()),
            ClientEvent::Answered { op, outcome } => self.answered(op, outcome),
            ClientEvent::Entries(batch) if !self.hostile => {
                let channel = of_number(batch.number).expect("one of ours");
                let held = self.held[channel]
                    .flatten()
                    .expect("entries of a subscription that has begun");
                assert_eq!(batch.prev.0, held, "entries go on where the last ones ended");
                for (entry, seq) in batch.entries.iter().zip(held + 1..) {
                    assert_eq!(entry.seq.0, seq, "every entry once, in order");
                    assert_eq!(
                        entry.client_message_id.0,
                        self.cluster.logs[channel][seq as usize - 1]
                    );
                }
                self.taken += batch.entries.len() as u64;
                self.held[channel] = Some(Some(held + batch.entries.len() as u64));
            }
            ClientEvent::SubscriptionEnded { channel, .. } => {
                if let Some(channel) = super::model::of_name(&channel) {
                    self.held[channel] = None;
                }
            }
            ClientEvent::Reset { .. } => assert!(self.hostile, "no log is rebuilt here"),
            ClientEvent::Disconnect(reason) => {
                let accused = matches!(
                    reason,
                    DisconnectReason::Protocol { .. } | DisconnectReason::Refused(_)
                );
                assert!(self.hostile || !accused, "the edge is accused: {reason}");
                self.disconnect();
            }
            _ => {}
        }
    }

    fn answered(&mut self, op: OpId, outcome: Result<Answer, RequestError>) {
        let purpose = self.commands.remove(&op).expect("every command is answered once");
        match (purpose, outcome) {
            (Purpose::Send { channel, id }, Ok(Answer::Sent(ack))) if !self.hostile => {
                assert_eq!(
                    self.cluster.logs[channel][ack.seq.0 as usize - 1],
                    id,
                    "acked and not there"
                );
            }
            (Purpose::Subscribe(channel), Ok(Answer::Subscribed(begun))) => {
                assert_eq!(self.held[channel], Some(None), "answered without being asked");
                self.held[channel] = Some(Some(begun.position.seq.0));
            }
            // Given up by the application, which may have asked again since.
            (Purpose::Subscribe(_), Err(RequestError::Cancelled)) => {}
            (Purpose::Subscribe(channel), Err(_)) => self.held[channel] = None,
            _ => {}
        }
    }

    /// Lets everything happen that is still to happen, and checks what must have come of it.
    pub fn settle(&mut self) {
        if self.hostile {
            return;
        }
        self.run(Operation::Pause(false));
        for round in 0..ROUNDS {
            self.run(Operation::Connect);
            if round == APPEND_AT {
                (0..CHANNELS as u8).for_each(|channel| self.run(Operation::Append(channel)));
            }
            self.run(Operation::ToEdge(u8::MAX));
            self.run(Operation::Judge(true));
            while self.edge.as_ref().is_some_and(|edge| !edge.waiting.is_empty()) {
                self.run(Operation::Answer { which: 0, luck: 0 });
            }
            for channel in 0..CHANNELS as u8 {
                let deliver = Operation::Deliver {
                    channel,
                    count: 7,
                    luck: 0,
                };
                self.run(deliver);
            }
            self.run(Operation::ToClient(u8::MAX));
            for lane in 0..2 {
                while self
                    .edge
                    .as_ref()
                    .is_some_and(|edge| !edge.lanes[lane].is_empty())
                {
                    self.run(Operation::Delivery(lane as u8));
                }
            }
            self.run(Operation::Tick(ROUND_MS as u16));
            if round > APPEND_AT && self.is_settled() {
                break;
            }
        }
        self.check();
    }

    fn is_settled(&self) -> bool {
        let caught_up =
            |channel: usize| self.held[channel].is_none_or(|held| held == Some(self.cluster.head(channel)));
        self.commands.is_empty() && (0..CHANNELS).all(caught_up)
    }

    fn check(&self) {
        assert!(self.commands.is_empty(), "without an answer: {:?}", self.commands);
        for channel in 0..CHANNELS {
            if let Some(held) = self.held[channel] {
                assert_eq!(
                    held,
                    Some(self.cluster.head(channel)),
                    "entries of channel {channel} are missing"
                );
            }
            let stored = self.cluster.logs[channel].iter().filter(|id| **id != 0);
            let mut sent = self.sent[channel].iter();
            for id in stored {
                assert!(sent.any(|other| other == id), "stored twice, or out of order");
            }
        }
    }
}

fn ours(channel: u8) -> usize {
    usize::from(channel) % CHANNELS
}
