//! A trace through a cluster, audited by `replay` itself and by a checker that shares no code.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::{throng, up};

const PATIENCE: Duration = Duration::from_secs(300);

/// Runs `throng replay` to its end and gives its exit code and report.
pub fn replay(args: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["replay", "--json"];
    all.extend(args);
    let mut running = throng().start(all).expect("replay starts");
    let (status, text) = running.rest(PATIENCE).expect("replay ends");
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (status.code(), report)
}

fn holds(report: &Value, sent: u64) {
    assert_eq!(
        (&report["sent"], &report["acked"]),
        (&sent.into(), &sent.into()),
        "{report}"
    );
    assert_eq!(report["expected"], report["delivered"], "{report}");
    for count in ["lost", "duplicated", "reordered", "holes"] {
        assert_eq!(report[count], 0, "{report}");
    }
}

fn export(cluster: &Path, channels: u8, into: &Path) {
    for channel in 0..channels {
        let name = format!("channel-{channel}");
        let cluster = cluster.display().to_string();
        let args = [
            "export",
            "--cluster",
            &cluster,
            "--group",
            "community",
            "--channel",
            &name,
        ];
        let output = throng().run(args).expect("export runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::write(into.join(format!("{name}.jsonl")), output.stdout).expect("written");
    }
}

#[test]
fn a_replay_holds_and_a_checker_outside_agrees() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = dir.path().join("trace.jsonl");
    throng_cluster::trace::write(&trace, 1_000, 1).expect("a trace");
    let (data, record, exports) = (
        dir.path().join("data"),
        dir.path().join("record"),
        dir.path().join("exports"),
    );
    std::fs::create_dir(&exports).expect("a folder");
    let _up = up(&data, 2);
    let text = |path: &Path| path.display().to_string();
    let args = [
        &text(&trace),
        "--cluster",
        &text(&data),
        "--observers",
        "10",
        "--record",
        &text(&record),
    ];
    let (code, report) = replay(&args);
    holds(&report, 1_000);
    assert!(
        report["expected"].as_u64() > Some(7_000),
        "most observers were there throughout: {report}"
    );
    assert_eq!(code, Some(0));

    export(&data, 6, &exports);
    let checker = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/check_record.py");
    let python = Command::new("python3")
        .arg(checker)
        .args([&trace, &record, &exports])
        .output();
    let Some(judged) = crate::python::present("python3", python) else {
        return;
    };
    assert!(
        judged.status.success(),
        "{}",
        String::from_utf8_lossy(&judged.stdout)
    );

    // A record that lost one line does not pass the checker: it can fail.
    let victim = record.join("clients/observer-001.jsonl");
    let lines = std::fs::read_to_string(&victim).expect("recorded");
    let cut: Vec<&str> = lines
        .lines()
        .enumerate()
        .filter(|(n, _)| *n != 5)
        .map(|(_, line)| line)
        .collect();
    std::fs::write(&victim, cut.join("\n") + "\n").expect("written");
    let judged = Command::new("python3")
        .arg(checker)
        .args([&trace, &record, &exports])
        .output()
        .expect("runs");
    assert_eq!(judged.status.code(), Some(1));
}

#[test]
fn kicked_members_are_fenced_in_every_channel_and_a_checker_outside_agrees() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = dir.path().join("trace.jsonl");
    throng_cluster::trace::write(&trace, 3_000, 3).expect("a trace");
    let (data, record, exports) = (
        dir.path().join("data"),
        dir.path().join("record"),
        dir.path().join("exports"),
    );
    std::fs::create_dir(&exports).expect("a folder");
    let _up = up(&data, 2);
    let text = |path: &Path| path.display().to_string();
    let args = [
        &text(&trace),
        "--cluster",
        &text(&data),
        "--observers",
        "4",
        "--kicks",
        "20",
        "--chaos",
        "leader-kill=1",
        "--record",
        &text(&record),
    ];
    let (code, report) = replay(&args);
    holds(&report, 3_000);
    assert_eq!(
        (&report["kicks"], &report["fence_violations"]),
        (&20.into(), &0.into()),
        "{report}"
    );
    assert!(report["kicks_inflight"].as_u64() > Some(5), "{report}");
    assert_eq!(code, Some(0));

    export(&data, 6, &exports);
    let check = || {
        Command::new("python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/python/check_record.py"
            ))
            .args([&trace, &record, &exports])
            .output()
    };
    let Some(judged) = crate::python::present("python3", check()) else {
        return;
    };
    let verdict: Value = serde_json::from_slice(&judged.stdout).expect("a verdict");
    assert!(judged.status.success(), "{verdict}");
    assert_eq!(verdict["kicks"], 20);

    // A record in which a kick came one entry sooner does not pass: the checker can fail.
    move_a_fence(&exports);
    let judged = check().expect("runs");
    assert_eq!(judged.status.code(), Some(1));
    let verdict: Value = serde_json::from_slice(&judged.stdout).expect("a verdict");
    assert!(verdict["problems"].to_string().contains("fence"), "{verdict}");
}

