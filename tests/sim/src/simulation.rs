//! A run of one seed: all hosts, window after window, from the first boot to the last look at the
//! disks.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use std::sync::Arc;

use throng_protocol::ids::ShardId;

use crate::clients::Device;
use crate::cluster::{CORES, Core, EDGES, Edge};
use crate::dumps::Dump;
use crate::faults::Faults;
use crate::history::{Host as Where, Phase, What};
use crate::host::Host;
use crate::net::{Conditions, Network, Us};
use crate::recorder::Recorder;
use crate::run::Run;
use crate::{scan, setup, world};

/// The width of a window, and so the shortest delay of the network.
const WINDOW: Us = 5_000;
/// How long the cluster may take to begin and to make the groups; nothing goes wrong meanwhile.
const SETUP_MAX: Us = 20_000_000;
/// How long things go wrong.
const SAFETY: Us = 14_000_000;
/// How long everything may take to converge once nothing goes wrong any more: links that have to be
/// given up, elections, and requests that are tried again.
const LIVENESS_MAX: Us = 40_000_000;
/// How long nothing happens before the disks are read: what is applied is written behind.
const QUIET: Us = 1_000_000;
/// How often leaders are looked for.
const LOOK: Us = 20_000;

/// A run under way.
#[derive(Debug)]
pub struct Simulation {
    seed: u64,
    /// The time of the world.
    pub now: Us,
    /// The network of all hosts.
    pub net: Network,
    recorder: Recorder,
    /// Core nodes, by place.
    pub cores: Vec<Core>,
    /// Edges, by place.
    pub edges: Vec<Edge>,
    devices: Vec<Device>,
    setup: Host,
    everyday: Conditions,
    recording: bool,
    leaders: BTreeMap<(ShardId, u64), u8>,
    seen: BTreeMap<(u8, ShardId), (u64, u64)>,
    dumps: Vec<Dump>,
    broken: Option<String>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What happened, for the invariants.
    pub run: Run,
    /// What is wrong with the run itself, if anything: it did not begin, did not converge, cannot be
    /// read, or depends on more than its seed.
    pub broken: Option<String>,
    /// How long it was, in simulated microseconds.
    pub lasted: Us,
}

impl Simulation {
    /// All hosts of a seed, down.
    pub fn new(seed: u64) -> Self {
        let net = Network::new(seed, WINDOW);
        let cores = (1..=CORES).map(|id| Core::new(&net, id, seed)).collect();
        let edges = (1..=EDGES).map(|id| Edge::new(&net, id)).collect();
        let devices = world::clients().map(|client| Device::new(&net, client)).collect();
        let mut simulation = Self {
            seed,
            now: 0,
            setup: Host::new(&net),
            recorder: Recorder::new(seed),
            cores,
            edges,
            devices,
            everyday: Conditions::calm(WINDOW),
            recording: false,
            leaders: BTreeMap::new(),
            seen: BTreeMap::new(),
            dumps: Vec::new(),
            broken: None,
            net,
        };
        Faults::dress(seed, &mut simulation);
        let everyday = &mut simulation.everyday;
        simulation.net.set(|net| everyday.clone_from(net));
        simulation
    }

    /// Runs to the end.
    pub fn run(mut self) -> Outcome {
        if let Err(error) = self.set_up() {
            self.broken.get_or_insert(error);
            return self.finish();
        }
        self.recording = true;
        self.record(Where::World, What::Phase(Phase::Safety));
        for place in 0..self.devices.len() {
            self.start_device(place);
        }
        let mut faults = Faults::new(self.seed, self.now);
        let until = self.now + SAFETY;
        while self.now < until {
            faults.due(&mut self);
            self.window();
        }
        faults.stop(&mut self);
        self.record(Where::World, What::Phase(Phase::Liveness));
        let until = self.now + LIVENESS_MAX;
        while self.now < until && self.unsettled().is_some() {
            self.window();
            // A node may find only now that its disk was full a moment ago.
            self.restart_stopped();
        }
        if let Some(reason) = self.unsettled() {
            let reason = format!(
                "not settled {} s after the last fault: {reason}",
                LIVENESS_MAX / 1_000_000
            );
            self.broken.get_or_insert(reason);
        }
        self.record(Where::World, What::Phase(Phase::Scan));
        let until = self.now + QUIET;
        while self.now < until || (self.now < until + QUIET && self.uneven()) {
            self.window();
        }
        self.finish()
    }

