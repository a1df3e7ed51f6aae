//! Seeds of the simulation, in processes of their own as `throng-sim` runs them.

use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_throng-sim");
    let output = Command::new(program).args(args).output();
    output.expect("the program was built with this test")
}

fn text(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{}{err}", String::from_utf8_lossy(&output.stdout))
}

#[test]
fn a_handful_of_seeds_passes() {
    let output = sim(&["--seeds", "8"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.trim_end().ends_with("8 passed, 0 failed"), "{text}");
}

#[test]
fn a_seed_has_the_same_trace_in_every_process_and_another_seed_has_another() {
    let trace = |seed: &str, more: &[&str]| {
        let output = sim(&[&["--one", seed, "--json"], more].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["counts"]["acked"].as_u64() > Some(0), "{report}");
        report["trace"].as_u64().unwrap()
    };
    let first = trace("4", &[]);
    // Printing the history is no part of it.
    assert_eq!(trace("4", &["--trace"]), first);
    assert_ne!(trace("5", &[]), first);
}

#[test]
fn arguments_that_make_no_sense_are_a_usage_error() {
    assert_eq!(sim(&["--seeds", "many"]).status.code(), Some(2));
    assert_eq!(sim(&["--one", "1", "--seeds", "2"]).status.code(), Some(2));
}
