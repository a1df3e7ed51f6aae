//! What the cluster refuses, and what an edge does before it says so.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use throng_protocol::cluster::{FenceKind, Refusal};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, ClientMessageId, GroupId, Position, Ts, UserId};
use throng_protocol::limits::BODY_BYTES_MAX;
use throng_protocol::message::{self, Join, Message, Subscribe, Unsubscribe};
use tokio::sync::oneshot;

use crate::client::Client;
use crate::stand_in::{Edge, channel, group};

/// What the bodies of a session's waiting sends may take.
const SENDS_WAITING_BYTES: usize = 1024 * 1024;

#[tokio::test]
async fn a_stranger_an_unknown_group_and_an_unknown_channel_are_told_apart() {
    let edge = Edge::start().await;
    edge.core.strangers.lock().push(UserId::new("eve").unwrap());
    let mut eve = Client::open(&edge, "eve").await;
    let request = eve.next_request();
    let ask = |request, group, channel| Subscribe {
        request,
        group,
        channel,
        position: Position::default(),
        ts: Ts(0),
    };
    eve.say(ask(request, group(), channel(1))).await;
    eve.expect_refusal(302).await;
    let mut ann = Client::open(&edge, "ann").await;
    let request = ann.next_request();
    ann.say(ask(request, GroupId::new("nowhere").unwrap(), channel(1)))
        .await;
    ann.expect_refusal(300).await;
    let request = ann.next_request();
    ann.say(ask(
        request,
        group(),
        throng_protocol::ids::ChannelId::new("nothing").unwrap(),
    ))
    .await;
    ann.expect_refusal(301).await;
    let request = ann.next_request();
    ann.say(Unsubscribe {
        request,
        channel: ChannelNumber(1),
    })
    .await;
    ann.expect_refusal(306).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_400_and_the_largest_one_is_taken() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    let answer = client.send(1, 1, vec![0; BODY_BYTES_MAX + 1]).await;
    assert!(matches!(answer, Message::Error(error) if error.code == 400));
    let answer = client.send(1, 1, vec![0; BODY_BYTES_MAX]).await;
    assert!(matches!(answer, Message::Ack(ack) if ack.seq.0 == 1));
}

#[tokio::test]
async fn a_refusal_of_a_held_grant_is_confirmed_with_a_fresh_one() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    assert!(matches!(client.send(1, 1, "a").await, Message::Ack(_)));
    let made = edge.core.grants.load(Ordering::SeqCst);
    edge.core.grants_void_below.store(made, Ordering::SeqCst);
    assert!(matches!(client.send(1, 2, "b").await, Message::Ack(_)));
    assert_eq!(edge.core.grants.load(Ordering::SeqCst), made + 1);
    // A fresh one that is refused as well is the answer.
    edge.core.grants_void_below.store(usize::MAX, Ordering::SeqCst);
    assert!(matches!(client.send(1, 3, "c").await, Message::Error(error) if error.code == 302));
}

#[tokio::test]
async fn a_grant_is_asked_for_once_and_held() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    for key in 0..5 {
        assert!(matches!(client.send(1, key, "x").await, Message::Ack(_)));
    }
    assert_eq!(edge.core.grants.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_election_is_waited_for_and_a_long_one_is_unavailable() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    let no_leader = Refusal::NotLeader { leader: None };
    edge.core.refuse_appends.lock().extend(vec![no_leader; 3]);
    assert!(matches!(client.send(1, 1, "a").await, Message::Ack(_)));
    assert_eq!(edge.core.appends.load(Ordering::SeqCst), 4);
    edge.core.no_leader.store(true, Ordering::SeqCst);
    let asked = Instant::now();
    assert!(matches!(client.send(1, 2, "b").await, Message::Error(error) if error.code == 500));
    let waited = asked.elapsed();
    assert!(
        (1_000..3_000).contains(&waited.as_millis()),
        "gave up after {waited:?}"
    );
    edge.core.no_leader.store(false, Ordering::SeqCst);
    assert!(matches!(client.send(1, 2, "b").await, Message::Ack(_)));
}