    fn set_up(&mut self) -> Result<(), String> {
        for place in 0..self.cores.len() {
            self.start_core(place);
        }
        for place in 0..self.edges.len() {
            self.start_edge(place);
        }
        self.setup.boot(self.now).map_err(|error| error.to_string())?;
        let done = Arc::new(Mutex::new(None));
        let (told, net, host, seed) = (Arc::clone(&done), self.net.clone(), self.setup.id, self.seed);
        self.setup.spawn(async move {
            let made = setup::run(net, host, seed).await;
            *told.lock() = Some(made);
        });
        while self.now < SETUP_MAX {
            self.window();
            if let Some(made) = done.lock().take() {
                self.setup.crash();
                return made;
            }
        }
        Err(format!(
            "the groups were not made within {} s",
            SETUP_MAX / 1_000_000
        ))
    }

    /// Lets all hosts run through a window.
    fn window(&mut self) {
        let start = self.now;
        for host in self.hosts_mut() {
            host.run(start, WINDOW);
        }
        self.now = start + WINDOW;
        self.net.step(self.now);
        self.recorder.window_ends();
        for client in self.recorder.take_restarts() {
            let place = usize::from(client.0);
            self.devices[place].crash(&self.recorder, self.now);
            self.start_device(place);
        }
        if self.now.is_multiple_of(LOOK) {
            self.look();
        }
    }

    /// All hosts, in the order of the network.
    pub fn hosts_mut(&mut self) -> impl Iterator<Item = &mut Host> {
        let cores = self.cores.iter_mut().map(|core| &mut core.host);
        let edges = self.edges.iter_mut().map(|edge| &mut edge.host);
        let devices = self.devices.iter_mut().map(|device| &mut device.host);
        cores.chain(edges).chain(devices).chain([&mut self.setup])
    }

    /// The name of a host of the system, by its place in the network.
    pub fn place_of(&self, place: usize) -> Where {
        match self.cores.get(place) {
            Some(core) => Where::Core(core.id),
            None => Where::Edge(self.edges[place - self.cores.len()].id),
        }
    }

    /// Records what happened to the world.
    pub fn record(&self, host: Where, what: What) {
        if self.recording {
            self.recorder.record(self.now, host, what);
        }
    }

    /// Records new leaders, purges and snapshots.
    fn look(&mut self) {
        for place in 0..self.cores.len() {
            let node = self.cores[place].id;
            for progress in self.cores[place].progress() {
                let shard = progress.shard;
                if let Some(term) = progress.leads
                    && self.leaders.insert((shard, term), node) != Some(node)
                {
                    self.record(Where::Core(node), What::LeaderChanged { shard, term, node });
                }
                let now = (progress.purged, progress.installed);
                let before = self.seen.insert((node, shard), now).unwrap_or(now);
                if now.0 > before.0 {
                    let index = now.0;
                    self.record(Where::Core(node), What::Purged { shard, index });
                }
                if now.1 > before.1 {
                    let index = now.1;
                    self.record(Where::Core(node), What::Installed { shard, index });
                }
            }
        }
    }

    fn unsettled(&self) -> Option<String> {
        let cores = self.cores.iter();
        let mut unready =
            cores.filter_map(|core| core.unready().map(|reason| format!("core {}: {reason}", core.id)));
        let edges = self.edges.iter();
        let mut edges =
            edges.filter_map(|edge| edge.unready().map(|reason| format!("edge {}: {reason}", edge.id)));
        unready
            .next()
            .or_else(|| edges.next())
            .or_else(|| self.recorder.settled().err())
            .or_else(|| self.lagging())
    }

    /// Whether disks hold different states, as they do while followers have not learned that an entry
    /// of a leader's own is committed, or have not written what it did.
    fn uneven(&self) -> bool {
        if self.lagging().is_some() {
            return true;
        }
        let applied = scan::applied(&self.cores);
        let first = applied.first();
        applied.iter().any(|of_node| Some(of_node) != first)
    }

