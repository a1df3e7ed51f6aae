//! Instructions of the hot kernels, counted by callgrind, beside the figures in `guards.json`.
//!
//! Time says nothing on a shared machine, instructions do. What rises by more than two in a hundred
//! fails; whoever means it writes the new figure down, and the change shows it.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

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
    let stored: BTreeMap<String, f64> = serde_json::from_str(include_str!("../guards.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut found, mut risen) = (BTreeMap::new(), Vec::new());
    for (kernel, before) in &stored {
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
fn a_kernel_that_nobody_knows_is_refused() {
    let run = Command::new(BENCH)
        .args(["kernel", "spin", "1"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
}