#[tokio::test]
async fn a_channel_its_shard_has_not_heard_of_yet_is_waited_for() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    let unknown = Refusal::Code {
        code: Code::ChannelUnknown,
        text: "not yet".to_owned(),
    };
    edge.core.refuse_appends.lock().push(unknown);
    assert!(matches!(client.send(1, 1, "a").await, Message::Ack(_)));
}

#[tokio::test]
async fn a_refusal_of_the_core_comes_through_with_its_code() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    for code in [Code::IdempotencyConflict, Code::RetryTooOld, Code::StoreFailed] {
        let refusal = Refusal::Code {
            code,
            text: "so it is".to_owned(),
        };
        edge.core.refuse_appends.lock().push(refusal);
        let answer = client.send(1, 1, "a").await;
        assert!(
            matches!(answer, Message::Error(error) if error.code == code.number() && error.message == "so it is")
        );
    }
}

#[tokio::test]
async fn a_refusal_behind_an_attempt_that_may_have_been_carried_out_is_not_told_as_final() {
    // Of two replicas one may go on with what the other had accepted before it stopped.
    let edge = Edge::with_follower().await;
    let mut client = Client::open(&edge, "ann").await;
    let refusal = |code| Refusal::Code {
        code,
        text: "so it is".to_owned(),
    };
    for open in [Code::Unavailable, Code::StoreFailed] {
        // Taken from the end.
        let answers = vec![refusal(Code::RetryTooOld), refusal(open)];
        edge.core.refuse_appends.lock().extend(answers);
        let answer = client.send(1, 1, "a").await;
        assert!(matches!(answer, Message::Error(error) if error.code == Code::Unavailable.number()));
    }
    // Nothing is open about the next attempt.
    edge.core.refuse_appends.lock().push(refusal(Code::RetryTooOld));
    let answer = client.send(1, 1, "a").await;
    assert!(matches!(answer, Message::Error(error) if error.code == Code::RetryTooOld.number()));
}

