//! Deliveries: live, catching up, after losses, and beside a client that does not read.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use throng_gateway::GatewayLimits;
use throng_protocol::ids::{Epoch, Position, Seq, Ts};
use throng_protocol::limits::LIVE_LANES;
use throng_protocol::message::{
    ClientAck, History, Message, Place, Resume, Start, Subscribe, Sync, Unsubscribe,
};
use throng_protocol::session::{STREAM_BULK, STREAM_LIVE};

use crate::client::Client;
use crate::stand_in::{EPOCH, Edge, channel, group};

fn body(len: usize) -> Bytes {
    Bytes::from(vec![b'x'; len])
}

fn at(seq: u64) -> Position {
    Position {
        epoch: EPOCH,
        seq: Seq(seq),
    }
}

#[tokio::test]
async fn a_message_reaches_every_subscriber_live_and_once() {
    let edge = Edge::start().await;
    let mut ann = Client::open(&edge, "ann").await;
    let mut bob = Client::open(&edge, "bob").await;
    for client in [&mut ann, &mut bob] {
        let subscribed = client.subscribe(7, None).await;
        assert_eq!((subscribed.position, subscribed.start), (at(0), Start::Head));
    }
    for key in 1..=50 {
        assert!(
            matches!(ann.send(7, key, "hello").await, Message::Ack(ack) if ack.seq.0 == key && ack.channel.0 == 7)
        );
    }
    for client in [&mut ann, &mut bob] {
        let kinds = client.take(7, 0, 50).await;
        assert!(kinds.iter().all(|kind| *kind == STREAM_LIVE));
    }
}

#[tokio::test]
async fn channels_of_all_lanes_are_delivered() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    for number in 1..=u64::from(LIVE_LANES) {
        client.subscribe(number, None).await;
        edge.core.append(number, 1, body(10));
        client.take(number, 0, 1).await;
    }
}

#[tokio::test]
async fn a_subscriber_far_behind_catches_up_by_pages_and_goes_on_live() {
    let edge = Edge::with(GatewayLimits {
        ring_frames_max: 16,
        ..GatewayLimits::default()
    })
    .await;
    for key in 1..=1_000 {
        edge.core.append(1, key, body(100));
    }
    let mut client = Client::open(&edge, "ann").await;
    let subscribed = client.subscribe(1, Some(0)).await;
    assert_eq!(
        (subscribed.position, subscribed.head, subscribed.start),
        (at(0), Seq(1_000), Start::Resumed)
    );
    let kinds = client.take(1, 0, 1_000).await;
    assert!(
        kinds.contains(&STREAM_BULK) && kinds.len() < 100,
        "{} frames for 1000 entries",
        kinds.len()
    );
    edge.core.append(1, 1_001, body(100));
    assert_eq!(client.take(1, 1_000, 1_001).await, vec![STREAM_LIVE]);
}

#[tokio::test]
async fn a_position_beyond_the_log_or_of_another_epoch_begins_at_the_head() {
    let edge = Edge::start().await;
    for key in 1..=3 {
        edge.core.append(1, key, body(1));
    }
    let mut client = Client::open(&edge, "ann").await;
    let ahead = client.subscribe(1, Some(9)).await;
    assert_eq!((ahead.position, ahead.start), (at(3), Start::FullAhead));
    let request = client.next_request();
    let position = Position {
        epoch: Epoch(5),
        seq: Seq(1),
    };
    client
        .say(Subscribe {
            request,
            group: group(),
            channel: channel(1),
            position,
            ts: Ts(0),
        })
        .await;
    let Message::Subscribed(foreign) = client.hear().await else {
        panic!("not subscribed")
    };
    assert_eq!((foreign.position, foreign.start), (at(3), Start::FullEpoch));
}

#[tokio::test]
async fn a_lost_feed_is_followed_again_without_a_gap() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    client.subscribe(1, None).await;
    for round in 0..3 {
        edge.core.append(1, round, body(10));
        edge.core.cut_feeds.send_modify(|cut| *cut += 1);
        edge.core.append(1, 100 + round, body(10));
        client.take(1, round * 2, round * 2 + 2).await;
    }
}

