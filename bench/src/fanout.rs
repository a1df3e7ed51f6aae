//! What a message to N subscribers costs: throng beside peers, in turns, in one run.
//!
//! Servers and load are processes of their own on processors of their own. Messages are due by the
//! clock, whatever became of those before them. Ours runs as it ships: tokens, acks of clients, three
//! replicas that sync to disk, no coalescing. A run in which a delivery is missing fails; one in which
//! others took the machine is done again.

pub mod bare;
pub mod load;
pub mod machine;
mod meter;
mod plot;
pub mod report;
pub mod scenario;
pub mod systems;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use self::load::Order;
use self::machine::{Halves, Totals};
use self::meter::Seen;
use self::report::{Report, Sample, Skipped};
use self::scenario::Scenario;
use self::systems::{Kind, Server};

/// Times a run is done again because of others, before the machine is given up.
const VOID_MAX: usize = 5;

/// The arguments of `throng-bench fanout`.
#[derive(Debug, clap::Args)]
pub struct FanoutArgs {
    /// Clients that receive everything
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    subscribers: u32,
    /// Clients that send, in turns
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    publishers: u32,
    /// Messages a second, of all publishers together
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Bytes of a body
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(12..=131_072))]
    size: u32,
    /// Seconds of each run for which messages are due
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rounds; every other one takes the systems in reverse order
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Peers: quinn, quinn-few-acks, mosquitto-qos0, mosquitto-qos1, nats, centrifugo
    #[arg(long, value_delimiter = ',', default_value = "quinn")]
    versus: Vec<Kind>,
    /// Of the machine's processors, what others may take while a run counts
    #[arg(long, default_value_t = 0.2)]
    foreign_max: f64,
    /// The `throng` binary; the one beside this program if not given
    #[arg(long)]
    throng: Option<PathBuf>,
    /// Folder for the figures of every run (`SCENARIO.json`) and a page with plots (`SCENARIO.html`)
    #[arg(long)]
    out: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Measures and reports; `false` if something does not hold.
pub fn run(args: &FanoutArgs) -> Result<bool> {
    let began = Instant::now();
    let scenario = args.scenario();
    let throng = throng(args.throng.as_deref())?;
    let halves = Halves::of_this_machine()?;
    let (mut systems, mut skipped) = (Vec::new(), Vec::new());
    for system in [Kind::Throng].iter().chain(&args.versus).copied() {
        match system.program(&throng) {
            Ok(program) => systems.push((system, program)),
            Err(reason) if system == Kind::Throng => bail!(reason),
            Err(reason) => skipped.push(Skipped { system, reason }),
        }
    }
    let (mut samples, mut void_runs) = (Vec::new(), 0);
    for round in 0..args.rounds as usize {
        for turn in turns(round, systems.len()) {
            let (system, program) = &systems[turn];
            let run = || measure(*system, program, &scenario, round, &halves);
            let sample = undisturbed(run, args.foreign_max, &mut void_runs)?;
            eprintln!(
                "round {round}, {system}: {:.2} us of processor a delivery, p99 {:.1} ms",
                sample.cpu_us_per_delivery, sample.seen.p99_ms
            );
            samples.push(sample);
        }
    }
    let kinds: Vec<Kind> = systems.iter().map(|(system, _)| *system).collect();
    let report = Report {
        skipped,
        void_runs,
        wall_s: began.elapsed().as_secs_f64(),
        ..Report::new(&scenario, &kinds, &samples)
    };
    if let Some(folder) = &args.out {
        keep(folder, &scenario, &report, &samples)?;
    }
    print(&report, args.json)?;
    Ok(report.failures.is_empty())
}

impl FanoutArgs {
    fn scenario(&self) -> Scenario {
        Scenario {
            publishers: self.publishers as usize,
            subscribers: self.subscribers as usize,
            groups: 1,
            rate: self.rate,
            size: self.size as usize,
            seconds: self.seconds,
        }
    }
}

/// The `throng` binary that was named, or the one beside this program.
pub fn throng(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let me = std::env::current_exe().context("finding this program")?;
    Ok(me.with_file_name(format!("throng{}", std::env::consts::EXE_SUFFIX)))
}

/// The order in which a round takes what is measured, A B … B A: what drifts over time does so for all
/// alike.
pub fn turns(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| {
        if round.is_multiple_of(2) {
            place
        } else {
            count - 1 - place
        }
    })
}

/// Runs again while others take too much of the machine.
pub fn undisturbed(
    run: impl Fn() -> Result<Sample>,
    foreign_max: f64,
    void_runs: &mut usize,
) -> Result<Sample> {
    loop {
        let sample = run()?;
        if sample.foreign_cpu <= foreign_max {
            return Ok(sample);
        }
        *void_runs += 1;
        eprintln!(
            "void: others took {:.0} % of the machine",
            100.0 * sample.foreign_cpu
        );
        ensure!(
            *void_runs <= VOID_MAX,
            "others use this machine too much to measure anything"
        );
    }
}

