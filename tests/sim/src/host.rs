//! A host: a runtime of its own that stands still unless it is its turn, and dies in a crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use throng_core::Clock;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep_until};

use crate::net::{HostId, Network, Us};

/// The wall clock of the world when a run begins, Unix milliseconds.
pub const EPOCH_MS: u64 = 1_750_000_000_000;

/// The wall clock of a host: it may be wrong, run at another rate, and jump.
#[derive(Debug, Clone)]
pub struct WallClock {
    began: Instant,
    /// What it said at `began`; jumps move it.
    ms: Arc<AtomicI64>,
}

impl WallClock {
    /// Moves the clock.
    pub fn jump(&self, ms: i64) {
        self.ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for WallClock {
    fn now_ms(&self) -> u64 {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let now = self.ms.load(Ordering::Relaxed).saturating_add(passed);
        u64::try_from(now).unwrap_or_default()
    }
}

/// A host of a run. It is down until it is booted.
#[derive(Debug)]
pub struct Host {
    /// Its place in the network.
    pub id: HostId,
    net: Network,
    running: Option<Running>,
    /// By how much its wall clock is wrong when it boots.
    pub wrong_ms: i64,
    /// Parts in a million by which all its clocks are fast.
    pub fast_ppm: i64,
    /// A thread was started: what runs on it depends on no seed.
    threads: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Running {
    runtime: Runtime,
    /// Where the next window begins, by the host's own clock.
    local: Instant,
    wall: WallClock,
}

impl Host {
    /// A host of a network, down.
    pub fn new(net: &Network) -> Self {
        Self {
            id: net.add_host(),
            net: net.clone(),
            running: None,
            wrong_ms: 0,
            fast_ppm: 0,
            threads: Arc::default(),
        }
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether something on it has started a thread.
    pub fn has_started_threads(&self) -> bool {
        self.threads.load(Ordering::Relaxed)
    }

    /// Boots the host at a time of the world.
    pub fn boot(&mut self, now: Us) -> std::io::Result<WallClock> {
        let threads = Arc::clone(&self.threads);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_start(move || threads.store(true, Ordering::Relaxed))
            .build()?;
        let local = runtime.block_on(async { Instant::now() });
        let ms = i64::try_from(EPOCH_MS + now / 1_000).unwrap_or(i64::MAX) + self.wrong_ms;
        let wall = WallClock {
            began: local,
            ms: Arc::new(AtomicI64::new(ms)),
        };
        self.net.start(self.id);
        self.running = Some(Running {
            runtime,
            local,
            wall: wall.clone(),
        });
        Ok(wall)
    }

    /// Starts a task on a host that is up; it runs when the host has its turn.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(running) = &self.running {
            running.runtime.spawn(task);
        }
    }

    /// Moves the wall clock, for good: it is as wrong after the next boot.
    pub fn jump(&mut self, ms: i64) {
        self.wrong_ms += ms;
        if let Some(running) = &self.running {
            running.wall.jump(ms);
        }
    }

    /// Lets the host run through a window.
    pub fn run(&mut self, start: Us, width: Us) {
        let (id, net, fast_ppm) = (self.id, self.net.clone(), self.fast_ppm);
        let Some(running) = &mut self.running else { return };
        let began = running.local;
        let local = |passed: Us| began + stretched(passed, fast_ppm);
        let end = local(width);
        running.runtime.block_on(async {
            net.enter(start, width, began, fast_ppm);
            while let Some(at) = net.next_arrival(id, start + width) {
                sleep_until(local(at.saturating_sub(start))).await;
                net.arrive(id);
            }
            sleep_until(end).await;
        });
        running.local = end;
    }

    /// The host is gone at once: nothing that is dropped with it reaches anybody.
    pub fn crash(&mut self) {
        self.net.crash(self.id);
        self.running = None;
    }
}

/// A stretch of the world's time as a clock sees it that is fast by some parts in a million.
fn stretched(us: Us, fast_ppm: i64) -> Duration {
    let ppm = 1_000_000_u64.saturating_add_signed(fast_ppm);
    Duration::from_nanos(us * ppm / 1_000)
}
