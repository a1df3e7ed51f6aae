//! Changes to messages through a running system: the SDK at two edges, and a back end beside it.

use bytes::Bytes;
use serde_json::{Value, json};
use throng_client::{
    Change, ChannelId, Client, ClientMessageId, Code, Direction, EntryKind, From, GroupId, Hole, Position,
    Seq, Shown, Subscription, Timeline,
};
use throng_cluster::sdk::connect;

use crate::back_end::BackEnd;
use crate::{throng, up};

/// Takes deliveries into a timeline up to a position.
async fn follow(timeline: &mut Timeline, live: &mut Subscription, upto: Seq) {
    while live.position().seq < upto {
        let delivery = live.recv().await.expect("the subscription goes on");
        timeline.deliver(delivery.epoch, delivery.prev, &[delivery.entry()]);
    }
}

fn shown(timeline: &Timeline, seq: Seq) -> (String, u8, Vec<(String, String)>) {
    match timeline.get(seq) {
        Shown::Message(entry) => {
            let body = String::from_utf8_lossy(&entry.body).into_owned();
            (body, entry.hole, entry.expansion.clone())
        }
        other => panic!("{seq} is {other:?}"),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// One message is modified, one recalled, one deleted, and one expanded by two users; the last change.
async fn change_all(
    ann: &Client,
    bob: &Client,
    sent: &[Position],
    (group, channel): (&GroupId, &ChannelId),
) -> Seq {
    let first = ann
        .modify(group, channel, sent[0], "ONE")
        .await
        .expect("modified");
    ann.recall(group, channel, sent[1]).await.expect("recalled");
    ann.delete(group, channel, sent[2]).await.expect("deleted");
    let like = bob.expand(
        group,
        channel,
        sent[3],
        pairs(&[("like", "1"), ("seen", "bob")]),
        vec![],
    );
    like.await.expect("expanded");
    let last = ann
        .expand(
            group,
            channel,
            sent[3],
            pairs(&[("like", "2")]),
            vec!["seen".to_owned()],
        )
        .await
        .expect("expanded");
    assert_eq!(
        (first.before, last.before),
        (Seq(0), Seq(last.position.seq.0 - 1))
    );
    last.position.seq
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_client_changes_every_other_shows_whether_it_follows_comes_back_or_loads_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let _system = up(folder.path(), 2);
    let (group, channel) = (
        GroupId::new("town").expect("valid"),
        ChannelId::new("hall").expect("valid"),
    );
    let ann = connect(&throng(), folder.path(), "ann", 0)
        .await
        .expect("connected");
    let bob = connect(&throng(), folder.path(), "bob", 1)
        .await
        .expect("connected");
    ann.create_group(&group).await.expect("made");
    ann.create_channel(&group, &channel).await.expect("made");
    bob.join(&group).await.expect("in");
    let mut live = bob
        .subscribe(&group, &channel, From::Start)
        .await
        .expect("begins");
    let mut sent = Vec::new();
    for text in ["one", "two", "three", "four"] {
        let ack = ann.send(&group, &channel, text).await.expect("stored");
        sent.push(Position {
            epoch: ack.epoch,
            seq: ack.seq,
        });
    }
    let mut timeline = Timeline::new(sent[0].epoch);
    follow(&mut timeline, &mut live, sent[3].seq).await;
    let mut away = timeline.clone();

    let upto = change_all(&ann, &bob, &sent, (&group, &channel)).await;
    let as_it_is_now = [
        ("ONE".to_owned(), 0, vec![]),
        (String::new(), Hole::Recalled.number(), vec![]),
        (String::new(), Hole::Deleted.number(), vec![]),
        ("four".to_owned(), 0, pairs(&[("like", "2")])),
    ];

    // Whoever follows.
    follow(&mut timeline, &mut live, upto).await;
    // Whoever comes back asks what has changed.
    let stale = away.stale(upto);
    let [stretch] = &stale[..] else {
        panic!("one stretch is stale: {stale:?}")
    };
    let from = Position {
        seq: stretch.from,
        ..sent[0]
    };
    let page = bob
        .changes(&group, &channel, from, stretch.to, stretch.since)
        .await
        .expect("a page");
    assert_eq!(page.entries.len(), 4);
    away.changes(page.epoch, *stretch, page.head, &page.entries);
    assert_eq!(away.stale(upto), []);
    // Whoever loads it for the first time.
    let page = bob
        .history(&group, &channel, Seq(0), Direction::After, 0)
        .await
        .expect("a page");
    let mut loaded = Timeline::new(page.epoch);
    loaded.page(page.epoch, page.prev, page.head, &page.entries);
    for timeline in [&timeline, &away, &loaded] {
        for (at, expected) in sent.iter().zip(&as_it_is_now) {
            assert_eq!(shown(timeline, at.seq), *expected);
        }
    }
    refusals(&bob, &sent, (&group, &channel)).await;
    by_the_back_end(folder.path(), &mut live, sent[0]).await;
}

/// What is refused, with its number.
async fn refusals(bob: &Client, sent: &[Position], (group, channel): (&GroupId, &ChannelId)) {
    let of_ann = bob
        .modify(group, channel, sent[0], "mine")
        .await
        .expect_err("refused");
    assert_eq!(of_ann.code, Some(Code::Forbidden));
    let gone = bob
        .expand(group, channel, sent[1], pairs(&[("k", "v")]), vec![])
        .await;
    assert_eq!(gone.expect_err("refused").code, Some(Code::TargetGone));
    let unknown = Position {
        seq: Seq(999),
        ..sent[0]
    };
    let unknown = bob.recall(group, channel, unknown).await.expect_err("refused");
    assert_eq!(unknown.code, Some(Code::TargetUnknown));
    let many = (0..21).map(|n| n.to_string()).collect();
    let many = bob
        .expand(group, channel, sent[0], vec![], many)
        .await
        .expect_err("refused");
    assert_eq!(many.code, Some(Code::InvalidField));
    // The same id and change again give the first answer again.
    let id = ClientMessageId(77);
    let like = || Change::Expand {
        set: pairs(&[("like", "bob")]),
        remove: vec![],
    };
    let first = bob
        .change_with_id(group, channel, id, sent[0], like())
        .await
        .expect("made");
    let again = bob
        .change_with_id(group, channel, id, sent[0], like())
        .await
        .expect("known");
    assert_eq!(
        (first.repeat, again.repeat, again.position),
        (false, true, first.position)
    );
}

/// The app itself changes a message by the Server API, and the follower is told.
async fn by_the_back_end(folder: &std::path::Path, live: &mut Subscription, target: Position) {
    let Some(back_end) = BackEnd::of(folder) else {
        return;
    };
    let call = |method: &str, path: &str, body: Value| {
        back_end.call(method, &format!("town/channels/hall/messages/{path}"), &body)
    };
    let id = format!("{}-{}", target.epoch, target.seq);
    let changed = call("PUT", &id, json!({"text": "moderated"}));
    assert!(changed["seq"].as_u64().is_some(), "{changed}");
    let as_bob = call("PUT", &id, json!({"by": "bob", "text": "mine"}));
    assert_eq!(as_bob["error"]["name"], "forbidden");
    let keys = call(
        "POST",
        &format!("{id}/expansion"),
        json!({"set": {"checked": "yes"}}),
    );
    assert_eq!(keys["before"], changed["seq"]);
    let recalled = call("POST", &format!("{id}/recall"), json!({}));
    let gone = call("POST", &format!("{id}/recall"), json!({}));
    assert_eq!(gone["error"]["code"], 404);
    let upto = Seq(recalled["seq"].as_u64().expect("a place"));
    let mut kinds = Vec::new();
    while live.position().seq < upto {
        let delivery = live.recv().await.expect("the subscription goes on");
        if delivery.sender_number.0 == 0 {
            assert_eq!(delivery.target, target.seq);
            kinds.push(delivery.kind);
        }
        assert!(delivery.hole != 0 || delivery.body != Bytes::from_static(b"mine"));
    }
    let expected = [EntryKind::Modify, EntryKind::Expand, EntryKind::Recall].map(EntryKind::number);
    assert_eq!(kinds, expected);
}
