//! Pages of a channel's log.

use bytes::Bytes;
use throng_protocol::cluster::{Anchor, Direction, Page};
use throng_protocol::ids::{ChannelNumber, Epoch, Seq, Ts};
use throng_protocol::limits::PAGE_ENTRIES_MAX;
use throng_state::command::AppendMessage;
use throng_state::query;
use throng_state::testing::MapView;

use crate::support::*;

use Direction::{After, Before};

const C: ChannelNumber = ChannelNumber(1);
const BYTES: usize = 1 << 20;

/// A log of `count` entries in channel 1, and one entry in channel 2 behind it.
fn log(count: u64, body: usize) -> MapView {
    let mut shard = message_shard(2);
    for id in 1..=count {
        let body = Bytes::from(vec![id as u8; body]);
        shard.reply(&append(&AppendMessage {
            body,
            ..message(1, id, "")
        }));
    }
    shard.reply(&append(&AppendMessage {
        channel: ChannelNumber(2),
        ..message(1, 1, "neighbour")
    }));
    shard
}

fn page(shard: &MapView, anchor: u64, direction: Direction, limit: u32, bytes: usize) -> Page {
    query::page(
        shard,
        C,
        &entries_at(Anchor::Seq(Seq(anchor)), direction, limit, bytes),
    )
    .expect("readable")
    .expect("the channel is here")
}

/// The page's `prev` and positions.
fn seqs(page: &Page) -> (u64, Vec<u64>) {
    (
        page.prev.0,
        page.entries.iter().map(|entry| entry.seq.0).collect(),
    )
}

#[test]
fn a_page_behind_an_anchor_goes_up_and_says_what_came_before() {
    let shard = log(50, 1);
    assert_eq!(seqs(&page(&shard, 0, After, 3, BYTES)), (0, vec![1, 2, 3]));
    assert_eq!(
        seqs(&page(&shard, 20, After, 20, BYTES)),
        (20, (21..=40).collect())
    );
    let last = page(&shard, 48, After, 100, BYTES);
    assert_eq!(seqs(&last), (48, vec![49, 50]));
    assert_eq!((last.epoch, last.head), (Epoch(1), Seq(50)));
}

#[test]
fn a_page_before_an_anchor_holds_the_nearest_entries_ascending() {
    let shard = log(50, 1);
    assert_eq!(seqs(&page(&shard, 51, Before, 3, BYTES)), (47, vec![48, 49, 50]));
    assert_eq!(
        seqs(&page(&shard, 30, Before, 20, BYTES)),
        (9, (10..=29).collect())
    );
    assert_eq!(seqs(&page(&shard, 3, Before, 100, BYTES)), (0, vec![1, 2]));
    assert_eq!(seqs(&page(&shard, u64::MAX, Before, 1, BYTES)), (49, vec![50]));
}

#[test]
fn there_is_nothing_beyond_the_ends_of_a_log() {
    let shard = log(5, 1);
    assert_eq!(seqs(&page(&shard, 5, After, 10, BYTES)), (5, vec![]));
    assert_eq!(seqs(&page(&shard, u64::MAX, After, 10, BYTES)), (5, vec![]));
    assert_eq!(seqs(&page(&shard, 1, Before, 10, BYTES)), (0, vec![]));
    assert_eq!(seqs(&page(&shard, 0, Before, 10, BYTES)), (0, vec![]));
    assert_eq!(seqs(&page(&shard, 3, After, 0, BYTES)), (3, vec![]));
    assert_eq!(
        query::page(
            &shard,
            ChannelNumber(9),
            &entries_at(Anchor::Seq(Seq(0)), After, 10, BYTES)
        )
        .unwrap(),
        None
    );
    let empty = message_shard(1);
    assert_eq!(seqs(&page(&empty, 0, After, 10, BYTES)), (0, vec![]));
    assert_eq!(seqs(&page(&empty, 10, Before, 10, BYTES)), (0, vec![]));
}

#[test]
fn a_page_is_closed_by_its_bytes_but_never_empty_before_the_end() {
    let shard = log(20, 1_000);
    let (_, up) = seqs(&page(&shard, 0, After, 100, 3_500));
    assert_eq!(up, [1, 2, 3]);
    let (prev, down) = seqs(&page(&shard, 21, Before, 100, 3_500));
    assert_eq!((prev, down), (17, vec![18, 19, 20]));
    assert_eq!(seqs(&page(&shard, 7, After, 100, 1)).1, [8]);
    assert_eq!(seqs(&page(&shard, 7, Before, 100, 0)).1, [6]);
}

#[test]
fn a_page_never_has_more_entries_than_the_protocol_allows() {
    let shard = log(u64::from(PAGE_ENTRIES_MAX) + 20, 1);
    assert_eq!(
        page(&shard, 0, After, u32::MAX, BYTES).entries.len(),
        PAGE_ENTRIES_MAX as usize
    );
    assert_eq!(
        page(&shard, 1_000, Before, u32::MAX, BYTES).entries.len(),
        PAGE_ENTRIES_MAX as usize
    );
}

#[test]
fn pages_follow_each_other_over_the_whole_log_in_both_directions() {
    let shard = log(97, 40);
    for bytes in [1, 500, BYTES] {
        let mut up = Vec::new();
        while up.last() != Some(&97) {
            let (prev, found) = seqs(&page(&shard, up.len() as u64, After, 10, bytes));
            assert_eq!(prev, up.len() as u64);
            up.extend(found);
        }
        assert_eq!(up, (1..=97).collect::<Vec<_>>());
        let mut down = Vec::new();
        while down.last() != Some(&1) {
            let (_, found) = seqs(&page(&shard, 98 - down.len() as u64, Before, 10, bytes));
            down.extend(found.into_iter().rev());
        }
        assert_eq!(down, (1..=97).rev().collect::<Vec<_>>());
    }
}

#[test]
fn an_anchor_by_time_stamp_is_the_place_between_two_entries() {
    let mut shard = message_shard(2);
    // Two that share a millisecond, a gap, and a leader whose clock went back.
    for (id, ms) in [(1, 10), (2, 10), (3, 25), (4, 20), (5, 40)] {
        shard.reply(&append(&at(NOW + ms, message(1, id, "x"))));
    }
    let stamps: Vec<Ts> = page(&shard, 0, After, 10, BYTES)
        .entries
        .iter()
        .map(|entry| entry.ts)
        .collect();
    let around = stamps.iter().flat_map(|ts| [Ts(ts.0 - 1), *ts, Ts(ts.0 + 1)]);
    let by_ts = |ts, direction, limit| {
        query::page(&shard, C, &entries_at(Anchor::Ts(ts), direction, limit, BYTES))
            .expect("readable")
            .expect("the channel is here")
    };
    for ts in around.chain([Ts(0), Ts(u64::MAX)]) {
        let upto = stamps.iter().filter(|stamp| **stamp <= ts).count() as u64;
        let below = stamps.iter().filter(|stamp| **stamp < ts).count() as u64;
        for limit in [1, 2, 10] {
            assert_eq!(by_ts(ts, After, limit), page(&shard, upto, After, limit, BYTES));
            assert_eq!(
                by_ts(ts, Before, limit),
                page(&shard, below + 1, Before, limit, BYTES)
            );
        }
    }
    // In an empty log every time stamp is the same place.
    let empty = ChannelNumber(2);
    for direction in [After, Before] {
        let wanted = entries_at(Anchor::Ts(Ts(7)), direction, 10, BYTES);
        assert_eq!(
            seqs(&query::page(&shard, empty, &wanted).unwrap().unwrap()),
            (0, vec![])
        );
    }
}
