//! The faults of a crash run, and which round has which: a function of the seed.

use std::str::FromStr;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// SIGKILL of one core node.
    KillOne,
    /// SIGKILL of two, a moment apart.
    KillTwo,
    /// SIGKILL of all three at once.
    KillAll,
    /// SIGKILL of a node, and again while it starts.
    KillStarting,
    /// SIGKILL of a node that missed more than the logs keep, and again while it catches up.
    KillCatchingUp,
    /// SIGSTOP of a leader for longer than an election takes.
    Pause,
    /// A node is cut off from the others, and sometimes from the edges.
    Partition,
    /// A node is not heard, or does not hear.
    OneWay,
    /// Packets are lost, doubled, late and out of order, and a node is killed.
    Rough,
    /// A leader's disk does not sync; it is killed and starts again at once.
    HeldDisk,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::KillOne,
        Self::KillTwo,
        Self::KillAll,
        Self::KillStarting,
        Self::KillCatchingUp,
        Self::Pause,
        Self::Partition,
        Self::OneWay,
        Self::Rough,
        Self::HeldDisk,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillOne => "kill-one",
            Self::KillTwo => "kill-two",
            Self::KillAll => "kill-all",
            Self::KillStarting => "kill-starting",
            Self::KillCatchingUp => "kill-catching-up",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::Rough => "rough",
            Self::HeldDisk => "held-disk",
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|fault| fault.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is none of {names}")
        })
    }
}

/// What is done in each round: every kind equally often, in an order of the seed's.
pub fn plan(kinds: &[Fault], rounds: usize, seed: u64) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut plan = Vec::with_capacity(rounds);
    while plan.len() < rounds && !kinds.is_empty() {
        let mut turn = kinds.to_vec();
        turn.shuffle(&mut random);
        plan.extend(turn);
    }
    plan.truncate(rounds);
    plan
}

/// The randomness of one round, whatever the rounds before it took of theirs.
pub fn of_round(seed: u64, round: usize) -> StdRng {
    StdRng::seed_from_u64(StdRng::seed_from_u64(seed ^ (round as u64) << 32).random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_equally_often_and_the_seed_decides_the_order() {
        let plan_of = |seed| plan(&Fault::ALL, 30, seed);
        for kind in Fault::ALL {
            assert_eq!(
                plan_of(1).iter().filter(|fault| **fault == kind).count(),
                3,
                "{kind:?}"
            );
        }
        assert_eq!(plan_of(1), plan_of(1));
        assert_ne!(plan_of(1), plan_of(2));
        assert_eq!(plan(&[Fault::Pause], 3, 1), [Fault::Pause; 3]);
        assert!(plan(&[], 3, 1).is_empty());
    }

    #[test]
    fn names_are_read_back() {
        for kind in Fault::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("none".parse::<Fault>().is_err());
    }
}
