//! The one task of a worker: takes datagrams in, gives connections their turns, sends.
//!
//! It is woken by the socket, by a timer and by whoever touches a connection, and does a bounded
//! amount of work before others on its thread have a turn.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn::udp::{BATCH_SIZE, RecvMeta};
use quinn_proto::DatagramEvent;
use tokio::io::Interest;
use tokio::time::{Sleep, sleep_until};

use super::batch::{Batch, Outlet};
use super::connection::Connection;
use super::timers::Timers;
use super::{Core, Shared};

/// Receiving calls before connections have their turns: some hundred datagrams.
const RECEIVES: usize = 4;
/// Turns of connections before other tasks of the thread have theirs: about a millisecond.
const TURNS: usize = 256;
/// Bytes of the largest datagram that is read whole: the largest that is announced to peers.
const DATAGRAM: usize = 1_472;

/// Drives everything on a socket until its worker is dropped and its connections are gone.
pub(super) struct Driver {
    shared: Arc<Shared>,
    outlet: Outlet,
    batch: Batch,
    inbox: Box<[u8]>,
    timers: Timers,
    /// Tick 0.
    began: Instant,
    sleep: Pin<Box<Sleep>>,
    /// The tick it sleeps until.
    sleeps_until: Option<u64>,
    /// Connections whose turn it is, last first.
    turns: Vec<Arc<Connection>>,
    due: Vec<usize>,
    segments: usize,
}

impl Driver {
    pub fn new(shared: Arc<Shared>, outlet: Outlet) -> Self {
        let began = super::now();
        let segments = outlet.udp.max_gso_segments().min(super::SEGMENTS_MAX);
        Self {
            inbox: vec![0; DATAGRAM * outlet.udp.gro_segments() * BATCH_SIZE].into_boxed_slice(),
            shared,
            outlet,
            batch: Batch::new(),
            timers: Timers::new(),
            began,
            sleep: Box::pin(sleep_until(began.into())),
            sleeps_until: None,
            turns: Vec::new(),
            due: Vec::new(),
            segments,
        }
    }

    /// Takes datagrams in; `true` when there may be more.
    fn receive(&mut self, context: &mut Context<'_>, core: &mut Core, now: Instant) -> io::Result<bool> {
        for _ in 0..RECEIVES {
            if self.outlet.io.poll_recv_ready(context)?.is_pending() {
                return Ok(false);
            }
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let stride = self.inbox.len() / BATCH_SIZE;
            let received = {
                let mut buffers = self.inbox.chunks_exact_mut(stride).map(IoSliceMut::new);
                let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
                    std::array::from_fn(|_| buffers.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
                let Outlet { io, udp, .. } = &self.outlet;
                io.try_io(Interest::READABLE, || {
                    udp.recv(io.into(), &mut buffers, &mut metas)
                })
            };
            let received = match received {
                Ok(received) => received,
                // Readiness was stale, or somebody else's answer came back: both say nothing.
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            };
            for (meta, buffer) in metas.iter().zip(self.inbox.chunks_exact(stride)).take(received) {
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    let seat = &self.shared.seat;
                    match seat.other(datagram) {
                        None => {
                            self.shared.unproven.received(meta.addr, datagram.len());
                            core.datagram(now, meta, BytesMut::from(datagram));
                        }
                        // What finds no room is lost, and sent again, as from a full socket.
                        Some(owner) => drop(seat.hand(owner, *meta, datagram)),
                    }
                }
            }
        }
        Ok(true)
    }

    /// Takes in what other workers of the port have got for this one.
    fn receive_handed(&self, core: &mut Core, now: Instant) {
        if self.shared.seat.is_alone() {
            return;
        }
        for handed in self.shared.seat.take() {
            self.shared.unproven.received(handed.meta.addr, handed.data.len());
            core.datagram(now, &handed.meta, handed.data);
        }
    }

