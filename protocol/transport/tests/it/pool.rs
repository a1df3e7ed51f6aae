//! Connections kept for callers.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use throng_transport::settings::CLUSTER_CONNECT_TIMEOUT;
use throng_transport::{ClusterConnectError, ClusterEndpoint, ClusterPool, PoolError, serve_rpc};
use tokio::task::JoinHandle;

use crate::support::{CORE_1, CORE_2, PATIENCE, local, node, node_tls};

/// Answers every request with the lane's kind; returns how many connections came.
fn serve(two: Arc<ClusterEndpoint>) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let mut connections = 0;
        while let Some(handshake) = two.accept().await {
            let connection = handshake.finish(PATIENCE).await.unwrap();
            connections += 1;
            tokio::spawn(async move {
                while let Ok((kind, writer, reader)) = connection.accept_lane().await {
                    let answer = move |_| async move { Bytes::copy_from_slice(&[kind]) };
                    tokio::spawn(serve_rpc(writer, reader, answer, 10));
                }
            });
        }
        connections
    })
}

#[tokio::test]
async fn all_callers_share_one_connection_and_one_lane_per_kind() {
    let folder = tempfile::tempdir().unwrap();
    let two = node(folder.path(), CORE_2, "dev");
    let addr = two.local_addr().unwrap();
    let serving = serve(two.clone());
    let pool = ClusterPool::new(node(folder.path(), CORE_1, "dev"));
    let calls = (0..60u8).map(|caller| {
        let pool = pool.clone();
        async move {
            let kind = 1 + caller % 3;
            let client = pool.rpc(CORE_2, addr, kind).await.unwrap();
            assert_eq!(client.call(Bytes::new(), PATIENCE).await.unwrap(), [kind][..]);
        }
    });
    join_all(calls).await;
    two.close(0, "");
    assert_eq!(serving.await.unwrap(), 1);
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let two = node(folder.path(), CORE_2, "dev");
    let addr = two.local_addr().unwrap();
    let serving = serve(two.clone());
    let pool = ClusterPool::new(node(folder.path(), CORE_1, "dev"));
    let client = pool.rpc(CORE_2, addr, 1).await.unwrap();
    assert!(client.call(Bytes::new(), PATIENCE).await.is_ok());
    pool.connection(CORE_2, addr).await.unwrap().close(0, "");
    assert!(client.call(Bytes::new(), PATIENCE).await.is_err());
    let client = pool.rpc(CORE_2, addr, 1).await.unwrap();
    assert!(client.call(Bytes::new(), PATIENCE).await.is_ok());
    two.close(0, "");
    assert_eq!(serving.await.unwrap(), 2);
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_short_time_only() {
    let folder = tempfile::tempdir().unwrap();
    let pool = ClusterPool::new(node(folder.path(), CORE_1, "dev"));
    // A port that answers nothing, so that connecting takes its whole time.
    let silent = std::net::UdpSocket::bind(local()).unwrap();
    let addr = silent.local_addr().unwrap();
    let failed = PoolError::Connect(ClusterConnectError::Timeout { addr });
    assert_eq!(pool.rpc(CORE_2, addr, 1).await.unwrap_err(), failed);
    let again = Instant::now();
    assert_eq!(pool.rpc(CORE_2, addr, 1).await.unwrap_err(), failed);
    assert!(
        again.elapsed() < CLUSTER_CONNECT_TIMEOUT / 2,
        "not remembered: {:?}",
        again.elapsed()
    );

    drop(silent);
    let two = Arc::new(ClusterEndpoint::bind(addr, &node_tls(folder.path(), CORE_2, "dev")).unwrap());
    let serving = serve(two.clone());
    let found = async {
        loop {
            if let Ok(client) = pool.rpc(CORE_2, addr, 1).await {
                break client;
            }
            tokio::task::yield_now().await;
        }
    };
    let client = tokio::time::timeout(PATIENCE, found).await.unwrap();
    assert!(client.call(Bytes::new(), PATIENCE).await.is_ok());
    serving.abort();
}
