//! The client side of a session, across connections.
//!
//! [`ClientMachine`] takes frames, commands and the time in, and gives frames, events and its next
//! wake-up out. It keeps what must survive a connection: sends without an answer, subscriptions and
//! the positions they hold. It refuses to know sockets, tokens' contents, clocks and randomness: the
//! shell says what time it is and gives a seed.
//!
//! ```text
//!  Disconnected ─connected→ Hello ─HelloOk→ Token ─authenticate→ Authenticating ─Welcome→ Open
//!        ▲                                                                                 │ Drain
//!        └──────── handle_disconnected ──────── Dead ←──── silence, refusal, drained ─── Leaving
//! ```
//!
//! Order of sends: one send per (group, channel) is in flight, the rest of that channel waits. A
//! send that is being retried can then not be overtaken, whichever edge or leader answers it;
//! pipelining would need the server to refuse a later send while an earlier one is missing.
//! Throughput of a user in one channel is one message per round trip, and channels are independent.

mod delivery;
mod end;
mod event;
mod jitter;
mod keepalive;
mod operations;
mod resume;
mod subscriptions;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::code::{Class, Code};
use crate::frame::Frame;
use crate::ids::{ChannelId, DeviceId, GroupId, SessionId};
use crate::message::{self, Authenticate, Hello, Message, Pong, RequestId, VERSIONS, Welcome};

use delivery::Orphans;
pub use event::{
    Answer, ClientEvent, CommandError, DisconnectReason, Entries, OpId, Reason, RequestError, SubscribeFrom,
    SubscribedAt, SyncFrom,
};
use jitter::Jitter;
use keepalive::KeepAlive;
use operations::Operations;
use subscriptions::Subscriptions;

/// Milliseconds from the connection to `Welcome`; twice what the server allows for its half.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;

/// Milliseconds a gap may last before it is asked for: Telegram's 0.5 s for the same race.
pub const GAP_WAIT_MS: u64 = 500;

/// Milliseconds without progress after which entries before the end of a membership are given up:
/// no page brings them any more, and a slow network takes so long for the largest frame.
pub const LAST_ENTRIES_WAIT_MS: u64 = 30_000;

/// Entries after which a cumulative ack goes out at once, at most; bounds what an edge believes undelivered.
pub const ACK_ENTRIES: u32 = 64;

/// Milliseconds after the first entry without an ack until one goes out, at most. Nothing waits for an ack, and
/// each is a packet both ways and keeps a phone's radio awake; what an edge believes undelivered when a
/// client vanishes is no more than came in this time.
pub const ACK_DELAY_MS: u64 = 5_000;

/// When a session acks. Subscribers of a channel get the same entries at the same moment, and if all of them
/// acked by the same figures their acks would come back to the edge as one burst: each session has figures
/// of its own, in the upper half of what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckPace {
    /// Entries after which an ack goes out at once.
    pub entries: u32,
    /// Milliseconds after the first entry without an ack.
    pub delay_ms: u64,
}

impl AckPace {
    /// That of a session.
    pub fn of(session: SessionId) -> Self {
        let sooner = u32::try_from(session.0 % u64::from(ACK_ENTRIES / 2)).unwrap_or(0);
        Self {
            entries: ACK_ENTRIES - sooner,
            delay_ms: ACK_DELAY_MS - session.0 % (ACK_DELAY_MS / 2),
        }
    }
}

/// Milliseconds a drained connection is kept for the answers still due; an edge needs at most
/// 1.5 s for one (it follows leaders no longer than that).
pub const LEAVE_WAIT_MS: u64 = 2_000;

/// What a [`ClientMachine`] is made from.
#[derive(Debug, Clone)]
pub struct ClientMachineConfig {
    /// Name and version of the client's software, for operators.
    pub client: String,
    /// The device.
    pub device: DeviceId,
    /// Seed of the jitter of retries.
    pub seed: u64,
    /// Milliseconds after which a command without an answer is given up.
    pub request_deadline_ms: u64,
    /// Most commands without an answer; the next one is refused.
    pub operations_max: usize,
}

impl ClientMachineConfig {
    /// Two minutes for a request, and 1,024 commands at once: more than any person types, and
    /// bounded.
    pub fn new(device: DeviceId, seed: u64) -> Self {
        Self {
            client: concat!("throng-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            device,
            seed,
            request_deadline_ms: 120_000,
            operations_max: 1_024,
        }
    }
}

/// A channel by its names.
type Key = (GroupId, ChannelId);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Disconnected,
    Hello,
    Token,
    Authenticating,
    Open,
    /// A drain notice came: no new requests, answers still welcome until then.
    Leaving {
        until_ms: u64,
    },
    /// The shell was told to close; frames are ignored until it says so.
    Dead,
}

