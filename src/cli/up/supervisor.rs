//! Keeps the child processes of `up` running: one task per child starts it, waits for it, and starts
//! it again two seconds after it died; stopping drains edges before core nodes.
//!
//! A child's stdin is a pipe that nobody writes to: it closes when this process is gone, however it
//! went, and the child then ends by itself. A child says `ready` on its stdout once it serves.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

use crate::cli::failure::Failure;

/// How long a child that died stays down: long enough that a crash loop does not eat the machine,
/// and that clients are seen to move (design, command line).
pub const RESTART_DELAY: Duration = Duration::from_secs(2);

/// How long a child may take to say `ready` before `up` reports it as stuck: recovery of a large log.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a child may take to drain.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// What a child is and how it is started.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `core-1`, `edge-1`, …
    pub name: String,
    /// Arguments of this same binary.
    pub args: Vec<OsString>,
    /// Where its log goes; appended.
    pub log: PathBuf,
}

/// What happens to children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A process was started.
    Started {
        /// Which child.
        name: String,
        /// Its process.
        pid: u32,
    },
    /// It serves.
    Ready {
        /// Which child.
        name: String,
    },
    /// It ended; it is started again unless `up` is stopping.
    Ended {
        /// Which child.
        name: String,
        /// How, for people.
        how: String,
    },
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Run.
    No,
    /// SIGTERM, then wait for the drain.
    Drain,
    /// SIGKILL.
    Now,
}

/// Runs one child until it is stopped. `events` must be read.
pub async fn supervise(
    plan: Plan,
    mut stop: watch::Receiver<Stop>,
    events: mpsc::Sender<Event>,
) -> Result<(), Failure> {
    let mut first = true;
    while *stop.borrow() == Stop::No {
        let (mut child, stdin) = start(&plan)?;
        let pid = child.id().unwrap_or_default();
        let _ = events
            .send(Event::Started {
                name: plan.name.clone(),
                pid,
            })
            .await;
        let ended = run(&plan, &mut child, &mut stop, &events).await;
        drop(stdin);
        let how = ended.how;
        let _ = events
            .send(Event::Ended {
                name: plan.name.clone(),
                how: how.clone(),
            })
            .await;
        if first && !ended.was_ready && *stop.borrow() == Stop::No {
            return Err(Failure::new(
                format!("{} did not start: {how}", plan.name),
                plan.log.display().to_string(),
                last_words(&plan),
            ));
        }
        first = false;
        tokio::select! {
            () = tokio::time::sleep(RESTART_DELAY) => {}
            _ = stop.wait_for(|stop| *stop != Stop::No) => {}
        }
    }
    Ok(())
}

struct Ended {
    how: String,
    was_ready: bool,
}

async fn run(
    plan: &Plan,
    child: &mut Child,
    stop: &mut watch::Receiver<Stop>,
    events: &mpsc::Sender<Event>,
) -> Ended {
    let mut lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
    let mut was_ready = false;
    let mut told = *stop.borrow();
    loop {
        tokio::select! {
            status = child.wait() => {
                let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Ended { how, was_ready };
            }
            line = next_line(&mut lines) => match line {
                Some(line) if line == "ready" => {
                    was_ready = true;
                    let _ = events.send(Event::Ready { name: plan.name.clone() }).await;
                }
                Some(_) => {}
                None => lines = None,
            },
            now = stop_after(stop, told) => {
                told = now;
                signal(child, if told == Stop::Now { Signal::KILL } else { Signal::TERM });
            }
        }
    }
}

/// Waits until a stop is asked for beyond what the child was told.
async fn stop_after(stop: &mut watch::Receiver<Stop>, told: Stop) -> Stop {
    let asked = stop.wait_for(|now| *now > told).await.map(|now| *now);
    match asked {
        Ok(now) => now,
        // `up` itself is ending; its end closes the child's stdin.
        Err(_) => std::future::pending().await,
    }
}

async fn next_line<R: tokio::io::AsyncBufRead + Unpin>(
    lines: &mut Option<tokio::io::Lines<R>>,
) -> Option<String> {
    match lines {
        Some(lines) => lines.next_line().await.ok().flatten(),
        // Nothing more to hear; the child's end is what is waited for.
        None => std::future::pending().await,
    }
}

fn start(plan: &Plan) -> Result<(Child, Option<ChildStdin>), Failure> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&plan.log)
        .map_err(|error| Failure::io("opening the log", &plan.log, &error))?;
    let binary = std::env::current_exe().map_err(|error| {
        Failure::new(
            format!("this binary cannot be found: {error}"),
            "throng",
            "reinstall it",
        )
    })?;
    let mut child = Command::new(&binary)
        .args(&plan.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // A group of its own: Ctrl-C in the terminal reaches `up` alone, which drains in order.
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::io("starting", &binary, &error))?;
    let stdin = child.stdin.take();
    Ok((child, stdin))
}

/// Sends a signal to a child by its own pid; a child that has ended is not signalled.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
        let _ = kill_process(pid, signal);
    }
}

/// The end of a child's log: usually the reason.
fn last_words(plan: &Plan) -> String {
    let log = std::fs::read_to_string(&plan.log).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(4).collect();
    if tail.is_empty() {
        return "look into its log".to_owned();
    }
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    format!("its log ends with:\n{}", tail.join("\n"))
}
