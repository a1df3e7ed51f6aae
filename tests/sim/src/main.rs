//! `throng-sim`: runs seeds of the simulation.

fn main() -> std::process::ExitCode {
    throng_sim::cli::main()
}
