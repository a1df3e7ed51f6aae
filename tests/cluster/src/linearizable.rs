//! Linearizability of what real processes answered: users send, read, join, leave, kick and are kicked
//! through the SDK over two edges while leaders are killed, and an existing checker looks for one order
//! that explains every answer.
//!
//! A round whose faults did not happen, or whose order could not be decided, has failed.

mod clients;
mod judge;
mod recorder;
mod recording;
mod round;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use self::judge::Judgement;
use self::recording::Recording;
use crate::process::Binary;
use crate::system::blocking;
use crate::tell;

/// The file of a round's history, in its folder.
const HISTORY: &str = "history.jsonl";

/// What is run.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The binary under test.
    pub binary: Binary,
    /// How many rounds.
    pub rounds: usize,
    /// The seed of every choice.
    pub seed: u64,
    /// Where systems live while they run.
    pub dir: PathBuf,
}

/// The report, its fields stable.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Rounds done.
    pub rounds: usize,
    /// Rounds that have an order, under their faults.
    pub linearizable: usize,
    /// Rounds that have none.
    pub violated: usize,
    /// Rounds of which nobody knows.
    pub unknown: usize,
    /// Rounds in which what was to be shown did not happen, or that did not come to their end.
    pub faultless: usize,
    /// Operations by kind and outcome.
    pub operations: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Leaders that were killed and replaced.
    pub kills: u64,
    /// Those with operations of their channels in flight.
    pub kills_in_flight: u64,
    /// Operations in flight at kills.
    pub operations_in_flight: u64,
    /// Kicks that were done.
    pub kicks: u64,
    /// Those whose user had a send or a read in flight.
    pub kicks_in_flight: u64,
    /// Other faults, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Seconds.
    pub wall_s: f64,
    /// What is wrong, for people.
    pub failures: Vec<String>,
}

impl Report {
    /// Whether all rounds were done and are linearizable under their faults.
    pub fn holds(&self, asked: usize) -> bool {
        self.rounds == asked && self.linearizable == asked && asked > 0 && self.failures.is_empty()
    }

    /// Judges a round and adds it. Returns whether it is as it must be.
    fn add(&mut self, recording: &Recording) -> bool {
        self.rounds += 1;
        for asked in &recording.asked {
            let outcomes = self.operations.entry(asked.ask.name()).or_default();
            *outcomes.entry(asked.answer.name()).or_default() += 1;
        }
        let faults = judge::faults(recording);
        self.kills += faults.kills;
        self.kills_in_flight += faults.kills_in_flight;
        self.operations_in_flight += faults.operations_in_flight;
        self.kicks += faults.kicks;
        self.kicks_in_flight += faults.kicks_in_flight;
        for fault in &recording.faults {
            *self.faults.entry(fault.kind.clone()).or_default() += 1;
        }
        let (count, why) = match judge::judge(recording) {
            Judgement::Linearizable => (&mut self.linearizable, None),
            Judgement::Violated(why) => (&mut self.violated, Some(("violated", why))),
            Judgement::Unknown(why) => (&mut self.unknown, Some(("unknown", why))),
            Judgement::Faultless(why) => (&mut self.faultless, Some(("faultless", why))),
        };
        *count += 1;
        let seed = recording.head.seed;
        let Some((verdict, why)) = why else {
            let count = recording.asked.len();
            tell(format_args!(
                "round of seed {seed}: linearizable, {count} operations, {faults:?}"
            ));
            return true;
        };
        let text = format!(
            "round of seed {seed}: {verdict}: {why}; again with `throng-cluster linearizable --rounds 1 --seed {seed}`"
        );
        tell(format_args!("{text}"));
        self.failures.push(text);
        false
    }
}

/// The seed of a round. The first round's is the run's, so that any round is one that can be run alone.
fn of_round(seed: u64, round: usize) -> u64 {
    match round as u64 {
        0 => seed,
        round => StdRng::seed_from_u64(seed ^ round << 32).random(),
    }
}

/// Runs all rounds. Fails only where the machine is in the way; what the system does wrong is in the
/// report.
pub async fn run(orders: &Orders) -> Result<Report> {
    let began = Instant::now();
    let mut report = Report {
        seed: orders.seed,
        ..Report::default()
    };
    for number in 0..orders.rounds {
        let folder = orders.dir.join(format!("round-{number}"));
        let seed = of_round(orders.seed, number);
        let recording = round::round(&orders.binary, &folder, seed).await?;
        let history = folder.join(HISTORY);
        recording.write(&history)?;
        if blocking(|| report.add(&recording)) {
            std::fs::remove_dir_all(&folder).context("removing a round's folder")?;
        } else {
            tell(format_args!(
                "its history is judged again by `throng-cluster linearizable --judge {}`",
                history.display()
            ));
        }
    }
    report.wall_s = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Judges a recorded round again.
pub fn judge(file: &Path) -> Result<Report> {
    let began = Instant::now();
    let recording = Recording::read(file)?;
    let mut report = Report {
        seed: recording.head.seed,
        ..Report::default()
    };
    report.add(&recording);
    report.wall_s = began.elapsed().as_secs_f64();
    Ok(report)
}
