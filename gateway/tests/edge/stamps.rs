//! Asking by time stamp: the same as asking by the position it stands for.

use bytes::Bytes;
use throng_gateway::GatewayLimits;
use throng_protocol::ids::{Position, Seq, Ts};
use throng_protocol::message::{
    Direction, Entry, History, Message, Place, Resume, Start, Subscribe, Subscribed, Sync,
};

use crate::client::Client;
use crate::stand_in::{EPOCH, Edge, channel, group, ts_of};

const LAST: u64 = 12;

/// An edge whose ring holds only the last of twelve entries, stamped 10, 20 and so on.
async fn edge() -> (Edge, Client) {
    let edge = Edge::with(GatewayLimits {
        ring_frames_max: 4,
        ..GatewayLimits::default()
    })
    .await;
    let mut client = Client::open(&edge, "ann").await;
    client.subscribe(1, None).await;
    for key in 1..=LAST {
        edge.core.append(1, key, Bytes::from_static(b"x"));
    }
    client.take(1, 0, LAST).await;
    (edge, client)
}

/// Every entry's stamp, and those between, before and behind them.
fn stamps() -> impl Iterator<Item = u64> {
    (1..=LAST * 10 + 5)
        .step_by(3)
        .chain((1..=LAST).map(|seq| seq * 10))
        .chain([u64::MAX])
}

/// The last entry with this stamp or an earlier one.
fn place(ts: u64) -> u64 {
    (1..=LAST).filter(|seq| ts_of(Seq(*seq)).0 <= ts).count() as u64
}

fn at(seq: u64) -> Position {
    Position {
        epoch: EPOCH,
        seq: Seq(seq),
    }
}

impl Client {
    async fn subscribe_by_ts(&mut self, number: u64, ts: u64) -> Subscribed {
        let subscribe = Subscribe {
            request: self.next_request(),
            group: group(),
            channel: channel(number),
            position: Position::default(),
            ts: Ts(ts),
        };
        self.say(subscribe).await;
        match self.hear().await {
            Message::Subscribed(subscribed) => subscribed,
            other => panic!("not subscribed: {other:?}"),
        }
    }

    async fn page(&mut self, ask: impl Into<Message>) -> (Seq, Seq, Vec<Entry>) {
        self.say(ask).await;
        match self.hear().await {
            Message::Page(page) => (page.prev, page.head, page.entries),
            other => panic!("not a page: {other:?}"),
        }
    }

    fn sync(&mut self, position: Position, ts: u64) -> Sync {
        Sync {
            request: self.next_request(),
            group: group(),
            channel: channel(1),
            position,
            limit: 5,
            ts: Ts(ts),
        }
    }

    fn history(&mut self, anchor: u64, ts: u64, direction: Direction) -> History {
        History {
            request: self.next_request(),
            group: group(),
            channel: channel(1),
            anchor: Seq(anchor),
            direction,
            limit: 5,
            ts: Ts(ts),
        }
    }
}

#[tokio::test]
async fn a_subscription_by_time_stamp_begins_where_one_by_position_does() {
    let (_edge, mut client) = edge().await;
    for ts in stamps() {
        let by_ts = client.subscribe_by_ts(1, ts).await;
        let seq = place(ts);
        assert_eq!(by_ts.position, at(seq), "by {ts}");
        assert_eq!(by_ts.ts.0, seq * 10, "by {ts}");
        let start = if ts > LAST * 10 {
            Start::FullAhead
        } else {
            Start::Resumed
        };
        assert_eq!(by_ts.start, start, "by {ts}");
    }
}

#[tokio::test]
async fn deliveries_of_a_subscription_by_time_stamp_are_those_with_a_later_one() {
    let (_edge, mut client) = edge().await;
    for ts in [1, 45, 60, 111] {
        client.subscribe_by_ts(1, ts).await;
        client.take(1, place(ts), LAST).await;
    }
}

#[tokio::test]
async fn a_time_stamp_in_a_channel_without_entries_is_ahead_of_it() {
    let (edge, mut client) = edge().await;
    let subscribed = client.subscribe_by_ts(2, 5).await;
    assert_eq!(
        (subscribed.position, subscribed.ts, subscribed.start),
        (at(0), Ts(0), Start::FullAhead)
    );
    edge.core.append(2, 1, Bytes::from_static(b"x"));
    let (_, deliver) = client.delivery().await;
    assert_eq!((deliver.prev, deliver.entries.len()), (Seq(0), 1));
}

#[tokio::test]
async fn sync_by_time_stamp_is_sync_by_position() {
    let (_edge, mut client) = edge().await;
    for ts in stamps() {
        let (by_ts, by_seq) = (
            client.sync(Position::default(), ts),
            client.sync(at(place(ts)), 0),
        );
        assert_eq!(client.page(by_ts).await, client.page(by_seq).await, "by {ts}");
    }
}

#[tokio::test]
async fn history_by_time_stamp_is_history_by_anchor_in_both_directions() {
    let (_edge, mut client) = edge().await;
    for ts in stamps().filter(|ts| *ts != u64::MAX) {
        let before = (1..=LAST).filter(|seq| seq * 10 < ts).count() as u64 + 1;
        for (direction, anchor) in [(Direction::After, place(ts)), (Direction::Before, before)] {
            let (by_ts, by_seq) = (
                client.history(0, ts, direction),
                client.history(anchor, 0, direction),
            );
            let (by_ts, by_seq) = (client.page(by_ts).await, client.page(by_seq).await);
            assert_eq!((by_ts.1, by_ts.2), (by_seq.1, by_seq.2), "{direction:?} {ts}");
        }
    }
}

#[tokio::test]
async fn places_of_a_resume_may_be_time_stamps_and_never_both() {
    let (_edge, mut client) = edge().await;
    let place = |position, ts| Place {
        group: group(),
        channel: channel(1),
        position,
        ts: Ts(ts),
    };
    let request = client.next_request();
    let places = vec![place(Position::default(), 75)];
    client.say(Resume { request, places }).await;
    let Message::Subscribed(subscribed) = client.hear().await else {
        panic!("not subscribed")
    };
    assert_eq!((subscribed.position, subscribed.start), (at(7), Start::Resumed));
    assert!(matches!(client.hear().await, Message::Done(_)));
    let request = client.next_request();
    let places = vec![place(at(3), 75)];
    client.say(Resume { request, places }).await;
    client.expect_refusal(105).await;
    let both = client.sync(at(3), 75);
    client.say(both).await;
    client.expect_refusal(105).await;
}
