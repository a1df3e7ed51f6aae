//! A whole system under faults: three core nodes that reach each other and are reached by edges
//! through the proxy alone, each on a disk that can be held.
//!
//! Every process is a child whose stdin is a pipe of this process: when this one is gone, however it
//! ended, so are they.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;

use crate::disk::{self, Disk};
use crate::process::{Binary, Running};
use crate::proxy::{Net, Party};

/// Core nodes of a system; a majority of three survives one.
pub const CORES: usize = 3;

/// How long a process may take to say that it serves, on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// Ports of a system: those below the range that the kernel gives away, so that the address of a
/// killed node is still free when it comes back.
const PORTS_FIRST: u16 = 7_000;

/// Ports set aside for one system.
const PORTS_EACH: u16 = 100;

/// Systems of one process whose ports do not meet.
const SYSTEMS_MAX: u16 = 200;

/// The size of a system.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Edges.
    pub edges: usize,
    /// Management shards.
    pub management: u32,
    /// Message shards.
    pub message: u32,
    /// Log entries of a shard between snapshots.
    pub snapshot_every: u64,
    /// Log entries of a shard kept behind a snapshot.
    pub log_keep: u64,
}

/// A running system. Dropping it kills every process.
#[derive(Debug)]
pub struct System {
    /// The network.
    pub net: Net,
    /// The disks of the core nodes.
    pub disks: Vec<Disk>,
    shape: Shape,
    binary: Binary,
    dir: PathBuf,
    places: Places,
    cores: Vec<Option<Running>>,
    edges: Vec<Option<Running>>,
}

/// The addresses of a system.
#[derive(Debug, Clone, Copy)]
struct Places {
    ip: IpAddr,
    first: u16,
}

impl Places {
    /// An address on loopback of this process alone, and ports of this system alone.
    fn new() -> Self {
        static SYSTEMS: AtomicU16 = AtomicU16::new(0);
        let turn = SYSTEMS.fetch_add(1, Ordering::Relaxed) % SYSTEMS_MAX;
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        // 127.64.0.0/10: process ids have at most 22 bits.
        let ip = Ipv4Addr::new(127, 64 | (high & 63), middle, low.max(1));
        Self {
            ip: ip.into(),
            first: PORTS_FIRST + turn * PORTS_EACH,
        }
    }

    fn at(self, offset: usize) -> SocketAddr {
        SocketAddr::new(self.ip, self.first + offset as u16)
    }

    /// Where a core node listens.
    fn core(self, id: usize) -> SocketAddr {
        self.at(id)
    }

    /// The front of a core node for everybody.
    fn front(self, id: usize) -> SocketAddr {
        self.at(10 + id)
    }

    fn edge(self, id: usize) -> SocketAddr {
        self.at(20 + id)
    }

    /// The front of a core node for one edge.
    fn front_of(self, edge: usize, core: usize) -> SocketAddr {
        self.at(30 + edge * 10 + core)
    }

    fn observe(self, party: Party) -> SocketAddr {
        match party {
            Party::Core(id) => self.at(80 + id),
            Party::Edge(id) => self.at(90 + id),
        }
    }
}

impl System {
    /// Starts a system in an empty folder, and registers an app with it.
    pub async fn start(binary: &Binary, dir: &Path, seed: u64, shape: Shape) -> Result<Self> {
        fs::create_dir_all(dir).context("making the folder")?;
        let places = Places::new();
        let library = disk::build(dir)?;
        let mut system = Self {
            net: Net::new(seed),
            disks: (1..=CORES)
                .map(|id| Disk::new(&library, dir, &format!("disk-{id}")))
                .collect(),
            shape,
            binary: binary.clone(),
            dir: dir.to_owned(),
            places,
            cores: (0..CORES).map(|_| None).collect(),
            edges: (0..shape.edges).map(|_| None).collect(),
        };
        system.open_fronts().await?;
        system.configure()?;
        for id in 1..=CORES {
            system.spawn_core(id)?;
        }
        system.await_cores()?;
        for id in 1..=shape.edges {
            system.spawn_edge(id)?;
        }
        for edge in system.edges.iter_mut().flatten() {
            blocking(|| edge.wait_for_line("ready", READY))?;
        }
        system.adopt()?;
        Ok(system)
    }

    async fn open_fronts(&mut self) -> Result<()> {
        let places = self.places;
        for id in 1..=CORES {
            let (core, node) = (Party::Core(id), places.core(id));
            self.net.know(node, core);
            self.net.front(places.front(id), core, node, None).await?;
            for edge in 1..=self.shape.edges {
                let of = Some(Party::Edge(edge));
                self.net.front(places.front_of(edge, id), core, node, of).await?;
            }
        }
        Ok(())
    }

