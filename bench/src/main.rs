//! `throng-bench`: load against a running cluster, beside a baseline in the same run.
//!
//! Claims about speed are ratios: these machines are shared, and absolute figures mean little. It
//! refuses to report a run in which not everything it counts was really stored.

mod commit;

use clap::{Parser, Subcommand};

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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Commit(args) => commit::run(args).await,
    }
}
