//! `throng up`: the whole system on this machine, every node a child process with its own folder
//! and port.

mod layout;
mod supervisor;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use throng_server_api::Key;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::layout::{Held, Process};
use self::supervisor::{Event, Plan, READY_TIMEOUT, Stop};
use super::admin::Admin;
use super::cluster_file::{ClusterFile, NodeRecord};
use super::config::{CoreFile, EdgeEntry, GatewayFile, LogBounds, NodeEntry, ShardCounts, TlsFiles};
use super::failure::{Exit, Failure};
use super::signals::Signals;
use super::tell;

/// The arguments of `throng up`.
#[derive(Debug, Clone, clap::Args)]
pub struct UpArgs {
    /// Where everything is kept; made if absent
    #[arg(long, default_value = "throng-data")]
    pub dir: PathBuf,
    /// Core nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub core_nodes: u8,
    /// Edges
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub edges: u8,
    /// Relays: edges that follow other edges; this version runs none
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=0))]
    pub relays: u8,
    /// Remove what an earlier run left in the folder
    #[arg(long)]
    pub fresh: bool,
    /// End when stdin closes (used by tools that start this one)
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// Runs until it is told to stop.
pub async fn run(args: UpArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::listen(args.supervised)?;
    let held = layout::hold(&args.dir, args.core_nodes.into(), args.edges.into(), args.fresh)?;
    let tls = held.dir.join("tls");
    super::tls::development_ca(
        &tls,
        &held.layout.cluster,
        held.layout.cores.len(),
        held.layout.edges.len(),
    )?;
    let mut system = System::start(&held, &tls)?;
    let outcome = tokio::select! {
        ready = system.serve(&held) => ready.map(|()| Exit::Holds),
        () = signals.next() => Ok(Exit::Holds),
    };
    if outcome.is_ok() {
        tell::note("draining; a second signal stops at once");
    }
    system.stop(&mut signals).await;
    outcome
}

/// The running children.
struct System {
    file: ClusterFile,
    cores: watch::Sender<Stop>,
    edges: watch::Sender<Stop>,
    core_tasks: JoinSet<Result<(), Failure>>,
    edge_tasks: JoinSet<Result<(), Failure>>,
    events: mpsc::Receiver<Event>,
    /// Children that serve.
    ready: BTreeMap<String, bool>,
}

impl System {
    fn start(held: &Held, tls: &Path) -> Result<Self, Failure> {
        let plans = plans(held, tls)?;
        // A handful of children with a few events each in their whole life.
        let (sender, events) = mpsc::channel(64);
        let (cores, edges) = (watch::Sender::new(Stop::No), watch::Sender::new(Stop::No));
        let (mut core_tasks, mut edge_tasks) = (JoinSet::new(), JoinSet::new());
        let mut ready = BTreeMap::new();
        for plan in plans {
            ready.insert(plan.name.clone(), false);
            if plan.name.starts_with("core-") {
                core_tasks.spawn(supervisor::supervise(plan, cores.subscribe(), sender.clone()));
            } else {
                edge_tasks.spawn(supervisor::supervise(plan, edges.subscribe(), sender.clone()));
            }
        }
        Ok(Self {
            file: file(held, tls),
            cores,
            edges,
            core_tasks,
            edge_tasks,
            events,
            ready,
        })
    }

    /// Brings the system up, says so, and keeps `cluster.json` true; ends only with a failure.
    async fn serve(&mut self, held: &Held) -> Result<(), Failure> {
        let announced = tokio::time::timeout(READY_TIMEOUT, self.until_ready(held)).await;
        announced.map_err(|_| {
            let waiting: Vec<&str> = self
                .ready
                .iter()
                .filter(|(_, ready)| !**ready)
                .map(|(name, _)| &**name)
                .collect();
            Failure::new(
                format!(
                    "not ready within {} s: {}",
                    READY_TIMEOUT.as_secs(),
                    waiting.join(", ")
                ),
                held.dir.join("logs").display().to_string(),
                "look into the logs there",
            )
        })??;
        let admin = Admin::connect(&self.file).await?;
        admin
            .put_app(
                &self.file.app_id,
                super::token::KEY_ID,
                self.file.app_secret.as_bytes(),
            )
            .await?;
        let key = self.file.api_key.as_deref().and_then(Key::parse);
        if let Some(key) = key.filter(|_| !held.layout.api_key_given) {
            admin.add_api_key(&self.file.app_id, key.kept()).await?;
            layout::key_is_given(held)?;
        }
        self.file.write(&held.dir)?;
        self.announce(&held.dir);
        loop {
            let name = self.step(held).await?;
            if let Some(name) = name {
                tell::note(name);
            }
            self.file.write(&held.dir)?;
        }
    }

