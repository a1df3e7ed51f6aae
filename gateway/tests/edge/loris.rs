//! Clients that hold a connection open and never get anywhere: each ends by time, and an honest
//! client is served meanwhile.

use std::time::Duration;

use bytes::Bytes;
use throng_protocol::limits::{AUTHENTICATE_TIMEOUT_MS, FRAME_TIMEOUT_MS};
use throng_protocol::message::{Hello, Message};
use throng_transport::{ClientEndpoint, FrameWriter, Link, LinkClosed, Trust};
use tokio::time::{Instant, interval, timeout_at};

use crate::client::Client;
use crate::stand_in::Edge;

/// How much later than its time an end may come on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// Sends `bytes` one at a time, `pause` apart, until the edge wants no more.
async fn trickle(writer: &mut FrameWriter, bytes: &Bytes, pause: Duration) {
    let mut ticks = interval(pause);
    for at in 0..bytes.len() {
        ticks.tick().await;
        if writer.write_one(bytes.slice(at..=at)).await.is_err() {
            return;
        }
    }
}

/// Expects the edge to end a connection with `timeout`, `after` from `begun`.
async fn expect_end(link: &dyn Link, begun: Instant, after: Duration) {
    let closed = timeout_at(begun + after + SLACK, link.closed())
        .await
        .expect("in time");
    assert!(
        matches!(closed, LinkClosed::Peer { code: 107, .. }),
        "closed with {closed:?}"
    );
    let took = begun.elapsed();
    assert!(
        took + Duration::from_millis(100) >= after,
        "after {took:?} already"
    );
}

#[tokio::test]
async fn a_client_that_opens_no_stream_is_closed_in_time() {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    let client = ClientEndpoint::new(&Trust::ca_file(&edge.ca).unwrap()).unwrap();
    let link = client.connect(edge.addr, "localhost").await.unwrap();
    let begun = Instant::now();
    bystander.ping().await;
    expect_end(&*link, begun, Duration::from_millis(AUTHENTICATE_TIMEOUT_MS)).await;
    bystander.ping().await;
}

#[tokio::test]
async fn a_hello_that_trickles_gets_the_time_of_a_silent_client_from_the_handshake() {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    let client = ClientEndpoint::new(&Trust::ca_file(&edge.ca).unwrap()).unwrap();
    let link = client.connect(edge.addr, "localhost").await.unwrap();
    let begun = Instant::now();
    // The stream comes when most of the time has passed already.
    let late = begun + Duration::from_millis(AUTHENTICATE_TIMEOUT_MS * 3 / 4);
    timeout_at(late, link.closed()).await.unwrap_err();
    let (send, _recv) = link.open_bi().await.unwrap();
    let mut writer = FrameWriter::new(send);
    let hello = Message::from(Hello {
        versions: vec![1],
        client: "slow".repeat(20),
    });
    let hello = hello.encode();
    let trickling = trickle(&mut writer, &hello, Duration::from_millis(100));
    let ending = expect_end(&*link, begun, Duration::from_millis(AUTHENTICATE_TIMEOUT_MS));
    tokio::join!(trickling, ending);
    bystander.ping().await;
}

#[tokio::test]
async fn a_client_that_never_authenticates_is_closed_in_time() {
    let edge = Edge::start().await;
    let begun = Instant::now();
    let client = Client::greet(&edge).await;
    let link = client.link.clone();
    Client::open(&edge, "bob").await.ping().await;
    expect_end(&*link, begun, Duration::from_millis(AUTHENTICATE_TIMEOUT_MS)).await;
    client.expect_close(107).await;
}

#[tokio::test]
async fn a_frame_that_trickles_for_ever_ends_its_session() {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    bystander.subscribe(1, None).await;
    let mut client = Client::open(&edge, "ann").await;
    client.ping().await;
    let begun = Instant::now();
    let link = client.link.clone();
    // The header of a frame of 16 KiB, and a byte of it every now and then.
    let mut frame = vec![0; 16 * 1024];
    frame[..4].copy_from_slice(&[0x80, 0x80, 0x01, 10]);
    let frame = Bytes::from(frame);
    let trickling = trickle(&mut client.writer, &frame, Duration::from_millis(200));
    let ending = expect_end(&*link, begun, Duration::from_millis(FRAME_TIMEOUT_MS));
    let serving = async {
        let mut ticks = interval(Duration::from_secs(2));
        for seq in 1..=10 {
            ticks.tick().await;
            edge.core.append(1, seq, Bytes::from_static(b"still here"));
            bystander.take(1, seq - 1, seq).await;
            bystander.ping().await;
        }
    };
    tokio::select! {
        () = trickling => panic!("the whole frame was taken"),
        _ = async { tokio::join!(ending, serving) } => {}
    }
    client.expect_close(107).await;
}