#[tokio::test]
async fn a_gap_in_a_feed_is_read_from_the_log() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    client.subscribe(1, None).await;
    edge.core.append(1, 1, body(10));
    client.take(1, 0, 1).await;
    let read = edge.core.pages.load(Ordering::SeqCst);
    // The feed lane is asked to leave out entries while several come at once.
    edge.core.skip.store(2, Ordering::SeqCst);
    let mut last = 1;
    while edge.core.skip.load(Ordering::SeqCst) == 2 {
        for key in 0..20 {
            last = edge.core.append(1, 1_000 + key, body(10)).0;
        }
        tokio::task::yield_now().await;
    }
    client.take(1, 1, last).await;
    assert!(
        edge.core.pages.load(Ordering::SeqCst) > read,
        "there was a gap to read"
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_pins_little() {
    let limits = GatewayLimits {
        ring_bytes_max: 64 * 1024,
        ..GatewayLimits::default()
    };
    let edge = Edge::with(limits).await;
    let mut deaf = Client::open(&edge, "deaf").await;
    deaf.subscribe(1, None).await;
    deaf.deafen();
    let mut client = Client::open(&edge, "ann").await;
    client.subscribe(1, None).await;
    // Many times what windows and the ring hold.
    for key in 1..=2_000 {
        edge.core.append(1, key, body(4 * 1024));
    }
    client.take(1, 0, 2_000).await;
    deaf.ping().await;
}

#[tokio::test]
async fn a_channel_whose_follower_lags_is_fed_by_the_leader() {
    let edge = Edge::with_follower().await;
    let mut client = Client::open(&edge, "ann").await;
    // Which node a channel begins at depends on its number.
    for number in [1, 2] {
        client.subscribe(number, None).await;
        for key in 1..=3 {
            edge.core.append(number, key, body(10));
            client.take(number, key - 1, key).await;
        }
    }
}

#[tokio::test]
async fn a_resume_answers_every_place_and_then_is_done() {
    let edge = Edge::start().await;
    for number in 1..=40 {
        edge.core.append(number, 1, body(1));
    }
    let mut client = Client::open(&edge, "ann").await;
    let mut places: Vec<Place> = (1..=40)
        .map(|number| Place {
            group: group(),
            channel: channel(number),
            position: at(0),
            ts: Ts(0),
        })
        .collect();
    places[9].channel = throng_protocol::ids::ChannelId::new("nothing").unwrap();
    let request = client.next_request();
    client.say(Resume { request, places }).await;
    let (mut subscribed, mut refused) = (0, 0);
    loop {
        match client.hear().await {
            Message::Subscribed(at) => subscribed += usize::from(at.request == request),
            Message::Error(error) => refused += usize::from(error.request == request && error.code == 301),
            Message::Done(done) => break assert_eq!(done.request, request),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!((subscribed, refused), (39, 1));
    let mut delivered = std::collections::BTreeSet::new();
    while delivered.len() < 39 {
        let (_, deliver) = client.delivery().await;
        assert!(delivered.insert(deliver.channel), "delivered twice");
    }
}

#[tokio::test]
async fn sync_and_history_read_pages_in_both_directions() {
    let edge = Edge::start().await;
    for key in 1..=10 {
        edge.core.append(1, key, body(1));
    }
    let mut client = Client::open(&edge, "ann").await;
    let request = client.next_request();
    client
        .say(Sync {
            request,
            group: group(),
            channel: channel(1),
            position: at(7),
            limit: 0,
            ts: Ts(0),
        })
        .await;
    let Message::Page(page) = client.hear().await else {
        panic!("not a page")
    };
    assert_eq!((page.prev, page.head, page.entries.len()), (Seq(7), Seq(10), 3));
    let history = |request, anchor, direction| History {
        request,
        group: group(),
        channel: channel(1),
        anchor: Seq(anchor),
        direction,
        limit: 2,
        ts: Ts(0),
    };
    let mut seqs = Vec::new();
    for (anchor, direction) in [
        (0, throng_protocol::message::Direction::Before),
        (9, throng_protocol::message::Direction::Before),
        (0, throng_protocol::message::Direction::After),
    ] {
        let request = client.next_request();
        client.say(history(request, anchor, direction)).await;
        let Message::Page(page) = client.hear().await else {
            panic!("not a page")
        };
        seqs.push(page.entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>());
    }
    assert_eq!(seqs, vec![vec![9, 10], vec![7, 8], vec![1, 2]]);
}

#[tokio::test]
async fn an_ack_is_never_answered_and_an_unsubscribed_channel_is_silent() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    let number = client.subscribe(1, None).await.channel;
    client.subscribe(2, None).await;
    edge.core.append(1, 1, body(1));
    client.take(1, 0, 1).await;
    for position in [at(1), at(0), at(99)] {
        client
            .say(ClientAck {
                channel: number,
                position,
            })
            .await;
    }
    client
        .say(ClientAck {
            channel: throng_protocol::ids::ChannelNumber(99),
            position: at(1),
        })
        .await;
    client.ping().await;
    let request = client.next_request();
    client
        .say(Unsubscribe {
            request,
            channel: number,
        })
        .await;
    assert!(matches!(client.hear().await, Message::Done(_)));
    edge.core.append(1, 2, body(1));
    edge.core.append(2, 1, body(1));
    client.take(2, 0, 1).await;
}