    /// Lets connections have their turns; `true` when some are left.
    fn turn(&mut self, context: &Context<'_>, core: &mut Core, now: Instant) -> io::Result<bool> {
        let mut called = false;
        for _ in 0..TURNS {
            if self.batch.is_full() {
                self.batch.flush(&self.outlet)?;
            }
            if self.turns.is_empty() {
                called |= self.shared.ready.take(&mut self.turns, context);
                self.turns.reverse();
            }
            let Some(connection) = self.turns.pop() else {
                return Ok(called);
            };
            let key = connection.key.0;
            let driven = connection.drive(
                now,
                &mut core.endpoint,
                &mut self.batch,
                &self.shared.unproven,
                self.segments,
            );
            if driven.drained {
                self.timers.set(key, None);
                core.forget(key);
                continue;
            }
            let timeout = driven.timeout.map(|at| self.tick_of(at));
            self.timers.set(key, timeout);
            if driven.again {
                connection.touch();
            }
        }
        Ok(true)
    }

    /// Answers of the endpoint itself: retries, refusals, resets.
    fn answer(&mut self, core: &mut Core) -> io::Result<()> {
        while let Some((transmit, content)) = core.answers.pop_front() {
            if self.batch.is_full() {
                self.batch.flush(&self.outlet)?;
            }
            self.batch.fill(&self.shared.unproven, |buffer| {
                buffer.extend_from_slice(&content);
                Some(transmit)
            });
        }
        Ok(())
    }

    fn expire(&mut self, core: &Core, now: Instant) {
        let tick = self.passed(now).as_millis();
        self.timers
            .expire(u64::try_from(tick).unwrap_or(u64::MAX), &mut self.due);
        for key in self.due.drain(..) {
            if let Some(connection) = core.connection(key) {
                connection.touch();
            }
        }
    }

    fn passed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// The first tick at which a moment has come.
    fn tick_of(&self, at: Instant) -> u64 {
        let passed = self.passed(at).as_micros().div_ceil(1_000);
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    /// Sleeps no longer than until the next timer; `true` if that has come already.
    fn rest(&mut self, context: &mut Context<'_>) -> bool {
        let Some(next) = self.timers.next() else {
            return false;
        };
        if self.sleeps_until.is_none_or(|until| next < until) {
            self.sleeps_until = Some(next);
            let at = self.began + Duration::from_millis(next);
            self.sleep.as_mut().reset(at.into());
        }
        let over = self.sleep.as_mut().poll(context).is_ready();
        if over {
            self.sleeps_until = None;
        }
        over
    }

    /// Does some work; `true` when there is more.
    fn work(&mut self, context: &mut Context<'_>, core: &mut Core) -> io::Result<bool> {
        let now = super::now();
        let mut more = self.receive(context, core, now)?;
        self.receive_handed(core, now);
        self.expire(core, now);
        match self.send(context, core, now) {
            Ok(left) => more |= left,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Turns go on when the socket takes datagrams again.
                more |= self.outlet.io.poll_send_ready(context)?.is_ready();
            }
            Err(error) => return Err(error),
        }
        Ok(more | self.rest(context))
    }

    fn send(&mut self, context: &Context<'_>, core: &mut Core, now: Instant) -> io::Result<bool> {
        self.batch.flush(&self.outlet)?;
        self.answer(core)?;
        let left = self.turn(context, core, now)?;
        self.batch.flush(&self.outlet)?;
        Ok(left)
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let me = self.get_mut();
        let shared = Arc::clone(&me.shared);
        let mut core = shared.core.lock();
        match me.work(context, &mut core) {
            Ok(more) => {
                if core.is_over() && me.batch.is_empty() {
                    return Poll::Ready(());
                }
                if more {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Err(error) => {
                tracing::error!(%error, "the socket of a worker has failed; its connections are lost");
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.core.lock().lose();
        self.shared.seat.leave();
    }
}

/// Whether an error of receiving says nothing about the socket.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset
    )
}

impl Core {
    /// Hands a datagram to whom it is for.
    fn datagram(&mut self, now: Instant, meta: &RecvMeta, data: BytesMut) {
        let ecn = meta
            .ecn
            .and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
        let mut answer = Vec::new();
        match self
            .endpoint
            .handle(now, meta.addr, meta.dst_ip, ecn, data, &mut answer)
        {
            Some(DatagramEvent::ConnectionEvent(key, event)) => {
                if let Some(connection) = self.connection(key.0) {
                    connection.handle(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.knock(incoming),
            Some(DatagramEvent::Response(transmit)) => self.answers.push_back((transmit, answer)),
            None => {}
        }
    }
}
