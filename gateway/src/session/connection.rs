//! The task of one client's control stream.
//!
//! It owns the session machine: feeds it frames, outcomes and the time, and does what it says. While
//! it waits to write, it reads nothing, so a client that does not read its answers is not read from
//! either. A drain and the end of the link are noticed all the same.

use std::sync::Arc;

use bytes::Bytes;
use throng_protocol::code::{CLOSE_NORMAL, Code};
use throng_protocol::limits::{
    AUTHENTICATE_TIMEOUT_MS, BODY_BYTES_MAX, IDEMPOTENCY_WINDOW_MS, PING_INTERVAL_MS, REQUESTS_IN_FLIGHT_MAX,
    SUBSCRIPTIONS_MAX,
};
use throng_protocol::message::{Done, Welcome};
use throng_protocol::session::server::{Reason, ServerEvent, ServerSession};
use throng_transport::{FrameReadError, FrameReader, FrameWriter, Link, Step};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::budget::Budget;
use super::member::Member;
use super::requests::{Answer, Requests};
use super::work::{Outcome, Part, Work};
use crate::channels::{Channel, Receiver};
use crate::directory::Identity;
use crate::floods::FloodGuard;
use crate::limits::{CONTROL_PRIORITY, FAREWELL};
use crate::refused::Refused;
use crate::shared::{DrainNotice, Shared};
use crate::token::Verified;
use crate::upstream::Deadline;
use crate::workers::Worker;

/// Serves a client until its connection ends.
pub(crate) async fn run(shared: Arc<Shared>, worker: Arc<Worker>, link: Arc<dyn Link>) {
    // Times count from the handshake: the control stream must not come late either.
    let opened_ms = shared.clock.now_ms();
    let opening = link.accept_bi();
    let (send, recv) = match timeout(Duration::from_millis(AUTHENTICATE_TIMEOUT_MS), opening).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return,
        Err(_) => {
            shared.metrics.refused(Code::Timeout);
            return close(&*link, Code::Timeout, "no control stream");
        }
    };
    let mut writer = FrameWriter::new(send);
    writer.set_priority(CONTROL_PRIORITY);
    // On the heap: a future that takes it by value holds it twice.
    let connection = Box::new(Connection {
        session: ServerSession::new(opened_ms, shared.name.clone()),
        flood: shared.floods.watch(&link),
        budget: Budget::default(),
        pause: None,
        drain: shared.drain.subscribe(),
        link,
        reader: FrameReader::new(recv),
        writer,
        work: Work::default(),
        requests: None,
        unwritten: Vec::new(),
        attach: Vec::new(),
        worker,
        shared,
    });
    connection.serve().await;
}

fn close(link: &dyn Link, code: Code, reason: &str) {
    link.close(u32::from(code.number()), reason);
}

/// How a connection ends.
enum End {
    /// The client has gone, or the link has failed.
    Gone,
    /// The client has finished its control stream.
    Finished,
    /// An error that closes.
    Close { code: Code, reason: String },
}

struct Connection {
    shared: Arc<Shared>,
    link: Arc<dyn Link>,
    reader: FrameReader,
    writer: FrameWriter,
    session: ServerSession,
    flood: FloodGuard,
    budget: Budget,
    /// While there is one, nothing is read: the session is above a rate.
    pause: Option<Instant>,
    drain: watch::Receiver<Option<DrainNotice>>,
    work: Work,
    /// There is one once the session is open.
    requests: Option<Requests>,
    /// Frames of which some may be written in part: nothing else is written before them.
    unwritten: Vec<Bytes>,
    /// Channels whose deliveries begin when what is to be written is written.
    attach: Vec<Arc<Channel>>,
    worker: Arc<Worker>,
}

