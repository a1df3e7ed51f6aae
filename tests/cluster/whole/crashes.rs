//! Crash rounds, killed leaders and recorded histories in small; `throng-cluster` runs them at length.

use throng_cluster::crash::{self, Fault};
use throng_cluster::leader_kill;
use throng_cluster::linearizable;

use crate::throng;

#[tokio::test(flavor = "multi_thread")]
async fn a_round_of_every_fault_loses_nothing_and_leaves_equal_logs() {
    let dir = tempfile::tempdir().expect("a folder");
    let orders = crash::Orders {
        binary: throng(),
        rounds: Fault::ALL.len(),
        seed: 11,
        faults: Fault::ALL.to_vec(),
        dir: dir.path().to_owned(),
    };
    let report = crash::run(&orders).await.expect("the machine lets it run");
    assert!(report.holds(orders.rounds), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_killed_under_load_lose_and_double_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let orders = leader_kill::Orders {
        binary: throng(),
        kills: 4,
        seed: 12,
        dir: dir.path().to_owned(),
    };
    let report = leader_kill::run(&orders).await.expect("the machine lets it run");
    assert_eq!(
        (report.kills, report.lost, report.doubled),
        (4, 0, 0),
        "{report:#?}"
    );
    assert!(report.acked > 0 && report.violations.is_empty(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_explains_every_answer_while_leaders_are_killed() {
    let dir = tempfile::tempdir().expect("a folder");
    let orders = linearizable::Orders {
        binary: throng(),
        rounds: 1,
        seed: 13,
        dir: dir.path().to_owned(),
    };
    let report = linearizable::run(&orders).await.expect("the machine lets it run");
    assert!(report.holds(orders.rounds), "{report:#?}");
    assert!(
        report.kills_in_flight > 0 && report.kicks_in_flight > 0,
        "{report:#?}"
    );
}
