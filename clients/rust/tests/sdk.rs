//! The SDK over the real transport, against a server in memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail their test")]

#[path = "sdk/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use server::{TOKEN, World};
use throng_client::{
    ChannelId, Class, Client, ClientConfig, ClientEndpoint, ClientMessageId, CloseReason, Code, ConnectError,
    Delivery, DeviceId, Direction, From, GroupId, LocalStore, MemoryStore, Position, RequestError, Seq,
    Start, State, StaticToken, StoredSend, Subscription, Ts, UserId,
};

fn names() -> (GroupId, ChannelId) {
    (GroupId::new("group").unwrap(), ChannelId::new("channel").unwrap())
}

fn config(world: &World, edges: Vec<String>) -> ClientConfig {
    let tokens = Arc::new(StaticToken(TOKEN.to_owned()));
    let mut config = ClientConfig::new(edges, world.trust(), tokens, DeviceId::new("device").unwrap());
    config.seed = 7;
    config
}

async fn take(subscription: &mut Subscription, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(20), subscription.recv()).await;
        taken.push(next.expect("an entry in time").expect("the stream goes on"));
    }
    taken
}

async fn until_open(client: &Client, wanted: u32) {
    let mut state = client.state();
    let open = |state: &State| matches!(state, State::Open { connection, .. } if *connection == wanted);
    let waited = tokio::time::timeout(Duration::from_secs(10), state.wait_for(open)).await;
    waited.expect("open in time").expect("the client lives");
}

/// Checks that deliveries follow each other from a position on.
fn assert_follows(after: u64, taken: &[Delivery]) {
    for (delivery, seq) in taken.iter().zip(after + 1..) {
        assert_eq!((delivery.prev, delivery.seq), (Seq(seq - 1), Seq(seq)));
    }
}

#[tokio::test]
async fn a_client_sends_reads_history_and_receives_what_it_subscribed_to() {
    let (world, (group, channel)) = (World::new(), names());
    world.append(&group, &channel, 3, 10);
    let client = Client::connect(config(&world, vec![world.edge("edge-1")]))
        .await
        .unwrap();
    client.create_group(&group).await.unwrap();
    client.create_channel(&group, &channel).await.unwrap();
    client.join(&group).await.unwrap();
    let mut all = client.subscribe(&group, &channel, From::Start).await.unwrap();
    assert_eq!((all.start().seq, all.head()), (Seq(0), Seq(3)));
    let ack = client.send(&group, &channel, "hello").await.unwrap();
    assert_eq!((ack.seq, ack.repeat), (Seq(4), false));
    let taken = take(&mut all, 4).await;
    assert_follows(0, &taken);
    assert_eq!((taken[3].id, &taken[3].body), (ack.id, &Bytes::from("hello")));
    assert_eq!((&*taken[3].edge, taken[3].connection), ("edge-1", 1));
    assert_eq!(client.positions()[0].position, all.position());
    let page = client
        .history(&group, &channel, Seq(1), Direction::After, 0)
        .await
        .unwrap();
    assert_eq!(
        page.entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(),
        [2, 3, 4]
    );
    let second = client.subscribe(&group, &channel, From::Head).await;
    assert_eq!(second.unwrap_err().class, Class::Fatal);
    drop(all);
    let mut again = client.subscribe(&group, &channel, From::Head).await.unwrap();
    assert_eq!(again.start().seq, Seq(4));
    client.close().await;
    assert!(again.recv().await.is_none());
    assert_eq!(*client.state().borrow(), State::Closed(CloseReason::Local));
    assert!(client.send(&group, &channel, "late").await.is_err());
}

#[tokio::test]
async fn a_dropped_connection_resumes_on_another_edge_without_loss_or_repeat() {
    let (world, (group, channel)) = (World::new(), names());
    let edges = vec![world.edge("edge-1"), world.edge("edge-2")];
    let client = Client::connect(config(&world, edges)).await.unwrap();
    let mut entries = client.subscribe(&group, &channel, From::Head).await.unwrap();
    let mut taken: Vec<Delivery> = Vec::new();
    for connection in 1..=5 {
        until_open(&client, connection).await;
        world.append(&group, &channel, 50, 100);
        // The connection is dropped among its deliveries.
        while taken.last().is_none_or(|entry| entry.connection < connection) {
            taken.extend(take(&mut entries, 1).await);
        }
        assert!(client.drop_connection().await.is_some());
    }
    let left = 250 - taken.len();
    taken.extend(take(&mut entries, left).await);
    assert_follows(0, &taken);
    assert!(taken.windows(2).any(|pair| pair[0].edge != pair[1].edge));
}

