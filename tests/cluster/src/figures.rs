//! Percentiles of what was measured.

use std::time::Duration;

use serde::Serialize;

/// Gaps in service, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// How many were measured.
    pub count: usize,
    /// Half of them are at most this long.
    pub median: u64,
    /// Ninety-nine in a hundred are at most this long.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

impl Gaps {
    /// Of some measurements, by nearest rank.
    pub fn of(gaps: &[Duration]) -> Self {
        let mut sorted: Vec<u64> = gaps.iter().map(|gap| gap.as_millis() as u64).collect();
        sorted.sort_unstable();
        let rank = |per_cent: usize| {
            let place = (sorted.len() * per_cent).div_ceil(100).saturating_sub(1);
            sorted.get(place).copied().unwrap_or_default()
        };
        Self {
            count: sorted.len(),
            median: rank(50),
            p99: rank(99),
            max: rank(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let gaps: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let expected = Gaps {
            count: 200,
            median: 100,
            p99: 198,
            max: 200,
        };
        assert_eq!(Gaps::of(&gaps), expected);
        assert_eq!(Gaps::of(&[]), Gaps::default());
        assert_eq!(Gaps::of(&[Duration::from_millis(7)]).p99, 7);
    }
}
