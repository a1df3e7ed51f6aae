//! Starting, watching and stopping an edge.

use std::time::{Duration, Instant};

use throng_gateway::{Gateway, GatewayError};
use throng_protocol::cluster::PeerId;
use throng_protocol::ids::{EdgeId, NodeId, Seq, Ts};
use throng_protocol::message::{Direction, History, Message};
use throng_transport::LinkClosed;
use throng_transport::dev_ca::DevCa;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, PATIENCE};
use crate::stand_in::{CLUSTER, Edge, channel, group};

#[tokio::test]
async fn a_drain_tells_clients_where_to_go_and_ends_when_they_have_left() {
    let mut edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    let gateway = edge.gateway.take().unwrap();
    let started = Instant::now();
    let draining = tokio::spawn(gateway.drain(Duration::from_secs(9)));
    let Message::Drain(drain) = client.hear().await else {
        panic!("not a drain notice")
    };
    assert_eq!(drain.edges, vec!["other:7443".to_owned()]);
    assert!(
        (8_000..=9_000).contains(&drain.deadline_ms),
        "{}",
        drain.deadline_ms
    );
    assert!(matches!(client.send(1, 1, "still served").await, Message::Ack(_)));
    client.link.close(0, "gone elsewhere");
    assert_eq!(draining.await.unwrap(), 0);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_client_that_stays_is_closed_with_502_at_the_deadline() {
    let mut edge = Edge::start().await;
    let client = Client::open(&edge, "ann").await;
    let gateway = edge.gateway.take().unwrap();
    let draining = tokio::spawn(gateway.drain(Duration::from_millis(300)));
    client.expect_close(502).await;
    assert!(draining.await.unwrap() <= 1);
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_closed_at_the_drain_deadline_all_the_same() {
    let mut edge = Edge::start().await;
    for key in 1..=4 {
        edge.core.append(1, key, vec![0; 30 * 1024].into());
    }
    let mut client = Client::open(&edge, "ann").await;
    // Many times what the window of a stream holds.
    for _ in 0..40 {
        let history = History {
            request: client.next_request(),
            group: group(),
            channel: channel(1),
            anchor: Seq(0),
            direction: Direction::Before,
            limit: 4,
            ts: Ts(0),
        };
        client.say(history).await;
    }
    let gateway = edge.gateway.take().unwrap();
    let draining = tokio::spawn(gateway.drain(Duration::from_secs(3)));
    // By its session, not with the endpoint as a whole.
    let closed = tokio::time::timeout(PATIENCE, client.link.closed()).await;
    assert!(
        matches!(&closed, Ok(LinkClosed::Peer { code: 502, reason }) if reason == "the edge is draining"),
        "{closed:?}"
    );
    assert!(draining.await.unwrap() <= 1);
}

#[tokio::test]
async fn the_http_endpoints_say_how_the_edge_is() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    client.subscribe(1, None).await;
    assert!(matches!(client.send(1, 1, "x").await, Message::Ack(_)));
    client.take(1, 0, 1).await;
    let addr = edge.gateway.as_ref().unwrap().observe_addr().unwrap();
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for path in ["/healthz", "/readyz"] {
        assert!(get(path).await.starts_with("HTTP/1.1 200"));
    }
    let metrics = get("/metrics").await;
    for line in [
        "throng_gateway_connections 1",
        "throng_gateway_sessions 1",
        "throng_gateway_subscriptions 1",
        "throng_gateway_encodes_total 1",
        "throng_gateway_channels 1",
    ] {
        assert!(
            metrics.lines().any(|have| have == line),
            "{line} is not in\n{metrics}"
        );
    }
}

#[tokio::test]
async fn what_keeps_an_edge_from_starting_is_named() {
    let edge = Edge::start().await;
    let with = |change: &dyn Fn(&mut throng_gateway::GatewayConfig)| {
        let mut config = edge.config.clone();
        config.observe = None;
        change(&mut config);
        Gateway::start(config)
    };
    let in_use = with(&|config| config.listen = edge.addr).await.unwrap_err();
    assert!(matches!(in_use, GatewayError::AddressInUse { address } if address == edge.addr));
    assert!(in_use.to_string().contains(&edge.addr.to_string()));
    let observe = edge.gateway.as_ref().unwrap().observe_addr();
    let in_use = with(&|config| config.observe = observe).await.unwrap_err();
    assert!(matches!(in_use, GatewayError::AddressInUse { address } if Some(address) == observe));
    let unreadable = with(&|config| config.tls.cert = "/nonexistent.pem".into())
        .await
        .unwrap_err();
    assert!(
        unreadable.to_string().contains("/nonexistent.pem"),
        "{unreadable}"
    );
    let other = with(&|config| config.id = EdgeId(2)).await.unwrap_err();
    assert!(matches!(
        other,
        GatewayError::OtherIdentity {
            expected: 2,
            found: PeerId::Edge(EdgeId(1))
        }
    ));
    let nobody = with(&|config| config.cores.clear()).await.unwrap_err();
    assert!(matches!(nobody, GatewayError::Config(_)));
    let folder = edge.ca.parent().unwrap();
    let core = DevCa::open(folder)
        .unwrap()
        .node(PeerId::Core(NodeId(5)), CLUSTER)
        .unwrap();
    let wrong = with(&|config| {
        config.cluster_tls.cert = core.cert.clone();
        config.cluster_tls.key = core.key.clone();
    });
    assert!(matches!(
        wrong.await.unwrap_err(),
        GatewayError::OtherIdentity {
            found: PeerId::Core(_),
            ..
        }
    ));
}
