//! Instructions of the hot kernels, counted by callgrind, beside the figures in `guards.json`.
//!
//! Time says nothing on a shared machine, instructions do. What rises by more than two in a hundred
//! fails; whoever means it writes the new figure down, and the change shows it. The figures are those of
//! one compiler, on x86-64 and in the development profile; others have their own.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

#[derive(serde::Deserialize)]
struct Stored {
    /// What made the figures, as `rustc -V` says.
    rustc: String,
    /// Instructions of a round, by kernel.
    kernels: BTreeMap<String, f64>,
}

fn stored() -> Stored {
    serde_json::from_str(include_str!("../guards.json")).unwrap()
}

const BENCH: &str = env!("CARGO_BIN_EXE_throng-bench");

/// Rounds of the short run and of the long one: what both have in common is no kernel.
const ROUNDS: [u64; 2] = [100, 600];

/// How far a figure may rise.
const RISE_MAX: f64 = 0.02;

fn has_valgrind() -> bool {
    let found = Command::new("valgrind").arg("--version").output();
    let found = found.is_ok_and(|output| output.status.success());
    assert!(
        found || std::env::var_os("CI").is_none(),
        "valgrind is not installed"
    );
    found
}

/// Whether the figures are of what this test was compiled by.
fn is_comparable(stored: &Stored) -> bool {
    let rustc = Command::new("rustc").arg("-V").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    cfg!(all(debug_assertions, target_arch = "x86_64")) && rustc.is_ok_and(|rustc| rustc == stored.rustc)
}

/// Instructions of a whole run.
fn instructions(kernel: &str, rounds: u64, out: &Path) -> u64 {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .args([BENCH, "kernel", kernel, &rounds.to_string()])
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{kernel}: {}",
        String::from_utf8_lossy(&run.stderr)
    );
    let report = std::fs::read_to_string(out).unwrap();
    let total = report.lines().find_map(|line| {
        line.strip_prefix("totals:")
            .or_else(|| line.strip_prefix("summary:"))
    });
    total.unwrap().trim().parse().unwrap()
}

#[test]
fn the_hot_kernels_take_no_more_instructions_than_written_down() {
    if !has_valgrind() {
        eprintln!("skipped: valgrind is not installed");
        return;
    }
    let stored = stored();
    if !is_comparable(&stored) {
        eprintln!("skipped: the figures are of {}", stored.rustc);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut found, mut risen) = (BTreeMap::new(), Vec::new());
    for (kernel, before) in &stored.kernels {
        let of = |rounds| instructions(kernel, rounds, &folder.path().join(kernel));
        let [short, long] = ROUNDS.map(of);
        let now = (long - short) as f64 / (ROUNDS[1] - ROUNDS[0]) as f64;
        if now > before * (1.0 + RISE_MAX) {
            risen.push(format!("{kernel}: {before:.0} -> {now:.0}"));
        }
        if now < before * (1.0 - RISE_MAX) {
            eprintln!("{kernel} takes fewer instructions now, write it down: {before:.0} -> {now:.0}");
        }
        found.insert(kernel, now.round());
    }
    let found = serde_json::to_string(&found).unwrap();
    assert!(risen.is_empty(), "{risen:?}; bench/guards.json would be {found}");
    eprintln!("{found}");
}

#[test]
fn every_kernel_has_a_figure_and_one_that_nobody_knows_is_refused() {
    let run = Command::new(BENCH)
        .args(["kernel", "spin", "1"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    let (_, known) = said.split_once("[possible values: ").unwrap();
    let (known, _) = known.split_once(']').unwrap();
    let mut known: Vec<&str> = known.split(", ").collect();
    known.sort_unstable();
    assert_eq!(known, stored().kernels.keys().collect::<Vec<_>>());
}
