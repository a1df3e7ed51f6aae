//! The system a replay runs against: one that runs already, or one of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::cli::failure::Failure;

/// How long a whole system may take to come up; a busy machine with debug builds needs some of it.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// How long it may take to drain before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A running system.
#[derive(Debug)]
pub enum System {
    /// Somebody else's.
    Running(PathBuf),
    /// Ours, gone with this value.
    Embedded(Box<Embedded>),
}

/// A system of our own: `throng up` on a temporary folder.
#[derive(Debug)]
pub struct Embedded {
    dir: TempDir,
    child: Child,
    /// Held until it has ended: a supervised `up` takes its closing for our death.
    stdin: Option<ChildStdin>,
}

impl System {
    /// The folder with `cluster.json`.
    pub fn dir(&self) -> &Path {
        match self {
            Self::Running(dir) => dir,
            Self::Embedded(embedded) => embedded.dir.path(),
        }
    }

    /// Starts a system of three core nodes and some edges on a temporary folder.
    pub async fn embedded(edges: u8) -> Result<Self, Failure> {
        let place = std::env::temp_dir();
        let dir = tempfile::Builder::new()
            .prefix("throng-replay-")
            .tempdir()
            .map_err(|error| Failure::io("making a folder", &place, &error))?;
        let binary = std::env::current_exe().map_err(|error| {
            Failure::new(
                format!("this binary cannot be found: {error}"),
                "throng",
                "reinstall it",
            )
        })?;
        let mut child = Command::new(&binary)
            .args(["up", "--supervised", "--edges", &edges.to_string(), "--dir"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Killed with this process in any case: its stdin closes.
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::io("starting", &binary, &error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let announced = tokio::time::timeout(START_TIMEOUT, announced(stdout)).await;
        if announced != Ok(true) {
            return Err(Failure::new(
                "the system did not come up",
                dir.path().display().to_string(),
                "look at the lines above; `throng up` on a folder of its own shows more",
            ));
        }
        Ok(Self::Embedded(Box::new(Embedded { dir, child, stdin })))
    }

    /// Drains and stops a system of our own.
    pub async fn stop(self) {
        let Self::Embedded(mut embedded) = self else {
            return;
        };
        if let Some(pid) = embedded.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_TIMEOUT, embedded.child.wait())
            .await
            .is_err()
        {
            let _ = embedded.child.kill().await;
        }
        drop(embedded.stdin);
    }
}

/// Reads what `up` says until it says how to talk to it, then goes on reading so that it is never
/// blocked on a full pipe.
async fn announced(stdout: Option<tokio::process::ChildStdout>) -> bool {
    let Some(stdout) = stdout else { return false };
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with("Talk to it") {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return true;
        }
    }
    false
}
