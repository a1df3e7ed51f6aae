//! The hot ring: the last frames of one channel, contiguous, bounded.

use std::collections::VecDeque;

use bytes::Bytes;
use throng_protocol::ids::{Epoch, Seq, Ts};

use crate::copies::Copies;
use crate::subscription::Frames;

/// Bytes of frames one channel keeps: a second of 2,000 messages of 256 bytes, or two largest ones.
pub const RING_BYTES_MAX: usize = 512 * 1024;

/// Frames one channel keeps; bounds the memory that many tiny messages take in book-keeping.
pub const RING_FRAMES_MAX: usize = 2_048;

/// What tells the frames of a ring from those it held before: it grows when one is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Edition {
    pub epoch: Epoch,
    pub replaced: u64,
}

/// Memory of a session's lookup per frame is 64 bytes: position, stamp, frame, and the deque's slack.
#[derive(Debug, Clone)]
struct Slot {
    seq: Seq,
    ts: Ts,
    /// Of a change: the message it changes.
    target: Seq,
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
    /// Frames replaced so far.
    replaced: u64,
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
            replaced: 0,
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
    pub fn push(&mut self, seq: Seq, ts: Ts, frame: Bytes) {
        self.push_change(seq, ts, Seq(0), frame);
    }

    /// The same for an entry that changes a message.
    pub fn push_change(&mut self, seq: Seq, ts: Ts, target: Seq, frame: Bytes) {
        debug_assert!(seq > self.head, "entries are added in order");
        self.bytes += frame.len();
        self.head = seq;
        self.slots.push_back(Slot {
            seq,
            ts,
            target,
            frame,
        });
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

    /// How many frames were replaced.
    pub(crate) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Replaces the frames of a message and of the changes to it, as far as they are held.
    pub fn replace(&mut self, message: Seq, new: impl Fn(&Bytes) -> Bytes) {
        for slot in &mut self.slots {
            if slot.seq == message || slot.target == message {
                let frame = new(&slot.frame);
                self.bytes = self.bytes - slot.frame.len() + frame.len();
                slot.frame = frame;
                self.replaced += 1;
            }
        }
    }

    /// The frames behind `cursor` up to `cap`, at least one if there is any, up to about `budget`
    /// bytes; and the last entry among them. `None` if `cursor` is before the oldest held.
    pub fn behind(&self, cursor: Seq, cap: Seq, budget: usize, copies: &mut Copies) -> Option<(Frames, Seq)> {
        if cursor < self.base {
            return None;
        }
        let start = self.slots.partition_point(|slot| slot.seq <= cursor);
        let (mut frames, mut bytes, mut last) = (Frames::new(), 0, cursor);
        for slot in self.slots.range(start..).take_while(|slot| slot.seq <= cap) {
            if !frames.is_empty() && bytes + slot.frame.len() > budget {
                break;
            }
            bytes += slot.frame.len();
            last = slot.seq;
            frames.push(copies.of(slot.seq, &slot.frame));
        }
        Some((frames, last))
    }

    /// The last entry with this time stamp or an earlier one, if the ring alone tells which it is.
    pub fn locate(&self, ts: Ts) -> Option<(Seq, Ts)> {
        let behind = self.slots.partition_point(|slot| slot.ts <= ts);
        let slot = self.slots.get(behind.checked_sub(1)?)?;
        // Behind the newest entry the log may go on with stamps that are not later either.
        let certain = slot.ts == ts || behind < self.slots.len();
        certain.then_some((slot.seq, slot.ts))
    }

    /// The time stamp of an entry that is held.
    pub fn ts_of(&self, seq: Seq) -> Option<Ts> {
        let place = self.slots.partition_point(|slot| slot.seq < seq);
        self.slots
            .get(place)
            .filter(|slot| slot.seq == seq)
            .map(|slot| slot.ts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Seq = Seq(u64::MAX);

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
            by_count.push(Seq(seq), Ts(seq * 10), frame(10));
            by_bytes.push(Seq(seq), Ts(seq * 10), frame(10));
        }
        for ring in [&by_count, &by_bytes] {
            assert_eq!(
                (ring.base(), ring.head(), ring.len(), ring.bytes()),
                (Seq(1), Seq(3), 2, 20)
            );
            assert_eq!(ring.behind(Seq(0), ALL, 1_000, &mut Copies::shared()), None);
            assert_eq!(
                ring.behind(Seq(1), ALL, 1_000, &mut Copies::shared())
                    .map(|(frames, last)| (frames.len(), last)),
                Some((2, Seq(3)))
            );
        }
    }

    #[test]
    fn a_frame_over_the_byte_bound_is_held_alone() {
        let mut ring = ring(10, 5);
        ring.push(Seq(1), Ts(10), frame(3));
        ring.push(Seq(2), Ts(20), frame(100));
        assert_eq!((ring.len(), ring.bytes(), ring.base()), (1, 100, Seq(1)));
    }

    #[test]
    fn a_budget_cuts_but_never_to_nothing() {
        let mut ring = ring(10, 1_000);
        for seq in 1..=4 {
            ring.push(Seq(seq), Ts(seq * 10), frame(10));
        }
        let cut = |budget| {
            ring.behind(Seq(1), ALL, budget, &mut Copies::shared())
                .map(|(frames, last)| (frames.len(), last))
        };
        assert_eq!(cut(0), Some((1, Seq(2))));
        assert_eq!(cut(29), Some((2, Seq(3))));
        assert_eq!(cut(30), Some((3, Seq(4))));
        assert_eq!(
            ring.behind(Seq(4), ALL, 10, &mut Copies::shared()),
            Some((Frames::new(), Seq(4)))
        );
        assert_eq!(
            ring.behind(Seq(9), ALL, 10, &mut Copies::shared()),
            Some((Frames::new(), Seq(9)))
        );
    }

    #[test]
    fn nothing_behind_a_cap_is_taken() {
        let mut ring = ring(10, 1_000);
        for seq in 1..=4 {
            ring.push(Seq(seq), Ts(seq * 10), frame(10));
        }
        let count = |cap| {
            ring.behind(Seq(1), Seq(cap), 1_000, &mut Copies::shared())
                .map(|(frames, last)| (frames.len(), last))
        };
        assert_eq!(count(3), Some((2, Seq(3))));
        assert_eq!(count(1), Some((0, Seq(1))));
        assert_eq!(count(9), Some((3, Seq(4))));
    }

    #[test]
    fn a_time_stamp_is_located_only_where_the_ring_is_certain() {
        let mut ring = ring(2, 1_000);
        for seq in 1..=3 {
            ring.push(Seq(seq), Ts(seq * 10), frame(10));
        }
        assert_eq!(ring.locate(Ts(19)), None, "the entry before is not held");
        assert_eq!(ring.locate(Ts(20)), Some((Seq(2), Ts(20))));
        assert_eq!(ring.locate(Ts(29)), Some((Seq(2), Ts(20))));
        assert_eq!(ring.locate(Ts(30)), Some((Seq(3), Ts(30))));
        assert_eq!(ring.locate(Ts(31)), None, "the log may go on");
        assert_eq!((ring.ts_of(Seq(2)), ring.ts_of(Seq(1))), (Some(Ts(20)), None));
    }

    proptest::proptest! {
        /// Stamps of a log ascend whatever its leader's clock does: by leaps, or by one while the
        /// clock is behind.
        #[test]
        fn what_the_ring_locates_is_what_a_search_of_the_whole_log_finds(
            leaps in proptest::collection::vec(proptest::prop_oneof![0u64..3, 0u64..1_000], 1..40),
            frames_max in 1usize..12,
            asked in 0u64..30_000,
        ) {
            let mut ring = ring(frames_max, 100_000);
            let mut log = Vec::new();
            let mut stamp = Ts(0);
            for (seq, leap) in (1..).zip(leaps) {
                // A leap of 0 stands for a clock that was set back.
                stamp = stamp.advance(if leap == 0 { Ts(0) } else { Ts(stamp.0 + leap) });
                ring.push(Seq(seq), stamp, frame(1));
                log.push((Seq(seq), stamp));
            }
            let stamps = log.iter().map(|(_, ts)| ts.0).chain([asked, stamp.0 + 1, u64::MAX]);
            for ts in stamps.flat_map(|ts| [ts.saturating_sub(1), ts]).map(Ts) {
                let found = log.iter().rev().find(|(_, at)| *at <= ts).copied();
                let held = found.is_some_and(|(seq, _)| seq > ring.base());
                let certain = held && (ts < stamp || found.is_some_and(|(_, at)| at == ts));
                proptest::prop_assert_eq!(ring.locate(ts), found.filter(|_| certain), "{:?}", ts);
            }
        }
    }
}
