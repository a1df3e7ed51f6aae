//! An edge whose clients are divided among several threads.

use bytes::Bytes;
use throng_protocol::message::Message;

use crate::client::{Client, PATIENCE};
use crate::stand_in::Edge;

const CHANNEL: u64 = 7;
const WORKERS: usize = 3;
const CLIENTS: u64 = 18;

/// A figure, as Prometheus reads it.
fn figure(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} is not in\n{metrics}"))
        .trim()
        .parse()
        .unwrap()
}

fn connections(metrics: &str) -> Vec<u64> {
    let name = |worker| format!("throng_gateway_worker_connections{{worker=\"{worker}\"}}");
    (0..WORKERS)
        .map(|worker| figure(metrics, &name(worker)))
        .collect()
}

fn handed(metrics: &str, done: &str) -> u64 {
    figure(
        metrics,
        &format!("throng_gateway_handed_datagrams_total{{done=\"{done}\"}}"),
    )
}

#[tokio::test]
async fn clients_of_all_workers_get_everything_once_wherever_they_move() {
    let mut edge = Edge::with_workers(WORKERS).await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = Client::open(&edge, &format!("user-{number}")).await;
        client.subscribe(CHANNEL, None).await;
        clients.push(client);
    }
    let of_each = connections(&edge.metrics().await);
    assert_eq!(of_each.iter().sum::<u64>(), CLIENTS);
    assert!(
        of_each.iter().filter(|connections| **connections > 0).count() > 1,
        "one worker has all clients: {of_each:?}"
    );
    let mut last = 0;
    for _ in 0..4 {
        for key in last + 1..=last + 5 {
            edge.core.append(CHANNEL, key, Bytes::from_static(b"hello"));
        }
        for client in &mut clients {
            client.take(CHANNEL, last, last + 5).await;
            // What it sends next shows the edge its new address.
            client.endpoint.rebind().unwrap();
        }
        last += 5;
        for client in &mut clients {
            let sent = client.send(CHANNEL, 1_000 + last, "moved").await;
            assert!(matches!(sent, Message::Ack(_)), "{sent:?}");
        }
        for client in &mut clients {
            client.take(CHANNEL, last, last + CLIENTS).await;
        }
        last += CLIENTS;
    }
    let metrics = edge.metrics().await;
    assert_eq!(connections(&metrics), of_each, "nobody has changed its worker");
    assert!(handed(&metrics, "handed") > 0);
    assert_eq!(handed(&metrics, "lost"), 0);
    assert_eq!(
        figure(&metrics, "throng_gateway_deliveries_total"),
        last * CLIENTS
    );
    assert!(figure(&metrics, "throng_gateway_delivered_bytes_total") > last * CLIENTS);
    // All of them hear that the edge drains, and it ends when they have gone.
    let draining = tokio::spawn(edge.gateway.take().unwrap().drain(PATIENCE));
    for client in &mut clients {
        assert!(matches!(client.hear().await, Message::Drain(_)));
        client.link.close(0, "");
    }
    assert_eq!(draining.await.unwrap(), 0, "nobody had to be closed");
}
