//! The one binary of throng: every role, and every tool an operator needs.
//!
//! Thin on purpose: it parses the command line, assembles the packages of the workspace, and turns
//! what they report into text, JSON and an exit code. It refuses to hold any logic of the product.

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
