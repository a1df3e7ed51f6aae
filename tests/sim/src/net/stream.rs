//! One direction of a stream: what the sender may still send, and what the receiver has put
//! together of the pieces that came, in whatever order.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::wakers::Wakers;

/// A piece of a stream on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub bytes: Bytes,
    /// Nothing comes behind it.
    pub last: bool,
}

/// The sending end.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Pieces sent so far: the number of the next one.
    pub pieces: u64,
    /// Bytes sent so far.
    pub sent: u64,
    /// Bytes the receiver allows altogether.
    pub allowed: u64,
    pub finished: bool,
    pub reset: bool,
    /// The receiver wants no more.
    pub stopped: Option<u32>,
    /// The receiver has all of a finished stream.
    pub complete: bool,
    /// Who waits to write.
    pub writers: Wakers,
    /// Who waits for the stream's end.
    pub watchers: Wakers,
}

impl Sending {
    /// A stream on which the receiver allows so many bytes at first.
    pub fn new(allowed: u64) -> Self {
        Self {
            allowed,
            ..Self::default()
        }
    }

    /// Whether pieces that are on their way are still of use.
    pub fn wanted(&self) -> bool {
        !self.reset && self.stopped.is_none()
    }

    /// Whether nothing happens on it any more.
    pub fn is_over(&self) -> bool {
        self.reset || self.complete || self.stopped.is_some()
    }
}

/// The receiving end.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    /// The number of the piece that comes next.
    next: u64,
    early: BTreeMap<u64, Piece>,
    ready: VecDeque<Bytes>,
    /// All has come.
    pub finished: bool,
    /// The sender gave it up.
    pub reset: Option<u32>,
    /// This side wants no more.
    pub stopped: bool,
    /// Bytes handed on or thrown away.
    pub taken: u64,
    /// Bytes allowed altogether, as the sender was told.
    pub announced: u64,
    pub readers: Wakers,
}

impl Receiving {
    /// A stream on which the sender was allowed so many bytes at first.
    pub fn new(announced: u64) -> Self {
        Self {
            announced,
            ..Self::default()
        }
    }

    /// Takes a piece. One that came before is ignored. Tells whether the stream is whole by it.
    pub fn arrive(&mut self, number: u64, piece: Piece) -> bool {
        let of_use = number >= self.next && !self.finished && self.reset.is_none();
        if !of_use {
            return false;
        }
        self.early.insert(number, piece);
        while let Some(piece) = self.early.remove(&self.next) {
            self.next += 1;
            if !piece.bytes.is_empty() {
                self.ready.push_back(piece.bytes);
            }
            self.finished |= piece.last;
        }
        self.finished
    }

    /// The next bytes, at most `max`.
    pub fn take(&mut self, max: usize) -> Option<Bytes> {
        let mut first = self.ready.pop_front()?;
        if first.len() > max {
            self.ready.push_front(first.split_off(max));
        }
        self.taken += first.len() as u64;
        Some(first)
    }

    /// Throws away what is there.
    pub fn discard(&mut self) -> u64 {
        let ready: usize = self.ready.drain(..).map(|bytes| bytes.len()).sum();
        self.taken += ready as u64;
        ready as u64
    }

    /// Whether nothing is left to take and nothing comes.
    pub fn is_over(&self) -> bool {
        self.stopped || self.reset.is_some() || (self.finished && self.ready.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &'static str, last: bool) -> Piece {
        Piece {
            bytes: Bytes::from_static(text.as_bytes()),
            last,
        }
    }

    #[test]
    fn pieces_come_out_in_order_and_once_however_they_arrive() {
        let mut stream = Receiving::new(100);
        assert!(!stream.arrive(2, piece("c", true)));
        assert_eq!(stream.take(9), None);
        assert!(!stream.arrive(0, piece("a", false)));
        assert!(!stream.arrive(0, piece("a", false)));
        assert!(stream.arrive(1, piece("bb", false)));
        assert!(!stream.arrive(2, piece("c", true)));
        let taken: Vec<Bytes> = std::iter::from_fn(|| stream.take(1)).collect();
        assert_eq!(taken.concat(), b"abbc");
        assert!(stream.is_over());
        assert_eq!(stream.taken, 4);
    }
}
