//! Token buckets: how often something may happen, with room for a burst.
//!
//! Pure and small: two integers a bucket, whole milliseconds in, no floats. A bucket holds what was
//! taken and not yet given back, so that the empty value is a bucket nobody has taken from.

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Times a second, in the long run.
    pub per_second: u32,
    /// Times at once after a pause.
    pub burst: u32,
}

impl Rate {
    fn room(self) -> u64 {
        u64::from(self.burst) * 1_000
    }
}

/// What was taken of a [`Rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Thousandths of a time; those taken and not yet given back.
    taken: u64,
    at_ms: u64,
}

impl Bucket {
    /// Takes one if it is there.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> bool {
        self.settle(rate, now_ms);
        let fits = self.taken + 1_000 <= rate.room();
        if fits {
            self.taken += 1_000;
        }
        fits
    }

    /// Takes `times` whether they are there or not; returns the milliseconds until the bucket owes
    /// nothing any more, 0 if it does not now.
    pub fn owe(&mut self, rate: Rate, now_ms: u64, times: u32) -> u64 {
        self.settle(rate, now_ms);
        self.taken = self.taken.saturating_add(u64::from(times) * 1_000);
        let owed = self.taken.saturating_sub(rate.room());
        match u64::from(rate.per_second) {
            0 if owed > 0 => u64::MAX,
            per_second => owed.div_ceil(per_second.max(1)),
        }
    }

    /// Whether nothing is taken: the bucket need not be kept.
    pub fn is_untouched(&mut self, rate: Rate, now_ms: u64) -> bool {
        self.settle(rate, now_ms);
        self.taken == 0
    }

    fn settle(&mut self, rate: Rate, now_ms: u64) {
        // `per_second` times a second are as many thousandths a millisecond.
        let passed = now_ms.saturating_sub(self.at_ms);
        let back = passed.saturating_mul(u64::from(rate.per_second));
        self.taken = self.taken.saturating_sub(back);
        self.at_ms = self.at_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 3,
    };

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let mut bucket = Bucket::default();
        let took: Vec<bool> = (0..5).map(|_| bucket.take(RATE, 1_000)).collect();
        assert_eq!(took, [true, true, true, false, false]);
        assert!(!bucket.take(RATE, 1_099));
        assert!(bucket.take(RATE, 1_100));
        assert!(!bucket.take(RATE, 1_100));
        assert!(!bucket.is_untouched(RATE, 1_399));
        assert!(bucket.is_untouched(RATE, 1_400));
    }

    #[test]
    fn what_is_owed_is_waited_for() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.owe(RATE, 0, 3), 0);
        assert_eq!(bucket.owe(RATE, 0, 1), 100);
        assert_eq!(bucket.owe(RATE, 50, 1), 150);
        assert_eq!(bucket.owe(RATE, 10_000, 1), 0);
        let never = Rate {
            per_second: 0,
            burst: 1,
        };
        assert_eq!(Bucket::default().owe(never, 0, 2), u64::MAX);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_back() {
        let mut bucket = Bucket::default();
        assert!((0..3).all(|_| bucket.take(RATE, 5_000)));
        assert!(!bucket.take(RATE, 0));
        assert!(!bucket.take(RATE, 5_000));
        assert!(bucket.take(RATE, 5_100));
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_the_burst_and_the_rate(waits in proptest::collection::vec(0u64..400, 1..200)) {
            let mut bucket = Bucket::default();
            let (mut now, mut times) = (7_000u64, Vec::new());
            for wait in waits {
                now += wait;
                if bucket.take(RATE, now) {
                    times.push(now);
                }
            }
            for (first, from) in times.iter().enumerate() {
                for (last, to) in times.iter().enumerate().skip(first) {
                    let passed = u64::from(RATE.burst) + (to - from) * u64::from(RATE.per_second) / 1_000 + 1;
                    prop_assert!((last - first + 1) as u64 <= passed);
                }
            }
        }
    }
}
