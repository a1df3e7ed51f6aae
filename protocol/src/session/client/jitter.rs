//! The jitter of retries: xorshift64*, enough to spread them, and the same on every run of one seed.

/// First wait before a retry; doubles to [`RETRY_MS_MAX`], half of it jitter.
const RETRY_MS_MIN: u64 = 100;

/// Longest wait before a retry; an election takes less.
const RETRY_MS_MAX: u64 = 2_000;

#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        // Any value but 0 works; the multiplication spreads small neighbouring seeds.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The wait before attempt number `attempt` (from 1): exponential, the upper half random.
    pub(super) fn wait_ms(&mut self, attempt: u32) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        let full = (RETRY_MS_MIN << attempt.saturating_sub(1).min(10)).min(RETRY_MS_MAX);
        full / 2 + random % (full / 2 + 1)
    }
}