/// Puts the last fence of an exported log one entry sooner, as if that entry had been delivered to the
/// kicked user behind it.
fn move_a_fence(exports: &Path) {
    let path = exports.join("channel-0.jsonl");
    let text = std::fs::read_to_string(&path).expect("exported");
    let mut lines: Vec<&str> = text.lines().collect();
    let is_fence = |line: &str| line.contains("\"kind\":\"fence\"");
    let movable = |n: &usize| is_fence(lines[*n]) && !is_fence(lines[*n - 1]);
    let place = (1..lines.len())
        .rev()
        .find(movable)
        .expect("a fence behind an entry");
    let mut fence: Value = serde_json::from_str(lines[place]).expect("json");
    fence["seq"] = (fence["seq"].as_u64().expect("a place") - 1).into();
    let moved = fence.to_string();
    lines[place] = &moved;
    lines.swap(place - 1, place);
    std::fs::write(&path, lines.join("\n") + "\n").expect("written");
}

#[test]
fn kills_of_leaders_edges_shards_and_connections_lose_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = dir.path().join("trace.jsonl");
    throng_cluster::trace::write(&trace, 4_000, 2).expect("a trace");
    let trace = trace.display().to_string();
    let faults = [
        "leader-kill=1",
        "edge-kill=1",
        "core-restart=1",
        "client-drop=10",
        "client-rebind=3",
        "client-freeze=2",
    ];
    let mut args = vec![trace.as_str(), "--embedded", "--edges", "2", "--observers", "10"];
    for fault in faults {
        args.extend(["--chaos", fault]);
    }
    let (code, report) = replay(&args);
    holds(&report, 4_000);
    for fault in faults {
        let (kind, asked) = fault.split_once('=').expect("a kind and a count");
        let chaos = &report["chaos"][kind];
        assert_eq!(chaos["done"].to_string(), asked, "{report}");
        assert!(
            !kind.ends_with("kill") || chaos["inflight_hit"].as_u64() > Some(0),
            "{report}"
        );
    }
    assert_eq!(code, Some(0));
}

#[test]
fn what_changes_have_made_of_messages_is_the_same_everywhere_under_faults() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = dir.path().join("trace.jsonl");
    throng_cluster::trace::write(&trace, 1_500, 2).expect("a trace");
    let trace = trace.display().to_string();
    let (code, report) = replay(&[
        &trace,
        "--embedded",
        "--observers",
        "10",
        "--changes",
        "0.5",
        "--chaos",
        "leader-kill=1",
        "--chaos",
        "client-drop=5",
    ]);
    holds(&report, 1_500);
    assert_eq!(code, Some(0), "{report}");
    for kind in ["modified", "recalled", "deleted", "expanded", "since_checked"] {
        assert!(report[kind].as_u64() > Some(0), "{kind}: {report}");
    }
    assert!(report["messages_checked"].as_u64() > Some(10_000), "{report}");
    let wrong = report.as_object().expect("an object").iter();
    let wrong: Vec<_> = wrong.filter(|(name, _)| name.ends_with("_wrong")).collect();
    assert_eq!(wrong.len(), 6, "{report}");
    assert!(wrong.iter().all(|(_, count)| **count == 0), "{report}");
}
