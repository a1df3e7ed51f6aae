//! Calls between nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use throng_transport::rpc::RPC_PAYLOAD_BYTES_MAX;
use throng_transport::{RpcClient, RpcError, serve_rpc};
use tokio::sync::{Notify, Semaphore};

use crate::support::{Nodes, PATIENCE};

fn number(value: u32) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u32(value);
    bytes.freeze()
}

#[tokio::test]
async fn a_thousand_calls_at_once_get_their_own_answers_out_of_order() {
    let nodes = Nodes::new().await;
    let ((writer, reader), (answers, requests)) = nodes.lane().await;
    let client = RpcClient::new(writer, reader);
    // Each call but the last waits until the one after it was answered: the order is reversed.
    let gates: Arc<Vec<Notify>> = Arc::new((0..=1_000).map(|_| Notify::new()).collect());
    gates[1_000].notify_one();
    let finished = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let log = finished.clone();
    let handler = move |mut request: Bytes| {
        let (gates, log) = (gates.clone(), log.clone());
        async move {
            let value = request.get_u32();
            gates[value as usize + 1].notified().await;
            log.lock().push(value);
            gates[value as usize].notify_one();
            number(value * 2)
        }
    };
    let serving = tokio::spawn(serve_rpc(answers, requests, handler, 2_000));
    let calls = join_all((0..1_000).map(|value| client.call(number(value), PATIENCE))).await;
    for (value, answer) in (0u32..).zip(calls) {
        assert_eq!(answer.unwrap(), number(value * 2));
    }
    let reversed: Vec<u32> = (0..1_000).rev().collect();
    assert_eq!(*finished.lock(), reversed);
    drop(client);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn at_most_so_many_handlers_run_at_once() {
    let nodes = Nodes::new().await;
    let ((writer, reader), (answers, requests)) = nodes.lane().await;
    let client = RpcClient::new(writer, reader);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let handler = move |request: Bytes| {
        let (running, most) = (running.clone(), most.clone());
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            request
        }
    };
    let serving = tokio::spawn(serve_rpc(answers, requests, handler, 4));
    let calls = join_all((0..200).map(|value| client.call(number(value), PATIENCE))).await;
    assert!(calls.iter().all(Result::is_ok));
    assert_eq!(seen.load(Ordering::SeqCst), 4);
    serving.abort();
}

#[tokio::test]
async fn every_call_fails_as_lost_when_the_peer_closes() {
    let nodes = Nodes::new().await;
    let ((writer, reader), (answers, requests)) = nodes.lane().await;
    let client = RpcClient::new(writer, reader);
    let arrived = Arc::new(Semaphore::new(0));
    let counted = arrived.clone();
    let handler = move |_| {
        counted.add_permits(1);
        std::future::pending()
    };
    let serving = tokio::spawn(serve_rpc(answers, requests, handler, 100));
    let calls = join_all((0..50).map(|value| client.call(number(value), PATIENCE)));
    let close = async {
        let _all = arrived.acquire_many(50).await.unwrap();
        nodes.at_two.close(0, "");
    };
    let (answers, ()) = tokio::join!(calls, close);
    assert!(
        answers.iter().all(|answer| *answer == Err(RpcError::Lost)),
        "{answers:?}"
    );
    assert!(client.is_lost());
    assert_eq!(client.call(number(0), PATIENCE).await, Err(RpcError::Lost));
    assert!(serving.await.unwrap().is_err());
}

#[tokio::test]
async fn a_call_that_times_out_or_is_dropped_leaves_the_lane_usable() {
    let nodes = Nodes::new().await;
    let ((writer, reader), (answers, requests)) = nodes.lane().await;
    let client = RpcClient::new(writer, reader);
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let handler = move |mut request: Bytes| {
        let held = held.clone();
        async move {
            if request.get_u32() == 0 {
                held.acquire().await.unwrap().forget();
            }
            number(7)
        }
    };
    let serving = tokio::spawn(serve_rpc(answers, requests, handler, 100));
    let short = Duration::from_millis(50);
    assert_eq!(client.call(number(0), short).await, Err(RpcError::Timeout));
    assert!(
        tokio::time::timeout(short, client.call(number(0), PATIENCE))
            .await
            .is_err()
    );
    // Their answers come now, and find nobody.
    gate.add_permits(2);
    assert_eq!(client.call(number(1), PATIENCE).await, Ok(number(7)));
    serving.abort();
}

#[tokio::test]
async fn a_handler_that_panics_or_answers_too_much_fails_its_own_call_only() {
    let nodes = Nodes::new().await;
    let ((writer, reader), (answers, requests)) = nodes.lane().await;
    let client = RpcClient::new(writer, reader);
    let handler = |mut request: Bytes| async move {
        match request.get_u32() {
            0 => panic!("this handler panics on purpose"),
            1 => Bytes::from(vec![0; RPC_PAYLOAD_BYTES_MAX + 1]),
            _ => Bytes::from(vec![0; RPC_PAYLOAD_BYTES_MAX]),
        }
    };
    let serving = tokio::spawn(serve_rpc(answers, requests, handler, 100));
    assert_eq!(client.call(number(0), PATIENCE).await, Err(RpcError::Failed));
    assert_eq!(client.call(number(1), PATIENCE).await, Err(RpcError::Failed));
    assert_eq!(
        client.call(number(2), PATIENCE).await.map(|answer| answer.len()),
        Ok(RPC_PAYLOAD_BYTES_MAX)
    );
    let too_large = Bytes::from(vec![0; RPC_PAYLOAD_BYTES_MAX + 1]);
    let refused = client.call(too_large, PATIENCE).await;
    assert_eq!(refused, Err(RpcError::TooLarge(RPC_PAYLOAD_BYTES_MAX + 1)));
    serving.abort();
}