#[tokio::test]
async fn a_final_refusal_is_told_as_final_although_another_node_is_not_reached() {
    let edge = Edge::with_dead_follower().await;
    let mut client = Client::open(&edge, "ann").await;
    // Each call begins with another node.
    for _ in 0..4 {
        edge.core.refuse_appends.lock().push(Refusal::Code {
            code: Code::RetryTooOld,
            text: "so it is".to_owned(),
        });
        let answer = client.send(1, 1, "a").await;
        assert!(
            matches!(&answer, Message::Error(error) if error.code == Code::RetryTooOld.number()),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn sends_into_one_channel_that_are_in_flight_together_keep_their_order() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    // The first one has to wait; none may overtake it.
    let no_leader = Refusal::NotLeader { leader: None };
    edge.core.refuse_appends.lock().extend(vec![no_leader; 2]);
    for key in 1..=20 {
        let request = client.next_request();
        let send = message::Send {
            request,
            group: group(),
            channel: channel(1),
            client_message_id: ClientMessageId(key),
            first_attempt_ms: 1,
            body: "x".into(),
        };
        client.say(send).await;
    }
    for key in 1..=20 {
        let Message::Ack(ack) = client.hear().await else {
            panic!("not an ack")
        };
        assert_eq!((ack.request, ack.seq.0), (key, key));
    }
}

#[tokio::test]
async fn a_core_that_does_not_answer_at_all_makes_requests_unavailable_in_bounded_time() {
    let mut edge = Edge::start().await;
    let mut config = edge.config.clone();
    config.cores[0].address = "127.0.0.1:9".to_owned();
    config.observe = None;
    let lonely = throng_gateway::Gateway::start(config).await.unwrap();
    assert!(lonely.unready().is_some());
    edge.addr = lonely.listen_addr();
    let mut client = Client::greet(&edge).await;
    let asked = Instant::now();
    let answer = client.authenticate(crate::client::token("ann")).await;
    assert!(matches!(answer, Message::Error(error) if error.code == 500));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    client.expect_closed(500).await;
}

#[tokio::test]
async fn what_a_held_grant_does_not_permit_is_asked_again_only_if_the_group_has_changed() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    assert!(matches!(client.send(1, 1, "a").await, Message::Ack(_)));
    let forbid = || {
        edge.core.refuse_appends.lock().push(Refusal::Code {
            code: Code::Forbidden,
            text: "so it is".to_owned(),
        });
    };
    forbid();
    let answer = client.send(1, 2, "b").await;
    assert!(matches!(answer, Message::Error(error) if error.code == Code::Forbidden.number()));
    assert_eq!(edge.core.appends.load(Ordering::SeqCst), 2);
    edge.core.fence(&UserId::new("eve").unwrap(), FenceKind::Mute);
    forbid();
    assert!(matches!(client.send(1, 2, "b").await, Message::Ack(_)));
    assert_eq!(edge.core.appends.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_send_after_a_join_elsewhere_is_not_judged_by_what_others_were_told_before_it() {
    let edge = Edge::start().await;
    edge.core.strangers.lock().push(UserId::new("eve").unwrap());
    let mut early = Client::open(&edge, "eve").await;
    let mut late = Client::open(&edge, "eve").await;
    let (made, was_made) = oneshot::channel();
    let (go, may_go) = oneshot::channel();
    *edge.core.hold_grant.lock() = Some((made, may_go));
    let send = |request, key| message::Send {
        request,
        group: group(),
        channel: channel(1),
        client_message_id: ClientMessageId(key),
        first_attempt_ms: 1,
        body: "x".into(),
    };
    let request = early.next_request();
    early.say(send(request, 1)).await;
    was_made.await.unwrap();
    // The user joins by another edge, of which this one hears nothing.
    edge.core.strangers.lock().clear();
    let request = late.next_request();
    late.say(send(request, 2)).await;
    // It waits for the answer that is under way.
    late.ping().await;
    go.send(()).unwrap();
    assert!(matches!(late.hear().await, Message::Ack(ack) if ack.request == request));
    early.expect_refusal(302).await;
}

#[tokio::test]
async fn a_send_after_a_join_is_not_judged_by_an_answer_from_before_it() {
    let edge = Edge::start().await;
    edge.core.strangers.lock().push(UserId::new("eve").unwrap());
    let mut early = Client::open(&edge, "eve").await;
    let mut late = Client::open(&edge, "eve").await;
    let (made, was_made) = oneshot::channel();
    let (go, may_go) = oneshot::channel();
    *edge.core.hold_grant.lock() = Some((made, may_go));
    let subscribe = Subscribe {
        request: early.next_request(),
        group: group(),
        channel: channel(1),
        position: Position::default(),
        ts: Ts(0),
    };
    early.say(subscribe).await;
    was_made.await.unwrap();
    let request = late.next_request();
    late.say(Join {
        request,
        group: group(),
    })
    .await;
    assert!(matches!(late.hear().await, Message::Done(_)));
    edge.core.strangers.lock().clear();
    let request = late.next_request();
    late.say(message::Send {
        request,
        group: group(),
        channel: channel(1),
        client_message_id: ClientMessageId(1),
        first_attempt_ms: 1,
        body: "x".into(),
    })
    .await;
    // Only an answer of its own comes before the older one may go.
    assert!(matches!(late.hear().await, Message::Ack(ack) if ack.request == request));
    go.send(()).unwrap();
    early.expect_refusal(302).await;
}

#[tokio::test]
async fn sends_that_wait_for_others_are_bounded_in_bytes() {
    let edge = Edge::start().await;
    let mut client = Client::open(&edge, "ann").await;
    // The first one has to wait, and the others behind it.
    let no_leader = Refusal::NotLeader { leader: None };
    edge.core.refuse_appends.lock().extend(vec![no_leader; 5]);
    let count = 2 + SENDS_WAITING_BYTES / BODY_BYTES_MAX;
    for _ in 0..count {
        let send = message::Send {
            request: client.next_request(),
            group: group(),
            channel: channel(1),
            client_message_id: ClientMessageId(1),
            first_attempt_ms: 1,
            body: vec![0; BODY_BYTES_MAX].into(),
        };
        client.say(send).await;
    }
    let mut refused = Vec::new();
    for _ in 0..count {
        match client.hear().await {
            Message::Ack(_) => {}
            Message::Error(error) => refused.push((error.request, error.code)),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(refused, vec![(count as u64, 503)]);
}
