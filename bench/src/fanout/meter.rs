//! Counts deliveries and how late they are, in the process that makes the load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::scenario::{STAMP_BYTES, Scenario};

/// Messages before the ones that count are numbered from here.
const WARM_UP: u32 = 1 << 31;

/// What a load saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub expected: u64,
    pub delivered: u64,
    /// Messages that did not reach each subscriber exactly once.
    pub uneven: u64,
    /// Milliseconds from when a message was due to a delivery.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Milliseconds until the last subscriber had a message, the median of the messages.
    pub last_ms: f64,
}

#[derive(Debug)]
struct Counts {
    began: Instant,
    delivered: u64,
    warm: u64,
    latency_us: Histogram<u64>,
    /// By message: deliveries, and the latest of them in microseconds.
    messages: Vec<(u64, u64)>,
}

/// Shared by all clients of a load.
#[derive(Debug)]
pub struct Meter {
    scenario: Scenario,
    counts: Mutex<Counts>,
    changed: Notify,
}

impl Meter {
    /// For one run of a scenario.
    pub fn new(scenario: Scenario) -> Result<Arc<Self>> {
        ensure!(
            scenario.size >= STAMP_BYTES,
            "a body has at least {STAMP_BYTES} bytes"
        );
        let counts = Counts {
            began: Instant::now(),
            delivered: 0,
            warm: 0,
            latency_us: Histogram::new_with_bounds(1, 600_000_000, 3)?,
            messages: vec![(0, 0); scenario.messages() as usize],
        };
        Ok(Arc::new(Self {
            scenario,
            counts: Mutex::new(counts),
            changed: Notify::new(),
        }))
    }

    /// From here on messages are due.
    pub fn begin(&self) -> Instant {
        let now = Instant::now();
        self.counts.lock().began = now;
        now
    }

    /// The body of a message that counts.
    pub fn body(&self, message: u32) -> Bytes {
        self.stamped(message, self.scenario.due(message))
    }

    /// The body of a message before those.
    pub fn warm_up(&self, message: u32) -> Bytes {
        self.stamped(WARM_UP + message, Duration::ZERO)
    }

    fn stamped(&self, message: u32, due: Duration) -> Bytes {
        let mut body = vec![b'x'; self.scenario.size];
        let due = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
        body[..8].copy_from_slice(&due.to_be_bytes());
        body[8..STAMP_BYTES].copy_from_slice(&message.to_be_bytes());
        body.into()
    }

    /// A body has reached a subscriber.
    pub fn received(&self, body: &[u8]) {
        let (Some(due), Some(message)) = (body.first_chunk::<8>(), body.get(8..STAMP_BYTES)) else {
            return;
        };
        let (due, message) = (
            u64::from_be_bytes(*due),
            message.try_into().map_or(0, u32::from_be_bytes),
        );
        let mut counts = self.counts.lock();
        if message >= WARM_UP {
            counts.warm += 1;
        } else {
            let late = counts.began.elapsed().saturating_sub(Duration::from_nanos(due));
            let late = u64::try_from(late.as_micros()).unwrap_or(u64::MAX).max(1);
            counts.delivered += 1;
            counts.latency_us.saturating_record(late);
            if let Some((seen, latest)) = counts.messages.get_mut(message as usize) {
                (*seen, *latest) = (*seen + 1, late.max(*latest));
            }
        }
        let whole = self.scenario.audience() as u64;
        if counts.delivered.is_multiple_of(whole) && counts.warm.is_multiple_of(whole) {
            drop(counts);
            self.changed.notify_waiters();
        }
    }

    /// Waits until so many messages before those that count have reached everybody.
    pub async fn warmed(&self, messages: u32) {
        let owed = self.scenario.audience() as u64 * u64::from(messages);
        self.reached(|counts| counts.warm >= owed).await;
    }

    /// Waits until everything owed has arrived.
    pub async fn complete(&self) {
        let owed = self.scenario.expected();
        self.reached(|counts| counts.delivered >= owed).await;
    }

    async fn reached(&self, is: impl Fn(&Counts) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is(&self.counts.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// What arrived so far.
    pub fn seen(&self) -> Seen {
        let counts = self.counts.lock();
        let mut last = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3);
        let mut uneven = 0;
        for (seen, latest) in &counts.messages {
            uneven += u64::from(*seen != self.scenario.audience() as u64);
            if let Ok(last) = &mut last {
                last.saturating_record((*latest).max(1));
            }
        }
        let ms = |us: u64| us as f64 / 1_000.0;
        Seen {
            expected: self.scenario.expected(),
            delivered: counts.delivered,
            uneven,
            p50_ms: ms(counts.latency_us.value_at_quantile(0.5)),
            p99_ms: ms(counts.latency_us.value_at_quantile(0.99)),
            max_ms: ms(counts.latency_us.max()),
            last_ms: last.map_or(0.0, |last| ms(last.value_at_quantile(0.5))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Scenario = Scenario {
        publishers: 1,
        subscribers: 2,
        groups: 1,
        rate: 2,
        size: 16,
        seconds: 1,
    };

    #[tokio::test]
    async fn deliveries_are_counted_by_message_and_warm_ups_apart() {
        let meter = Meter::new(SMALL).unwrap();
        let warm = meter.warm_up(0);
        meter.received(&warm);
        meter.received(&warm);
        meter.warmed(1).await;
        meter.begin();
        for message in [0, 0, 1, 1] {
            assert!(meter.seen().uneven > 0);
            meter.received(&meter.body(message));
        }
        meter.complete().await;
        let seen = meter.seen();
        assert_eq!((seen.expected, seen.delivered, seen.uneven), (4, 4, 0));
    }

    #[test]
    fn one_delivery_twice_and_one_missing_is_uneven_although_the_sum_is_right() {
        let meter = Meter::new(SMALL).unwrap();
        for message in [0, 0, 0, 1] {
            meter.received(&meter.body(message));
        }
        let seen = meter.seen();
        assert_eq!((seen.delivered, seen.uneven), (4, 2));
    }

    #[test]
    fn a_body_without_room_for_its_stamp_is_refused() {
        assert!(Meter::new(Scenario { size: 11, ..SMALL }).is_err());
    }
}
