//! The frames a worker hands to its sessions in a round.
//!
//! A frame is encoded once for the whole edge. Where several workers hand it out, each takes a copy of
//! its own first: a frame is counted by whoever holds it, and a count that every delivery of every
//! worker changes would travel between their processors with each of them.

use std::collections::VecDeque;

use bytes::Bytes;
use throng_protocol::ids::Seq;

use crate::ring::Edition;

/// Bytes of copies that are held at most, or one frame: what most sessions of a round take next. What was let
/// go is copied again for whoever is further behind.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// A worker's copies of one channel's newest frames.
#[derive(Debug)]
pub struct Copies {
    /// Frames are handed out as they are: there is one worker.
    shared: bool,
    edition: Edition,
    /// Ascending.
    held: VecDeque<(Seq, Bytes)>,
    bytes: usize,
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
            edition: Edition::default(),
            held: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Lets go of what the ring does not hold any more, or holds in another edition.
    pub(crate) fn follow(&mut self, edition: Edition, base: Seq) {
        if self.edition != edition {
            self.edition = edition;
            self.held.clear();
            self.bytes = 0;
        }
        while self.held.front().is_some_and(|(seq, _)| *seq <= base) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, oldest)) = self.held.pop_front() {
            self.bytes -= oldest.len();
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
        self.bytes += copy.len();
        while self.bytes > HELD_BYTES_MAX && self.held.len() > 1 {
            self.drop_oldest();
        }
        copy
    }
}
