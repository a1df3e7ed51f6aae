//! `throng-bench`: load against a running cluster, beside a baseline in the same run.
//!
//! Claims about speed are ratios: these machines are shared, and absolute figures mean little. It
//! refuses to report a run in which not everything it counts was really stored or delivered.
//!
//! Exit codes: 0 everything holds, 1 something does not, 2 usage, 3 could not run.

mod commit;
mod crowd;
mod fanout;
mod growth;
mod kernels;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

// The edge's, so that bare quinn has it as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something that is to hold does not.
const DOES_NOT_HOLD: u8 = 1;

/// Nothing can be said.
const COULD_NOT_RUN: u8 = 3;

#[derive(Debug, Parser)]
#[command(name = "throng-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Acked messages a second, beside appends with fdatasync on the same disk
    Commit(commit::CommitArgs),
    /// Processor time, memory and lateness of a message to many, beside peers
    Fanout(fanout::FanoutArgs),
    /// How the cost of a delivery grows with audience, groups and rate, and what follows for ten million
    Growth(growth::GrowthArgs),
    /// Memory of an idle connection, as the slope between two crowds
    Idle(crowd::idle::IdleArgs),
    /// Very many live connections, each with a message a minute
    Hold(crowd::hold::HoldArgs),
    /// A hot kernel, some rounds of it (started by whoever counts its instructions)
    #[command(hide = true)]
    Kernel(kernels::KernelArgs),
    /// The load of a run (started by `fanout`)
    #[command(hide = true)]
    Load(fanout::load::LoadArgs),
    /// Bare quinn as a server (started by `fanout`)
    #[command(hide = true)]
    BareQuinn(fanout::bare::BareArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Commit(args) => on_tokio(commit::run(args)).map(|()| true),
        Command::Idle(args) => on_tokio(crowd::idle::run(args)).map(|()| true),
        Command::Hold(args) => on_tokio(crowd::hold::run(args)),
        Command::Fanout(args) => fanout::run(&args),
        Command::Growth(args) => growth::run(&args),
        Command::Kernel(args) => kernels::run(&args).map(|()| true),
        Command::Load(args) => fanout::load::run(&args).map(|()| true),
        Command::BareQuinn(args) => fanout::bare::run(&args).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DOES_NOT_HOLD),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

fn on_tokio<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Runtime::new()?.block_on(work)
}
