//! The command line. Its contract is stable: scripts rely on names, flags, JSON and exit codes.

mod admin;
mod chat;
mod cluster_file;
mod config;
mod ctl;
mod export;
mod failure;
mod nodes;
mod replay;
mod sdk;
mod server_api;
mod signals;
mod tell;
mod tls;
mod token;
mod up;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use self::failure::{Exit, Failure};

/// Group chat without a member limit.
///
/// Exit codes: 0 everything holds, 1 a checked promise does not hold, 2 usage, 3 could not run.
#[derive(Debug, Parser)]
#[command(name = "throng", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole system on this machine
    Up(up::UpArgs),
    /// Run one core node
    Core(nodes::NodeArgs),
    /// Run one edge
    Gateway(nodes::NodeArgs),
    /// Print a commented example of a configuration
    Config {
        /// Whose configuration
        kind: ConfigKind,
    },
    /// Operate a cluster
    #[command(subcommand)]
    Ctl(ctl::CtlCommand),
    /// Print a token for a user
    Token {
        /// Folder of a running cluster
        #[arg(long)]
        cluster: PathBuf,
        /// The user
        #[arg(long)]
        user: String,
        /// Seconds until it expires
        #[arg(long, default_value_t = token::LIFETIME.as_secs())]
        seconds: u64,
    },
    /// Chat in a channel, line by line
    Chat(chat::ChatArgs),
    /// Print the committed log of a channel, read from a quorum, as JSON lines
    Export(export::ExportArgs),
    /// Play a trace of real chat through a cluster and audit every delivery
    Replay(Box<replay::ReplayArgs>),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ConfigKind {
    /// A core node
    Core,
    /// An edge
    Gateway,
}

/// Parses the command line and runs it.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell::note(format_args!("error: no threads could be started: {error}"));
            return ExitCode::from(Exit::CouldNotRun as u8);
        }
    };
    let outcome = runtime.block_on(dispatch(cli.command));
    // Tasks still under way (a closed connection's last packets) must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            tell::note(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Core(args) => nodes::core(args).await,
        Command::Gateway(args) => nodes::gateway(args).await,
        Command::Config { kind } => print_example(kind),
        Command::Ctl(command) => ctl::run(command).await,
        Command::Token {
            cluster,
            user,
            seconds,
        } => token::run(&cluster, &user, seconds).map(|()| Exit::Holds),
        Command::Chat(args) => chat::run(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Replay(args) => replay::run(*args).await,
    }
}

fn print_example(kind: ConfigKind) -> Result<Exit, Failure> {
    let text = match kind {
        ConfigKind::Core => config::CORE_EXAMPLE,
        ConfigKind::Gateway => config::GATEWAY_EXAMPLE,
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Exit::Holds),
        Err(error) => Err(Failure::new(
            format!("the example cannot be printed: {error}"),
            "stdout",
            "give it somewhere to go",
        )),
    }
}

/// Logs go to stderr; `RUST_LOG` chooses what.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new("warn,openraft=error,throng=info,throng_core=info,throng_gateway=info")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written is dropped. The default is to panic over it: a full disk would
        // end the threads that report it.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
