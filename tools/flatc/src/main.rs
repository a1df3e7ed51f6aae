//! Runs the pinned FlatBuffers compiler with the arguments given.
//!
//! `cargo run --manifest-path tools/flatc/Cargo.toml -- --rust -o OUT SCHEMA` from the root of the
//! checkout. Building it takes a C++ compiler and cmake; nothing else in throng does.
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let status = Command::new(flatc_fork::flatc()).args(std::env::args_os().skip(1)).status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("flatc ended with {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("flatc could not be started: {error}");
            ExitCode::FAILURE
        }
    }
}
