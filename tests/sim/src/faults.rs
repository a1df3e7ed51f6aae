//! What goes wrong in a run, as the seed says, and the end of each trouble.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::history::{Host as Where, What};
use crate::net::{HostId, Us};
use crate::rng;
use crate::simulation::Simulation;

/// Between two troubles.
const PAUSE: std::ops::RangeInclusive<Us> = 150_000..=1_100_000;
/// How long a process is down: short enough to be a supervisor's restart, long enough for its peers
/// to elect, and now and then to give its links up.
const DOWN: std::ops::RangeInclusive<Us> = 50_000..=2_500_000;
/// How long hosts are apart.
const APART: std::ops::RangeInclusive<Us> = 200_000..=2_500_000;
/// How long packets are lost or held up.
const ROUGH: std::ops::RangeInclusive<Us> = 200_000..=2_000_000;
/// How long a disk is slow or full.
const DISK: std::ops::RangeInclusive<Us> = 300_000..=2_000_000;
/// How much longer a sync of a slow disk takes, in milliseconds.
const SLOW_MS: std::ops::RangeInclusive<u64> = 20..=700;
/// How far a wall clock jumps, in milliseconds. An edge takes tokens and grants that come from a
/// little ahead of it; a leader that is half a second ahead steps down.
const JUMP_MS: std::ops::RangeInclusive<i64> = -2_000..=2_000;
/// By how many parts in a million clocks are fast or slow: real ones by a hundred or two, virtual
/// machines by more.
const DRIFT_PPM: std::ops::RangeInclusive<i64> = -3_000..=3_000;

/// The troubles of a run.
#[derive(Debug)]
pub struct Faults {
    random: StdRng,
    next: Us,
    ends: Vec<(Us, End)>,
}

/// The end of a trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    StartCore(usize),
    StartEdge(usize),
    Heal,
    Calm,
    /// The disk is as fast as ever.
    Quick(usize),
    /// The disk has room, and the process is started anew.
    Room(usize),
}

impl Faults {
    /// The troubles of a seed; the first comes soon after `now`.
    pub fn new(seed: u64, now: Us) -> Self {
        let mut random = rng::stream(seed, "faults");
        let next = now + random.random_range(PAUSE) * 2;
        Self {
            random,
            next,
            ends: Vec::new(),
        }
    }

    /// The clocks and the everyday network of a seed.
    pub fn dress(seed: u64, simulation: &mut Simulation) {
        let mut random = rng::stream(seed, "dress");
        let calm = random.random_bool(0.25);
        simulation.net.set(|net| {
            net.jitter = random.random_range(0..=12_000);
            if !calm {
                net.lost_ppm = random.random_range(0..=10_000);
                net.doubled_ppm = random.random_range(0..=10_000);
                net.held_up_ppm = random.random_range(0..=40_000);
                net.held_up_max = random.random_range(10_000..=80_000);
            }
        });
        for host in simulation.hosts_mut() {
            host.wrong_ms = random.random_range(-150..=150);
            host.fast_ppm = random.random_range(-200..=200);
        }
    }

    /// Lets happen what is due.
    pub fn due(&mut self, simulation: &mut Simulation) {
        let now = simulation.now;
        while let Some(place) = self.ends.iter().position(|(at, _)| *at <= now) {
            let (_, end) = self.ends.remove(place);
            Self::end(simulation, end);
        }
        if now >= self.next {
            self.next = now + self.random.random_range(PAUSE);
            self.begin(simulation);
        }
    }

    /// Ends all troubles.
    pub fn stop(&mut self, simulation: &mut Simulation) {
        for (_, end) in std::mem::take(&mut self.ends) {
            Self::end(simulation, end);
        }
        Self::end(simulation, End::Heal);
        simulation.restart_stopped();
    }

    fn begin(&mut self, simulation: &mut Simulation) {
        match self.random.random_range(0..100) {
            0..22 => self.crash_core(simulation),
            22..28 => self.crash_several(simulation),
            28..42 => self.crash_edge(simulation),
            42..60 => self.part(simulation),
            60..70 => self.rough(simulation),
            70..80 => self.slow_disk(simulation),
            80..86 => self.full_disk(simulation),
            86..95 => self.jump(simulation),
            _ => self.drift(simulation),
        }
    }

    fn later(&mut self, simulation: &Simulation, after: std::ops::RangeInclusive<Us>, end: End) {
        let at = simulation.now + self.random.random_range(after);
        self.ends.push((at, end));
    }

    fn one_core(&mut self, simulation: &Simulation) -> Option<usize> {
        let up: Vec<usize> = (0..simulation.cores.len())
            .filter(|place| simulation.cores[*place].host.is_up())
            .collect();
        up.choose(&mut self.random).copied()
    }

