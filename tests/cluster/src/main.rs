//! `throng-cluster`: long runs of whole processes under faults.
//!
//! One JSON object on stdout with `--json`, progress on stderr. Exit codes: 0 everything holds, 1 a
//! checked promise does not hold, 2 usage, 3 could not run.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use throng_cluster::crash::{self, Fault};
use throng_cluster::leader_kill;
use throng_cluster::linearizable;
use throng_cluster::process::Binary;

/// Whole systems of real processes under faults: what was acked is stored, once, everywhere the same.
///
/// Exit codes: 0 everything holds, 1 a checked promise does not hold, 2 usage, 3 could not run.
#[derive(Debug, Parser)]
#[command(name = "throng-cluster", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kill, stop and cut off nodes under load; compare the logs of all replicas after every round
    Crash {
        /// How many rounds
        #[arg(long, default_value_t = 100)]
        rounds: usize,
        /// Kinds of faults, by name; all of them if none is given
        #[arg(long = "fault", value_delimiter = ',')]
        faults: Vec<Fault>,
        #[command(flatten)]
        common: Common,
    },
    /// Cut the power at every recorded write of a store and open what is left
    #[command(name = "power-cut")]
    PowerCut(throng_power::cli::PowerCut),
    /// Send, read, join, leave and kick while leaders are killed; find an order that explains every answer
    Linearizable {
        /// How many rounds
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        /// Judge the history in this file again, and run nothing
        #[arg(long)]
        judge: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Kill leaders of message shards under load; measure the gap in service
    LeaderKill {
        /// How many kills
        #[arg(long, default_value_t = 200)]
        kills: usize,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// Seed of every choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    /// The `throng` binary; the one beside this program if not given
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where systems live while they run, and stay if they break a promise; a temporary folder if not
    /// given
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(cli.command).unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::from(3)
    })
}

/// The exit code of checks that were made.
fn exit(holds: bool) -> ExitCode {
    ExitCode::from(u8::from(!holds))
}

/// Runs a command.
fn run(command: Command) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting threads")?;
    match command {
        Command::Crash {
            rounds,
            faults,
            common,
        } => {
            let faults = if faults.is_empty() {
                Fault::ALL.to_vec()
            } else {
                faults
            };
            let orders = crash::Orders {
                binary: common.binary()?,
                rounds,
                seed: common.seed,
                faults,
                dir: common.dir()?,
            };
            let report = runtime.block_on(crash::run(&orders))?;
            print(&report, common.json)?;
            Ok(exit(report.holds(rounds)))
        }
        Command::PowerCut(args) => Ok(throng_power::cli::run(&args)),
        Command::Linearizable {
            judge: Some(file),
            common,
            ..
        } => {
            let report = linearizable::judge(&file)?;
            print(&report, common.json)?;
            Ok(exit(report.holds(1)))
        }
        Command::Linearizable { rounds, common, .. } => {
            let orders = linearizable::Orders {
                binary: common.binary()?,
                rounds,
                seed: common.seed,
                dir: common.dir()?,
            };
            let report = runtime.block_on(linearizable::run(&orders))?;
            print(&report, common.json)?;
            Ok(exit(report.holds(rounds)))
        }
        Command::LeaderKill { kills, common } => {
            let orders = leader_kill::Orders {
                binary: common.binary()?,
                kills,
                seed: common.seed,
                dir: common.dir()?,
            };
            let report = runtime.block_on(leader_kill::run(&orders))?;
            print(&report, common.json)?;
            Ok(exit(report.holds(kills)))
        }
    }
}

impl Common {
    fn binary(&self) -> Result<Binary> {
        let path = match &self.binary {
            Some(path) => path.clone(),
            None => {
                let me = std::env::current_exe().context("finding this program")?;
                me.with_file_name("throng")
            }
        };
        if path.is_file() {
            return Ok(Binary::new(path));
        }
        Err(anyhow!(
            "there is no binary at {}; build it with `cargo build -p throng` (in the same profile), or name it with --binary",
            path.display()
        ))
    }

    fn dir(&self) -> Result<PathBuf> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            // What breaks a promise stays; what does not is removed as it ends.
            None => Ok(tempfile::Builder::new()
                .prefix("throng-cluster-")
                .tempdir()
                .context("making a temporary folder")?
                .keep()),
        }
    }
}

fn print(report: &impl Serialize, json: bool) -> Result<()> {
    let text = if json {
        serde_json::to_string(report)
    } else {
        serde_json::to_string_pretty(report)
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.context("writing the report")?).context("printing the report")
}
