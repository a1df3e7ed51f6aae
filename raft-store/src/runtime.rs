//! The runtime openraft runs on: tokio's, with the ticks of a process on one grid.
//!
//! Every shard of a node ticks by itself, and openraft spreads the ticks by chance: a node with
//! thirteen shards wakes two hundred times a second for nothing but ticks. On a grid they come together
//! and wake the node once. A tick is late by less than a period, always by the same; what is random
//! about elections is their timeouts, which this leaves alone. Everything else is tokio's own.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant as _, OptionalSend};
use openraft_rt_tokio::{TokioInstant, TokioRuntime};

use crate::config::ShardTiming;

/// openraft asks its runtime by type, so there is no value that could hold the grid.
static GRID: OnceLock<Grid> = OnceLock::new();

/// Puts the ticks of all shards of this process on one grid, from now on and for good. Whoever runs
/// hosts with clocks of their own in a process leaves it alone.
pub fn align_ticks(timing: ShardTiming) {
    GRID.get_or_init(|| Grid {
        origin: TokioInstant::now(),
        period: timing.tick(),
    });
}

/// Besides ticks openraft waits for a microsecond, in which answers of the disk gather: what is as near
/// as this is not put off.
const SOON: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy)]
struct Grid {
    origin: TokioInstant,
    period: Duration,
}

impl Grid {
    /// The first line of the grid at a moment or behind it.
    fn line(&self, at: TokioInstant) -> TokioInstant {
        let passed = (at - self.origin).as_micros();
        let period = self.period.as_micros().max(1);
        let rest = (period - passed % period) % period;
        at + Duration::from_micros(u64::try_from(rest).unwrap_or(0))
    }
}

/// tokio, and the grid.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let tick = deadline - TokioInstant::now() > SOON;
        let grid = GRID.get().filter(|_| tick);
        TokioRuntime::sleep_until(grid.map_or(deadline, |grid| grid.line(deadline)))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_put_off_to_the_next_line_and_a_line_stays() {
        let origin = TokioInstant::now();
        let grid = Grid {
            origin,
            period: Duration::from_millis(60),
        };
        let after = |micros| origin + Duration::from_micros(micros);
        for (at, line) in [
            (0, 0),
            (1, 60_000),
            (59_999, 60_000),
            (60_000, 60_000),
            (150_000, 180_000),
        ] {
            assert_eq!(grid.line(after(at)), after(line), "{at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn timers_of_one_process_end_together() {
        align_ticks(ShardTiming::default());
        let period = ShardTiming::default().tick();
        let ends = (1..=13).map(|part| async move {
            Runtime::sleep_until(TokioInstant::now() + period * part / 13).await;
            TokioInstant::now()
        });
        let ends = futures_util::future::join_all(ends).await;
        let begun = TokioInstant::now();
        Runtime::sleep_until(begun + SOON).await;
        assert!(
            TokioInstant::now() - begun <= 2 * SOON,
            "what is near is not put off"
        );
        let moments: std::collections::BTreeSet<_> = ends.into_iter().collect();
        assert!(moments.len() <= 2, "{moments:?}");
    }
}
