//! Kicks, mutes and leaving, as members and those who were members see them.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use throng_gateway::GatewayLimits;
use throng_protocol::cluster::FenceKind;
use throng_protocol::code::Code;
use throng_protocol::ids::{Position, Seq, Ts, UserId};
use throng_protocol::message::{
    Direction, History, Join, Kick, Leave, Message, Mute, Start, Subscribe, Sync, Unsubscribe,
};
use tokio::sync::oneshot;

use crate::client::{Client, PATIENCE};
use crate::stand_in::{EPOCH, Edge, channel, group};

const DONE: u64 = u64::MAX;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn append(edge: &Edge, number: u64, range: std::ops::RangeInclusive<u64>) {
    for key in range {
        edge.core.append(number, key, Bytes::from_static(b"x"));
    }
}

fn at(seq: u64) -> Position {
    Position {
        epoch: EPOCH,
        seq: Seq(seq),
    }
}

async fn kick(client: &mut Client, name: &str) -> Message {
    let request = client.next_request();
    let (group, user) = (group(), user(name));
    client.say(Kick { request, group, user }).await;
    client.hear().await
}

async fn mute(client: &mut Client, name: &str, until_ms: u64) -> Message {
    let mute = Mute {
        request: client.next_request(),
        group: group(),
        user: user(name),
        until_ms,
    };
    client.say(mute).await;
    client.hear().await
}

async fn join(client: &mut Client) {
    let request = client.next_request();
    client
        .say(Join {
            request,
            group: group(),
        })
        .await;
    assert!(matches!(client.hear().await, Message::Done(_)));
}

/// Asks for a subscription and returns whatever is answered.
async fn ask(client: &mut Client, number: u64, position: Position) -> Message {
    let subscribe = Subscribe {
        request: client.next_request(),
        group: group(),
        channel: channel(number),
        position,
        ts: Ts(0),
    };
    client.say(subscribe).await;
    client.hear().await
}

