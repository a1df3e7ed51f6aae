//! Tests await events; they do not sleep and hope.
use crate::rust::{code, lines_with, only_tests};
use crate::{File, Finding, Tree};

/// Test files that may sleep, and why no event can be awaited there.
const ALLOWED: &[(&str, &str)] = &[
    (
        "core/tests/cluster/support.rs",
        "asks again, before a deadline, for what nodes do in their own time: elect, apply, answer",
    ),
    (
        "core/api/src/patient.rs",
        "for how long a stream is waited for is what is tested; the clock is paused",
    ),
    (
        "core/api/tests/api.rs",
        "asks again, before a deadline, while a node goes by the keys of a moment ago",
    ),
    (
        "clients/rust/tests/sdk.rs",
        "that a held server writes nothing more is no event: two equal counts in a row say it",
    ),
    (
        "raft-store/tests/storage/raft.rs",
        "asks again, before a deadline, while an election or a lease is not over",
    ),
    (
        "raft-store/tests/storage/sim_disk.rs",
        "how long a write lingers is what is tested; the clock is paused",
    ),
    (
        "tests/sim/src/clients.rs",
        "a simulated client waits before it connects again; the time is simulated",
    ),
    (
        "tests/sim/src/clients/back_end.rs",
        "waits in simulated time before it asks the next node for a shard's leader",
    ),
    (
        "tests/sim/src/net/tests.rs",
        "that time passes at the rate of a host's clock is what is tested; the time is simulated",
    ),
    (
        "tests/sim/src/setup.rs",
        "waits in simulated time before what was refused is asked for again",
    ),
    (
        "tests/cluster/src/crash/strike.rs",
        "how long a fault lasts, and when a starting process is hit, is the fault itself and chosen by seed",
    ),
    (
        "tests/python/client.py",
        "waits the time that a retryable answer names before it asks again",
    ),
];

/// Folders that are test code as a whole.
const TEST_FOLDERS: &[&str] = &["tests/"];

/// Calls of `sleep` in test code outside the list.
#[must_use]
pub fn findings(tree: &Tree) -> Vec<Finding> {
    found_with(tree, ALLOWED)
}

fn found_with(tree: &Tree, allowed: &[(&str, &str)]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| !file.is_generated()) {
        let lines = sleeping_lines(file);
        match (allowed.iter().any(|(path, _)| *path == file.path), lines.is_empty()) {
            (true, true) => found.push(format!(
                "{}: listed in tests/tidy/src/waits.rs and never sleeps; take it off the list",
                file.path
            )),
            (false, false) => found.extend(lines.iter().map(|line| {
                format!(
                    "{}:{line}: a test sleeps; await the event (a frame, a line of output, a readiness answer), \
                     or list the file with its reason in tests/tidy/src/waits.rs",
                    file.path
                )
            })),
            _ => {}
        }
    }
    for (path, _) in allowed.iter().filter(|(path, _)| tree.text(path).is_none()) {
        found.push(format!(
            "{path}: listed in tests/tidy/src/waits.rs and does not exist; take it off the list"
        ));
    }
    found
}

fn sleeping_lines(file: &File) -> Vec<usize> {
    if file.is("py") {
        return lines_with(&file.text, "sleep(");
    }
    if !file.is("rs") {
        return Vec::new();
    }
    let all_test = file.is_test() || TEST_FOLDERS.iter().any(|folder| file.path.starts_with(folder));
    if all_test {
        return lines_with(&code(&file.text), "sleep(");
    }
    let tests = only_tests(&file.text);
    let before = file.text[..file.text.len() - tests.len()].lines().count();
    lines_with(&code(tests), "sleep(")
        .into_iter()
        .map(|line| line + before)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLEEPING: &str = "fn f() {}\n#[cfg(test)]\nmod tests {\n    fn t() { sleep(ONE_SECOND) }\n}\n";

    #[test]
    fn a_sleeping_test_is_found_with_its_line() {
        let found = found_with(&Tree::of(&[("core/src/a.rs", SLEEPING)]), &[]);
        assert!(found[0].starts_with("core/src/a.rs:4:"), "{found:?}");
        let python = Tree::of(&[("tests/python/session.py", "time.sleep(1)\n")]);
        assert_eq!(found_with(&python, &[]).len(), 1);
    }

    #[test]
    fn code_that_is_no_test_may_sleep() {
        assert!(
            found_with(
                &Tree::of(&[("core/src/a.rs", "async fn f() { sleep(backoff).await }\n")]),
                &[]
            )
            .is_empty()
        );
    }

    #[test]
    fn a_listed_file_may_sleep_and_must() {
        let listed = [("core/src/a.rs", "reason")];
        assert!(found_with(&Tree::of(&[("core/src/a.rs", SLEEPING)]), &listed).is_empty());
        assert!(
            found_with(&Tree::of(&[("core/src/a.rs", "fn f() {}\n")]), &listed)[0].contains("never sleeps")
        );
        assert!(found_with(&Tree::of(&[]), &listed)[0].contains("does not exist"));
    }
}
