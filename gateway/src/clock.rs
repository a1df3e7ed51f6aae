//! Unix milliseconds that never go back, and when they come.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Duration, Instant};

/// The machine's clock as it was when the edge started, moved on by a clock that only goes forward:
/// a step of the machine's clock cannot end sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    unix_ms: u64,
    at: Instant,
}

impl Clock {
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            at: Instant::now(),
        }
    }

    pub fn now_ms(&self) -> u64 {
        let passed = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.unix_ms.saturating_add(passed)
    }

    /// The moment of a time; a time far ahead is capped at a day, and asked for again then.
    pub fn instant(&self, unix_ms: u64) -> Instant {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        let wait = Duration::from_millis(unix_ms.saturating_sub(self.now_ms()));
        Instant::now() + wait.min(DAY)
    }
}