/// What a request in flight is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Operation(OpId),
    Subscribe(Key),
    /// A history request that finds out the epoch, for a subscription from the start.
    Probe(Key),
    Resume(BTreeSet<Key>),
    Unsubscribe(Key),
    GapSync(Key),
}

/// Something to look at when its time comes. Entries may be stale; who fires checks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Deadline(OpId),
    Retry(OpId),
    Ask(Key),
    Gap(Key),
    ResumeStall(RequestId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct InFlight {
    purpose: Purpose,
    since_ms: u64,
}

/// The client's session, across connections.
#[derive(Debug)]
pub struct ClientMachine {
    config: ClientMachineConfig,
    phase: Phase,
    phase_since_ms: u64,
    /// The welcome of this or the last connection, and when it came.
    welcome: Option<(Welcome, u64)>,
    next_request: RequestId,
    in_flight: BTreeMap<RequestId, InFlight>,
    operations: Operations,
    subscriptions: Subscriptions,
    orphans: Orphans,
    keepalive: KeepAlive,
    timers: BTreeSet<(u64, Timer)>,
    ack_at_ms: Option<u64>,
    paused: bool,
    jitter: Jitter,
    transmit: VecDeque<Bytes>,
    events: VecDeque<ClientEvent>,
}

impl ClientMachine {
    /// A machine without a connection.
    pub fn new(config: ClientMachineConfig) -> Self {
        Self {
            jitter: Jitter::new(config.seed),
            config,
            phase: Phase::Disconnected,
            phase_since_ms: 0,
            welcome: None,
            next_request: 1,
            in_flight: BTreeMap::new(),
            operations: Operations::default(),
            subscriptions: Subscriptions::default(),
            orphans: Orphans::default(),
            keepalive: KeepAlive::default(),
            timers: BTreeSet::new(),
            ack_at_ms: None,
            paused: false,
            transmit: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// A connection is up; the control stream is open.
    pub fn handle_connected(&mut self, now_ms: u64) {
        self.transmit.clear();
        self.enter(Phase::Hello, now_ms);
        self.keepalive = KeepAlive::default();
        let hello = Hello {
            versions: VERSIONS.to_vec(),
            client: self.config.client.clone(),
        };
        self.transmit(hello);
    }

    /// The connection is gone. Requests in flight go out again on the next one.
    pub fn handle_disconnected(&mut self, now_ms: u64) {
        self.enter(Phase::Disconnected, now_ms);
        self.transmit.clear();
        self.ack_at_ms = None;
        self.orphans.clear();
        let in_flight = std::mem::take(&mut self.in_flight);
        for flight in in_flight.into_values() {
            if let Purpose::Operation(op) = flight.purpose {
                self.operation_lost(op);
            }
        }
        self.subscriptions_lost();
    }

    /// The token asked for by [`ClientEvent::TokenNeeded`].
    pub fn authenticate(&mut self, token: String) {
        if self.phase != Phase::Token {
            return;
        }
        self.phase = Phase::Authenticating;
        let device = self.config.device.clone();
        self.transmit(Authenticate { token, device });
    }

    /// A frame came, on whichever stream.
    pub fn handle_frame(&mut self, now_ms: u64, frame: &Frame) {
        if matches!(self.phase, Phase::Disconnected | Phase::Dead) {
            return;
        }
        self.keepalive.frame_came(now_ms);
        match Message::decode(frame) {
            Ok(Some(message)) => self.handle_message(now_ms, message),
            Ok(None) => {}
            Err(error) => {
                let code = error.code();
                self.transmit(message::Error::new(0, code, error.to_string()));
                self.die(DisconnectReason::Protocol {
                    code,
                    text: error.to_string(),
                });
            }
        }
        self.pump(now_ms);
    }

    fn handle_message(&mut self, now_ms: u64, message: Message) {
        match (self.phase, message) {
            (_, Message::Error(error)) => self.handle_error(now_ms, error),
            (Phase::Hello, Message::HelloOk(hello)) => {
                self.phase = Phase::Token;
                self.events
                    .push_back(ClientEvent::TokenNeeded { edge: hello.edge });
            }
            (Phase::Authenticating, Message::Welcome(welcome)) => self.handle_welcome(now_ms, welcome),
            (_, Message::Ping(ping)) => {
                let time_ms = self.server_time_ms(now_ms);
                let nonce = ping.nonce;
                self.transmit(Pong { nonce, time_ms });
            }
            (_, Message::Pong(_)) => {}
            (Phase::Open | Phase::Leaving { .. }, message) => self.handle_session(now_ms, message),
            (_, message) => self.out_of_order(&message),
        }
    }

    fn handle_session(&mut self, now_ms: u64, message: Message) {
        match message {
            Message::Ack(ack) => self.operation_acked(ack),
            Message::Done(done) => self.handle_done(done.request),
            Message::Page(page) => self.handle_page(now_ms, page),
            Message::Subscribed(subscribed) => self.handle_subscribed(now_ms, subscribed),
            Message::Deliver(deliver) => self.handle_deliver(now_ms, deliver),
            Message::Ended(ended) => self.handle_ended(now_ms, ended),
            Message::Fenced(fenced) => self.handle_fenced(fenced),
            Message::Expansion(expansion) => self.handle_expansion(expansion),
            Message::Drain(drain) => {
                if self.phase == Phase::Open {
                    let wait = LEAVE_WAIT_MS.min(u64::from(drain.deadline_ms));
                    self.phase = Phase::Leaving {
                        until_ms: now_ms + wait,
                    };
                    self.events.push_back(ClientEvent::Drain {
                        reason: drain.reason,
                        edges: drain.edges,
                    });
                }
            }
            message => self.out_of_order(&message),
        }
    }

    fn handle_welcome(&mut self, now_ms: u64, welcome: Welcome) {
        self.enter(Phase::Open, now_ms);
        self.keepalive.open(now_ms, u64::from(welcome.ping_interval_ms));
        self.events.push_back(ClientEvent::Welcomed(welcome.clone()));
        self.welcome = Some((welcome, now_ms));
        self.operations.make_ready();
        self.subscriptions.resume_all();
    }

    fn handle_done(&mut self, request: RequestId) {
        match self.in_flight.remove(&request).map(|flight| flight.purpose) {
            Some(Purpose::Operation(op)) => self.answer_with(op, Answer::Done),
            Some(Purpose::Resume(left)) => self.resume_done(left),
            Some(Purpose::Unsubscribe(key)) => self.unsubscribed(&key),
            Some(_) => self.protocol_error("Done answers a request that has another answer"),
            None => {}
        }
    }

    fn handle_page(&mut self, now_ms: u64, page: message::Page) {
        match self.in_flight.remove(&page.request).map(|flight| flight.purpose) {
            Some(Purpose::Operation(op)) => self.answer_with(op, Answer::Page(page)),
            Some(Purpose::Probe(key)) => self.probed(&key, page.epoch),
            Some(Purpose::GapSync(key)) => self.gap_page(now_ms, &key, page),
            Some(_) => self.protocol_error("Page answers a request that has another answer"),
            None => {}
        }
    }

    fn handle_error(&mut self, now_ms: u64, error: message::Error) {
        if error.request == 0 {
            return self.handle_connection_error(error);
        }
        if error.class == Class::Redirect && self.phase == Phase::Open {
            self.phase = Phase::Leaving {
                until_ms: now_ms + LEAVE_WAIT_MS,
            };
        }
        let Some(flight) = self.in_flight.get(&error.request) else {
            return;
        };
        if let Purpose::Resume(_) = flight.purpose {
            return self.resume_error(now_ms, &error);
        }
        match self.in_flight.remove(&error.request).map(|flight| flight.purpose) {
            Some(Purpose::Operation(op)) => self.operation_refused(now_ms, op, error),
            Some(Purpose::Subscribe(key) | Purpose::Probe(key)) => {
                self.subscribe_refused(now_ms, &key, error);
            }
            Some(Purpose::Unsubscribe(key)) => self.unsubscribed(&key),
            Some(Purpose::GapSync(key)) => self.gap_refused(now_ms, &key, error),
            Some(Purpose::Resume(_)) | None => {}
        }
    }

    fn handle_connection_error(&mut self, error: message::Error) {
        let opening = !matches!(self.phase, Phase::Open | Phase::Leaving { .. });
        let closes = error.known_code().is_none_or(Code::closes);
        if opening && error.class == Class::Fatal {
            self.die(DisconnectReason::Refused(error));
        } else if opening || closes {
            self.die(DisconnectReason::Server(error));
        }
    }

    /// Time has passed: call it at the time [`Self::poll_timeout`] names, or later.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        while let Some((at_ms, _)) = self.timers.first()
            && *at_ms <= now_ms
        {
            let Some((_, timer)) = self.timers.pop_first() else {
                break;
            };
            match timer {
                Timer::Deadline(op) => self.operation_deadline(op),
                Timer::Retry(op) => self.operations.retry_due(op),
                Timer::Ask(key) => self.subscriptions.ask_again(&key),
                Timer::Gap(key) => self.gap_due(now_ms, &key),
                Timer::ResumeStall(request) => self.resume_stalled(now_ms, request),
            }
        }
        if self.ack_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.flush_acks();
        }
        self.keep_alive(now_ms);
        self.pump(now_ms);
    }

    /// When to call [`Self::handle_timeout`] next, and what for.
    pub fn poll_timeout(&self) -> Option<(u64, Reason)> {
        let timer = self.timers.first().map(|(at_ms, timer)| {
            let reason = match timer {
                Timer::Deadline(_) => Reason::Deadline,
                Timer::Retry(_) | Timer::Ask(_) => Reason::Retry,
                Timer::Gap(_) => Reason::Gap,
                Timer::ResumeStall(_) => Reason::Resume,
            };
            (*at_ms, reason)
        });
        let phase = match self.phase {
            Phase::Hello | Phase::Token | Phase::Authenticating => {
                Some((self.phase_since_ms + HANDSHAKE_TIMEOUT_MS, Reason::Handshake))
            }
            Phase::Leaving { until_ms } => Some((until_ms, Reason::Leave)),
            _ => None,
        };
        let ack = self.ack_at_ms.map(|at_ms| (at_ms, Reason::Ack));
        let alive = self.keepalive_due();
        [timer, phase, ack, alive]
            .into_iter()
            .flatten()
            .min_by_key(|due| due.0)
    }

    /// The next frame for the control stream.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmit.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Whether requests go out now.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The cluster's clock as this client knows it, Unix milliseconds; 0 before the first welcome.
    pub fn server_time_ms(&self, now_ms: u64) -> u64 {
        self.welcome.as_ref().map_or(0, |(welcome, at_ms)| {
            welcome
                .server_time_ms
                .saturating_add(now_ms.saturating_sub(*at_ms))
        })
    }

    /// The shell stops (or goes on) reading delivery streams because its application is slow. Gaps
    /// are not asked for meanwhile: what fills them is likely waiting in a stream.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Ends every command with `error`; nothing is sent any more. For a shell that closes for good.
    pub fn abort(&mut self, now_ms: u64, error: &RequestError) {
        self.handle_disconnected(now_ms);
        for op in self.operations.ids() {
            self.answer(op, Err(error.clone()));
        }
    }

    fn enter(&mut self, phase: Phase, now_ms: u64) {
        self.phase = phase;
        self.phase_since_ms = now_ms;
    }

    /// Tells the shell to close; once per connection.
    fn die(&mut self, reason: DisconnectReason) {
        if !matches!(self.phase, Phase::Dead | Phase::Disconnected) {
            self.phase = Phase::Dead;
            self.events.push_back(ClientEvent::Disconnect(reason));
        }
    }

    fn out_of_order(&mut self, message: &Message) {
        let name = Message::kind_name(message.kind()).unwrap_or("unknown");
        self.protocol_error(&format!("{name} is not allowed here"));
    }

    fn protocol_error(&mut self, text: &str) {
        let code = Code::OutOfOrder;
        self.transmit(message::Error::new(0, code, text));
        let text = text.to_owned();
        self.die(DisconnectReason::Protocol { code, text });
    }

    fn transmit(&mut self, message: impl Into<Message>) {
        self.transmit.push_back(message.into().encode());
    }

    fn request(&mut self, now_ms: u64, purpose: Purpose, build: impl FnOnce(RequestId) -> Message) {
        let request = self.next_request;
        self.next_request += 1;
        let since_ms = now_ms;
        self.in_flight.insert(request, InFlight { purpose, since_ms });
        self.transmit(build(request));
    }

    fn has_slot(&self) -> bool {
        let max = self
            .welcome
            .as_ref()
            .map_or(1, |(welcome, _)| welcome.requests_in_flight_max.max(1));
        self.in_flight.len() < usize::try_from(max).unwrap_or(usize::MAX)
    }

    /// Sends what may be sent: resumes, then subscriptions and gaps, then commands.
    fn pump(&mut self, now_ms: u64) {
        while self.phase == Phase::Open && self.has_slot() {
            if !self.start_subscription(now_ms) && !self.start_operation(now_ms) {
                break;
            }
        }
        if let Phase::Leaving { until_ms } = self.phase
            && (self.in_flight.is_empty() || until_ms <= now_ms)
        {
            self.flush_acks();
            self.die(DisconnectReason::Drained);
        }
    }
}
