//! A whole system killed in the middle of traffic, and started again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use throng_cluster::process::Running;

use crate::replays::replay;
use crate::{throng, up};

const PATIENCE: Duration = Duration::from_secs(300);

/// `(channel, client id) -> how often`, from the exports.
fn stored(cluster: &Path) -> BTreeMap<(u8, u64), u32> {
    let mut stored = BTreeMap::new();
    for channel in 0..6u8 {
        let (cluster, name) = (cluster.display().to_string(), format!("channel-{channel}"));
        let output = throng().run([
            "export",
            "--cluster",
            &cluster,
            "--group",
            "community",
            "--channel",
            &name,
        ]);
        let output = output.expect("export runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        for line in String::from_utf8(output.stdout).expect("text").lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            *stored
                .entry((channel, line["client_id"].as_u64().expect("a number")))
                .or_default() += 1;
        }
    }
    stored
}

#[test]
fn a_killed_system_carries_on_and_a_second_replay_adds_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = dir.path().join("trace.jsonl");
    throng_cluster::trace::write(&trace, 3_000, 3).expect("a trace");
    let (trace, data) = (trace.display().to_string(), dir.path().join("data"));
    let record = dir.path().join("record");
    let data_text = data.display().to_string();
    let args = [
        &trace,
        "--cluster",
        &data_text,
        "--observers",
        "5",
        "--patience",
        "120s",
        "--rate",
        "600",
    ];

    let mut first = up(&data, 1);
    let record_text = record.display().to_string();
    let mut replaying: Running = throng()
        .start([&["replay", "--json", "--record", &record_text], &args[..]].concat())
        .expect("replay starts");
    wait_for_bytes(&record.join("sends.jsonl"));
    first.kill().expect("killed");
    let second = up(&data, 1);
    let (status, text) = replaying.rest(PATIENCE).expect("the replay ends");
    let report: Value = serde_json::from_str(&text).expect("a report");
    assert_eq!(
        (status.code(), &report["acked"], &report["lost"]),
        (Some(0), &3_000.into(), &0.into()),
        "{report}"
    );

    let before = stored(&data);
    assert_eq!(before.len(), 3_000);
    assert!(
        before.values().all(|times| *times == 1),
        "every acked message once"
    );
    let again = dir.path().join("again");
    let again_text = again.display().to_string();
    let (code, report) = replay(&[&args[..], &["--record", &again_text]].concat());
    assert_eq!((code, &report["acked"]), (Some(0), &3_000.into()), "{report}");
    assert_eq!(
        stored(&data),
        before,
        "a second replay of the trace adds no entry"
    );
    let sends = std::fs::read_to_string(again.join("sends.jsonl")).expect("recorded");
    assert!(
        sends.lines().all(|line| line.contains("\"repeat\":true")),
        "every send is answered as a repeat"
    );
    drop(second);
}

#[test]
fn a_signal_drains_within_ten_seconds() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut system = up(dir.path(), 1);
    let began = std::time::Instant::now();
    system.signal(rustix::process::Signal::TERM).expect("signalled");
    let status = system.wait(Duration::from_secs(20)).expect("it ends");
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// Waits until a file has something in it: the record's first buffer, a good while into the replay.
fn wait_for_bytes(path: &Path) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        assert!(
            std::time::Instant::now() < deadline,
            "{} stays empty",
            path.display()
        );
        std::thread::yield_now();
    }
}