#[tokio::test]
async fn sends_whose_acks_are_lost_are_stored_once_and_answered_once_in_order() {
    let (world, (group, channel)) = (World::new(), names());
    let client = Client::connect(config(&world, vec![world.edge("edge-1")]))
        .await
        .unwrap();
    world.lose_acks.store(2, Ordering::SeqCst);
    world.refuse_sends.store(2, Ordering::SeqCst);
    let sends = (0..10u64).map(|n| {
        let id = ClientMessageId(n + 1);
        client.send_with_id(&group, &channel, id, n.to_string())
    });
    let acks = futures_util::future::join_all(sends).await;
    for (n, ack) in acks.iter().enumerate() {
        assert_eq!(ack.as_ref().unwrap().seq, Seq(n as u64 + 1));
    }
    assert!(acks.iter().filter(|ack| ack.as_ref().unwrap().repeat).count() >= 1);
    let stored: Vec<u64> = world
        .log(&group, &channel)
        .iter()
        .map(|entry| entry.client_message_id.0)
        .collect();
    assert_eq!(stored, (1..=10).collect::<Vec<_>>());
    let attempts = world.attempts.lock().unwrap();
    let first: Vec<u64> = attempts
        .iter()
        .filter(|(id, _)| id.0 == 1)
        .map(|(_, at)| *at)
        .collect();
    assert!(first.len() >= 3 && first.iter().all(|at| *at == first[0]));
}

#[tokio::test]
async fn a_drained_edge_is_left_for_the_one_it_names() {
    let (world, (group, channel)) = (World::new(), names());
    let (first, second) = (world.edge("edge-1"), world.edge("edge-2"));
    let client = Client::connect(config(&world, vec![first])).await.unwrap();
    let mut entries = client.subscribe(&group, &channel, From::Head).await.unwrap();
    world.drain("edge-1", vec![second]);
    let mut state = client.state();
    let moved = |state: &State| matches!(state, State::Open { edge, .. } if &**edge == "edge-2");
    tokio::time::timeout(Duration::from_secs(10), state.wait_for(moved))
        .await
        .unwrap()
        .unwrap();
    world.append(&group, &channel, 1, 1);
    assert_eq!(&*take(&mut entries, 1).await[0].edge, "edge-2");
}

#[tokio::test]
async fn a_slow_application_stops_the_reading_of_deliveries_and_loses_none() {
    const ENTRIES: usize = 3_000;
    let (world, (group, channel)) = (World::new(), names());
    let mut config = config(&world, vec![world.edge("edge-1")]);
    config.subscription_buffer = 8;
    let client = Client::connect(config).await.unwrap();
    let mut entries = client.subscribe(&group, &channel, From::Head).await.unwrap();
    world.append(&group, &channel, ENTRIES, 2_000);
    let mut written = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = world.written.load(Ordering::SeqCst);
        if now == written && now > 0 {
            break;
        }
        written = now;
    }
    assert!(
        written < ENTRIES as u64,
        "the server is held back, not the entries thrown away"
    );
    let other = ChannelId::new("other").unwrap();
    client.send(&group, &other, "answers still come").await.unwrap();
    assert_follows(0, &take(&mut entries, ENTRIES).await);
}

#[tokio::test]
async fn a_frozen_client_goes_on_where_it_stood() {
    let (world, (group, channel)) = (World::new(), names());
    let client = Client::connect(config(&world, vec![world.edge("edge-1")]))
        .await
        .unwrap();
    let mut entries = client.subscribe(&group, &channel, From::Head).await.unwrap();
    let frozen = client.pause_reading(Duration::from_millis(300));
    world.append(&group, &channel, 100, 10);
    frozen.await;
    client.rebind().await.unwrap();
    world.append(&group, &channel, 100, 10);
    assert_follows(0, &take(&mut entries, 200).await);
}