impl Connection {
    async fn serve(mut self: Box<Self>) {
        // An edge that drains takes nobody new.
        self.drain.mark_changed();
        let end = loop {
            match self.turn().await {
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        if self.requests.is_some() {
            self.shared.metrics.sessions.dec();
        }
        match end {
            End::Gone => {}
            End::Finished => self.link.close(CLOSE_NORMAL, ""),
            End::Close { code, reason } => {
                self.shared.metrics.refused(code);
                self.farewell().await;
                close(&*self.link, code, &reason);
            }
        }
    }

    /// Writes what is to be written, then takes in the next thing that happens.
    async fn turn(&mut self) -> Result<(), End> {
        self.events()?;
        self.flush().await?;
        let wake = self
            .session
            .poll_timeout()
            .map(|(at, _)| self.shared.clock.instant(at));
        tokio::select! {
            step = self.reader.step(), if self.pause.is_none() => self.step(step)?,
            () = at(self.pause) => self.pause = None,
            () = self.flood.flooded() => self.flooded(),
            outcome = self.work.next(), if !self.work.is_empty() => self.outcome(outcome),
            () = at(wake) => self.session.handle_timeout(self.shared.clock.now_ms()),
            Ok(()) = self.drain.changed() => self.draining(),
            _ = self.link.closed() => return Err(End::Gone),
        }
        Ok(())
    }

    fn step(&mut self, step: Result<Step, FrameReadError>) -> Result<(), End> {
        let now_ms = self.shared.clock.now_ms();
        match step {
            Ok(Step::Begun) => self.session.frame_begun(now_ms),
            Ok(Step::Frame(frame)) => {
                let wait_ms = self.budget.frame(now_ms, frame.kind);
                self.hold_back(wait_ms);
                self.session.handle_frame(now_ms, &frame);
            }
            Ok(Step::End) => return Err(End::Finished),
            Err(FrameReadError::Frame(error)) => self.session.handle_frame_error(error),
            Err(error @ FrameReadError::Truncated) => {
                self.session.close(Code::MalformedFrame, error.to_string());
            }
            Err(FrameReadError::Stream(_)) => return Err(End::Gone),
        }
        Ok(())
    }

    /// Reads nothing for a time.
    fn hold_back(&mut self, wait_ms: u64) {
        if wait_ms > 0 {
            self.shared.metrics.held_back.inc();
            let until = Instant::now() + Duration::from_millis(wait_ms);
            self.pause = Some(self.pause.map_or(until, |pause| pause.max(until)));
        }
    }

    fn flooded(&mut self) {
        let text = "too many pings, resets or moves below the frames of the protocol";
        self.session.close(Code::Flooding, text);
    }

    /// Does what the machine says.
    fn events(&mut self) -> Result<(), End> {
        while let Some(event) = self.session.poll_event() {
            match event {
                ServerEvent::Authenticate { token, .. } => self.authenticate(token),
                ServerEvent::Request(request) => {
                    self.shared.metrics.requested(request.name());
                    let wait_ms = self.budget.request(self.shared.clock.now_ms(), &request);
                    self.hold_back(wait_ms);
                    if let Some(requests) = &self.requests {
                        self.work.start(requests, request);
                    }
                }
                ServerEvent::ClientAck(ack) => {
                    if let Some(requests) = &self.requests {
                        requests.member.acked(ack.channel, ack.position);
                    }
                }
                ServerEvent::Close { code, reason } => return Err(End::Close { code, reason }),
            }
        }
        Ok(())
    }

    /// Writes all frames of the machine.
    async fn flush(&mut self) -> Result<(), End> {
        loop {
            self.unwritten = std::iter::from_fn(|| self.session.poll_transmit()).collect();
            if self.unwritten.is_empty() {
                break;
            }
            self.write().await?;
        }
        if let Some(requests) = &self.requests {
            let member = &requests.member;
            for channel in self.attach.drain(..) {
                let outbox: Arc<dyn Receiver> = member.outbox.clone();
                channel.attach(member.seat, outbox);
            }
        }
        Ok(())
    }

    /// Writes what is unwritten; a client that does not read it in time is given up.
    async fn write(&mut self) -> Result<(), End> {
        loop {
            // Only a closed session has no next wake-up, and it is not written to here.
            let (at_ms, reason) = self.session.poll_timeout().unwrap_or((0, Reason::Idle));
            let until = self.shared.clock.instant(at_ms);
            tokio::select! {
                // Begun again after the other events, with the same frames.
                written = self.writer.write(&mut self.unwritten) => {
                    return written.map_err(|_| End::Gone);
                }
                () = sleep_until(until) => match reason {
                    Reason::Idle | Reason::Authenticate | Reason::Frame => {
                        let reason = "the client does not read its answers".to_owned();
                        return Err(End::Close {
                            code: Code::Timeout,
                            reason,
                        });
                    }
                    Reason::TokenExpiry | Reason::Drain => {
                        self.session.handle_timeout(self.shared.clock.now_ms());
                    }
                },
                Ok(()) = self.drain.changed() => self.draining(),
                () = self.flood.flooded() => self.flooded(),
                _ = self.link.closed() => return Err(End::Gone),
            }
            self.events()?;
        }
    }

    fn authenticate(&mut self, token: String) {
        let shared = Arc::clone(&self.shared);
        self.work.run(Box::pin(async move {
            let by = Deadline::start();
            let verified = async {
                let now_ms = shared.clock.now_ms();
                let Verified {
                    app,
                    user,
                    expires_ms,
                } = shared.auth.verify(&token, now_ms, by).await?;
                let number = shared.directory.user(&app, &user, by).await?;
                Ok(Box::new((expires_ms, Identity { app, user, number })))
            };
            Outcome::Authenticated(verified.await)
        }));
    }

    fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Authenticated(Ok(verified)) => self.open(verified.0, verified.1),
            Outcome::Authenticated(Err(Refused { code, text, .. })) => self.session.refuse(code, text),
            Outcome::Answered {
                request,
                part,
                result,
            } => {
                match *result {
                    Ok(Answer { message, attach }) => {
                        self.session.respond(&message);
                        if let Some(channel) = attach {
                            self.attach.push(channel);
                        }
                    }
                    Err(Refused { code, text, .. }) => self.refuse(request, code, text),
                }
                self.after(request, part);
            }
        }
    }

