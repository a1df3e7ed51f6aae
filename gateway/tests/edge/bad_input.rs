//! What breaks the rules of frames and their order: a numbered error, the end of that connection,
//! and nothing for anybody else.

use bytes::Bytes;
use throng_protocol::cluster::PeerId;
use throng_protocol::frame;
use throng_protocol::ids::EdgeId;
use throng_protocol::limits::FRAME_BYTES_MAX;
use throng_protocol::message::{Join, Message, Ping, Welcome};
use throng_transport::{ClusterEndpoint, ClusterTls};

use crate::client::{Client, frame_of};
use crate::stand_in::{CLUSTER, Edge, group};

/// Sends bytes on a fresh session while another one looks on.
async fn closes_only_its_own(bytes: Bytes, code: u16) {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    bystander.subscribe(1, None).await;
    let mut client = Client::open(&edge, "ann").await;
    client.bytes(bytes).await;
    client.expect_close(code).await;
    edge.core.append(1, 1, Bytes::from_static(b"still here"));
    bystander.take(1, 0, 1).await;
    bystander.ping().await;
}

#[tokio::test]
async fn a_payload_that_does_not_verify_closes_with_100() {
    closes_only_its_own(frame::encode(10, &[0xff; 9]), 100).await;
}

#[tokio::test]
async fn a_length_in_no_shortest_form_closes_with_100() {
    closes_only_its_own(Bytes::from_static(&[0x80, 0x00, 20]), 100).await;
}

#[tokio::test]
async fn an_oversized_frame_closes_with_101_before_its_payload_comes() {
    let length = FRAME_BYTES_MAX + 1;
    let header = [
        length as u8 & 0x7f | 0x80,
        (length >> 7) as u8 & 0x7f | 0x80,
        (length >> 14) as u8,
        10,
    ];
    closes_only_its_own(Bytes::copy_from_slice(&header), 101).await;
}

#[tokio::test]
async fn a_frame_of_servers_closes_with_102() {
    let message: Message = throng_protocol::message::Done { request: 1 }.into();
    closes_only_its_own(message.encode(), 102).await;
}

#[tokio::test]
async fn an_unknown_critical_frame_closes_with_103() {
    closes_only_its_own(frame::encode(200, b"?"), 103).await;
}

#[tokio::test]
async fn an_unknown_skippable_frame_is_skipped() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    client.bytes(frame::encode(100, b"?")).await;
    client.ping().await;
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_closes_with_100() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    let whole = Message::from(Ping { nonce: 1 }).encode();
    client.bytes(whole.slice(..whole.len() - 1)).await;
    client.writer.finish();
    client.expect_close(100).await;
}

#[tokio::test]
async fn a_stream_that_ends_between_frames_is_a_farewell() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    client.writer.finish();
    client.expect_closed(0).await;
}

#[tokio::test]
async fn a_frame_before_hello_or_before_welcome_closes_with_102() {
    let edge = Edge::start().await;
    let mut client = Client::connect(&edge).await;
    client.say(Ping { nonce: 1 }).await;
    client.expect_close(102).await;
    let mut client = Client::greet(&edge).await;
    client
        .say(Join {
            request: 1,
            group: group(),
        })
        .await;
    client.expect_close(102).await;
}

#[tokio::test]
async fn versions_of_which_none_is_spoken_close_with_104() {
    let edge = Edge::start().await;
    let mut client = Client::connect(&edge).await;
    client
        .say(throng_protocol::message::Hello {
            versions: vec![9],
            client: String::new(),
        })
        .await;
    client.expect_close(104).await;
}

#[tokio::test]
async fn a_field_out_of_range_is_refused_and_the_session_goes_on() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    client
        .say(Join {
            request: 0,
            group: group(),
        })
        .await;
    let heard = client.hear().await;
    assert!(matches!(heard, Message::Error(error) if error.code == 105 && error.request == 0));
    client.ping().await;
}

#[tokio::test]
async fn another_protocol_is_not_spoken_on_the_port_of_clients() {
    let edge = Edge::start().await;
    let files = &edge.config.cluster_tls;
    let tls = ClusterTls::load(&files.ca, &files.cert, &files.key, CLUSTER).unwrap();
    let stranger = ClusterEndpoint::outgoing(&tls).unwrap();
    let refused = stranger.connect(edge.addr, PeerId::Edge(EdgeId(1))).await;
    assert!(refused.is_err(), "connected with ALPN throng-cluster/1");
    Client::open(&edge, "ann").await.ping().await;
}

#[tokio::test]
async fn the_same_frame_cut_anywhere_means_the_same() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    let whole = Message::from(Ping { nonce: 77 }).encode();
    for cut in 1..whole.len() {
        client.bytes(whole.slice(..cut)).await;
        client.bytes(whole.slice(cut..)).await;
        assert!(
            matches!(client.hear().await, Message::Pong(pong) if pong.nonce == 77),
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn welcome_said_by_a_client_closes_with_102() {
    let edge = Edge::start().await;
    let mut client = Client::greet(&edge).await;
    let Message::Welcome(welcome) = client.authenticate(crate::client::token("ann")).await else {
        panic!("not welcome");
    };
    let again: Welcome = welcome;
    let frame = frame_of(again);
    client.bytes(frame::encode(frame.kind, &frame.payload)).await;
    client.expect_close(102).await;
}
