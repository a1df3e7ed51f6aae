//! What happens to the packets of one direction between two parties: pure, and a function of the
//! seed and the number of the packet.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a direction does to its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Nothing passes.
    pub cut: bool,
    /// Packets of a thousand that are lost.
    pub loss: u16,
    /// Packets of a thousand that arrive twice.
    pub twice: u16,
    /// How long every packet takes at least.
    pub delay: Duration,
    /// How much longer one may take; packets overtake each other by it.
    pub jitter: Duration,
}

impl Weather {
    /// Nothing passes.
    pub const CUT: Self = Self {
        cut: true,
        loss: 0,
        twice: 0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
    };
}

/// What becomes of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It does not arrive.
    Lost,
    /// It arrives after a while.
    Arrives(Duration),
    /// It arrives twice, after a while each.
    Twice(Duration, Duration),
}

/// One direction between two parties.
#[derive(Debug)]
pub struct Link {
    /// What it does at the moment.
    pub weather: Weather,
    random: StdRng,
}

impl Link {
    /// A calm direction.
    pub fn new(seed: u64) -> Self {
        Self {
            weather: Weather::default(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Judges the next packet. Each takes the same share of the randomness whatever the weather is,
    /// so that the fate of a packet does not depend on the weather of those before it.
    pub fn judge(&mut self) -> Fate {
        let dice: [u64; 4] = self.random.random();
        let Weather {
            cut,
            loss,
            twice,
            delay,
            jitter,
        } = self.weather;
        let per_mille = |die: u64| die % 1_000;
        let after = |die: u64| delay + jitter.mul_f64((die % 1_000) as f64 / 1_000.0);
        if cut || per_mille(dice[0]) < u64::from(loss) {
            Fate::Lost
        } else if per_mille(dice[1]) < u64::from(twice) {
            Fate::Twice(after(dice[2]), after(dice[3]))
        } else {
            Fate::Arrives(after(dice[2]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUGH: Weather = Weather {
        cut: false,
        loss: 200,
        twice: 100,
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(40),
    };

    fn fates(seed: u64, weather: Weather, packets: usize) -> Vec<Fate> {
        let mut link = Link::new(seed);
        link.weather = weather;
        (0..packets).map(|_| link.judge()).collect()
    }

    #[test]
    fn a_seed_decides_every_fate_and_another_seed_decides_otherwise() {
        assert_eq!(fates(1, ROUGH, 500), fates(1, ROUGH, 500));
        assert_ne!(fates(1, ROUGH, 500), fates(2, ROUGH, 500));
    }

    #[test]
    fn what_is_lost_and_doubled_is_as_much_as_was_ordered() {
        let fates = fates(3, ROUGH, 10_000);
        let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
        let twice = fates
            .iter()
            .filter(|fate| matches!(fate, Fate::Twice(..)))
            .count();
        assert!((1_800..2_200).contains(&lost), "{lost}");
        // Of the eight in ten that are not lost.
        assert!((650..950).contains(&twice), "{twice}");
        let late = |after: &Duration| (ROUGH.delay..ROUGH.delay + ROUGH.jitter).contains(after);
        assert!(fates.iter().all(|fate| match fate {
            Fate::Lost => true,
            Fate::Arrives(after) => late(after),
            Fate::Twice(one, two) => late(one) && late(two),
        }));
    }

    #[test]
    fn nothing_passes_a_cut_and_everything_passes_in_calm_weather_at_once() {
        assert!(fates(4, Weather::CUT, 100).iter().all(|fate| *fate == Fate::Lost));
        let calm = fates(4, Weather::default(), 100);
        assert!(calm.iter().all(|fate| *fate == Fate::Arrives(Duration::ZERO)));
    }

    #[test]
    fn the_weather_of_earlier_packets_does_not_change_the_fate_of_later_ones() {
        let mut link = Link::new(5);
        link.weather = Weather::CUT;
        for _ in 0..50 {
            link.judge();
        }
        link.weather = ROUGH;
        let later: Vec<Fate> = (0..50).map(|_| link.judge()).collect();
        assert_eq!(later, fates(5, ROUGH, 100)[50..]);
    }
}
