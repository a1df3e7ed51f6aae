//! The frames a worker hands to its sessions.
//!
//! A frame is encoded once for the whole edge. Where several workers hand it out, each takes a copy of
//! its own first: a frame is counted by whoever holds it, and a count that every delivery of every
//! worker changes would travel between their processors with each of them.

use std::collections::VecDeque;

use bytes::Bytes;
use throng_protocol::ids::{Epoch, Seq};

/// A worker's copies of one channel's frames, each made once; no more than the channel's ring holds.
#[derive(Debug)]
pub struct Copies {
    /// Frames are handed out as they are: there is one worker.
    shared: bool,
    epoch: Epoch,
    /// Ascending.
    held: VecDeque<(Seq, Bytes)>,
}

impl Copies {
    /// For the only worker: nothing is copied.
    pub fn shared() -> Self {
        Self::new(true)
    }

    /// For one of several workers.
    pub fn own() -> Self {
        Self::new(false)
    }

    fn new(shared: bool) -> Self {
        Self {
            shared,
            epoch: Epoch(0),
            held: VecDeque::new(),
        }
    }

    /// Lets go of what the ring does not hold any more.
    pub(crate) fn follow(&mut self, epoch: Epoch, base: Seq) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.held.clear();
        }
        while self.held.front().is_some_and(|(seq, _)| *seq <= base) {
            self.held.pop_front();
        }
    }

    /// The frame of an entry, as the worker hands it out.
    pub(crate) fn of(&mut self, seq: Seq, frame: &Bytes) -> Bytes {
        if self.shared {
            return frame.clone();
        }
        // Whoever keeps up takes the newest.
        if let Some((_, copy)) = self.held.back().filter(|(held, _)| *held == seq) {
            return copy.clone();
        }
        let place = self.held.partition_point(|(held, _)| *held < seq);
        if let Some((_, copy)) = self.held.get(place).filter(|(held, _)| *held == seq) {
            return copy.clone();
        }
        let copy = Bytes::copy_from_slice(frame);
        self.held.insert(place, (seq, copy.clone()));
        copy
    }
}