    /// A shard of which one replica has applied less than another.
    fn lagging(&self) -> Option<String> {
        let mut most: BTreeMap<ShardId, u64> = BTreeMap::new();
        let all: Vec<_> = self
            .cores
            .iter()
            .flat_map(|core| {
                core.applied()
                    .into_iter()
                    .map(|(shard, applied)| (core.id, shard, applied))
            })
            .collect();
        for (_, shard, applied) in &all {
            let known = most.entry(*shard).or_default();
            *known = (*known).max(*applied);
        }
        let lagging = all
            .iter()
            .find(|(_, shard, applied)| most.get(shard) != Some(applied));
        lagging.map(|(node, shard, applied)| {
            format!("node {node} has applied shard {shard} only up to {applied}")
        })
    }

    /// Starts a core node that is down.
    pub fn start_core(&mut self, place: usize) {
        let core = &mut self.cores[place];
        if core.host.is_up() {
            return;
        }
        if let Err(error) = core.start(&self.net, self.now) {
            self.broken.get_or_insert(error.to_string());
        }
        self.record(Where::Core(self.cores[place].id), What::Restart);
    }

    /// Kills a core node.
    pub fn crash_core(&mut self, place: usize) {
        let id = self.cores[place].id;
        self.cores[place].crash();
        let event = self.recorder.events();
        let durable = self.cores[place].disk.durable();
        self.dumps.extend(Dump::all(event, id, &*durable));
        self.seen.retain(|(node, _), _| *node != id);
        self.record(Where::Core(id), What::Crash);
    }

    /// Starts an edge that is down.
    pub fn start_edge(&mut self, place: usize) {
        let edge = &mut self.edges[place];
        if edge.host.is_up() {
            return;
        }
        if let Err(error) = edge.start(&self.net, self.now) {
            self.broken.get_or_insert(error.to_string());
        }
        self.record(Where::Edge(self.edges[place].id), What::Restart);
    }

    /// Kills an edge.
    pub fn crash_edge(&mut self, place: usize) {
        self.edges[place].crash();
        self.record(Where::Edge(self.edges[place].id), What::Crash);
    }

    /// Starts nodes anew whose store has failed, as their operator does.
    pub fn restart_stopped(&mut self) {
        for place in 0..self.cores.len() {
            if self.cores[place].has_stopped() {
                self.crash_core(place);
                self.start_core(place);
            }
        }
    }

    fn start_device(&mut self, place: usize) {
        let device = &mut self.devices[place];
        if let Err(error) = device.start(&self.net, &self.recorder, self.seed, self.now) {
            self.broken.get_or_insert(error.to_string());
        }
        let client = device.client;
        self.record(Where::Client(client), What::Restart);
    }

    /// Makes the network lose and hold up packets.
    pub fn rough(&self, lost_ppm: u32, held_up_ppm: u32) {
        self.net.set(|net| {
            net.lost_ppm = lost_ppm;
            net.held_up_ppm = held_up_ppm;
            net.held_up_max = net.held_up_max.max(150_000);
        });
    }

    /// Makes the network what it is every day.
    pub fn calm(&self) {
        let everyday = &self.everyday;
        self.net.set(|net| {
            net.lost_ppm = everyday.lost_ppm;
            net.held_up_ppm = everyday.held_up_ppm;
            net.held_up_max = everyday.held_up_max;
        });
    }

    fn finish(mut self) -> Outcome {
        let threads = self.hosts_mut().any(|host| host.has_started_threads());
        if threads {
            self.broken
                .get_or_insert("a host has started a thread".to_owned());
        }
        let lasted = self.now;
        let event = self.recorder.events();
        for core in &self.cores {
            self.dumps
                .extend(Dump::all(event, core.id, &*core.disk.durable()));
        }
        for host in self.hosts_mut() {
            host.crash();
        }
        let mut logs = scan::logs(&self.cores).unwrap_or_else(|error| {
            self.broken.get_or_insert(error);
            crate::logs::FinalLogs::default()
        });
        logs.dumps = self.dumps;
        Outcome {
            run: Run::new(self.recorder.into_history(), logs),
            broken: self.broken,
            lasted,
        }
    }
}