fn code(message: &Message) -> u16 {
    match message {
        Message::Error(error) => error.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_name_that_nobody_has_is_no_member_and_gets_no_number_by_that() {
    let edge = Edge::start().await;
    let mut ann = Client::open(&edge, "ann").await;
    let mut bob = Client::open(&edge, "bob").await;
    assert_eq!(code(&kick(&mut ann, "bbo").await), 302);
    assert_eq!(code(&mute(&mut ann, "bbo", DONE).await), 302);
    assert_eq!(code(&kick(&mut bob, "bbo").await), 303, "bob may kick nobody");
    assert_eq!(edge.core.known(&user("bbo")), None);
    assert!(edge.core.known(&user("bob")).is_some());
}

#[tokio::test]
async fn a_kicked_user_gets_everything_before_the_fence_then_the_end_and_nothing_behind_it() {
    let edge = Edge::start().await;
    let mut ann = Client::open(&edge, "ann").await;
    let mut bob = Client::open(&edge, "bob").await;
    let subscribed = bob.subscribe(7, None).await;
    ann.subscribe(7, None).await;
    append(&edge, 7, 1..=20);
    let Message::Fenced(fenced) = kick(&mut ann, "bob").await else {
        panic!("not fenced")
    };
    assert_eq!((fenced.pending.len(), fenced.more), (0, 0));
    append(&edge, 7, 21..=40);
    let (ended, seqs) = bob.take_to_end().await;
    assert_eq!((ended.position, ended.code), (at(20), Code::NotMember.number()));
    assert_eq!(ended.request, subscribed.request);
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
    ann.take(7, 0, 40).await;
    // The session goes on, without any right in the group.
    assert_eq!(code(&ask(&mut bob, 7, at(20)).await), 302);
    assert_eq!(code(&bob.send(7, 1, "x").await), 302);
    assert_eq!(code(&kick(&mut bob, "ann").await), 302);
    let unsubscribe = Unsubscribe {
        request: bob.next_request(),
        channel: subscribed.channel,
    };
    bob.say(unsubscribe).await;
    assert_eq!(code(&bob.hear().await), 306);
}

#[tokio::test]
async fn a_fence_in_the_middle_of_a_stream_of_messages_cuts_it_for_one_user_only() {
    let edge = Edge::start().await;
    let mut ann = Client::open(&edge, "ann").await;
    let mut bob = Client::open(&edge, "bob").await;
    for client in [&mut ann, &mut bob] {
        client.subscribe(1, None).await;
    }
    let core = std::sync::Arc::clone(&edge.core);
    let chatter = tokio::spawn(async move {
        for key in 1..=600 {
            core.append(1, key, Bytes::from(vec![b'x'; 200]));
            if key % 20 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let place = ann.take(1, 0, 50).await.len();
    assert!(place > 0);
    edge.core.fence(&user("bob"), FenceKind::Kick);
    let (ended, seqs) = bob.take_to_end().await;
    let last = ended.position.seq.0;
    assert_eq!(
        seqs,
        (1..=last).collect::<Vec<_>>(),
        "all of it up to the fence and no more"
    );
    chatter.await.unwrap();
    ann.take(1, 50, 600).await;
    bob.ping().await;
}

#[tokio::test]
async fn catching_up_by_pages_stops_at_the_fence_also_when_the_page_knows_more_than_the_feed() {
    let edge = Edge::with(GatewayLimits {
        ring_frames_max: 16,
        ..GatewayLimits::default()
    })
    .await;
    append(&edge, 1, 1..=400);
    let mut ann = Client::open(&edge, "ann").await;
    ann.subscribe(1, None).await;
    let mut bob = Client::open(&edge, "bob").await;
    // The grant is held from now on.
    assert!(matches!(bob.send(9, 1, "x").await, Message::Ack(_)));
    // From now on pages bring what the feed has not told the fence of.
    edge.core.hush.send_replace(true);
    edge.core.fence(&user("bob"), FenceKind::Kick);
    append(&edge, 1, 401..=800);
    let subscribed = match ask(&mut bob, 1, at(0)).await {
        Message::Subscribed(subscribed) => subscribed,
        other => panic!("the edge cannot know yet: {other:?}"),
    };
    assert_eq!(subscribed.position, at(0));
    let read = edge.core.pages.load(Ordering::SeqCst);
    let pages = async {
        while edge.core.pages.load(Ordering::SeqCst) < read + 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, pages)
        .await
        .expect("pages are read");
    edge.core.hush.send_replace(false);
    let (ended, seqs) = bob.take_to_end().await;
    assert_eq!(ended.position, at(400));
    assert_eq!(seqs, (1..=400).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_edge_that_first_hears_of_the_channel_after_the_kick_judges_by_the_table() {
    let edge = Edge::start().await;
    let mut bob = Client::open(&edge, "bob").await;
    // The grant is held from now on.
    assert!(matches!(bob.send(1, 1, "x").await, Message::Ack(_)));
    append(&edge, 5, 1..=10);
    edge.core.fence(&user("bob"), FenceKind::Kick);
    let grants = edge.core.grants.load(Ordering::SeqCst);
    assert_eq!(code(&ask(&mut bob, 5, at(0)).await), 302);
    assert_eq!(
        edge.core.grants.load(Ordering::SeqCst),
        grants,
        "management refuses"
    );
    bob.expect_refused_pages(5, 302).await;
}

#[tokio::test]
async fn whoever_joins_again_begins_behind_the_fence_and_is_told_so() {
    let edge = Edge::start().await;
    let mut bob = Client::open(&edge, "bob").await;
    bob.subscribe(1, None).await;
    append(&edge, 1, 1..=5);
    edge.core.fence(&user("bob"), FenceKind::Kick);
    append(&edge, 1, 6..=9);
    assert_eq!(bob.take_to_end().await.0.position, at(5));
    join(&mut bob).await;
    let cases = [
        (3, 9, Start::FullFence),
        (5, 5, Start::Resumed),
        (7, 7, Start::Resumed),
    ];
    for (from, begins, start) in cases {
        let Message::Subscribed(subscribed) = ask(&mut bob, 1, at(from)).await else {
            panic!("not subscribed")
        };
        assert_eq!(
            (subscribed.position, subscribed.start),
            (at(begins), start),
            "from {from}"
        );
        bob.take(1, begins, 9).await;
    }
    append(&edge, 1, 10..=12);
    bob.take(1, 9, 12).await;
}

#[tokio::test]
async fn whoever_joins_again_waits_for_a_feed_that_has_not_told_the_fence() {
    let edge = Edge::start().await;
    let mut bob = Client::open(&edge, "bob").await;
    bob.subscribe(1, None).await;
    append(&edge, 1, 1..=3);
    bob.take(1, 0, 3).await;
    edge.core.hush.send_replace(true);
    edge.core.fence(&user("bob"), FenceKind::Kick);
    edge.core.readmit(&user("bob"));
    let mut again = Client::open(&edge, "bob").await;
    // The cached grant is of the first membership; joining has it forgotten.
    join(&mut again).await;
    assert_eq!(
        code(&ask(&mut again, 1, at(3)).await),
        500,
        "not before the fence is told"
    );
    edge.core.hush.send_replace(false);
    let Message::Subscribed(subscribed) = ask(&mut again, 1, at(3)).await else {
        panic!("not subscribed")
    };
    assert_eq!(subscribed.position, at(3));
    assert_eq!(bob.take_to_end().await.0.position, at(3), "the old one is over");
    append(&edge, 1, 4..=4);
    again.take(1, 3, 4).await;
}

#[tokio::test]
async fn pages_are_refused_to_whoever_was_kicked_and_open_to_whoever_is_back() {
    let edge = Edge::start().await;
    append(&edge, 1, 1..=4);
    let mut bob = Client::open(&edge, "bob").await;
    bob.expect_page(1, &[1, 2, 3, 4]).await;
    edge.core.fence(&user("bob"), FenceKind::Kick);
    append(&edge, 1, 5..=6);
    // The edge follows no channel of the group: its held grant is judged by the shard.
    bob.expect_refused_pages(1, 302).await;
    join(&mut bob).await;
    bob.expect_page(1, &[1, 2, 3, 4, 5, 6]).await;
}

#[tokio::test]
async fn a_muted_user_reads_on_and_sends_again_when_the_mute_is_over() {
    let edge = Edge::start().await;
    let mut ann = Client::open(&edge, "ann").await;
    let mut bob = Client::open(&edge, "bob").await;
    bob.subscribe(1, None).await;
    assert!(matches!(bob.send(1, 1, "x").await, Message::Ack(_)));
    assert!(matches!(mute(&mut ann, "bob", DONE).await, Message::Fenced(_)));
    assert_eq!(code(&bob.send(1, 2, "x").await), 307);
    assert!(matches!(ann.send(1, 1, "x").await, Message::Ack(_)));
    bob.take(1, 0, 2).await;
    // Taking it back needs no fence: the refusal is confirmed with a fresh grant.
    edge.core.mute(&user("bob"), 0);
    assert!(matches!(bob.send(1, 3, "x").await, Message::Ack(_)));
    bob.take(1, 2, 3).await;
}

#[tokio::test]
async fn a_fence_of_another_user_leaves_the_grant_that_is_being_asked_for_to_be_held() {
    let edge = Edge::start().await;
    let mut ann = Client::open(&edge, "ann").await;
    ann.subscribe(1, None).await;
    let mut eve = Client::open(&edge, "eve").await;
    eve.subscribe(1, None).await;
    let mut bob = Client::open(&edge, "bob").await;
    let (made, was_made) = oneshot::channel();
    let (go, may_go) = oneshot::channel();
    *edge.core.hold_grant.lock() = Some((made, may_go));
    let sent = bob.send(1, 1, "x");
    let fenced = async {
        was_made.await.unwrap();
        edge.core.fence(&user("eve"), FenceKind::Kick);
        // The edge knows of the fence once the subscription it ends is over.
        assert_eq!(eve.take_to_end().await.0.position, at(0));
        go.send(()).unwrap();
    };
    let (sent, ()) = tokio::join!(sent, fenced);
    assert!(matches!(sent, Message::Ack(_)));
    let grants = edge.core.grants.load(Ordering::SeqCst);
    assert!(matches!(bob.send(1, 2, "x").await, Message::Ack(_)));
    assert_eq!(edge.core.grants.load(Ordering::SeqCst), grants);
}

#[tokio::test]
async fn who_may_not_kick_or_mute_is_told_and_nothing_changes() {
    let edge = Edge::start().await;
    let mut ann = Client::open(&edge, "ann").await;
    let mut bob = Client::open(&edge, "bob").await;
    ann.subscribe(1, None).await;
    assert_eq!(code(&kick(&mut bob, "ann").await), 303);
    assert_eq!(code(&mute(&mut bob, "ann", DONE).await), 303);
    edge.core.fence(&user("eve"), FenceKind::Kick);
    assert_eq!(code(&kick(&mut ann, "eve").await), 302, "no member");
    assert!(matches!(ann.send(1, 1, "x").await, Message::Ack(_)));
    ann.take(1, 0, 1).await;
}

#[tokio::test]
async fn channels_in_which_a_kick_does_not_hold_yet_are_named() {
    let edge = Edge::start().await;
    let mut ann = Client::open(&edge, "ann").await;
    let _bob = Client::open(&edge, "bob").await;
    edge.core.pending.lock().extend([channel(3), channel(4)]);
    let Message::Fenced(fenced) = kick(&mut ann, "bob").await else {
        panic!("not fenced")
    };
    assert_eq!(fenced.pending, [channel(3), channel(4)]);
}

#[tokio::test]
async fn leaving_on_one_connection_ends_the_subscriptions_of_all_of_the_user() {
    let edge = Edge::start().await;
    let mut phone = Client::open(&edge, "bob").await;
    let mut tablet = Client::open(&edge, "bob").await;
    phone.subscribe(1, None).await;
    tablet.subscribe(1, None).await;
    append(&edge, 1, 1..=3);
    tablet.take(1, 0, 3).await;
    let request = phone.next_request();
    phone
        .say(Leave {
            request,
            group: group(),
        })
        .await;
    assert!(matches!(phone.hear().await, Message::Done(_)));
    append(&edge, 1, 4..=5);
    let (ended, seqs) = tablet.take_to_end().await;
    assert_eq!((ended.position, ended.code, seqs), (at(3), 302, vec![]));
}

#[tokio::test]
async fn a_subscription_that_is_over_leaves_its_place_to_another() {
    let edge = Edge::start().await;
    let mut bob = Client::open(&edge, "bob").await;
    for round in 0..3u64 {
        let Message::Subscribed(subscribed) = ask(&mut bob, 1, at(round)).await else {
            panic!("not subscribed")
        };
        assert_eq!(subscribed.position, at(round));
        append(&edge, 1, round + 1..=round + 1);
        edge.core.fence(&user("bob"), FenceKind::Kick);
        let (ended, seqs) = bob.take_to_end().await;
        assert_eq!(
            (ended.request, ended.position),
            (subscribed.request, at(round + 1))
        );
        assert_eq!(seqs, [round + 1]);
        join(&mut bob).await;
    }
    bob.expect_silence(&edge, 2).await;
    let metrics = edge.metrics().await;
    assert!(
        metrics
            .lines()
            .any(|line| line == "throng_gateway_subscriptions 1"),
        "only the one of the other channel is left:\n{metrics}"
    );
}

impl Client {
    async fn expect_page(&mut self, number: u64, seqs: &[u64]) {
        let history = History {
            request: self.next_request(),
            group: group(),
            channel: channel(number),
            anchor: Seq(0),
            direction: Direction::After,
            limit: 0,
            ts: Ts(0),
        };
        self.say(history).await;
        match self.hear().await {
            Message::Page(page) => {
                assert_eq!(
                    page.entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(),
                    seqs
                );
            }
            other => panic!("not a page: {other:?}"),
        }
    }

    async fn expect_refused_pages(&mut self, number: u64, code: u16) {
        let history = History {
            request: self.next_request(),
            group: group(),
            channel: channel(number),
            anchor: Seq(0),
            direction: Direction::Before,
            limit: 0,
            ts: Ts(0),
        };
        self.say(history).await;
        self.expect_refusal(code).await;
        let sync = Sync {
            request: self.next_request(),
            group: group(),
            channel: channel(number),
            position: at(0),
            limit: 0,
            ts: Ts(0),
        };
        self.say(sync).await;
        self.expect_refusal(code).await;
    }
}