    fn refuse(&mut self, request: u64, code: Code, text: String) {
        self.shared.metrics.refused(code);
        self.session.error(request, code, text, 0);
    }

    fn after(&mut self, request: u64, part: Part) {
        let Some(requests) = &self.requests else { return };
        if self.work.after(requests, request, part) {
            self.session.respond(&Done { request }.into());
        }
    }

    fn open(&mut self, token_expires_ms: u64, who: Identity) {
        let now_ms = self.shared.clock.now_ms();
        let session = self.shared.next_session();
        let number = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
        let welcome = Welcome {
            session,
            user: who.user.clone(),
            user_number: who.number,
            server_time_ms: now_ms,
            token_expires_ms,
            idempotency_window_ms: IDEMPOTENCY_WINDOW_MS,
            ping_interval_ms: PING_INTERVAL_MS,
            body_bytes_max: number(BODY_BYTES_MAX),
            requests_in_flight_max: number(REQUESTS_IN_FLIGHT_MAX),
            subscriptions_max: number(SUBSCRIPTIONS_MAX),
        };
        tracing::debug!(%session, app = %who.app, number = %who.number, "a session opens");
        self.shared.metrics.sessions.inc();
        self.requests = Some(Requests {
            shared: Arc::clone(&self.shared),
            member: Member::new(
                Arc::clone(&self.shared),
                Arc::clone(&self.worker),
                Arc::clone(&self.link),
                session,
                who,
            ),
        });
        self.session.authenticated(now_ms, welcome);
    }

    fn draining(&mut self) {
        let Some(notice) = self.drain.borrow_and_update().clone() else {
            return;
        };
        let left = notice.until.saturating_duration_since(Instant::now());
        let left_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let edges = notice.edges.to_vec();
        self.session
            .drain(self.shared.clock.now_ms(), left_ms, notice.reason, edges);
    }

    /// Gives the last frames a moment to arrive: closing throws away what is on its way.
    async fn farewell(&mut self) {
        let mut frames = std::mem::take(&mut self.unwritten);
        frames.extend(std::iter::from_fn(|| self.session.poll_transmit()));
        if let Some(requests) = &self.requests {
            requests.member.outbox.stop();
        }
        let last = async {
            if self.writer.write(&mut frames).await.is_ok() {
                self.writer.finish();
                // Either way there is nothing more to wait for.
                let _ = self.writer.stopped().await;
            }
        };
        let _ = timeout(FAREWELL, last).await;
    }
}

/// Waits for a moment, or for ever.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
