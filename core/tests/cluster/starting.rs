//! What keeps a node from starting, and what it says then.

use throng_core::{CoreError, CoreNode};

use crate::support::TestCluster;

async fn error_of(cluster: &TestCluster, place: usize) -> CoreError {
    match CoreNode::start(cluster.configs[place].clone()).await {
        Ok(_) => panic!("the node has started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_cannot_start_says_why() {
    let mut cluster = TestCluster::prepare();
    cluster.start_node(0).await;
    let error = error_of(&cluster, 0).await;
    assert!(matches!(error, CoreError::Locked { .. }), "{error}");

    cluster.configs[1].listen = cluster.configs[0].listen;
    let error = error_of(&cluster, 1).await;
    assert!(matches!(error, CoreError::AddressInUse { .. }), "{error}");
    cluster.configs[1].listen = cluster.configs[2].listen;

    let own = cluster.configs[1].tls.clone();
    cluster.configs[1].tls = cluster.configs[0].tls.clone();
    let error = error_of(&cluster, 1).await;
    assert!(
        matches!(error, CoreError::OtherIdentity { expected: 2, .. }),
        "{error}"
    );
    cluster.configs[1].tls.key = "/nowhere/node.key".into();
    let error = error_of(&cluster, 1).await;
    assert!(
        matches!(error, CoreError::Tls(_)) && error.to_string().contains("/nowhere/node.key"),
        "{error}"
    );
    cluster.configs[1].tls = own;

    cluster.configs[1].shards.message = 0;
    let error = error_of(&cluster, 1).await;
    assert!(matches!(error, CoreError::Config(_)), "{error}");
    cluster.configs[1].shards.message = 2;

    let format = cluster.configs[1].data.join("store/FORMAT");
    std::fs::create_dir_all(format.parent().unwrap()).unwrap();
    std::fs::write(&format, "throng-store 99\n").unwrap();
    let error = error_of(&cluster, 1).await;
    assert!(
        matches!(error, CoreError::NewerFormat { found: 99, .. }),
        "{error}"
    );
}
