//! Feeds of a healthy cluster.

use throng_protocol::cluster::Refusal;
use throng_protocol::cluster::{ChannelInfo, FeedEvent, FeedRequest, FenceTable};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Epoch, Position, Seq};

use crate::support::{TestCluster, TestFeed, text};

/// Reads a channel's batches until `bodies` has `count`; checks that they are dense.
pub async fn collect(feed: &mut TestFeed, info: &ChannelInfo, bodies: &mut Vec<String>, count: usize) {
    while bodies.len() < count {
        let Some(event) = feed.next().await else {
            panic!("the lane is lost")
        };
        take(event, info, bodies);
    }
    assert_eq!(bodies.len(), count);
}

pub fn take(event: FeedEvent, info: &ChannelInfo, bodies: &mut Vec<String>) {
    let FeedEvent::Batch {
        channel,
        prev,
        entries,
        ..
    } = event
    else {
        panic!("{event:?}")
    };
    assert_eq!((channel, prev), (info.number, Seq(bodies.len() as u64)));
    for entry in entries {
        bodies.push(text(&entry.body));
        assert_eq!(entry.seq, Seq(bodies.len() as u64));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_feed_of_every_replica_tells_each_message_once_and_in_order() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    let mut expected = Vec::new();
    for n in 1..=50 {
        expected.push(format!("message {n}"));
        edge.append(&hall, &grant, n, &expected[expected.len() - 1])
            .await
            .unwrap();
    }
    let mut feeds = Vec::new();
    for place in 0..3 {
        let mut feed = edge.feed(place).await;
        let position = Position {
            epoch: Epoch(1),
            seq: Seq(0),
        };
        feed.send(&FeedRequest::Follow {
            channel: hall.clone(),
            position,
        })
        .await;
        let Some(FeedEvent::Opened { epoch, from, .. }) = feed.next().await else {
            panic!("not opened")
        };
        assert_eq!((epoch, from), (Epoch(1), Seq(0)));
        feeds.push((feed, Vec::new()));
    }
    for n in 51..=100 {
        expected.push(format!("message {n}"));
        edge.append(&hall, &grant, n, &expected[expected.len() - 1])
            .await
            .unwrap();
    }
    for (feed, bodies) in &mut feeds {
        collect(feed, &hall, bodies, 100).await;
        assert_eq!(*bodies, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn positions_that_cannot_be_served_are_reset_and_unfollowed_channels_are_silent() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    edge.append(&hall, &grant, 1, "one").await.unwrap();
    let leader = cluster.leader_of(hall.shard).await;
    let mut feed = edge.feed(leader).await;
    let reset = Some(FeedEvent::Reset {
        channel: hall.number,
        epoch: Epoch(1),
        head: Seq(1),
        fences: FenceTable::default(),
    });
    for (epoch, seq) in [(Epoch(7), Seq(0)), (Epoch(1), Seq(5))] {
        let position = Position { epoch, seq };
        feed.send(&FeedRequest::Follow {
            channel: hall.clone(),
            position,
        })
        .await;
        assert_eq!(feed.next().await, reset);
    }
    // A follow without a position starts at the head, and replaces the one before.
    let follow = FeedRequest::Follow {
        channel: hall.clone(),
        position: Position::default(),
    };
    feed.send(&follow).await;
    let opened = FeedEvent::Opened {
        channel: hall.number,
        epoch: Epoch(1),
        from: Seq(1),
        head: Seq(1),
        fences: FenceTable::default(),
    };
    assert_eq!(feed.next().await, Some(opened.clone()));
    edge.append(&hall, &grant, 2, "two").await.unwrap();
    let Some(FeedEvent::Batch { prev, entries, .. }) = feed.next().await else {
        panic!("no batch")
    };
    assert_eq!((prev, entries.len()), (Seq(1), 1));

    feed.send(&FeedRequest::Unfollow { channel: hall.number }).await;
    let mut unknown = hall.clone();
    unknown.number = ChannelNumber(77);
    feed.send(&FeedRequest::Follow {
        channel: unknown,
        position: Position::default(),
    })
    .await;
    let Some(FeedEvent::Refused {
        channel,
        refusal: Refusal::Code { code, .. },
    }) = feed.next().await
    else {
        panic!("not refused")
    };
    assert_eq!((channel, code), (ChannelNumber(77), Code::ChannelUnknown));
    // The refusal came behind the unfollow, so nothing of this message may come before the next
    // event, which is that of a new follow.
    edge.append(&hall, &grant, 3, "three").await.unwrap();
    feed.send(&follow).await;
    let Some(FeedEvent::Opened { head, .. }) = feed.next().await else {
        panic!("not opened")
    };
    assert_eq!(head, Seq(3));
}
