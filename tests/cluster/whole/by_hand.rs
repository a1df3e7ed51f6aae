//! The README's second tour: nodes started one by one from the printed examples.

use crate::replays::replay;
use crate::throng;
use throng_cluster::nodes::Nodes;

#[test]
fn three_core_nodes_and_two_edges_started_by_hand_do_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let nodes = Nodes::start(&throng(), dir.path(), 2, &[]).expect("the nodes serve");
    let trace = dir.path().join("trace.jsonl");
    throng_cluster::trace::write(&trace, 500, 4).expect("a trace");
    let (trace, cluster) = (trace.display().to_string(), nodes.cluster().display().to_string());
    let (code, report) = replay(&[
        &trace,
        "--cluster",
        &cluster,
        "--observers",
        "10",
        "--chaos",
        "client-drop=5",
    ]);
    assert_eq!(
        (code, &report["acked"], &report["lost"]),
        (Some(0), &500.into(), &0.into()),
        "{report}"
    );
    assert_eq!(report["expected"], report["delivered"]);
    assert_eq!(report["chaos"]["client-drop"]["done"], 5);
}