#[tokio::test]
async fn a_bad_token_is_refused_with_its_code_and_not_tried_again() {
    let world = World::new();
    let mut config = config(&world, vec![world.edge("edge-1")]);
    config.tokens = Arc::new(StaticToken("bad".to_owned()));
    let refused = Client::connect(config).await.unwrap_err();
    assert!(
        matches!(
            &refused,
            ConnectError::Closed(CloseReason::Refused {
                code: Some(Code::TokenInvalid),
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_edge_of_another_authority_is_not_believed() {
    let (world, other) = (World::new(), World::new());
    let mut config = config(&world, vec![other.edge("edge-1")]);
    config.trust = world.trust();
    let refused = Client::connect(config).await.unwrap_err();
    assert!(
        matches!(refused, ConnectError::Closed(CloseReason::Untrusted(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_said_after_the_time_given() {
    let world = World::new();
    let mut config = config(&world, vec!["127.0.0.1:9".to_owned()]);
    config.connect_timeout = Duration::from_millis(300);
    let refused = Client::connect(config).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Unreachable { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_the_protocols_code() {
    let (world, (group, channel)) = (World::new(), names());
    let client = Client::connect(config(&world, vec![world.edge("edge-1")]))
        .await
        .unwrap();
    let refused = client
        .send(&group, &channel, vec![0u8; 131_073])
        .await
        .unwrap_err();
    assert_eq!(refused.code, Some(Code::MessageTooLarge));
    let ack = client.send(&group, &channel, vec![0u8; 131_072]).await.unwrap();
    assert_eq!(ack.seq, Seq(1));
}

#[tokio::test]
async fn what_a_run_left_unanswered_the_next_run_repeats_and_positions_go_on() {
    let (world, (group, channel)) = (World::new(), names());
    let store = Arc::new(MemoryStore::default());
    let edge = world.edge("edge-1");
    let mut first = config(&world, vec![edge.clone()]);
    first.store = store.clone();
    let client = Client::connect(first).await.unwrap();
    let mut entries = client.subscribe(&group, &channel, From::Head).await.unwrap();
    world.append(&group, &channel, 5, 1);
    take(&mut entries, 3).await;
    client.close().await;

    let id = ClientMessageId(42);
    let left = StoredSend {
        group: group.clone(),
        channel: channel.clone(),
        client_message_id: id,
        first_attempt_ms: Some(900_000),
        body: Bytes::from("from before"),
    };
    store.save_send(&left).unwrap();
    let mut second = config(&world, vec![edge]);
    second.store = store.clone();
    let client = Client::connect(second).await.unwrap();
    let mut restored = client.take_restored();
    let ack = restored.remove(0).answer().await.unwrap();
    assert_eq!((ack.client_message_id, ack.seq), (id, Seq(6)));
    assert_eq!(*world.attempts.lock().unwrap(), [(id, 900_000)]);
    assert!(store.load().unwrap().sends.is_empty());
    let mut entries = client.subscribe(&group, &channel, From::Stored).await.unwrap();
    assert_eq!(entries.start().seq, Seq(3));
    assert_follows(3, &take(&mut entries, 3).await);
}

#[tokio::test]
async fn clients_of_one_process_share_a_socket() {
    let (world, (group, channel)) = (World::new(), names());
    let edges = vec![world.edge("edge-1"), world.edge("edge-2")];
    let endpoint = Arc::new(ClientEndpoint::new(&world.trust()).unwrap());
    let clients = (0..20).map(|seed| {
        let mut config = config(&world, edges.clone());
        config.endpoint = Some(endpoint.clone());
        config.seed = seed;
        Client::connect(config)
    });
    let clients = futures_util::future::try_join_all(clients).await.unwrap();
    let subscriptions = clients
        .iter()
        .map(|client| client.subscribe(&group, &channel, From::Head));
    let mut subscriptions = futures_util::future::try_join_all(subscriptions).await.unwrap();
    clients[0].rebind().await.unwrap();
    let sends = clients
        .iter()
        .map(|client| client.send(&group, &channel, "hello"));
    futures_util::future::try_join_all(sends).await.unwrap();
    for subscription in &mut subscriptions {
        assert_follows(0, &take(subscription, 20).await);
    }
}

/// Why a stream has ended, once it has.
async fn end_of(subscription: &mut Subscription) -> RequestError {
    let next = tokio::time::timeout(Duration::from_secs(20), subscription.recv()).await;
    assert!(
        next.expect("the end in time").is_none(),
        "something came behind the end"
    );
    subscription.ended().expect("the cluster ended it").clone()
}

#[tokio::test]
async fn a_kicked_clients_subscription_ends_with_its_code_and_a_new_one_begins_after_joining_again() {
    let (world, (group, channel)) = (World::new(), names());
    let client = Client::connect(config(&world, vec![world.edge("edge-1")]))
        .await
        .unwrap();
    let mut entries = client.subscribe(&group, &channel, From::Head).await.unwrap();
    world.append(&group, &channel, 30, 10);
    world.kick();
    world.append(&group, &channel, 20, 10);
    let taken = take(&mut entries, 30).await;
    assert_follows(0, &taken);
    let ended = end_of(&mut entries).await;
    assert_eq!((ended.code, ended.class), (Some(Code::NotMember), Class::Fatal));
    let refused = client.subscribe(&group, &channel, From::Head).await.unwrap_err();
    assert_eq!(refused.code, Some(Code::NotMember));
    client.join(&group).await.unwrap();
    let from = From::Position(entries.position());
    let mut again = client.subscribe(&group, &channel, from).await.unwrap();
    assert_follows(30, &take(&mut again, 20).await);
}

#[tokio::test]
async fn a_client_that_was_away_when_it_was_kicked_learns_it_when_it_resumes() {
    let (world, (group, channel)) = (World::new(), names());
    let client = Client::connect(config(&world, vec![world.edge("edge-1")]))
        .await
        .unwrap();
    let mut entries = client.subscribe(&group, &channel, From::Head).await.unwrap();
    world.append(&group, &channel, 3, 10);
    take(&mut entries, 3).await;
    // The connection is gone before the kick, and comes back after it.
    let frozen = client.pause_reading(Duration::from_millis(300));
    let kicked = async {
        assert!(client.drop_connection().await.is_some());
        world.kick();
        world.append(&group, &channel, 2, 10);
    };
    tokio::join!(kicked, frozen);
    let ended = end_of(&mut entries).await;
    assert_eq!((ended.code, ended.class), (Some(Code::NotMember), Class::Fatal));
    assert_eq!(entries.position().seq, Seq(3), "nothing behind the fence");
    assert!(client.positions().is_empty() || client.positions()[0].position.seq == Seq(3));
    assert!(
        matches!(&*client.state().borrow(), State::Open { .. }),
        "the session goes on"
    );
}

#[tokio::test]
async fn leaving_ends_the_groups_subscriptions_of_this_client() {
    let (world, (group, channel)) = (World::new(), names());
    let client = Client::connect(config(&world, vec![world.edge("edge-1")]))
        .await
        .unwrap();
    let mut entries = client.subscribe(&group, &channel, From::Head).await.unwrap();
    client.leave(&group).await.unwrap();
    assert_eq!(end_of(&mut entries).await.code, Some(Code::NotMember));
}

#[tokio::test]
async fn a_kick_and_a_mute_tell_where_they_do_not_hold_yet() {
    let (world, (group, channel)) = (World::new(), names());
    let client = Client::connect(config(&world, vec![world.edge("edge-1")]))
        .await
        .unwrap();
    let bob = UserId::new("bob").unwrap();
    let done = client.kick(&group, &bob).await.unwrap();
    assert!(done.is_done() && done.version == 4);
    world.pending.lock().unwrap().push(channel.clone());
    let pending = client.mute(&group, &bob, Duration::from_secs(60)).await.unwrap();
    assert!(!pending.is_done());
    assert_eq!(pending.pending, [channel]);
    client.mute_until(&group, &bob, 0).await.unwrap();
    let taken = world.taken.lock().unwrap().clone();
    assert_eq!((&taken[0], &taken[2]), (&(bob.clone(), None), &(bob, Some(0))));
    // A minute from now by the server's clock, which said 1,000 s a moment ago.
    let until_ms = taken[1].1.unwrap();
    assert!((1_060_000..1_120_000).contains(&until_ms), "{until_ms}");
}

#[tokio::test]
async fn a_subscription_a_sync_and_history_may_begin_at_a_time_stamp() {
    let (world, (group, channel)) = (World::new(), names());
    world.append(&group, &channel, 8, 10);
    let client = Client::connect(config(&world, vec![world.edge("edge-1")]))
        .await
        .unwrap();
    let mut entries = client.subscribe(&group, &channel, From::Ts(Ts(5))).await.unwrap();
    assert_eq!(
        (entries.start().seq, entries.start_ts(), entries.start_reason()),
        (Seq(5), Some(Ts(5)), Start::Resumed)
    );
    assert_follows(5, &take(&mut entries, 3).await);
    let by_ts = client.sync(&group, &channel, Ts(5), 0).await.unwrap();
    let position = Position {
        epoch: by_ts.epoch,
        seq: Seq(5),
    };
    assert_eq!(client.sync(&group, &channel, position, 0).await.unwrap(), by_ts);
    assert_eq!(by_ts.entries.len(), 3);
    let history = client.history(&group, &channel, Ts(6), Direction::After, 0).await;
    assert_eq!(history.unwrap().entries.len(), 2);
}
