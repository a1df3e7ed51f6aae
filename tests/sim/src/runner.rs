//! Seeds in processes of their own, some at a time, and what came of them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::entropy;
use crate::history::Channel;
use crate::invariants;
use crate::run::Run;
use crate::simulation::{Outcome, Simulation};
use crate::summary::Counts;

/// Longest a seed may take by the clock on the wall, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// Stack of the thread a seed runs on: openraft's futures are large in unoptimised builds.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Events shown before the one that broke an invariant.
const LAST_EVENTS: usize = 25;

/// What came of a seed: the one line its process prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The hash of its history.
    pub trace: u64,
    /// What it did.
    pub counts: Counts,
    /// Invariants that were broken, with their clauses and explanations.
    pub violations: Vec<Violation>,
    /// What is wrong with the run itself.
    pub broken: Option<String>,
    /// Simulated microseconds.
    pub lasted_us: u64,
    /// Processor time, in milliseconds.
    pub cpu_ms: u64,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The invariant.
    pub invariant: String,
    /// The clause of the specification.
    pub clause: String,
    /// What was seen.
    pub text: String,
    /// The last events before it.
    pub events: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.broken.is_none()
    }
}

/// Runs a seed here, and prints its whole history if that is asked for. The process must not have
/// run another.
pub fn run_here(seed: u64, trace: bool) -> io::Result<Report> {
    entropy::seed(seed);
    let work = move || {
        let before = entropy::drawn();
        std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
        if entropy::drawn() == before {
            return Err(io::Error::other("hash maps do not draw their keys from the seed"));
        }
        let outcome = Simulation::new(seed).run();
        Ok(report(seed, &outcome, trace))
    };
    // A thread of its own has drawn nothing yet.
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the seed panicked"))?
}

fn report(seed: u64, outcome: &Outcome, trace: bool) -> Report {
    let run = &outcome.run;
    let events = run.history.events();
    if trace {
        let mut out = io::stderr().lock();
        for event in events {
            // A reader that has seen enough is no failure.
            let _ = writeln!(out, "{event}");
        }
        for channel in crate::world::channels() {
            let _ = write_log(&mut out, run, channel);
        }
    }
    let broken = invariants::broken(run).into_iter();
    let violations = broken.map(|(invariant, violation)| {
        let end = violation.event.map_or(events.len(), |event| event + 1);
        let last = &events[end.saturating_sub(LAST_EVENTS)..end];
        Violation {
            invariant: invariant.name.to_owned(),
            clause: invariant.clause.to_owned(),
            text: violation.text,
            events: last.iter().map(ToString::to_string).collect(),
        }
    });
    Report {
        seed,
        trace: run.history.trace_hash(),
        counts: Counts::of(run),
        violations: violations.collect(),
        broken: outcome.broken.clone(),
        lasted_us: outcome.lasted,
        cpu_ms: cpu_ms(),
    }
}

/// A channel's final log with the fences at their places.
fn write_log(out: &mut impl Write, run: &Run, channel: Channel) -> io::Result<()> {
    let Some(log) = run.logs.log(channel) else {
        return writeln!(out, "{channel} has no log");
    };
    let mut fences = run
        .logs
        .fences(channel)
        .into_iter()
        .flat_map(|table| &table.fences)
        .peekable();
    writeln!(out, "{channel}, epoch {}, ends with {}", log.epoch, log.head)?;
    for stored in &log.entries {
        while let Some(fence) = fences.next_if(|fence| fence.index < stored.index) {
            writeln!(out, "  {fence:?}")?;
        }
        writeln!(out, "  index {} {:?}", stored.index, stored.seen)?;
    }
    fences.try_for_each(|fence| writeln!(out, "  {fence:?}"))
}

/// Processor time of this process so far.
fn cpu_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let ms = time.tv_sec * 1_000 + time.tv_nsec / 1_000_000;
    u64::try_from(ms).unwrap_or_default()
}

/// Runs a seed in a process of its own, with a mistake turned on if one is named.
pub fn run_apart(seed: u64, planted: Option<&str>) -> Report {
    match child(seed, planted).and_then(|child| wait(child, seed)) {
        Ok(report) => report,
        Err(error) => lost(seed, error.to_string()),
    }
}

fn child(seed: u64, planted: Option<&str>) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["--one", &seed.to_string(), "--json"])
        .args(planted.iter().flat_map(|name| ["--planted", name]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn wait(mut child: Child, seed: u64) -> io::Result<Report> {
    let deadline = Instant::now() + PATIENCE;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (told, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let line = out.map(|out| BufReader::new(out).lines().next());
        // Fails if nobody waits any more.
        let _ = told.send(line.flatten());
    });
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut err) = err {
            // What can be read is shown.
            let _ = err.read_to_string(&mut text);
        }
        text
    });
    let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    if line.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    let complaints = complaints.join().unwrap_or_default();
    let _ = reader.join();
    match line {
        Ok(Some(Ok(line))) => serde_json::from_str(&line).map_err(io::Error::other),
        Ok(_) => Ok(lost(
            seed,
            format!("its process ended with {status}:\n{complaints}"),
        )),
        Err(_) => Ok(lost(
            seed,
            format!("it did not end within {} s", PATIENCE.as_secs()),
        )),
    }
}

/// The report of a seed that made none.
fn lost(seed: u64, reason: String) -> Report {
    Report {
        seed,
        trace: 0,
        counts: Counts::default(),
        violations: Vec::new(),
        broken: Some(reason),
        lasted_us: 0,
        cpu_ms: 0,
    }
}
