//! The binary `throng-power`; all it does is in the library.

use std::process::ExitCode;

use clap::Parser;
use throng_power::cli::{self, PowerCut};

#[derive(Debug, Parser)]
#[command(
    name = "throng-power",
    about = "Power cuts at every recorded write of a store"
)]
enum Command {
    /// Record a load on a real store, cut the power at every write, open what is left
    PowerCut(PowerCut),
}

fn main() -> ExitCode {
    let Command::PowerCut(args) = Command::parse();
    cli::run(&args)
}
