//! The command line of `throng-sim`.

use std::process::ExitCode;

use clap::Parser;

/// Nothing could be run; the numbers are those of the product's own commands.
const COULD_NOT_RUN: u8 = 3;

/// Runs seeds of the simulation.
#[derive(Debug, Parser)]
#[command(name = "throng-sim")]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    start: u64,
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let args = Args::parse();
    eprintln!(
        "no cluster can be simulated yet: seeds {} from {}",
        args.seeds, args.start
    );
    ExitCode::from(COULD_NOT_RUN)
}
