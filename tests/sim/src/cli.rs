//! The command line of `throng-sim`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use clap::Parser;

use crate::hunt;
use crate::planted;
use crate::runner::{self, Report};
use crate::summary::Counts;

/// Every so many seeds one runs twice, and both traces must be equal.
const TWICE_EVERY: u64 = 10;
/// Seeds below which what they did is not judged: a few say little about a mean.
const JUDGED_FROM: u64 = 20;
/// A checked promise does not hold; the numbers are those of the product's own commands.
const FAILED: u8 = 1;
/// The command line asks for something there is not.
const USAGE: u8 = 2;
/// Nothing could be run.
const COULD_NOT_RUN: u8 = 3;

/// Runs seeds of the simulation.
#[derive(Debug, Parser)]
#[command(name = "throng-sim")]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// How many seeds run at a time; as many as there are processors if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs this one seed in this process.
    #[arg(long, conflicts_with_all = ["seeds", "start", "jobs"])]
    one: Option<u64>,
    /// Prints everything that happened, with --one.
    #[arg(long, requires = "one")]
    trace: bool,
    /// Runs with this mistake turned on until a seed brings it to light, and fails then. Builds the
    /// program with the mistakes in it first, unless this is such a build.
    #[arg(long, value_name = "NAME")]
    planted: Option<String>,
    /// Looks for every mistake; fails if one is not found by the invariant it is planted for.
    #[arg(long, conflicts_with_all = ["planted", "one"])]
    planted_all: bool,
    /// Prints reports as JSON, one a line.
    #[arg(long)]
    json: bool,
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.one.is_some() && std::env::var_os("RUST_LOG").is_some() {
        // Without times: those of this machine mean nothing.
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .without_time()
            .init();
    }
    match (&args.planted, args.one) {
        (planted, Some(seed)) => match planted.as_deref().map_or(Ok(()), planted::choose) {
            Ok(()) => one(seed, &args),
            Err(error) => could_not(&error),
        },
        (None, None) if !args.planted_all => many(&args),
        _ => with_mistakes(&args),
    }
}

/// Looks for mistakes, in a build that holds them.
fn with_mistakes(args: &Args) -> ExitCode {
    if !planted::holds_mistakes() {
        return match planted::again_with_mistakes() {
            Ok(code) => code,
            Err(error) => could_not(&error),
        };
    }
    let jobs = jobs(args);
    let seeds = args.start..args.start + args.seeds;
    let Some(name) = &args.planted else {
        return exit(hunt::all(&seeds, jobs));
    };
    let Some(mistake) = planted::named(name) else {
        let names: Vec<&str> = planted::MISTAKES.iter().map(|mistake| mistake.name).collect();
        eprintln!("no mistake is called `{name}`; there are {}", names.join(", "));
        return ExitCode::from(USAGE);
    };
    let hunt = hunt::one(mistake, &seeds, jobs);
    println!("{hunt}");
    for report in hunt.shown() {
        show(report, args.json);
    }
    exit(!hunt.found_anything())
}

fn could_not(error: &std::io::Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(COULD_NOT_RUN)
}

/// How many seeds run at a time.
fn jobs(args: &Args) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    args.jobs.unwrap_or(cores).max(1)
}

fn one(seed: u64, args: &Args) -> ExitCode {
    match runner::run_here(seed, args.trace) {
        Ok(report) => {
            show(&report, args.json);
            exit(report.passed())
        }
        Err(error) => {
            eprintln!("seed {seed} could not run: {error}");
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

fn exit(passed: bool) -> ExitCode {
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

/// Runs a seed; every so often twice.
fn checked(seed: u64) -> Report {
    let mut report = runner::run_apart(seed, None);
    if seed.is_multiple_of(TWICE_EVERY) && report.passed() {
        let again = runner::run_apart(seed, None);
        if again.trace != report.trace {
            let (one, two) = (report.trace, again.trace);
            report.broken = Some(format!(
                "two runs have different traces: {one:016x} and {two:016x}"
            ));
        }
    }
    report
}

fn many(args: &Args) -> ExitCode {
    let began = Instant::now();
    let jobs = jobs(args);
    let (next, end) = (AtomicU64::new(args.start), args.start + args.seeds);
    let (told, reports) = mpsc::channel();
    let (mut counts, mut passed, mut failed, mut cpu_ms) = (Counts::default(), 0, 0, 0);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (told, next) = (told.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || told.send(checked(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(told);
        for report in reports {
            counts.add(&report.counts);
            cpu_ms += report.cpu_ms;
            if report.passed() {
                passed += 1;
            } else {
                failed += 1;
            }
            if args.json || !report.passed() {
                show(&report, args.json);
            }
        }
    });
    let wall = began.elapsed();
    println!("{counts}");
    println!(
        "{:.1} s on the wall, {:.2} s of processor a seed",
        wall.as_secs_f64(),
        seconds(cpu_ms) / seconds(args.seeds * 1_000).max(1.0)
    );
    let missing = if args.seeds >= JUDGED_FROM {
        counts.too_little(args.seeds)
    } else {
        Vec::new()
    };
    for missing in &missing {
        println!("too little: {missing}");
    }
    println!("{passed} passed, {failed} failed");
    exit(failed == 0 && missing.is_empty())
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn show(report: &Report, json: bool) {
    if json {
        match serde_json::to_string(report) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("a report cannot be written: {error}"),
        }
        return;
    }
    let mut out = std::io::stdout().lock();
    // Fails only when nobody reads.
    let _ = write(&mut out, report);
}

fn write(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    let seed = report.seed;
    if report.passed() {
        writeln!(out, "seed {seed} passed, trace {:016x}", report.trace)?;
        return writeln!(out, "{}", report.counts);
    }
    writeln!(out, "seed {seed} FAILED, trace {:016x}", report.trace)?;
    if let Some(broken) = &report.broken {
        writeln!(out, "  {broken}")?;
    }
    for violation in &report.violations {
        writeln!(
            out,
            "  {} [{}]: {}",
            violation.invariant, violation.clause, violation.text
        )?;
        for event in &violation.events {
            writeln!(out, "    {event}")?;
        }
    }
    writeln!(out, "  replay: throng-sim --one {seed} --trace")
}
