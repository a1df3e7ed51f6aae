//! The hot ring: the last frames of one channel, contiguous, bounded.

use std::collections::VecDeque;

use bytes::Bytes;
use throng_protocol::ids::Seq;

/// Bytes of frames one channel keeps: a second of 2,000 messages of 256 bytes, or two largest ones.
pub const RING_BYTES_MAX: usize = 512 * 1024;

/// Frames one channel keeps; bounds the memory that many tiny messages take in book-keeping.
pub const RING_FRAMES_MAX: usize = 2_048;

/// Memory of a session's lookup per frame is 48 bytes: position, frame, and the deque's slack.
#[derive(Debug, Clone)]
struct Slot {
    seq: Seq,
    frame: Bytes,
}

/// Bounds of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLimits {
    /// Most bytes of frames; a single frame over it is still held, alone.
    pub bytes_max: usize,
    /// Most frames.
    pub frames_max: usize,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self {
            bytes_max: RING_BYTES_MAX,
            frames_max: RING_FRAMES_MAX,
        }
    }
}

/// Frames of the entries in (`base`, `head`], one frame each, none missing.
#[derive(Debug, Clone)]
pub struct Ring {
    limits: RingLimits,
    base: Seq,
    head: Seq,
    bytes: usize,
    slots: VecDeque<Slot>,
}

impl Ring {
    /// An empty ring that goes on behind `head`.
    pub fn new(limits: RingLimits, head: Seq) -> Self {
        Self {
            limits,
            base: head,
            head,
            bytes: 0,
            slots: VecDeque::new(),
        }
    }

    /// The entry before the oldest held.
    pub fn base(&self) -> Seq {
        self.base
    }

    /// The newest entry held or skipped to.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Bytes of frames held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames held.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no frame is held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds the frame of the entry that follows the head, and drops the oldest over the bounds.
    pub fn push(&mut self, seq: Seq, frame: Bytes) {
        debug_assert!(seq > self.head, "entries are added in order");
        self.bytes += frame.len();
        self.head = seq;
        self.slots.push_back(Slot { seq, frame });
        while self.slots.len() > self.limits.frames_max.max(1)
            || (self.bytes > self.limits.bytes_max && self.slots.len() > 1)
        {
            let Some(oldest) = self.slots.pop_front() else {
                break;
            };
            self.bytes -= oldest.frame.len();
            self.base = oldest.seq;
        }
        // Bursts must not leave a channel that is quiet again with the burst's book-keeping.
        if self.slots.capacity() > 64 && self.slots.len() * 4 < self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// The frames behind `cursor`, at least one if there is any, up to about `budget` bytes; and the
    /// last entry among them. `None` if `cursor` is before the oldest held.
    pub fn behind(&self, cursor: Seq, budget: usize) -> Option<(Vec<Bytes>, Seq)> {
        if cursor < self.base {
            return None;
        }
        let start = self.slots.partition_point(|slot| slot.seq <= cursor);
        let (mut frames, mut bytes, mut last) = (Vec::new(), 0, cursor);
        for slot in self.slots.range(start..) {
            if !frames.is_empty() && bytes + slot.frame.len() > budget {
                break;
            }
            bytes += slot.frame.len();
            last = slot.seq;
            frames.push(slot.frame.clone());
        }
        Some((frames, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(frames_max: usize, bytes_max: usize) -> Ring {
        Ring::new(
            RingLimits {
                bytes_max,
                frames_max,
            },
            Seq(0),
        )
    }

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    #[test]
    fn the_oldest_frames_go_when_either_bound_is_passed() {
        let mut by_count = ring(2, 1_000);
        let mut by_bytes = ring(100, 25);
        for seq in 1..=3 {
            by_count.push(Seq(seq), frame(10));
            by_bytes.push(Seq(seq), frame(10));
        }
        for ring in [&by_count, &by_bytes] {
            assert_eq!(
                (ring.base(), ring.head(), ring.len(), ring.bytes()),
                (Seq(1), Seq(3), 2, 20)
            );
            assert_eq!(ring.behind(Seq(0), 1_000), None);
            assert_eq!(
                ring.behind(Seq(1), 1_000)
                    .map(|(frames, last)| (frames.len(), last)),
                Some((2, Seq(3)))
            );
        }
    }

    #[test]
    fn a_frame_over_the_byte_bound_is_held_alone() {
        let mut ring = ring(10, 5);
        ring.push(Seq(1), frame(3));
        ring.push(Seq(2), frame(100));
        assert_eq!((ring.len(), ring.bytes(), ring.base()), (1, 100, Seq(1)));
    }

    #[test]
    fn a_budget_cuts_but_never_to_nothing() {
        let mut ring = ring(10, 1_000);
        for seq in 1..=4 {
            ring.push(Seq(seq), frame(10));
        }
        let cut = |budget| {
            ring.behind(Seq(1), budget)
                .map(|(frames, last)| (frames.len(), last))
        };
        assert_eq!(cut(0), Some((1, Seq(2))));
        assert_eq!(cut(29), Some((2, Seq(3))));
        assert_eq!(cut(30), Some((3, Seq(4))));
        assert_eq!(ring.behind(Seq(4), 10), Some((vec![], Seq(4))));
        assert_eq!(ring.behind(Seq(9), 10), Some((vec![], Seq(9))));
    }
}