    /// Writes the configuration of the core nodes, and of each edge one of its own.
    fn configure(&self) -> Result<()> {
        let (dir, places) = (self.dir.display(), self.places);
        let Shape {
            management,
            message,
            snapshot_every,
            log_keep,
            ..
        } = self.shape;
        let head = format!("id = 1\ncluster = \"throng\"\n[tls]\ndevelopment_ca = \"{dir}/tls\"\n");
        let mut core = format!(
            "data = \"{dir}/core-{{id}}\"\n{head}[shards]\nmanagement = {management}\nmessage = {message}\n\
             replicas = {CORES}\n[storage]\nsnapshot_every = {snapshot_every}\nlog_keep = {log_keep}\n"
        );
        for id in 1..=CORES {
            let (addr, front) = (places.core(id), places.front(id));
            let observe = places.observe(Party::Core(id));
            write!(
                core,
                "[[nodes]]\nid = {id}\naddr = \"{addr}\"\nadvertise = \"{front}\"\nobserve = \"{observe}\"\n"
            )?;
        }
        fs::write(self.dir.join("core.toml"), core).context("writing a configuration")?;
        for edge in 1..=self.shape.edges {
            let mut text = head.clone();
            for id in 1..=self.shape.edges {
                let (listen, observe) = (places.edge(id), places.observe(Party::Edge(id)));
                write!(
                    text,
                    "[[edges]]\nid = {id}\nlisten = \"{listen}\"\nobserve = \"{observe}\"\n"
                )?;
            }
            for id in 1..=CORES {
                let front = places.front_of(edge, id);
                write!(text, "[[nodes]]\nid = {id}\naddr = \"{front}\"\n")?;
            }
            fs::write(self.dir.join(format!("edge-{edge}.toml")), text).context("writing a configuration")?;
        }
        Ok(())
    }

    fn adopt(&self) -> Result<()> {
        let mut args = vec!["ctl".to_owned(), "adopt".to_owned()];
        args.extend(["--cluster".to_owned(), self.cluster().display().to_string()]);
        args.extend(["--tls".to_owned(), self.dir.join("tls").display().to_string()]);
        for id in 1..=CORES {
            args.extend(["--core".to_owned(), format!("{id}={}", self.places.core(id))]);
        }
        for id in 1..=self.shape.edges {
            args.extend(["--edge".to_owned(), self.places.edge(id).to_string()]);
        }
        let output = blocking(|| self.binary.run(&args))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the app was not registered: {said}");
        Ok(())
    }

    /// The binary under test.
    pub fn binary(&self) -> &Binary {
        &self.binary
    }

    /// The folder with `cluster.json`.
    pub fn cluster(&self) -> PathBuf {
        self.dir.join("cluster")
    }

    /// How many edges there are.
    pub fn edges(&self) -> usize {
        self.shape.edges
    }

    /// The folder of everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folders of the core nodes' stores.
    pub fn stores(&self) -> Vec<PathBuf> {
        let store = |id| self.dir.join(format!("core-{id}/store"));
        (1..=CORES).map(store).collect()
    }

    /// Starts a core node that does not run; it is not waited for.
    pub fn spawn_core(&mut self, id: usize) -> Result<()> {
        let mut command = self.command("core", &self.dir.join("core.toml"), id)?;
        self.disks[id - 1].preload(&mut command);
        self.cores[id - 1] = Some(Running::start(&mut command)?);
        Ok(())
    }

    fn spawn_edge(&mut self, id: usize) -> Result<()> {
        let config = self.dir.join(format!("edge-{id}.toml"));
        let mut command = self.command("gateway", &config, id)?;
        self.edges[id - 1] = Some(Running::start(&mut command)?);
        Ok(())
    }

    /// Waits until every core node that runs has said once that it serves.
    pub fn await_cores(&mut self) -> Result<()> {
        for id in 1..=CORES {
            self.await_core(id)?;
        }
        Ok(())
    }

    /// Waits until a core node says that it serves, if it has not done so; must run.
    pub fn await_core(&mut self, id: usize) -> Result<()> {
        let core = self.core(id)?;
        blocking(|| core.wait_once_for_line("ready", READY)).with_context(|| format!("core node {id}"))
    }

    /// SIGKILL of a core node, if it runs. Returns when the process is gone.
    pub fn kill_core(&mut self, id: usize) -> Result<()> {
        match self.cores[id - 1].take() {
            Some(mut core) => blocking(|| core.kill()),
            None => Ok(()),
        }
    }

    /// Whether a core node's process is there.
    pub fn runs(&self, id: usize) -> bool {
        self.cores[id - 1].is_some()
    }

    /// SIGSTOP of a core node.
    pub fn pause_core(&mut self, id: usize) -> Result<()> {
        self.core(id)?.signal(Signal::STOP)
    }

    /// SIGCONT of a core node.
    pub fn resume_core(&mut self, id: usize) -> Result<()> {
        self.core(id)?.signal(Signal::CONT)
    }

    /// Kills all core nodes at once.
    pub fn kill_all(&mut self) -> Result<()> {
        (1..=CORES).try_for_each(|id| self.kill_core(id))
    }

    fn core(&mut self, id: usize) -> Result<&mut Running> {
        let core = self.cores[id - 1].as_mut();
        core.ok_or_else(|| anyhow!("core node {id} does not run"))
    }

    fn command(&self, kind: &str, config: &Path, id: usize) -> Result<Command> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("{kind}-{id}.log")))
            .context("opening a log")?;
        let mut command = Command::new(self.binary.path());
        command.arg(kind).arg("--config").arg(config);
        command.args(["--id", &id.to_string(), "--supervised"]);
        command.stderr(log);
        // In a group of its own: when this process ends, the group is an orphan, and the kernel wakes
        // those of its processes that are stopped, so that they see the end of their stdin.
        command.process_group(0);
        Ok(command)
    }
}

/// Work that blocks, on a runtime with other threads.
#[expect(
    clippy::disallowed_methods,
    reason = "the work borrows a child process; senders and proxy go on on other threads meanwhile"
)]
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
