//! The rules of SPEC.md for a client, about what is delivered to it.

use throng_protocol::ids::{Epoch, Position, Seq, Ts};
use throng_protocol::message::{ClientAck, Deliver, Entry, Message, Page, Place, Start};
use throng_protocol::session::client::{ACK_DELAY_MS, ClientEvent, GAP_WAIT_MS, SubscribeFrom};

use crate::samples::{channel, entry, group};
use crate::support::{Client, NUMBER, at, deliver, request_of, subscribed, welcome};

fn acked(said: &[Message]) -> Vec<Position> {
    let acks = said.iter().filter_map(|message| match message {
        Message::ClientAck(ClientAck { position, .. }) => Some(*position),
        _ => None,
    });
    acks.collect()
}

fn syncs(said: &[Message]) -> Vec<Position> {
    let syncs = said.iter().filter_map(|message| match message {
        Message::Sync(sync) => Some(sync.position),
        _ => None,
    });
    syncs.collect()
}

fn resets(events: &[ClientEvent]) -> Vec<Position> {
    let resets = events.iter().filter_map(|event| match event {
        ClientEvent::Reset { to, .. } => Some(*to),
        _ => None,
    });
    resets.collect()
}

#[test]
fn entries_of_a_later_epoch_begin_anew_behind_their_prev() {
    let mut client = Client::subscribed(10);
    client.feed(1, deliver(3, 4, &[5]));
    let events = client.events();
    assert_eq!(resets(&events), [at(3, 4)]);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, ClientEvent::Entries(e) if e.epoch == Epoch(3)))
    );
    client.feed(2, deliver(3, 5, &[6]));
    assert_eq!(client.emitted(), [6]);
}

#[test]
fn entries_of_an_earlier_epoch_are_dropped() {
    let mut client = Client::subscribed(10);
    client.feed(1, deliver(3, 10, &[11]));
    client.events();
    client.feed(2, deliver(2, 11, &[12]));
    client.feed(2, deliver(1, 10, &[11, 12]));
    assert!(client.emitted().is_empty());
    assert_eq!(
        client.machine.positions().pop().map(|place| place.position),
        Some(at(3, 11))
    );
}

fn unknown_kind(prev: u64, seq: u64) -> Deliver {
    let mut unknown = deliver(1, prev, &[seq]);
    unknown.entries[0].kind = 200;
    unknown
}

#[test]
fn a_position_moves_past_entries_of_an_unknown_kind() {
    let mut client = Client::subscribed(10);
    client.feed(1, unknown_kind(10, 11));
    assert_eq!(client.emitted(), [11], "the application shows it as unsupported");
    assert_eq!(
        client.machine.positions().pop().map(|place| place.position),
        Some(at(1, 11))
    );
    client.machine.handle_timeout(1 + ACK_DELAY_MS);
    assert_eq!(acked(&client.said()), [at(1, 11)]);
}

#[test]
fn an_entry_of_an_unknown_kind_is_no_gap() {
    let mut client = Client::subscribed(10);
    client.feed(1, unknown_kind(10, 11));
    client.feed(2, deliver(1, 11, &[12]));
    assert_eq!(client.emitted(), [11, 12]);
    client.machine.handle_timeout(2 + GAP_WAIT_MS);
    assert_eq!(syncs(&client.said()), []);
}

#[test]
fn an_ack_never_names_what_is_not_held() {
    let mut client = Client::subscribed(10);
    client.feed(1, deliver(1, 10, &[11]));
    client.feed(1, deliver(1, 14, &[15, 16]));
    client.machine.handle_timeout(1 + ACK_DELAY_MS);
    assert_eq!(
        acked(&client.said()),
        [at(1, 11)],
        "15 and 16 wait for what lies between"
    );
    client.feed(300, deliver(1, 11, &[12, 13, 14]));
    client.machine.handle_timeout(300 + ACK_DELAY_MS);
    assert_eq!(acked(&client.said()), [at(1, 16)]);
}

#[test]
fn a_frame_behind_a_gap_waits_and_the_gap_is_asked_for() {
    let mut client = Client::subscribed(10);
    client.feed(1, deliver(1, 12, &[13]));
    assert!(client.emitted().is_empty());
    assert_eq!(syncs(&client.said()), [], "it may still come by itself");
    client.machine.handle_timeout(1 + GAP_WAIT_MS);
    let said = client.said();
    assert_eq!(syncs(&said), [at(1, 10)]);
    let page = Page {
        request: request_of(&said[0]),
        channel: NUMBER,
        epoch: Epoch(1),
        prev: Seq(10),
        head: Seq(13),
        entries: vec![entry(11, b"x"), entry(12, b"x")],
    };
    client.feed(600, page);
    assert_eq!(client.emitted(), [11, 12, 13]);
}

