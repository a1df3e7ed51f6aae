//! The whole test in small: what holds on an honest disk, and that a lie is noticed.

use std::process::{Command, Output};

fn power_cut(args: &[&str]) -> (Output, serde_json::Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_throng-power"))
        .args(["power-cut", "--json"])
        .args(args)
        .output()
        .expect("it runs");
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output, json)
}

#[test]
fn after_a_power_cut_at_any_write_everything_promised_is_there() {
    let (output, json) = power_cut(&["--points", "3000", "--seed", "7"]);
    assert_eq!(output.status.code(), Some(0), "{json}");
    assert!(json["points"].as_u64() >= Some(3000), "{json}");
    for tried in ["torn", "reordered", "acked_checked"] {
        assert!(json[tried].as_u64() > Some(100), "{json}");
    }
}

#[test]
fn a_disk_whose_syncs_lie_is_noticed() {
    // Far behind the first votes, where entries were promised.
    let (output, json) = power_cut(&["--points", "3000", "--seed", "8", "--lying", "--from", "1000"]);
    assert_eq!(output.status.code(), Some(1), "{json}");
    assert!(json["acked_lost"].as_u64() > Some(0), "{json}");
}
