//! Clients that keep an edge busy with nothing: each is bounded, and an honest client is served
//! meanwhile.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use throng_gateway::{GatewayLimits, HandshakeLimits};
use throng_protocol::ids::{Position, Ts};
use throng_protocol::limits::RESUME_POSITIONS_MAX;
use throng_protocol::message::{Message, Ping, Place, Resume};
use throng_transport::{ClientEndpoint, ConnectError, LinkClosed, Trust};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::client::{Client, PATIENCE};
use crate::stand_in::{Edge, channel, group};

/// Longer than an honest client waits for a pong while somebody else floods the edge.
const PROMPT: Duration = Duration::from_secs(2);

/// A session that pings in turn and is answered promptly.
async fn served(bystander: &mut Client) {
    for _ in 0..20 {
        timeout(PROMPT, bystander.ping()).await.expect("served meanwhile");
    }
}

/// What the edge says of itself under a name; 0 if nothing.
async fn metric(edge: &Edge, name: &str) -> u64 {
    let addr = edge
        .gateway
        .as_ref()
        .and_then(|gateway| gateway.observe_addr())
        .unwrap();
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_are_not_given_back() {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    let mut client = Client::open(&edge, "ann").await;
    let link = client.link.clone();
    let churn = async {
        let mut opened = 0;
        loop {
            let taken = tokio::select! {
                stream = link.open_bi() => stream.map(|(mut send, mut recv)| {
                    send.reset(1);
                    recv.stop(1);
                }),
                stream = link.open_uni() => stream.map(|mut send| send.reset(1)),
                // Whatever was reset is dealt with by then: the edge answers in order.
                () = served(&mut bystander) => return opened,
            };
            taken.unwrap();
            opened += 1;
        }
    };
    let opened = timeout(PATIENCE, churn).await.unwrap();
    assert!((1..=5).contains(&opened), "{opened} streams");
    client.ping().await;
}

#[tokio::test]
async fn streams_that_are_opened_and_never_used_hold_up_nothing() {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    let mut client = Client::open(&edge, "ann").await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = client.link.open_uni().await.unwrap();
        stream
            .write_all_chunks(&mut [Bytes::from_static(b"?")])
            .await
            .unwrap();
        idle.push(stream);
    }
    let (mut extra, _recv) = client.link.open_bi().await.unwrap();
    extra
        .write_all_chunks(&mut [Bytes::from_static(b"?")])
        .await
        .unwrap();
    client.ping().await;
    assert!(matches!(client.send(1, 1, "a").await, Message::Ack(_)));
    served(&mut bystander).await;
}

#[tokio::test]
async fn a_client_that_stops_its_lanes_ends_its_own_session_alone() {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    bystander.subscribe(1, None).await;
    for _ in 0..5 {
        let mut client = Client::silent(&edge, "ann").await;
        client.subscribe(1, None).await;
        edge.core.append(1, 1, Bytes::from_static(b"x"));
        let mut lane = timeout(PATIENCE, client.link.accept_uni())
            .await
            .unwrap()
            .unwrap();
        lane.stop(1);
        edge.core.append(1, 2, Bytes::from_static(b"y"));
        timeout(PATIENCE, client.link.closed()).await.expect("ended");
        served(&mut bystander).await;
    }
    bystander.take(1, 0, 10).await;
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_at_a_bounded_rate() {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    let Client {
        mut reader,
        mut writer,
        link: _link,
        ..
    } = Client::open(&edge, "ann").await;
    let begun = Instant::now();
    let flood = async move {
        let pings: BytesMut = (0..1_000)
            .flat_map(|nonce| Message::from(Ping { nonce }).encode())
            .collect();
        let pings = pings.freeze();
        while writer.write_one(pings.clone()).await.is_ok() {}
    };
    let pongs = async move {
        let mut count = 0u64;
        while let Ok(Some(_)) = timeout(PROMPT, reader.next()).await.unwrap_or(Ok(None)) {
            count += 1;
            if count == 260 {
                return count;
            }
        }
        panic!("only {count} pongs");
    };
    let honest = async {
        for _ in 0..5 {
            served(&mut bystander).await;
        }
    };
    let count = tokio::select! {
        () = flood => panic!("the edge has closed"),
        (count, ()) = async { tokio::join!(pongs, honest) } => count,
    };
    // The burst of 200 at once, and then twenty a second.
    let at_least = Duration::from_millis((count - 201) * 1_000 / 20);
    assert!(
        begun.elapsed() >= at_least,
        "{count} pongs in {:?}",
        begun.elapsed()
    );
    assert!(metric(&edge, "throng_gateway_sessions_held_back_total").await > 0);
}

#[tokio::test]
async fn a_client_that_subscribes_without_end_is_held_back() {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    let mut client = Client::open(&edge, "ann").await;
    let place = Place {
        group: group(),
        channel: channel(1),
        position: Position::default(),
        ts: Ts(0),
    };
    let begun = Instant::now();
    let resumes = 9;
    for _ in 0..resumes {
        let request = client.next_request();
        client
            .say(Resume {
                request,
                places: vec![place.clone(); RESUME_POSITIONS_MAX],
            })
            .await;
        while !matches!(client.hear().await, Message::Done(_)) {}
    }
    // 500 above the burst of 4000, at 200 a second.
    let ((), ()) = tokio::join!(client.ping(), served(&mut bystander));
    assert!(
        begun.elapsed() > Duration::from_millis(2_200),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(metric(&edge, "throng_gateway_sessions_held_back_total").await, 1);
}

#[tokio::test]
async fn a_flood_below_the_frames_is_closed_with_108() {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    // Every millisecond of silence makes a ping of QUIC.
    let trust = Trust::ca_file(&edge.ca).unwrap();
    let endpoint = ClientEndpoint::with_keep_alive(&trust, Duration::from_millis(1)).unwrap();
    let client = Client::open_from(endpoint, &edge, "ann").await;
    let closed = client.expect_close(108);
    tokio::join!(closed, served(&mut bystander));
    served(&mut bystander).await;
}

#[tokio::test]
async fn a_network_above_its_rate_of_handshakes_is_refused_and_counted() {
    let handshakes = HandshakeLimits {
        network_per_second: 1,
        network_burst: 3,
        ..HandshakeLimits::default()
    };
    let edge = Edge::with(GatewayLimits {
        handshakes,
        ..GatewayLimits::default()
    })
    .await;
    let mut early = Client::open(&edge, "bob").await;
    let client = ClientEndpoint::new(&Trust::ca_file(&edge.ca).unwrap()).unwrap();
    let refused = loop {
        if let Err(error) = client.connect(edge.addr, "localhost").await {
            break error;
        }
    };
    let ConnectError::Closed { reason, .. } = refused else {
        panic!("{refused}")
    };
    assert_eq!(reason, LinkClosed::Refused);
    served(&mut early).await;
    let refused = metric(
        &edge,
        "throng_gateway_first_packets_total{done=\"refused_network\"}",
    )
    .await;
    let retried = metric(&edge, "throng_gateway_first_packets_total{done=\"retried\"}").await;
    assert!(
        refused >= 1 && retried >= 1,
        "{refused} refused, {retried} retried"
    );
}
