//! The server side of one connection.
//!
//! [`ServerSession`] takes the frames of a connection's control stream and the time in, and gives
//! frames for that stream, events for the shell and its next wake-up out. It decides what may come
//! when, how many requests may wait, when silence is too long, and with which code a connection
//! ends. It refuses to know tokens, groups, logs and deliveries: the shell answers for those.
//!
//! ```text
//!  Hello ─Hello→ Token ─Authenticate→ Authenticating ─authenticated→ Open ─drain→ Draining
//!    └───────────┴──────────── any closing error, silence ────────────┴────────────┴──→ Closed
//! ```
//!
//! Time is Unix milliseconds that never go back. A closing error is always told twice: as an
//! `Error` frame for request 0, and as the application code of the connection's end.

mod event;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::code::Code;
use crate::frame::{Frame, FrameError};
use crate::limits::{
    AUTHENTICATE_TIMEOUT_MS, FRAME_TIMEOUT_MS, IDLE_TIMEOUT_MS, REQUESTS_IN_FLIGHT_MAX, RESUME_POSITIONS_MAX,
    SUBSCRIPTIONS_MAX,
};
use crate::message::{
    self, Authenticate, Drain, Hello, HelloOk, Message, Pong, RequestId, VERSIONS, Welcome,
};

pub use event::{Reason, ServerEvent, ServerRequest};

/// Resumes that may wait for their end at once: as many as name all subscriptions a session may have.
const RESUMES_IN_FLIGHT_MAX: usize = SUBSCRIPTIONS_MAX.div_ceil(RESUME_POSITIONS_MAX);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Hello,
    Token,
    /// The shell verifies a token.
    Authenticating,
    Open,
    /// Told to leave; requests are still served until the deadline.
    Draining {
        until_ms: u64,
    },
    Closed,
}

/// How many answers a request in flight has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InFlight {
    /// The first answer or error ends it.
    One,
    /// A resume: any number of answers and errors, then `Done`.
    UntilDone,
}

/// What a frame type is for; decided before the payload is looked at, so that the order of frames
/// is judged first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Hello,
    Authenticate,
    Request,
    /// Ping, pong, error: allowed at any time after hello.
    Signal,
    ServerOnly,
    Unknown,
}

fn role(kind: u8) -> Role {
    match kind {
        1 => Role::Hello,
        3 => Role::Authenticate,
        5..=8 | 10 | 12 | 14 | 16..=18 | 24..=26 | 29..=31 => Role::Request,
        20 | 21 | 23 => Role::Signal,
        2 | 4 | 9 | 11 | 13 | 15 | 19 | 22 | 27 | 28 | 32 => Role::ServerOnly,
        _ => Role::Unknown,
    }
}

/// The state of one client's connection.
#[derive(Debug)]
pub struct ServerSession {
    edge: String,
    phase: Phase,
    authenticate_by_ms: u64,
    heard_ms: u64,
    /// When the frame that has begun must be whole; `u64::MAX` while none has.
    frame_by_ms: u64,
    token_expires_ms: u64,
    in_flight: BTreeMap<RequestId, InFlight>,
    events: VecDeque<ServerEvent>,
    transmits: VecDeque<Bytes>,
}

impl ServerSession {
    /// A connection whose handshake is done now. `edge` is the name clients are told.
    pub fn new(now_ms: u64, edge: impl Into<String>) -> Self {
        Self {
            edge: edge.into(),
            phase: Phase::Hello,
            authenticate_by_ms: now_ms.saturating_add(AUTHENTICATE_TIMEOUT_MS),
            heard_ms: now_ms,
            frame_by_ms: u64::MAX,
            token_expires_ms: u64::MAX,
            in_flight: BTreeMap::new(),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
        }
    }

    /// Takes note that the first bytes of a frame have come, and the rest has not.
    pub fn frame_begun(&mut self, now_ms: u64) {
        self.frame_by_ms = self.frame_by_ms.min(now_ms.saturating_add(FRAME_TIMEOUT_MS));
    }

    /// Takes a frame of the control stream.
    pub fn handle_frame(&mut self, now_ms: u64, frame: &Frame) {
        if self.phase == Phase::Closed {
            return;
        }
        self.heard_ms = self.heard_ms.max(now_ms);
        self.frame_by_ms = u64::MAX;
        if let Err(text) = self.allowed(role(frame.kind)) {
            let name = Message::kind_name(frame.kind).unwrap_or("unknown");
            self.close(
                Code::OutOfOrder,
                format!("{name} (frame type {}): {text}", frame.kind),
            );
            return;
        }
        match Message::decode(frame) {
            Ok(Some(message)) => self.handle_message(now_ms, message),
            // Skippable: a newer client's extra.
            Ok(None) => {}
            Err(error) if error.code().closes() => self.close(error.code(), error.to_string()),
            Err(error) if self.in_flight.contains_key(&error.request()) => {
                self.close_repeated(error.request())
            }
            Err(error) => self.transmit_error(error.request(), error.code(), error.to_string(), 0),
        }
    }

