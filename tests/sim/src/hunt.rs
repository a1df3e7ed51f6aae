//! Looking for planted mistakes: seeds run with one turned on until its invariant is broken. A suite
//! that does not find what is known to be there would not find what is not.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::planted::{MISTAKES, Mistake};
use crate::runner::{self, Report};

/// What came of looking for a mistake.
#[derive(Debug)]
pub struct Hunt {
    mistake: Mistake,
    /// The first seed that broke the intended invariant.
    intended: Option<Report>,
    /// The first seed with which anything was wrong.
    first: Option<Report>,
    seeds: u64,
}

impl Hunt {
    /// Whether the mistake was noticed, by whatever.
    #[must_use]
    pub fn found_anything(&self) -> bool {
        self.first.is_some()
    }

    /// Whether the invariant it was planted for was broken.
    #[must_use]
    pub fn found_as_intended(&self) -> bool {
        self.intended.is_some()
    }

    /// The seeds worth showing: the one that broke the intended invariant, or else the first.
    pub fn shown(&self) -> impl Iterator<Item = &Report> {
        self.intended.iter().chain(self.first.iter()).take(1)
    }
}

impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistake { name, found_by } = self.mistake;
        match (&self.intended, &self.first) {
            (Some(report), _) => {
                write!(
                    f,
                    "{name}: found by {found_by}, as intended, with seed {}",
                    report.seed
                )
            }
            (None, Some(report)) => {
                let others: Vec<&str> = broken(report).collect();
                write!(
                    f,
                    "{name}: found with seed {}, but by {} and not by {found_by} in {} seeds",
                    report.seed,
                    others.join(", "),
                    self.seeds
                )
            }
            (None, None) => write!(f, "{name}: not found in {} seeds", self.seeds),
        }
    }
}

fn broken(report: &Report) -> impl Iterator<Item = &str> {
    let invariants = report
        .violations
        .iter()
        .map(|violation| violation.invariant.as_str());
    invariants.chain(report.broken.iter().map(|_| "the run itself"))
}

/// Runs seeds with a mistake turned on until one breaks the invariant it is planted for.
#[must_use]
pub fn one(mistake: Mistake, seeds: &Range<u64>, jobs: usize) -> Hunt {
    let hunt = Mutex::new(Hunt {
        mistake,
        intended: None,
        first: None,
        seeds: seeds.end - seeds.start,
    });
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let report = runner::run_apart(seed, Some(mistake.name));
                    let Ok(mut hunt) = hunt.lock() else { return };
                    take(&mut hunt, report);
                    if hunt.found_as_intended() {
                        return;
                    }
                }
            });
        }
    });
    hunt.into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Seeds come in any order; the lowest of each kind counts.
fn take(hunt: &mut Hunt, report: Report) {
    if report.passed() {
        return;
    }
    let lower = |known: &Option<Report>| known.as_ref().is_none_or(|known| report.seed < known.seed);
    let intended = broken(&report).any(|name| name == hunt.mistake.found_by);
    if intended && lower(&hunt.intended) {
        hunt.intended = Some(report.clone());
    }
    if lower(&hunt.first) {
        hunt.first = Some(report);
    }
}

/// Looks for every mistake; tells whether each was found as intended.
#[must_use]
pub fn all(seeds: &Range<u64>, jobs: usize) -> bool {
    let began = Instant::now();
    let mut missed = 0;
    for mistake in MISTAKES {
        let hunt = one(*mistake, seeds, jobs);
        missed += usize::from(!hunt.found_as_intended());
        println!("{hunt}");
    }
    println!("{:.1} s on the wall", began.elapsed().as_secs_f64());
    println!("{} found, {missed} missed", MISTAKES.len() - missed);
    missed == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::Violation;
    use crate::summary::Counts;

    const MISTAKE: Mistake = Mistake {
        name: "forgets",
        found_by: "once",
    };

    fn report(seed: u64, invariants: &[&str]) -> Report {
        let violation = |name: &&str| Violation {
            invariant: (*name).to_owned(),
            clause: String::new(),
            text: String::new(),
            events: Vec::new(),
        };
        Report {
            seed,
            trace: 0,
            counts: Counts::default(),
            violations: invariants.iter().map(violation).collect(),
            broken: None,
            lasted_us: 0,
            cpu_ms: 0,
        }
    }

    fn hunt(reports: &[Report]) -> Hunt {
        let mut hunt = Hunt {
            mistake: MISTAKE,
            intended: None,
            first: None,
            seeds: 5,
        };
        for report in reports {
            take(&mut hunt, report.clone());
        }
        hunt
    }

    #[test]
    fn the_lowest_seed_that_breaks_the_intended_invariant_is_named() {
        let found = hunt(&[
            report(4, &["once"]),
            report(3, &["no_hole", "once"]),
            report(2, &["no_hole"]),
        ]);
        assert!(found.found_as_intended());
        assert!(found.to_string().contains("as intended, with seed 3"), "{found}");
    }

    #[test]
    fn what_only_others_notice_and_what_nobody_notices_is_told_apart() {
        let others = hunt(&[report(2, &["no_hole"])]);
        assert!(others.found_anything() && !others.found_as_intended());
        assert!(
            others.to_string().contains("by no_hole and not by once"),
            "{others}"
        );
        let none = hunt(&[report(1, &[])]);
        assert!(!none.found_anything());
        assert!(none.to_string().contains("not found"), "{none}");
    }
}