    async fn until_ready(&mut self, held: &Held) -> Result<(), Failure> {
        while self.ready.values().any(|ready| !ready) {
            self.step(held).await?;
        }
        Ok(())
    }

    /// Takes one event in; gives a line for people if it is worth one.
    async fn step(&mut self, held: &Held) -> Result<Option<String>, Failure> {
        tokio::select! {
            // A supervisor only ends by itself when its child never came up.
            Some(ended) = self.core_tasks.join_next() => ended.unwrap_or(Ok(())).map(|()| None),
            Some(ended) = self.edge_tasks.join_next() => ended.unwrap_or(Ok(())).map(|()| None),
            Some(event) = self.events.recv() => Ok(self.take(event, held)),
        }
    }

    fn take(&mut self, event: Event, held: &Held) -> Option<String> {
        match event {
            Event::Started { name, pid } => {
                let record = self.file.nodes.iter_mut().find(|node| node.id == name)?;
                record.pid = Some(pid);
                None
            }
            Event::Ready { name } => {
                let again = self.ready.insert(name.clone(), true) == Some(false)
                    && held.dir.join("cluster.json").exists();
                again.then(|| format!("{name} serves"))
            }
            Event::Ended { name, how } => {
                self.ready.insert(name.clone(), false);
                Some(format!(
                    "{name} ended ({how}); starting it again in {} s",
                    supervisor::RESTART_DELAY.as_secs()
                ))
            }
        }
    }

    fn announce(&self, dir: &Path) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{:<8} {:<22} {:<8} state", "node", "address", "pid");
        for node in &self.file.nodes {
            let pid = node.pid.map_or_else(String::new, |pid| pid.to_string());
            let state = if self.ready.get(&node.id) == Some(&true) {
                "serves"
            } else {
                "starting"
            };
            let _ = writeln!(out, "{:<8} {:<22} {pid:<8} {state}", node.id, node.addr);
        }
        let dir = dir.display();
        let _ = writeln!(
            out,
            "\nTalk to it from another terminal (same binary, same folder):"
        );
        let _ = writeln!(
            out,
            "  throng chat --cluster {dir} --user ann --group lobby --channel general"
        );
        if let Some(api) = &self.file.server_api {
            let _ = writeln!(
                out,
                "Back ends find the Server API at {api}, what it can do at {api}/openapi.json, and a key in {dir}/cluster.json."
            );
        }
        let _ = writeln!(
            out,
            "Ctrl-C drains and stops it; starting again on {dir} finds everything as it was."
        );
        let _ = out.flush();
    }

    /// Edges first, so that no client is cut off from a core that still serves; then core nodes.
    async fn stop(&mut self, signals: &mut Signals) {
        let drained = async {
            self.edges.send_replace(Stop::Drain);
            wait(&mut self.edge_tasks, &mut self.events, &self.edges).await;
            self.cores.send_replace(Stop::Drain);
            wait(&mut self.core_tasks, &mut self.events, &self.cores).await;
        };
        tokio::select! {
            () = drained => return,
            () = signals.next() => {}
        }
        self.edges.send_replace(Stop::Now);
        self.cores.send_replace(Stop::Now);
        wait(&mut self.edge_tasks, &mut self.events, &self.edges).await;
        wait(&mut self.core_tasks, &mut self.events, &self.cores).await;
    }
}

/// Waits until all tasks have ended, killing what does not drain within half of the ten seconds a
/// whole stop may take.
async fn wait(
    tasks: &mut JoinSet<Result<(), Failure>>,
    events: &mut mpsc::Receiver<Event>,
    stop: &watch::Sender<Stop>,
) {
    let deadline = tokio::time::sleep(supervisor::DRAIN_TIMEOUT / 2);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            ended = tasks.join_next() => if ended.is_none() { return },
            Some(_) = events.recv() => {}
            () = &mut deadline, if *stop.borrow() != Stop::Now => drop(stop.send_replace(Stop::Now)),
        }
    }
}

/// Where back ends find the Server API at an address.
fn url(addr: SocketAddr) -> String {
    format!("https://{addr}")
}