    /// Takes bytes that are no frame; the stream cannot be read any further.
    pub fn handle_frame_error(&mut self, error: FrameError) {
        self.close(error.code(), error.to_string());
    }

    /// To be called when [`Self::poll_timeout`] is reached; calling it early does nothing.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        let Some((at_ms, reason)) = self.poll_timeout() else {
            return;
        };
        if now_ms < at_ms {
            return;
        }
        match reason {
            Reason::Authenticate => self.close(
                Code::Timeout,
                format!("no authenticate within {AUTHENTICATE_TIMEOUT_MS} ms"),
            ),
            Reason::Frame => self.close(
                Code::Timeout,
                format!("a frame was not finished within {FRAME_TIMEOUT_MS} ms"),
            ),
            Reason::Idle => self.close(Code::Timeout, format!("silent for {IDLE_TIMEOUT_MS} ms")),
            Reason::TokenExpiry => self.close(Code::TokenExpired, "the token has expired"),
            Reason::Drain => self.close(Code::Draining, "the edge is draining"),
        }
    }

    /// What the shell has to do next.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// The next frame for the control stream. The shell takes all of them before it reads another
    /// frame, which bounds the queue to the answers of the requests in flight.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmits.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called next, and why.
    pub fn poll_timeout(&self) -> Option<(u64, Reason)> {
        let idle = (
            self.heard_ms.saturating_add(u64::from(IDLE_TIMEOUT_MS)),
            Reason::Idle,
        );
        let idle = idle.min((self.frame_by_ms, Reason::Frame));
        let expiry = (self.token_expires_ms, Reason::TokenExpiry);
        match self.phase {
            // Shorter than a frame may take.
            Phase::Hello | Phase::Token => Some((self.authenticate_by_ms, Reason::Authenticate)),
            Phase::Authenticating => Some(idle),
            Phase::Open => Some(idle.min(expiry)),
            Phase::Draining { until_ms } => Some(idle.min(expiry).min((until_ms, Reason::Drain))),
            Phase::Closed => None,
        }
    }

    /// The token is good: opens the session.
    pub fn authenticated(&mut self, now_ms: u64, welcome: Welcome) {
        if self.phase != Phase::Authenticating {
            return;
        }
        self.phase = Phase::Open;
        self.heard_ms = self.heard_ms.max(now_ms);
        self.token_expires_ms = welcome.token_expires_ms;
        self.transmit(&welcome.into());
        self.handle_timeout(now_ms);
    }

    /// The token is refused, or cannot be verified now. Ends the connection whatever the code: a
    /// session that is not open has nothing to go on with.
    pub fn refuse(&mut self, code: Code, text: impl Into<String>) {
        if self.phase == Phase::Authenticating {
            self.close(code, text);
        }
    }

    /// Answers a request and frees its slot; a resume's is freed by its `Done` alone. Messages that
    /// answer nothing in flight are dropped.
    pub fn respond(&mut self, message: &Message) {
        let Some(request) = answered(message) else { return };
        let Some(in_flight) = self.in_flight.get(&request) else {
            return;
        };
        if *in_flight == InFlight::One || matches!(message, Message::Done(_)) {
            self.in_flight.remove(&request);
        }
        self.transmit(message);
    }

    /// Refuses a request and frees its slot, or one place of a resume. A code that closes ends the
    /// connection.
    pub fn error(&mut self, request: RequestId, code: Code, text: impl Into<String>, retry_after_ms: u32) {
        if code.closes() {
            self.close(code, text);
            return;
        }
        match self.in_flight.get(&request) {
            None => return,
            Some(InFlight::One) => {
                self.in_flight.remove(&request);
            }
            Some(InFlight::UntilDone) => {}
        }
        self.transmit_error(request, code, text, retry_after_ms);
    }

    /// Asks the client to leave within `deadline_ms` milliseconds; afterwards the connection is
    /// closed. A session that is not open is closed at once.
    pub fn drain(&mut self, now_ms: u64, deadline_ms: u32, reason: impl Into<String>, edges: Vec<String>) {
        match self.phase {
            Phase::Hello | Phase::Token | Phase::Authenticating => {
                self.close(Code::Draining, "the edge is draining");
            }
            Phase::Open => {
                self.phase = Phase::Draining {
                    until_ms: now_ms.saturating_add(u64::from(deadline_ms)),
                };
                let reason = reason.into();
                self.transmit(
                    &Drain {
                        deadline_ms,
                        reason,
                        edges,
                    }
                    .into(),
                );
            }
            Phase::Draining { .. } | Phase::Closed => {}
        }
    }

    /// Ends the connection for an error that is not about one request.
    pub fn close(&mut self, code: Code, text: impl Into<String>) {
        if self.phase == Phase::Closed {
            return;
        }
        let reason = text.into();
        self.transmit_error(0, code, reason.clone(), 0);
        self.phase = Phase::Closed;
        self.in_flight.clear();
        self.events.push_back(ServerEvent::Close { code, reason });
    }

    /// Whether requests are served.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Draining { .. })
    }

    /// Whether the connection is over for this machine.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Requests that wait for an answer.
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn allowed(&self, role: Role) -> Result<(), &'static str> {
        match (role, self.phase) {
            (Role::Unknown, _) => Ok(()),
            (Role::ServerOnly, _) => Err("only servers send it"),
            (Role::Hello, Phase::Hello) => Ok(()),
            (_, Phase::Hello) => Err("hello comes first"),
            (Role::Hello, _) => Err("hello was said already"),
            (Role::Authenticate, Phase::Token) | (Role::Signal, _) => Ok(()),
            (Role::Authenticate, _) => Err("authenticate was said already"),
            (Role::Request, Phase::Open | Phase::Draining { .. }) => Ok(()),
            (Role::Request, _) => Err("the session is not open; it opens with welcome"),
        }
    }

    fn handle_message(&mut self, now_ms: u64, message: Message) {
        match message {
            Message::Hello(hello) => self.handle_hello(now_ms, &hello),
            Message::Authenticate(Authenticate { token, device }) => {
                self.phase = Phase::Authenticating;
                self.events.push_back(ServerEvent::Authenticate { token, device });
            }
            Message::Ping(ping) => self.transmit(
                &Pong {
                    nonce: ping.nonce,
                    time_ms: now_ms,
                }
                .into(),
            ),
            Message::ClientAck(ack) => self.events.push_back(ServerEvent::ClientAck(ack)),
            // A pong only says that the client is there; a client that reports an error closes.
            Message::Pong(_) | Message::Error(_) => {}
            request => {
                if let Some(request) = ServerRequest::from_message(request) {
                    self.handle_request(request);
                }
            }
        }
    }

    fn handle_hello(&mut self, now_ms: u64, hello: &Hello) {
        let common = VERSIONS
            .iter()
            .copied()
            .filter(|version| hello.versions.contains(version));
        let Some(version) = common.max() else {
            let text = format!(
                "this edge speaks {VERSIONS:?}, the client offers {:?}",
                hello.versions
            );
            self.close(Code::VersionUnsupported, text);
            return;
        };
        self.phase = Phase::Token;
        let edge = self.edge.clone();
        self.transmit(
            &HelloOk {
                version,
                edge,
                server_time_ms: now_ms,
            }
            .into(),
        );
    }

    fn handle_request(&mut self, request: ServerRequest) {
        let id = request.request();
        if self.in_flight.contains_key(&id) {
            self.close_repeated(id);
            return;
        }
        if self.in_flight.len() >= REQUESTS_IN_FLIGHT_MAX {
            let text = format!("{REQUESTS_IN_FLIGHT_MAX} requests wait for an answer already");
            self.transmit_error(id, Code::TooManyRequests, text, 0);
            return;
        }
        let answers = match request {
            ServerRequest::Resume(_) => InFlight::UntilDone,
            _ => InFlight::One,
        };
        let resumes = self.in_flight.values().filter(|of| **of == InFlight::UntilDone);
        if answers == InFlight::UntilDone && resumes.count() >= RESUMES_IN_FLIGHT_MAX {
            let text = format!("{RESUMES_IN_FLIGHT_MAX} resumes wait for their end already");
            self.transmit_error(id, Code::TooManyRequests, text, 0);
            return;
        }
        self.in_flight.insert(id, answers);
        self.events.push_back(ServerEvent::Request(request));
    }

    /// For an id that is in flight already: its answers could not be told apart.
    fn close_repeated(&mut self, id: RequestId) {
        self.close(Code::OutOfOrder, format!("request {id} is in flight already"));
    }

    fn transmit_error(
        &mut self,
        request: RequestId,
        code: Code,
        text: impl Into<String>,
        retry_after_ms: u32,
    ) {
        let mut error = message::Error::new(request, code, text);
        error.retry_after_ms = retry_after_ms;
        self.transmit(&error.into());
    }

    fn transmit(&mut self, message: &Message) {
        if self.phase != Phase::Closed {
            self.transmits.push_back(message.encode());
        }
    }
}

/// The request a message answers.
fn answered(message: &Message) -> Option<RequestId> {
    match message {
        Message::Done(done) => Some(done.request),
        Message::Ack(ack) => Some(ack.request),
        Message::Subscribed(subscribed) => Some(subscribed.request),
        Message::Page(page) => Some(page.request),
        Message::Fenced(fenced) => Some(fenced.request),
        Message::Expansion(expansion) => Some(expansion.request),
        _ => None,
    }
}