    fn crash_core(&mut self, simulation: &mut Simulation) {
        // The leaders are the interesting ones.
        let leaders: Vec<usize> = (0..simulation.cores.len())
            .filter(|place| {
                let progress = simulation.cores[*place].progress();
                progress.iter().any(|progress| progress.leads.is_some())
            })
            .collect();
        let place = if self.random.random_bool(0.6) {
            leaders.choose(&mut self.random).copied()
        } else {
            self.one_core(simulation)
        };
        if let Some(place) = place {
            simulation.crash_core(place);
            self.later(simulation, DOWN, End::StartCore(place));
        }
    }

    fn crash_several(&mut self, simulation: &mut Simulation) {
        let all = self.random.random_bool(0.3);
        for place in 0..simulation.cores.len() {
            if simulation.cores[place].host.is_up() && (all || self.random.random_bool(0.6)) {
                simulation.crash_core(place);
                self.later(simulation, DOWN, End::StartCore(place));
            }
        }
    }

    fn crash_edge(&mut self, simulation: &mut Simulation) {
        let place = self.random.random_range(0..simulation.edges.len());
        if simulation.edges[place].host.is_up() {
            simulation.crash_edge(place);
            self.later(simulation, DOWN, End::StartEdge(place));
        }
    }

    /// Cuts some hosts of the system off the others, in one direction or both. Clients are cut off
    /// from some edges only with them.
    fn part(&mut self, simulation: &mut Simulation) {
        let nodes = simulation.cores.len() + simulation.edges.len();
        let one_way = self.random.random_bool(0.35);
        let lone = self.random.random_range(0..nodes);
        let wide = self.random.random_bool(0.4);
        let side: Vec<bool> = (0..nodes)
            .map(|node| node == lone || (wide && self.random.random_bool(0.4)))
            .collect();
        let inward = self.random.random_bool(0.5);
        simulation.net.set(|net| {
            for (from, apart) in side.iter().enumerate() {
                for (to, other) in side.iter().enumerate() {
                    if *apart && !other {
                        if !one_way || !inward {
                            net.cut(HostId(from), HostId(to));
                        }
                        if !one_way || inward {
                            net.cut(HostId(to), HostId(from));
                        }
                    }
                }
            }
        });
        let bits = side
            .iter()
            .rev()
            .fold(0, |bits, apart| bits << 1 | u32::from(*apart));
        simulation.record(Where::World, What::Partition { side: bits, one_way });
        self.later(simulation, APART, End::Heal);
    }

    fn rough(&mut self, simulation: &mut Simulation) {
        let lost = self.random.random_range(20_000..=300_000);
        let held_up = self.random.random_range(0..=300_000);
        simulation.rough(lost, held_up);
        self.later(simulation, ROUGH, End::Calm);
    }

    fn slow_disk(&mut self, simulation: &mut Simulation) {
        let place = self.random.random_range(0..simulation.cores.len());
        let ms = self.random.random_range(SLOW_MS);
        simulation.cores[place].disk.set_slow(Duration::from_millis(ms));
        simulation.record(Where::Core(simulation.cores[place].id), What::DiskSlow { ms });
        self.later(simulation, DISK, End::Quick(place));
    }

    fn full_disk(&mut self, simulation: &mut Simulation) {
        let place = self.random.random_range(0..simulation.cores.len());
        simulation.cores[place].disk.set_full(true);
        simulation.record(Where::Core(simulation.cores[place].id), What::DiskFull(true));
        self.later(simulation, DISK, End::Room(place));
    }

    fn jump(&mut self, simulation: &mut Simulation) {
        let nodes = simulation.cores.len() + simulation.edges.len();
        let (place, jump_ms) = (
            self.random.random_range(0..nodes),
            self.random.random_range(JUMP_MS),
        );
        let host = simulation.place_of(place);
        // Jumps do not add up to hours: the clock is wrong by this much now.
        let jumped = simulation.hosts_mut().nth(place).map(|found| {
            let by = jump_ms - found.wrong_ms;
            found.jump(by);
            by
        });
        if let Some(jump_ms) = jumped {
            simulation.record(host, What::Clock { jump_ms });
        }
    }

    fn drift(&mut self, simulation: &mut Simulation) {
        for host in simulation.hosts_mut() {
            host.fast_ppm = self.random.random_range(DRIFT_PPM);
        }
    }

    fn end(simulation: &mut Simulation, end: End) {
        match end {
            End::StartCore(place) => simulation.start_core(place),
            End::StartEdge(place) => simulation.start_edge(place),
            End::Heal => {
                simulation.net.set(|net| net.heal());
                simulation.record(Where::World, What::Heal);
            }
            End::Calm => simulation.calm(),
            End::Quick(place) => {
                simulation.cores[place].disk.set_slow(Duration::ZERO);
                simulation.record(Where::Core(simulation.cores[place].id), What::DiskSlow { ms: 0 });
            }
            End::Room(place) => {
                simulation.cores[place].disk.set_full(false);
                simulation.record(Where::Core(simulation.cores[place].id), What::DiskFull(false));
                if simulation.cores[place].has_stopped() {
                    simulation.crash_core(place);
                    simulation.start_core(place);
                }
            }
        }
    }
}
