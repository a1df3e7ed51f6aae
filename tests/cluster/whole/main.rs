//! The system as its users run it: whole processes, real disks, real kills.

mod back_end;
mod by_hand;
mod changes;
mod channels;
mod crashes;
mod disks;
mod errors;
mod python;
mod replays;
mod restarts;
mod roles;
mod server_api;

use std::path::Path;
use std::time::Duration;

use throng_cluster::process::{Binary, Running};

/// The binary that cargo built for these tests.
fn throng() -> Binary {
    Binary::new(env!("CARGO_BIN_EXE_throng"))
}

/// How long a system may take to come up on a busy machine.
const START: Duration = Duration::from_secs(90);

/// `throng up` on a folder, serving.
fn up(dir: &Path, edges: u8) -> Running {
    let dir = dir.display().to_string();
    let mut up = throng()
        .start(["up", "--dir", &dir, "--edges", &edges.to_string()])
        .expect("up starts");
    up.wait_for_line("Talk to it", START).expect("up serves");
    up
}
