//! One connection: quinn-proto's machine, who waits for it, and how it is driven.
//!
//! Everything that is done to the machine is followed by a turn of the driver, which sends what has
//! become due. The lock is held for a call at a time; nobody waits while holding it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use quinn_proto::{
    ConnectionError, ConnectionHandle, Dir, Endpoint, Event, FinishError, ReadableError, StreamEvent,
    StreamId, VarInt,
};

use super::batch::Batch;
use super::ready::Ready;
use super::waits::{Wait, Waits};
use crate::link::{LinkClosed, ReadError, WriteError};
use crate::unproven::Unproven;

/// Datagram trains of a connection before others have a turn.
const TURN: usize = 4;

/// Bytes of a datagram that had room for whatever else was to be sent, so that asking for a second one
/// would be in vain: probes of paths and of sizes have 1,200 at least, and streams fill what they get.
/// Application datagrams are not cut, so a connection that has some is asked until it says no.
const SMALL: usize = 600;

/// A connection on a worker.
pub(super) struct Connection {
    pub key: ConnectionHandle,
    state: Mutex<State>,
    /// It is in the list of those to be driven.
    listed: AtomicBool,
    ready: Arc<Ready>,
    /// Links and halves of streams that use it.
    handles: AtomicUsize,
}

pub(super) struct State {
    pub quic: quinn_proto::Connection,
    pub waits: Waits,
    pub connected: bool,
    /// It has been given an application datagram.
    pub sends_datagrams: bool,
    /// How it ended; nothing is sent or accepted any more.
    pub ended: Option<ConnectionError>,
}

/// What a turn has come to.
pub(super) struct Driven {
    /// Nothing more will ever be sent or received on it.
    pub drained: bool,
    /// There is more to send.
    pub again: bool,
    pub timeout: Option<Instant>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub fn new(key: ConnectionHandle, quic: quinn_proto::Connection, ready: Arc<Ready>) -> Arc<Self> {
        Arc::new(Self {
            key,
            state: Mutex::new(State {
                quic,
                waits: Waits::default(),
                connected: false,
                sends_datagrams: false,
                ended: None,
            }),
            listed: AtomicBool::new(false),
            ready,
            handles: AtomicUsize::new(0),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Asks for a turn.
    pub fn touch(self: &Arc<Self>) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            self.ready.push(Arc::clone(self));
        }
    }

    /// Hands over what the endpoint has received or issued for it.
    pub fn handle(self: &Arc<Self>, event: quinn_proto::ConnectionEvent) {
        self.state.lock().quic.handle_event(event);
        self.touch();
    }

    pub fn close(self: &Arc<Self>, now: Instant, code: u32, reason: Bytes) {
        let mut state = self.state.lock();
        state.quic.close(now, VarInt::from_u32(code), reason);
        state.end(ConnectionError::LocallyClosed);
        drop(state);
        self.touch();
    }

    /// Gives it up without a word to the peer: its driver is gone.
    pub fn abandon(&self) {
        self.state.lock().end(ConnectionError::LocallyClosed);
    }

    /// A turn: passes events on, and fills the batch while there is room.
    pub fn drive(
        &self,
        now: Instant,
        endpoint: &mut Endpoint,
        batch: &mut Batch,
        unproven: &Unproven,
        segments: usize,
    ) -> Driven {
        self.listed.store(false, Ordering::Release);
        let mut state = self.state.lock();
        let mut turns = 0;
        // After a timeout there may be probes, which are datagrams of their own.
        let mut all_in_one = state.connected && !state.sends_datagrams;
        loop {
            if state.tell(self.key, endpoint) {
                return Driven {
                    drained: true,
                    again: false,
                    timeout: None,
                };
            }
            state.events();
            let mut sent = usize::MAX;
            while turns < TURN
                && !(all_in_one && sent <= SMALL)
                && batch.fill(unproven, |buffer| {
                    let transmit = state.quic.poll_transmit(now, segments, buffer)?;
                    sent = transmit.size;
                    Some(transmit)
                })
            {
                turns += 1;
            }
            let again = turns == TURN || batch.is_full();
            let timeout = state.quic.poll_timeout();
            if again || timeout.is_none_or(|at| at > now) {
                return Driven {
                    drained: false,
                    again,
                    timeout,
                };
            }
            state.quic.handle_timeout(now);
            all_in_one = false;
        }
    }
}

impl State {
    /// Exchanges events with the endpoint; `true` when the last one has been told.
    fn tell(&mut self, key: ConnectionHandle, endpoint: &mut Endpoint) -> bool {
        while let Some(event) = self.quic.poll_endpoint_events() {
            let drained = event.is_drained();
            if let Some(answer) = endpoint.handle_event(key, event) {
                self.quic.handle_event(answer);
            }
            if drained {
                self.events();
                self.end(ConnectionError::LocallyClosed);
                return true;
            }
        }
        false
    }

