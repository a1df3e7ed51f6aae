//! `power-cut`: what a person or a script asks for.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::walk::Plan;
use crate::workers::Tally;
use crate::{capture, load, workers};

/// Points per round of the load, measured: a round of the four shards makes about twelve changes of
/// the disk, each of which is cut more than once.
const POINTS_PER_ROUND: u64 = 30;

/// Rounds below this exercise neither cuts nor snapshots of every shard.
const ROUNDS_MIN: u64 = 120;

/// Memory that looks like a folder, where images are written fast.
const FAST: &str = "/dev/shm";

/// The arguments of `power-cut`.
#[derive(Debug, Clone, clap::Args)]
pub struct PowerCut {
    /// Crash points at least
    #[arg(long, default_value_t = 20_000)]
    pub points: u64,
    /// Decides the load and what becomes of what was not synced
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
    /// Cut the power in a run recorded before: the folder a failed run names
    #[arg(long)]
    pub record: Option<PathBuf>,
    /// Where the record is made, and stays if a promise is broken; a temporary folder if not given
    #[arg(long, conflicts_with = "record")]
    pub dir: Option<PathBuf>,
    /// Open only the points from this one on
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Treat every sync as a lie: the checks must notice
    #[arg(long)]
    pub lying: bool,
    #[arg(long, hide = true)]
    load: Option<PathBuf>,
    #[arg(long, hide = true, default_value_t = 0)]
    rounds: u64,
    #[arg(long, hide = true)]
    work: Option<PathBuf>,
    #[arg(long, hide = true, default_value_t = 0)]
    part: u64,
    #[arg(long, hide = true, default_value_t = 1)]
    parts: u64,
}

impl PowerCut {
    fn plan(&self) -> Plan {
        Plan {
            seed: self.seed,
            points: self.points,
            honest: !self.lying,
            from: self.from,
            part: self.part,
            parts: self.parts,
        }
    }
}

/// What a run says.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    tally: Tally,
    steps: usize,
    seed: u64,
    wall_s: f64,
    holds: bool,
}

/// Runs it: 0 when everything promised was there at every point, 1 when not, 3 when it could not run.
pub fn run(args: &PowerCut) -> ExitCode {
    match run_as(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("power-cut could not run: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn run_as(args: &PowerCut) -> Result<bool> {
    if let Some(dir) = &args.load {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        return runtime
            .block_on(load::run(dir, args.rounds, args.seed))
            .map(|()| true);
    }
    if let Some(dir) = &args.work {
        return workers::work(dir, args.plan()).map(|()| true);
    }
    let began = Instant::now();
    let (kept, dir) = match &args.record {
        Some(dir) => (None, dir.clone()),
        None => {
            let folder = scratch(args.dir.as_deref())?;
            let dir = folder.path().to_owned();
            (Some(folder), dir)
        }
    };
    let recorded = match &args.record {
        Some(dir) => capture::read(dir)?,
        None => capture::record(&dir, (args.points / POINTS_PER_ROUND).max(ROUNDS_MIN), args.seed)?,
    };
    let parts = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let tally = workers::run(&dir, Plan { parts, ..args.plan() })?;
    let report = Report {
        holds: holds(&tally, args),
        tally,
        steps: recorded.steps.len(),
        seed: args.seed,
        wall_s: began.elapsed().as_secs_f64(),
    };
    print(&report, args.json)?;
    // What a lying disk loses needs no second look.
    if let Some(folder) = kept
        && !report.tally.failures.is_empty()
        && !args.lying
    {
        eprintln!(
            "the record is kept; once more from the first failure: power-cut --record {} --seed {} --points {} --from {}",
            folder.keep().display(),
            args.seed,
            args.points,
            report.tally.failures[0].point
        );
    }
    Ok(report.holds)
}

/// Whether every promise held, and whether anything was tried: a run without torn writes, without
/// reordered ones or without promises proves nothing.
fn holds(tally: &Tally, args: &PowerCut) -> bool {
    let tried = tally.points > 0 && tally.acked_checked > 0 && tally.torn > 0 && tally.reordered > 0;
    let enough = tally.points + args.from >= args.points;
    tally.failures.is_empty() && tried && enough
}

fn scratch(dir: Option<&Path>) -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("throng-power-");
    if let Some(dir) = dir {
        return builder.tempdir_in(dir).context("a folder for the record");
    }
    let fast = Path::new(FAST);
    match fast.is_dir().then(|| builder.tempdir_in(fast)) {
        Some(Ok(folder)) => Ok(folder),
        _ => builder.tempdir().context("a temporary folder"),
    }
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        return writeln!(out).context("printing");
    }
    let tally = &report.tally;
    writeln!(
        out,
        "{} points ({} torn, {} reordered) of {} steps, {} promised entries looked for: {} lost, {} unopenable, {} wrong, {:.1} s",
        tally.points,
        tally.torn,
        tally.reordered,
        report.steps,
        tally.acked_checked,
        tally.acked_lost,
        tally.unopenable,
        tally.wrong,
        report.wall_s
    )?;
    for failure in &tally.failures {
        writeln!(
            out,
            "point {} (step {}, {}): {}",
            failure.point, failure.step, failure.fate, failure.violation
        )?;
    }
    Ok(())
}
