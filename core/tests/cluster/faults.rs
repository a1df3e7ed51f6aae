//! What survives the loss of nodes.

use std::sync::Arc;
use std::time::Duration;

use throng_core::{Clock, SystemClock};
use throng_protocol::cluster::{ChannelInfo, FeedEvent, Refusal, Reply, Request};
use throng_protocol::code::Code;
use throng_protocol::ids::{Epoch, Seq};
use tokio::time::Instant;

use crate::feeds::{collect, take};
use crate::support::{
    TestCluster, TestFeed, app, append, channel, counted, group, http, management_of, message_of, metric,
    until,
};

fn bodies(count: u64) -> Vec<String> {
    (1..=count).map(|n| format!("message {n}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_and_feeds_go_on_when_the_leader_is_lost() {
    let mut cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    let leader = cluster.leader_of(hall.shard).await;
    let mut feed = edge.feed(leader).await;
    feed.follow(&hall, 0).await;
    for n in 1..=20 {
        edge.append(&hall, &grant, n, &format!("message {n}"))
            .await
            .unwrap();
    }
    cluster.kill(leader).await;
    let mut seen = Vec::new();
    while let Some(event) = feed.next().await {
        take(event, &hall, &mut seen);
    }
    for n in 21..=40 {
        let appended = edge
            .append(&hall, &grant, n, &format!("message {n}"))
            .await
            .unwrap();
        assert_eq!((appended.seq, appended.epoch), (Seq(n), Epoch(1)));
    }
    // Retries of what the lost leader acknowledged are repeats.
    let repeated = edge.append(&hall, &grant, 20, "message 20").await.unwrap();
    assert_eq!((repeated.seq, repeated.repeat), (Seq(20), true));

    let mut feed = edge.feed(cluster.leader_of(hall.shard).await).await;
    feed.follow(&hall, seen.len() as u64).await;
    collect(&mut feed, &hall, &mut seen, 40).await;
    assert_eq!(seen, bodies(40));
    assert_eq!(edge.history(&hall).await, bodies(40));

    // The lost node comes back and serves everything as well.
    cluster.start_node(leader).await;
    cluster.ready().await;
    let mut feed = edge.feed(leader).await;
    whole(&mut feed, &hall, 40).await;
}

/// Reads a channel from its first entry until `count` entries have come.
async fn whole(feed: &mut TestFeed, channel: &ChannelInfo, count: usize) {
    feed.follow(channel, 0).await;
    let mut seen = Vec::new();
    collect(feed, channel, &mut seen, count).await;
    assert_eq!(seen, bodies(count as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_end_of_a_node_is_not_told_as_a_failure_of_its_replicas() {
    let mut cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    edge.append(&hall, &grant, 1, "message 1").await.unwrap();
    let mut feeds = Vec::new();
    for _ in 0..32 {
        let mut feed = edge.feed(0).await;
        feed.follow(&hall, 0).await;
        collect(&mut feed, &hall, &mut Vec::new(), 1).await;
        feeds.push(feed);
    }
    cluster.kill(0).await;
    for mut feed in feeds {
        let told = feed.next().await;
        assert!(told.is_none(), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_of_all_nodes_finds_everything() {
    let mut cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    for n in 1..=30 {
        edge.append(&hall, &grant, n, &format!("message {n}"))
            .await
            .unwrap();
    }
    let map = edge.map().await;
    for place in 0..3 {
        cluster.kill(place).await;
    }
    for place in 0..3 {
        cluster.start_node(place).await;
    }
    cluster.ready().await;
    let edge = cluster.edge();
    assert_eq!(edge.map().await, map);
    assert_eq!(edge.user("ann").await, ann);
    assert_eq!(edge.create_channel("town", "hall", ann).await, hall);
    // The grant was sealed before: the key has survived as well.
    let repeated = edge.append(&hall, &grant, 30, "message 30").await.unwrap();
    assert_eq!((repeated.seq, repeated.repeat), (Seq(30), true));
    let appended = edge.append(&hall, &grant, 31, "message 31").await.unwrap();
    assert_eq!((appended.seq, appended.epoch), (Seq(31), Epoch(1)));
    assert_eq!(edge.history(&hall).await, bodies(31));
}

/// The channel is committed while its message shard has no leader, and the leader of its management
/// shard is lost before there is one: only the outbox can open the channel's log.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_channel_is_opened_though_the_leader_was_lost_before_it_told_the_message_shard() {
    let mut cluster = TestCluster::start_with(|config| {
        // Long enough that no election ends while the test stops nodes.
        config.timings.election_min_ms = 4_000;
        config.timings.election_max_ms = 5_000;
    })
    .await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let map = edge.map().await;
    let (management, message) = (management_of(&map, "town"), message_of(&map, "town", "hall"));
    let (first, second, third) = (0, 1, 2);
    cluster.lead(first, management).await;
    cluster.lead(second, message).await;
    cluster.settled(management).await;
    cluster.settled(message).await;
    let (committed, opened) = (
        cluster.applied(third, management),
        cluster.applied(third, message),
    );

    cluster.kill(second).await;
    let create = Request::CreateChannel {
        app: app(),
        group: group("town"),
        channel: channel("hall"),
        by: Some(ann),
    };
    let asking = tokio::spawn({
        let edge = edge.clone();
        async move { edge.ask_node(first, &create).await }
    });
    until("the channel is committed", || {
        cluster.applied(third, management) > committed
    })
    .await;
    cluster.kill(first).await;
    assert_eq!(
        cluster.applied(third, message),
        opened,
        "the message shard has a leader already"
    );
    assert!(
        !matches!(asking.await.unwrap(), Some(Ok(_))),
        "the channel was said to be open"
    );

    cluster.start_node(second).await;
    let find = Request::Channel {
        app: app(),
        group: group("town"),
        channel: channel("hall"),
    };
    let Ok(Reply::Channel(hall)) = edge.ask(&find).await else {
        panic!("no channel")
    };
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    let appended = edge.append(&hall, &grant, 1, "message 1").await.unwrap();
    assert_eq!(appended.seq, Seq(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drained_node_leads_nothing_and_costs_no_election() {
    let mut cluster = TestCluster::start_with(|config| {
        // An election would take longer than the test allows.
        config.timings.election_min_ms = 8_000;
        config.timings.election_max_ms = 10_000;
    })
    .await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    let leader = cluster.leader_of(hall.shard).await;
    let node = cluster.nodes[leader].take().unwrap();
    let drained = Instant::now();
    node.drain(Duration::from_secs(8)).await;
    node.wait().await;
    assert!(
        drained.elapsed() < Duration::from_secs(7),
        "{:?}",
        drained.elapsed()
    );
    drop(node);
    let appended = edge.append(&hall, &grant, 1, "message 1").await.unwrap();
    assert_eq!(appended.seq, Seq(1));
    assert!(
        drained.elapsed() < Duration::from_secs(8),
        "{:?}",
        drained.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_was_away_for_long_gets_a_snapshot() {
    let mut cluster = TestCluster::start_with(|config| {
        config.storage.snapshot_every = 40;
        config.storage.log_keep = 5;
    })
    .await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    let leader = cluster.leader_of(hall.shard).await;
    let (away, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(away).await;
    // A leader keeps the log while it sends from it to the node that is away. The third node sends
    // nothing, so its log is gone up to a snapshot; it leads when the node comes back.
    let observed = cluster.node(third).observe_address().unwrap();
    let purged = format!("throng_core_purged_index{{shard=\"{}\"}}", hall.shard);
    let mut count = 0;
    while metric(observed, &purged).await == 0 {
        for n in count + 1..=count + 50 {
            edge.append(&hall, &grant, n, &format!("message {n}"))
                .await
                .unwrap();
        }
        count += 50;
    }
    cluster.lead(third, hall.shard).await;
    cluster.start_node(away).await;
    cluster.ready().await;
    let mut feed = edge.feed(away).await;
    whole(&mut feed, &hall, usize::try_from(count).unwrap()).await;
    let observed = cluster.node(away).observe_address().unwrap();
    // Its entries can be read a moment before the install is over and counted.
    counted(observed, "throng_core_snapshots_installed_total").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_whose_store_is_full_says_why_and_acknowledges_nothing() {
    let mut cluster = TestCluster::prepare();
    cluster.configs[2].storage.mib_max = 4;
    for place in 0..3 {
        cluster.start_node(place).await;
    }
    cluster.ready().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    cluster.lead(2, hall.shard).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    let mut feed = edge.feed(2).await;
    feed.follow(&hall, 0).await;
    let body = "x".repeat(100 * 1024);
    let mut acked = 0;
    for n in 1..=80 {
        // Whoever leads then: the node with the small store first, another later.
        if edge.append_anywhere(2, &append(&hall, &grant, n, &body)).await {
            acked += 1;
        }
    }
    assert_eq!(acked, 80);
    let status = cluster.node(2).status();
    let failed = status
        .shards
        .iter()
        .find(|status| status.shard == hall.shard)
        .unwrap();
    assert!(failed.failed.is_some(), "{status:?}");
    let refusal = edge.ask_node(2, &append(&hall, &grant, 81, "message 81")).await;
    let Some(Err(Refusal::Code { code, text })) = refusal else {
        panic!("{refusal:?}")
    };
    assert_eq!(code, Code::StoreFailed, "{text}");
    let (status, reasons) = http(cluster.node(2).observe_address().unwrap(), "/readyz").await;
    assert!(status.contains("503"), "{status}");
    assert!(reasons.contains("has stopped"), "{reasons}");
    assert_eq!(edge.history(&hall).await.len(), 80);
    // The feed does not fall silent: it says that it has ended.
    let refused = loop {
        match feed.next().await {
            Some(FeedEvent::Batch { .. }) => {}
            other => break other,
        }
    };
    let Some(FeedEvent::Refused {
        refusal: Refusal::Code { code, .. },
        ..
    }) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(code, Code::StoreFailed);
}

/// A clock that runs ahead.
#[derive(Debug)]
struct Ahead(u64);

impl Clock for Ahead {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() + self.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_whose_clock_is_ahead_leads_nothing() {
    let mut cluster = TestCluster::prepare();
    cluster.start_node(0).await;
    cluster.start_node(1).await;
    cluster.start_node_with_clock(2, Arc::new(Ahead(2_000))).await;
    cluster.ready().await;
    let edge = cluster.edge();
    let map = edge.map().await;
    let led = |place: usize| cluster.node(place).leads().len();
    until("the others lead all shards", || {
        led(2) == 0 && led(0) + led(1) == map.shards.len()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_tells_what_it_does_over_http() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    edge.append(&hall, &grant, 1, "message 1").await.unwrap();
    edge.append(&hall, &grant, 1, "message 1").await.unwrap();
    let leader = cluster.leader_of(hall.shard).await;
    let address = cluster.node(leader).observe_address().unwrap();
    assert_eq!(http(address, "/healthz").await.1, "ok\n");
    let (status, _) = http(address, "/readyz").await;
    assert!(status.contains("200"), "{status}");
    let (_, metrics) = http(address, "/metrics").await;
    assert!(
        metrics.contains("throng_core_appended_messages_total 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("throng_core_leader_shards "), "{metrics}");
    assert!(
        metrics.contains(&format!("throng_core_applied_index{{shard=\"{}\"}}", hall.shard)),
        "{metrics}"
    );
    let (status, _) = http(address, "/elsewhere").await;
    assert!(status.contains("404"), "{status}");
}