    fn events(&mut self) {
        while let Some(event) = self.quic.poll() {
            match event {
                Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
                Event::Connected => {
                    self.connected = true;
                    self.waits.wake(Wait::Connected);
                }
                Event::ConnectionLost { reason } => self.end(reason),
                Event::DatagramReceived => self.waits.wake(Wait::Datagram),
                Event::Stream(StreamEvent::Opened { dir }) => self.waits.wake(Wait::Accept(dir)),
                Event::Stream(StreamEvent::Available { dir }) => self.waits.wake(Wait::Open(dir)),
                Event::Stream(StreamEvent::Readable { id }) => self.waits.wake(Wait::Read(id)),
                Event::Stream(StreamEvent::Writable { id }) => self.waits.wake(Wait::Write(id)),
                Event::Stream(StreamEvent::Finished { id }) => self.waits.wake(Wait::Stopped(id)),
                Event::Stream(StreamEvent::Stopped { id, .. }) => {
                    self.waits.wake(Wait::Stopped(id));
                    self.waits.wake(Wait::Write(id));
                }
            }
        }
    }

    /// It ends; how it ended first is what counts.
    fn end(&mut self, reason: ConnectionError) {
        self.ended.get_or_insert(reason);
        self.waits.wake_all();
    }

    fn closed(&self) -> Option<LinkClosed> {
        self.ended.clone().map(LinkClosed::from)
    }
}

/// A use of a connection. The last one that is dropped closes it.
#[derive(Debug)]
pub(super) struct Handle(Arc<Connection>);

impl Handle {
    pub fn new(connection: Arc<Connection>) -> Self {
        connection.handles.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }

    pub fn touch(&self) {
        self.0.touch();
    }

    pub fn close(&self, code: u32, reason: Bytes) {
        self.0.close(super::now(), code, reason);
    }

    pub fn ended(&self) -> Option<LinkClosed> {
        self.state().closed()
    }

    /// How it ended; waits for it.
    pub fn poll_closed(&self, context: &Context<'_>) -> Poll<LinkClosed> {
        let mut state = self.state();
        match state.closed() {
            Some(closed) => Poll::Ready(closed),
            None => state.pending(Wait::Closed, context),
        }
    }

    pub fn poll_connected(&self, context: &Context<'_>) -> Poll<Result<(), LinkClosed>> {
        let mut state = self.state();
        match state.closed() {
            Some(closed) => Poll::Ready(Err(closed)),
            None if state.connected => Poll::Ready(Ok(())),
            None => state.pending(Wait::Connected, context),
        }
    }

    pub fn poll_open(&self, context: &Context<'_>, dir: Dir) -> Poll<Result<StreamId, LinkClosed>> {
        let mut state = self.state();
        if let Some(closed) = state.closed() {
            return Poll::Ready(Err(closed));
        }
        match state.quic.streams().open(dir) {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => state.pending(Wait::Open(dir), context),
        }
    }

    pub fn poll_accept(&self, context: &Context<'_>, dir: Dir) -> Poll<Result<StreamId, LinkClosed>> {
        let mut state = self.state();
        // Streams that came before the end can still be read.
        if let Some(stream) = state.quic.streams().accept(dir) {
            drop(state);
            self.touch();
            return Poll::Ready(Ok(stream));
        }
        match state.closed() {
            Some(closed) => Poll::Ready(Err(closed)),
            None => state.pending(Wait::Accept(dir), context),
        }
    }

    pub fn poll_datagram(&self, context: &Context<'_>) -> Poll<Result<Bytes, LinkClosed>> {
        let mut state = self.state();
        if let Some(datagram) = state.quic.datagrams().recv() {
            return Poll::Ready(Ok(datagram));
        }
        match state.closed() {
            Some(closed) => Poll::Ready(Err(closed)),
            None => state.pending(Wait::Datagram, context),
        }
    }

    /// Writes what fits; `true` when that was all. Chunks are emptied as they are taken.
    pub fn write(&self, stream: StreamId, chunks: &mut [Bytes]) -> Result<bool, WriteError> {
        self.write_to(&mut self.state(), stream, chunks)
    }