/// One run: a fresh server, a load against it, and what both cost.
pub fn measure(
    system: Kind,
    program: &Path,
    scenario: &Scenario,
    round: usize,
    halves: &Halves,
) -> Result<Sample> {
    let server = Server::start(system, program, &halves.servers)?;
    let idle = machine::rss(&server.pids()?)?;
    let order = Order {
        scenario: *scenario,
        target: server.target().clone(),
    };
    let mut load = Load::start(&order, &halves.load).with_context(|| format!("with {system}"))?;
    let pids = server.pids()?;
    let connected = machine::rss(&pids)?;
    let cores = server.cores()?;
    let cores_before = machine::cpu_s(&cores)?;
    let before = Meters::read(&pids, load.pid())?;
    let seen = load.go().with_context(|| format!("with {system}"))?;
    let spent = before.until_now(&pids, load.pid())?;
    let cores_s = machine::cpu_s(&cores)? - cores_before;
    drop(load);
    let deliveries = seen.delivered.max(1) as f64;
    let connections = (scenario.subscribers + scenario.publishers) as f64;
    Ok(Sample {
        system,
        round,
        cpu_us_per_delivery: spent.servers_s * 1e6 / deliveries,
        core_us_per_delivery: cores_s * 1e6 / deliveries,
        busy_cpus: spent.servers_s / spent.wall_s.max(0.001),
        load_share: spent.load_s / (spent.wall_s.max(0.001) * halves.load.len() as f64),
        wall_s: spent.wall_s,
        rss_per_conn: (connected as f64 - idle as f64) / connections,
        packets_per_delivery: spent.totals.packets as f64 / deliveries,
        foreign_cpu: spent.foreign(),
        seen,
    })
}

/// What servers, load and machine have used up to a moment, or between two.
#[derive(Debug)]
struct Meters {
    at: Instant,
    wall_s: f64,
    servers_s: f64,
    load_s: f64,
    totals: Totals,
}

impl Meters {
    fn read(servers: &[u32], load: u32) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            wall_s: 0.0,
            servers_s: machine::cpu_s(servers)?,
            load_s: machine::cpu_s(&[load])?,
            totals: machine::totals()?,
        })
    }

    fn until_now(&self, servers: &[u32], load: u32) -> Result<Self> {
        let now = Self::read(servers, load)?;
        Ok(Self {
            at: now.at,
            wall_s: (now.at - self.at).as_secs_f64(),
            servers_s: now.servers_s - self.servers_s,
            load_s: now.load_s - self.load_s,
            totals: Totals {
                busy_s: now.totals.busy_s - self.totals.busy_s,
                packets: now.totals.packets - self.totals.packets,
            },
        })
    }

    /// Of all processors, what neither servers nor load have used.
    fn foreign(&self) -> f64 {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let foreign = self.totals.busy_s - self.servers_s - self.load_s;
        (foreign / (cpus * self.wall_s.max(0.001))).max(0.0)
    }
}

/// The process that makes the load.
#[derive(Debug)]
struct Load {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Load {
    /// Starts it and waits until everybody is connected and has got the first messages.
    fn start(order: &Order, cpus: &[usize]) -> Result<Self> {
        let order = serde_json::to_string(order)?;
        let spawn = || {
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args(["load", &order])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            Ok(command.spawn()?)
        };
        let mut child = machine::on(cpus, spawn).context("starting the load")?;
        let out = BufReader::new(child.stdout.take().context("the load's output")?);
        let mut load = Self { child, out };
        ensure!(load.line()? == "ready", "the load does not get ready");
        Ok(load)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it run; gives what arrived.
    fn go(&mut self) -> Result<Seen> {
        let stdin = self.child.stdin.as_mut().context("the load's input")?;
        stdin.write_all(b"go\n")?;
        stdin.flush()?;
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the load says `{line}`"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.out.read_line(&mut line)?;
        ensure!(read > 0, "the load has failed; what it says is above");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep(folder: &Path, scenario: &Scenario, report: &Report, samples: &[Sample]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let whole = serde_json::json!({ "report": report, "samples": samples });
    let (raw, page) = (
        folder.join(format!("{}.json", scenario.name())),
        folder.join(format!("{}.html", scenario.name())),
    );
    std::fs::write(&raw, serde_json::to_vec_pretty(&whole)?)
        .with_context(|| format!("writing {}", raw.display()))?;
    std::fs::write(&page, plot::page(report, samples)).with_context(|| format!("writing {}", page.display()))
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string(report)?).context("printing");
    }
    writeln!(out, "{}, {} s a run", report.scenario, report.seconds)?;
    for row in &report.rows {
        writeln!(
            out,
            "{:<16} {:>6.2} us a delivery ({:.2} to {:.2}, core nodes {:.2}), p99 {:.1} ms, last {:.1} ms, {:.2} packets, {:.1} KiB a connection, {} of {}",
            row.system.to_string(),
            row.cpu_us_per_delivery,
            row.cpu_us_min,
            row.cpu_us_max,
            row.core_us_per_delivery,
            row.delivery_ms.p99,
            row.delivery_ms.last,
            row.packets_per_delivery,
            row.rss_per_conn / 1_024.0,
            row.delivered,
            row.expected,
        )?;
    }
    for (system, ratio) in &report.ratios {
        writeln!(out, "our processor time is {ratio:.2} of that of {system}")?;
    }
    for skipped in &report.skipped {
        writeln!(out, "skipped {}: {}", skipped.system, skipped.reason)?;
    }
    for failure in &report.failures {
        writeln!(out, "FAILED: {failure}")?;
    }
    writeln!(out, "{:.1} s on the wall", report.wall_s).context("printing")
}
