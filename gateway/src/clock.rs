//! Unix milliseconds that never go back, and when they come.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Duration, Instant};

/// What the machine's clock says, Unix milliseconds.
pub(crate) fn machine_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The machine's clock as it was when the edge started, moved on by a clock that only goes forward:
/// a step of the machine's clock cannot end sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    unix_ms: u64,
    at: Instant,
}

impl Clock {
    /// A clock that says now what it is told.
    pub fn start_at(unix_ms: u64) -> Self {
        let at = Instant::now();
        Self { unix_ms, at }
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
