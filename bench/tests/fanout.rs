//! A small fan-out run from end to end: every system that is here delivers everything, and what it cost
//! is told. How much it costs says nothing on a machine that does other things meanwhile.

use std::path::Path;
use std::process::Command;

const BENCH: &str = env!("CARGO_BIN_EXE_throng-bench");

/// `cargo test --workspace` builds it beside this program; `cargo test -p throng-bench` does not.
fn has_throng() -> bool {
    let throng = Path::new(BENCH).with_file_name("throng").is_file();
    assert!(
        throng || std::env::var_os("CI").is_none(),
        "there is no throng binary beside throng-bench"
    );
    throng
}

#[test]
fn every_system_delivers_everything_and_its_cost_is_told() {
    if !has_throng() {
        eprintln!("skipped: `cargo build -p throng` first");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let run = Command::new(BENCH)
        .args([
            "fanout",
            "--subscribers",
            "20",
            "--rate",
            "20",
            "--seconds",
            "1",
            "--rounds",
            "2",
        ])
        .args([
            "--versus",
            "quinn,mosquitto-qos0,mosquitto-qos1,nats",
            "--foreign-max",
            "1",
        ])
        .args(["--json", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    // 1 is for deliveries that are late beside a peer's, which a busy machine makes them.
    assert!(matches!(run.status.code(), Some(0 | 1)), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let skipped = report["skipped"].as_array().unwrap();
    assert_eq!(rows.len() + skipped.len(), 5, "{report}");
    for row in rows {
        assert_eq!(
            (&row["expected"], &row["delivered"]),
            (&800.into(), &800.into()),
            "{row}"
        );
        assert!(row["packets_per_delivery"].as_f64().unwrap() > 0.5, "{row}");
    }
    let cost = |system| {
        let row = rows.iter().find(|row| row["system"] == system).unwrap();
        row["cpu_us_per_delivery"].as_f64().unwrap()
    };
    // A hundredth of a second, in which the kernel counts, is more than bare quinn may need for this.
    assert!(cost("throng") > 0.0 && cost("quinn") >= 0.0, "{report}");
    for absent in skipped {
        assert!(report["ratios"].get(absent["system"].as_str().unwrap()).is_none());
    }
    let raw = std::fs::read(out.path().join("fanout-1-20-20-256.json")).unwrap();
    let raw: serde_json::Value = serde_json::from_slice(&raw).unwrap();
    assert_eq!(raw["samples"].as_array().unwrap().len(), 2 * rows.len());
    let page = std::fs::read_to_string(out.path().join("fanout-1-20-20-256.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("quinn"));
}

#[test]
fn a_peer_that_nobody_knows_is_refused() {
    let run = Command::new(BENCH)
        .args(["fanout", "--versus", "carrier-pigeon"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("carrier-pigeon"));
}