fn file(held: &Held, tls: &Path) -> ClusterFile {
    let layout = &held.layout;
    let record = |prefix: &str, place: usize, process: &Process, roles: &[&str]| NodeRecord {
        id: format!("{prefix}-{}", place + 1),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        pid: None,
        addr: process.addr,
        observe: Some(process.observe),
        server_api: process.server_api.map(url),
        dir: Some(held.dir.join(format!("{prefix}-{}", place + 1))),
    };
    let cores = layout
        .cores
        .iter()
        .enumerate()
        .map(|(n, process)| record("core", n, process, &["management", "message"]));
    let edges = layout
        .edges
        .iter()
        .enumerate()
        .map(|(n, process)| record("edge", n, process, &["edge"]));
    ClusterFile {
        edges: layout.edges.iter().map(|edge| edge.addr.to_string()).collect(),
        server_api: layout.cores.first().and_then(|core| core.server_api).map(url),
        ca_cert: tls.join("ca.pem"),
        app_id: layout.app_id.clone(),
        app_secret: layout.app_secret.clone(),
        api_key: layout.api_key.clone(),
        cluster: layout.cluster.clone(),
        tls: tls.to_owned(),
        nodes: cores.chain(edges).collect(),
    }
}

/// Writes the configuration of every child and says how to start it.
fn plans(held: &Held, tls: &Path) -> Result<Vec<Plan>, Failure> {
    let layout = &held.layout;
    let logs = held.dir.join("logs");
    fs::create_dir_all(&logs).map_err(|error| Failure::io("making the folder", &logs, &error))?;
    let tls = TlsFiles {
        development_ca: Some(tls.to_owned()),
        ..TlsFiles::default()
    };
    let entry = |(n, process): (usize, &Process)| NodeEntry {
        id: n as u64 + 1,
        addr: process.addr,
        advertise: None,
        observe: Some(process.observe),
        server_api: process.server_api,
    };
    let nodes: Vec<NodeEntry> = layout.cores.iter().enumerate().map(entry).collect();
    let edge = |(n, process): (usize, &Process)| EdgeEntry {
        id: n as u64 + 1,
        listen: process.addr,
        observe: Some(process.observe),
    };
    let edges: Vec<EdgeEntry> = layout.edges.iter().enumerate().map(edge).collect();
    let mut plans = Vec::new();
    for node in &nodes {
        let name = format!("core-{}", node.id);
        let file = CoreFile {
            id: node.id,
            cluster: layout.cluster.clone(),
            data: held.dir.join(&name).display().to_string(),
            tls: tls.clone(),
            shards: ShardCounts {
                // Every node holds every shard.
                replicas: nodes.len(),
                ..ShardCounts::default()
            },
            storage: LogBounds::default(),
            nodes: nodes.clone(),
        };
        plans.push(plan(held, &logs, "core", &name, &toml::to_string(&file))?);
    }
    for edge in &edges {
        let name = format!("edge-{}", edge.id);
        let file = GatewayFile {
            id: edge.id,
            cluster: layout.cluster.clone(),
            tls: tls.clone(),
            connections_max: throng_gateway::CONNECTIONS_MAX,
            workers: None,
            handshakes: Default::default(),
            edges: edges.clone(),
            nodes: nodes.clone(),
        };
        plans.push(plan(held, &logs, "gateway", &name, &toml::to_string(&file))?);
    }
    Ok(plans)
}

fn plan(
    held: &Held,
    logs: &Path,
    command: &str,
    name: &str,
    text: &Result<String, toml::ser::Error>,
) -> Result<Plan, Failure> {
    let dir = held.dir.join(name);
    fs::create_dir_all(&dir).map_err(|error| Failure::io("making the folder", &dir, &error))?;
    let path = dir.join("config.toml");
    let text = text.as_ref().map_err(|error| {
        Failure::new(
            format!("the configuration cannot be written: {error}"),
            path.display().to_string(),
            "report it",
        )
    })?;
    fs::write(&path, text).map_err(|error| Failure::io("writing", &path, &error))?;
    let args = [
        command.into(),
        "--config".into(),
        path.into_os_string(),
        "--supervised".into(),
    ];
    Ok(Plan {
        name: name.to_owned(),
        args: args.into_iter().collect::<Vec<OsString>>(),
        log: logs.join(format!("{name}.log")),
    })
}
