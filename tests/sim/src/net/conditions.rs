//! What the network does to a packet: how long it takes, whether it is lost or comes twice.

use std::collections::BTreeSet;

use rand::Rng;

use super::{HostId, Us};

/// One in a million.
const MILLION: u32 = 1_000_000;

/// What the network is like now. Between every two hosts it is the same, but for what is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// Every packet takes at least this long; the width of the scheduler's windows hangs on it.
    pub delay_min: Us,
    /// And up to this much longer.
    pub jitter: Us,
    /// Packets in a million that are held up, and so overtaken by others.
    pub held_up_ppm: u32,
    /// How long at most.
    pub held_up_max: Us,
    /// Packets in a million that are lost.
    pub lost_ppm: u32,
    /// Packets in a million that arrive twice.
    pub doubled_ppm: u32,
    cuts: BTreeSet<(HostId, HostId)>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    /// Arrives after so long, and perhaps once more.
    Arrives(Us, Option<Us>),
}

impl Conditions {
    /// A network without faults: packets take between `delay_min` and twice that.
    pub fn calm(delay_min: Us) -> Self {
        Self {
            delay_min,
            jitter: delay_min,
            held_up_ppm: 0,
            held_up_max: 0,
            lost_ppm: 0,
            doubled_ppm: 0,
            cuts: BTreeSet::new(),
        }
    }

    /// Nothing of `from` reaches `to` from now on.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.cuts.insert((from, to));
    }

    /// Everything reaches everybody.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Whether nothing of `from` reaches `to`.
    pub fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Decides about a packet.
    pub(super) fn fate(&self, random: &mut impl Rng, from: HostId, to: HostId) -> Fate {
        if self.is_cut(from, to) || one_in(random, self.lost_ppm) {
            return Fate::Lost;
        }
        let delay = self.delay(random);
        let doubled = one_in(random, self.doubled_ppm);
        Fate::Arrives(delay, doubled.then(|| self.delay(random)))
    }

    fn delay(&self, random: &mut impl Rng) -> Us {
        let mut delay = self.delay_min + random.random_range(0..=self.jitter);
        if one_in(random, self.held_up_ppm) {
            delay += random.random_range(0..=self.held_up_max);
        }
        delay
    }

    /// How long a sender waits for a packet to be acknowledged before it sends it again, as QUIC
    /// does: a round trip and what an acknowledgement may be held back, doubled each time.
    pub(super) fn resend_after(&self, tries: u32) -> Us {
        const ACK_DELAY: Us = 25_000;
        const MAX: Us = 2_000_000;
        let first = 2 * (self.delay_min + self.jitter) + ACK_DELAY;
        (first << tries.min(10)).min(MAX)
    }
}

fn one_in(random: &mut impl Rng, ppm: u32) -> bool {
    ppm > 0 && random.random_range(0..MILLION) < ppm
}
