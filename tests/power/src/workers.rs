//! Worker processes that open images. What LMDB does with a damaged file may be a signal that no
//! process survives: that is a finding of the point at hand, and the next process goes on behind it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::capture;
use crate::check::{self, Kind, Violation};
use crate::expect::States;
use crate::walk::{Plan, Point, walk};

/// Failures of one worker after which it stops: more say nothing new.
const FAILURES_MAX: usize = 16;

/// A line of a worker.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// A point is about to be opened.
    Begin { number: u64, step: usize, fate: String },
    /// It was, and this is what came of it.
    End {
        torn: bool,
        reordered: bool,
        acked: u64,
        violation: Option<Violation>,
    },
    /// There are no more points.
    Done,
}

/// A point at which a promise does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// The point.
    pub point: u64,
    /// The step of the record.
    pub step: usize,
    /// The fate of what was not synced.
    pub fate: String,
    /// What does not hold.
    #[serde(flatten)]
    pub violation: Violation,
}

/// What all points came to.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Tally {
    /// Points opened.
    pub points: u64,
    /// Points at which a write was there in part.
    pub torn: u64,
    /// Points at which a write was there without an earlier one.
    pub reordered: u64,
    /// Promised entries looked for, over all points.
    pub acked_checked: u64,
    /// Points at which something promised was missing.
    pub acked_lost: u64,
    /// Points at which the store could not be opened or read.
    pub unopenable: u64,
    /// Points at which the store held what it must not.
    pub wrong: u64,
    /// The first failures.
    pub failures: Vec<Failure>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.points += other.points;
        self.torn += other.torn;
        self.reordered += other.reordered;
        self.acked_checked += other.acked_checked;
        self.acked_lost += other.acked_lost;
        self.unopenable += other.unopenable;
        self.wrong += other.wrong;
        self.failures.extend(other.failures);
    }

    fn fail(&mut self, failure: Failure) {
        match failure.violation.kind {
            Kind::AckedLost => self.acked_lost += 1,
            Kind::Unopenable => self.unopenable += 1,
            Kind::Wrong => self.wrong += 1,
        }
        self.failures.push(failure);
    }
}

/// Opens all points of the record in `dir`, in as many processes as the plan has parts.
pub fn run(dir: &Path, plan: Plan) -> Result<Tally> {
    let parts: Vec<Result<Tally>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.parts)
            .map(|part| scope.spawn(move || run_part(dir, Plan { part, ..plan })))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Tally>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a worker's reader has panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let mut tally = Tally::default();
    for part in parts {
        tally.add(part?);
    }
    tally.failures.sort_by_key(|failure| failure.point);
    Ok(tally)
}

fn run_part(dir: &Path, mut plan: Plan) -> Result<Tally> {
    let mut tally = Tally::default();
    while tally.failures.len() < FAILURES_MAX {
        let mut child = start(dir, plan)?;
        let stdout = child.stdout.take().context("stdout")?;
        let (died_at, done) = hear(BufReader::new(stdout), &mut tally)?;
        let status = child.wait().context("waiting for a worker")?;
        if done {
            anyhow::ensure!(status.success(), "a worker ended with {status}");
            return Ok(tally);
        }
        // Whatever it did not come back from is a store that cannot be opened.
        let mut failure =
            died_at.with_context(|| format!("a worker ended with {status} before any point"))?;
        failure.violation.text = format!("the process that opened it ended with {status}");
        plan.from = failure.point + 1;
        tally.points += 1;
        tally.fail(failure);
    }
    Ok(tally)
}

fn start(dir: &Path, plan: Plan) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["power-cut", "--work"]).arg(dir);
    for (name, value) in [
        ("--seed", plan.seed),
        ("--points", plan.points),
        ("--from", plan.from),
        ("--part", plan.part),
        ("--parts", plan.parts),
    ] {
        command.args([name, &value.to_string()]);
    }
    if !plan.honest {
        command.arg("--lying");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().context("starting a worker")
}

/// Takes a worker's lines to their end: the point it was at, and whether it came to its end.
fn hear(lines: impl BufRead, tally: &mut Tally) -> Result<(Option<Failure>, bool)> {
    let mut at = None;
    for line in lines.lines() {
        match serde_json::from_str(&line.context("a worker's line")?)? {
            Line::Begin { number, step, fate } => {
                let violation = Violation {
                    kind: Kind::Unopenable,
                    text: String::new(),
                };
                at = Some(Failure {
                    point: number,
                    step,
                    fate,
                    violation,
                });
            }
            Line::End {
                torn,
                reordered,
                acked,
                violation,
            } => {
                tally.points += 1;
                tally.torn += u64::from(torn);
                tally.reordered += u64::from(reordered);
                tally.acked_checked += acked;
                let at = at.take().context("a worker ended a point it did not begin")?;
                if let Some(violation) = violation {
                    tally.fail(Failure { violation, ..at });
                }
            }
            Line::Done => return Ok((None, true)),
        }
    }
    Ok((at, false))
}

/// The worker's side: opens the points of its part and says so line by line.
pub fn work(dir: &Path, plan: Plan) -> Result<()> {
    let recorded = capture::read(dir)?;
    let states = States::of(&recorded.steps)?;
    let scratch = dir.join(format!("image-{}", plan.part));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut failures = 0;
    walk(&recorded.steps, recorded.root, plan, |point| {
        say(&Line::Begin {
            number: point.number,
            step: point.step,
            fate: format!("{:?}", point.fate),
        })?;
        let violation = runtime.block_on(open(&scratch, &point, &states))?;
        failures += usize::from(violation.is_some());
        say(&Line::End {
            torn: point.image.torn,
            reordered: point.image.reordered,
            acked: point.owing.acked(),
            violation,
        })?;
        Ok(failures < FAILURES_MAX)
    })?;
    say(&Line::Done)
}

async fn open(scratch: &Path, point: &Point<'_>, states: &States) -> Result<Option<Violation>> {
    match fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir(scratch)?,
    }
    point.image.write(scratch).context("writing an image")?;
    Ok(check::check(scratch, point.owing, states).await.err())
}

fn say(line: &Line) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    out.flush().context("saying it")
}
