//! The Server API as a back end uses it: curl, TLS and a running system.

use std::process::Command;

use serde_json::Value;

use crate::python::present;
use crate::{throng, up};

const PAGE: &str = include_str!("../../../docs/server-api.md");

/// The lines of the page that a back end is written in.
fn lines_of_curl() -> String {
    let (_, rest) = PAGE.split_once("```sh\n").expect("a block of shell");
    let (block, _) = rest.split_once("```").expect("its end");
    block.to_owned()
}

#[test]
fn the_back_end_of_the_page_works_as_it_stands() {
    if present("curl", Command::new("curl").arg("--version").output()).is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let _system = up(folder.path(), 1);
    let script = lines_of_curl().replace("dir=throng-data", &format!("dir='{}'", folder.path().display()));
    assert!(script.lines().count() <= 10, "the page says ten lines");
    // Twice: every line may be repeated.
    for round in 0..2 {
        let output = Command::new("sh")
            .args(["-e", "-c", &script])
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let answers: Vec<Value> = said
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let [group, channel, joined, muted, sent, history] = &answers[..] else {
            panic!("six answers: {said}");
        };
        assert_eq!(group["creator"], "ann");
        assert_eq!(channel["channel"], "hall");
        assert_eq!(joined["joined"], if round == 0 { 2 } else { 0 });
        assert_eq!(muted["done"], true);
        assert_eq!(sent["repeat"], round == 1);
        assert_eq!(history["head"], 1, "{history}");
        assert_eq!(history["messages"][0]["text"], "welcome");
    }
}

#[test]
fn a_key_that_was_removed_stays_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().display().to_string();
    let keys = |args: &[&str]| {
        let output = throng().run([&["ctl", "api-key"], args].concat()).expect("runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    };
    {
        let _system = up(folder.path(), 1);
        assert_eq!(keys(&["list", "--cluster", &dir]), "up\n");
        let key = keys(&["add", "--cluster", &dir, "billing"]);
        assert_eq!(key.trim().split('.').count(), 3, "app, id and secret");
        keys(&["remove", "--cluster", &dir, "up"]);
    }
    let _system = up(folder.path(), 1);
    assert_eq!(keys(&["list", "--cluster", &dir]), "billing\n");
}