    pub fn poll_write(
        &self,
        context: &Context<'_>,
        stream: StreamId,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), WriteError>> {
        let mut state = self.state();
        match self.write_to(&mut state, stream, chunks) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => state.pending(Wait::Write(stream), context),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn write_to(
        &self,
        state: &mut State,
        stream: StreamId,
        mut chunks: &mut [Bytes],
    ) -> Result<bool, WriteError> {
        if let Some(closed) = state.closed() {
            return Err(closed.into());
        }
        let mut wrote = false;
        let result = loop {
            let done = chunks.iter().take_while(|chunk| chunk.is_empty()).count();
            chunks = &mut chunks[done..];
            if chunks.is_empty() {
                break Ok(true);
            }
            match state.quic.send_stream(stream).write_chunks(chunks) {
                Ok(_) => wrote = true,
                Err(quinn_proto::WriteError::Blocked) => break Ok(false),
                Err(quinn_proto::WriteError::Stopped(code)) => break Err(WriteError::Stopped(code_of(code))),
                Err(quinn_proto::WriteError::ClosedStream) => break Err(WriteError::Finished),
            }
        };
        if wrote {
            self.touch();
        }
        result
    }

    pub fn finish(&self, stream: StreamId) {
        let mut state = self.state();
        let mut half = state.quic.send_stream(stream);
        // A stopped stream is forgotten once it is reset; one that is closed already is neither.
        if let Err(FinishError::Stopped(code)) = half.finish() {
            let _ = half.reset(code);
        }
        drop(state);
        self.touch();
    }

    pub fn reset(&self, stream: StreamId, code: u32) {
        // Fails only for a stream that is reset or fully acknowledged already.
        let _ = self
            .state()
            .quic
            .send_stream(stream)
            .reset(VarInt::from_u32(code));
        self.touch();
    }

    pub fn set_priority(&self, stream: StreamId, priority: i32) {
        // Fails only for a stream that is closed, whose priority no longer matters.
        let _ = self.state().quic.send_stream(stream).set_priority(priority);
    }

    pub fn poll_stopped(
        &self,
        context: &Context<'_>,
        stream: StreamId,
    ) -> Poll<Result<Option<u32>, LinkClosed>> {
        let mut state = self.state();
        match state.quic.send_stream(stream).stopped() {
            Err(_) => Poll::Ready(Ok(None)),
            Ok(Some(code)) => Poll::Ready(Ok(Some(code_of(code)))),
            Ok(None) => match state.closed() {
                Some(closed) => Poll::Ready(Err(closed)),
                None => state.pending(Wait::Stopped(stream), context),
            },
        }
    }

    pub fn poll_read(
        &self,
        context: &Context<'_>,
        stream: StreamId,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        let mut state = self.state();
        let mut half = state.quic.recv_stream(stream);
        let mut chunks = match half.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => {
                return Poll::Ready(Err(ReadError::Finished));
            }
        };
        let next = chunks.next(max);
        let credit = chunks.finalize().should_transmit();
        let read = match next {
            Ok(chunk) => Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes))),
            Err(quinn_proto::ReadError::Reset(code)) => Poll::Ready(Err(ReadError::Reset(code_of(code)))),
            Err(quinn_proto::ReadError::Blocked) => match state.closed() {
                Some(closed) => Poll::Ready(Err(closed.into())),
                None => state.pending(Wait::Read(stream), context),
            },
        };
        drop(state);
        if credit {
            self.touch();
        }
        read
    }

    pub fn stop(&self, stream: StreamId, code: u32) {
        // Fails only for a stream that is stopped or read to its end already.
        let _ = self.state().quic.recv_stream(stream).stop(VarInt::from_u32(code));
        self.touch();
    }

    /// Nobody waits for this any more.
    pub fn forget(&self, wait: Wait) {
        self.state().waits.forget(wait);
    }
}

impl State {
    fn pending<T>(&mut self, wait: Wait, context: &Context<'_>) -> Poll<T> {
        self.waits.add(wait, context);
        Poll::Pending
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.0.handles.fetch_sub(1, Ordering::AcqRel) == 1 && self.ended().is_none() {
            self.close(0, Bytes::new());
        }
    }
}

/// Our codes have 32 bits; a larger one of a foreign peer is reported as the largest.
fn code_of(code: VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap_or(u32::MAX)
}
