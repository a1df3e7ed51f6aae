//! A worker: one UDP socket, quinn-proto's endpoint and every connection on it, driven by one task.
//! A port has one worker or several, each with a socket of its own.
//!
//! quinn gives each connection a task, and each datagram a call into the kernel. An edge sends one
//! small datagram to each of very many connections, where both cost more than the datagram; here all
//! connections share one loop, and datagrams leave in batches. What it carries is the same
//! [`Carrier`](crate::Carrier), tested against quinn's. It refuses to connect: clients use quinn.

mod batch;
mod carrier;
mod connection;
mod driver;
mod link;
mod ready;
mod steering;
mod timers;
mod waits;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn_proto::{ConnectionHandle, Endpoint, Incoming, Transmit};

use crate::unproven::Unproven;

pub(crate) use carrier::WorkerCarrier;
use connection::Connection;
use ready::Ready;
pub use steering::HandedCounts;
pub(crate) use steering::Seat;

/// Datagrams of one train to a destination: what quinn sends as well.
const SEGMENTS_MAX: usize = 10;

/// What the driver and those who use the worker share.
struct Shared {
    core: Mutex<Core>,
    ready: Arc<Ready>,
    unproven: Arc<Unproven>,
    seat: Seat,
}

/// The endpoint and its connections.
struct Core {
    endpoint: Endpoint,
    /// By the endpoint's keys.
    connections: Vec<Option<Arc<Connection>>>,
    open: usize,
    /// Connections of all workers of the port.
    port_open: Arc<AtomicUsize>,
    /// Peers that knock, until somebody takes them; bounded by the server's settings.
    incoming: VecDeque<Incoming>,
    answers: VecDeque<(Transmit, Vec<u8>)>,
    /// Whoever waits for a peer to knock, or for the last connection to go.
    acceptors: Vec<Waker>,
    idlers: Vec<Waker>,
    /// Closed, with what peers are told.
    closed: Option<(u32, Bytes)>,
    /// Nobody uses the worker any more; what is open goes on.
    abandoned: bool,
    /// Nobody drives it any more.
    lost: bool,
}

impl Core {
    fn new(endpoint: Endpoint, port_open: Arc<AtomicUsize>) -> Self {
        Self {
            endpoint,
            connections: Vec::new(),
            open: 0,
            port_open,
            incoming: VecDeque::new(),
            answers: VecDeque::new(),
            acceptors: Vec::new(),
            idlers: Vec::new(),
            closed: None,
            abandoned: false,
            lost: false,
        }
    }

    fn connection(&self, key: usize) -> Option<&Arc<Connection>> {
        self.connections.get(key)?.as_ref()
    }

    fn knock(&mut self, incoming: Incoming) {
        if self.closed.is_some() || self.abandoned {
            return self.refuse(incoming);
        }
        self.incoming.push_back(incoming);
        wake(&mut self.acceptors);
    }

    fn refuse(&mut self, incoming: Incoming) {
        let mut content = Vec::new();
        let transmit = self.endpoint.refuse(incoming, &mut content);
        self.answers.push_back((transmit, content));
    }

    fn insert(&mut self, key: ConnectionHandle, connection: Arc<Connection>) {
        if key.0 >= self.connections.len() {
            self.connections.resize(key.0 + 1, None);
        }
        self.connections[key.0] = Some(connection);
        self.open += 1;
        self.port_open.fetch_add(1, Ordering::Relaxed);
    }

    fn forget(&mut self, key: usize) {
        if self.connections.get_mut(key).and_then(Option::take).is_some() {
            self.open -= 1;
            self.port_open.fetch_sub(1, Ordering::Relaxed);
        }
        if self.open == 0 {
            wake(&mut self.idlers);
        }
    }

    /// Nothing is left to be driven for anybody.
    fn is_over(&self) -> bool {
        self.abandoned && self.open == 0 && self.answers.is_empty()
    }

    fn close(&mut self, now: Instant, code: u32, reason: &Bytes) {
        self.closed = Some((code, reason.clone()));
        for connection in self.connections.iter().flatten() {
            connection.close(now, code, reason.clone());
        }
        self.turn_away();
    }

    /// Refuses everybody who has not been taken.
    fn turn_away(&mut self) {
        while let Some(incoming) = self.incoming.pop_front() {
            self.refuse(incoming);
        }
        wake(&mut self.acceptors);
    }

    /// The driver is gone: nothing is sent or received any more.
    fn lose(&mut self) {
        self.lost = true;
        while let Some(incoming) = self.incoming.pop_front() {
            self.endpoint.ignore(incoming);
        }
        for connection in self.connections.drain(..).flatten() {
            connection.abandon();
        }
        self.port_open.fetch_sub(self.open, Ordering::Relaxed);
        self.open = 0;
        wake(&mut self.acceptors);
        wake(&mut self.idlers);
    }
}

fn wake(wakers: &mut Vec<Waker>) {
    for waker in std::mem::take(wakers) {
        waker.wake();
    }
}

/// Has a task woken with the others, once.
fn wait(wakers: &mut Vec<Waker>, context: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
        wakers.push(context.waker().clone());
    }
}

/// The time of the runtime, which tests may hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
