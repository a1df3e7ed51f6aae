//! Who waits for what on one connection.

use std::task::{Context, Waker};

use quinn_proto::{Dir, StreamId};

/// Something that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Connected,
    Closed,
    Open(Dir),
    Accept(Dir),
    Read(StreamId),
    Write(StreamId),
    Stopped(StreamId),
    Datagram,
}

/// Everybody who waits: a handful on a connection, so a list is smaller and faster than a map.
#[derive(Debug, Default)]
pub(super) struct Waits(Vec<(Wait, Waker)>);

impl Waits {
    /// Wakes whoever polls when it has happened; asking again before that changes nothing.
    pub fn add(&mut self, wait: Wait, context: &Context<'_>) {
        let known = |(other, waker): &(Wait, Waker)| *other == wait && waker.will_wake(context.waker());
        if !self.0.iter().any(known) {
            self.0.push((wait, context.waker().clone()));
        }
    }

    /// It has happened.
    pub fn wake(&mut self, wait: Wait) {
        for (_, waker) in self.0.extract_if(.., |(other, _)| *other == wait) {
            waker.wake();
        }
    }

    /// Nothing will happen any more.
    pub fn wake_all(&mut self) {
        for (_, waker) in std::mem::take(&mut self.0) {
            waker.wake();
        }
    }

    /// Nobody waits for this any more.
    pub fn forget(&mut self, wait: Wait) {
        self.0.retain(|(other, _)| *other != wait);
    }
}