#[test]
fn short_pages_are_followed_by_another_question_until_nothing_is_missing() {
    let mut client = Client::subscribed(10);
    client.feed(1, deliver(1, 13, &[14]));
    client.machine.handle_timeout(1 + GAP_WAIT_MS);
    let mut emitted = Vec::new();
    let mut asked = Vec::new();
    let mut said = client.said();
    while let [Message::Sync(sync)] = said.as_slice() {
        asked.push(sync.position);
        let seq = sync.position.seq.next();
        let page = Page {
            request: sync.request,
            channel: NUMBER,
            epoch: Epoch(1),
            prev: sync.position.seq,
            head: Seq(14),
            entries: vec![entry(seq.0, b"x")],
        };
        client.feed(700, page);
        emitted.extend(client.emitted());
        said = client.said();
    }
    assert_eq!(asked, [at(1, 10), at(1, 11), at(1, 12)]);
    assert_eq!(emitted, [11, 12, 13, 14]);
}

#[test]
fn a_page_that_brings_nothing_is_not_asked_for_again_at_once() {
    let mut client = Client::subscribed(10);
    client.feed(1, deliver(1, 13, &[14]));
    client.machine.handle_timeout(1 + GAP_WAIT_MS);
    let request = request_of(&client.said()[0]);
    let (epoch, prev, head) = (Epoch(1), Seq(10), Seq(10));
    client.feed(
        600,
        Page {
            request,
            channel: NUMBER,
            epoch,
            prev,
            head,
            entries: Vec::new(),
        },
    );
    assert_eq!(syncs(&client.said()), []);
    client.machine.handle_timeout(600 + GAP_WAIT_MS);
    assert_eq!(syncs(&client.said()), [at(1, 10)], "something is still missing");
}

#[test]
fn a_page_of_another_epoch_is_not_mixed_into_what_is_held() {
    let mut client = Client::subscribed(10);
    client.feed(1, deliver(1, 12, &[13]));
    client.machine.handle_timeout(1 + GAP_WAIT_MS);
    let request = request_of(&client.said()[0]);
    let page = |epoch, prev, seqs: &[u64]| Page {
        request,
        channel: NUMBER,
        epoch: Epoch(epoch),
        prev: Seq(prev),
        head: Seq(12),
        entries: seqs.iter().map(|seq| entry(*seq, b"y")).collect::<Vec<Entry>>(),
    };
    client.feed(600, page(2, 10, &[11, 12]));
    let events = client.events();
    assert_eq!(resets(&events), [at(2, 10)]);
    let last = client.machine.positions().pop();
    let place = Place {
        group: group(),
        channel: channel(),
        position: at(2, 12),
        ts: Ts(0),
    };
    assert_eq!(last, Some(place), "13 of the first epoch is gone");
}

#[test]
fn a_delivery_before_its_subscribed_is_taken_with_it() {
    let mut client = Client::open(0, welcome());
    client
        .machine
        .subscribe(0, group(), channel(), SubscribeFrom::Head)
        .expect("taken");
    let request = request_of(&client.said()[0]);
    client.feed(1, deliver(1, 10, &[11]));
    assert!(client.emitted().is_empty());
    client.feed(2, subscribed(request, at(1, 10), Start::Head));
    assert_eq!(client.emitted(), [11]);
}

#[test]
fn a_delivery_of_a_channel_nobody_asked_for_is_ignored() {
    let mut client = Client::open(0, welcome());
    client.feed(1, deliver(1, 10, &[11]));
    assert_eq!((client.said(), client.events()), (vec![], vec![]));
    assert!(client.machine.is_open());
}

#[test]
fn what_was_held_stays_held_in_the_same_epoch_only() {
    for (epoch, start, kept) in [(1, Start::FullAhead, true), (2, Start::FullEpoch, false)] {
        let mut client = Client::subscribed(10);
        client.machine.handle_disconnected(1);
        client.connect(2, welcome());
        let request = request_of(&client.said()[0]);
        client.feed(3, subscribed(request, at(epoch, 8), start));
        let events = client.events();
        assert_eq!(resets(&events).is_empty(), kept);
        client.feed(4, deliver(epoch, 8, &[9, 10, 11]));
        assert_eq!(client.emitted(), if kept { &[11][..] } else { &[9, 10, 11][..] });
    }
}

#[test]
fn what_lies_before_a_full_fence_is_no_gap() {
    for (start, asked) in [(Start::FullFence, 0), (Start::Resumed, 1)] {
        let mut client = Client::subscribed(10);
        client.machine.handle_disconnected(1);
        client.connect(2, welcome());
        let request = request_of(&client.said()[0]);
        client.feed(3, subscribed(request, at(1, 30), start));
        assert_eq!(resets(&client.events()).len(), 1 - asked);
        client.machine.handle_timeout(3 + GAP_WAIT_MS);
        assert_eq!(syncs(&client.said()).len(), asked, "{start:?}");
    }
}
