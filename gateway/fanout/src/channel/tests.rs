mod fence_model;
mod fences;

use std::collections::BTreeMap;

use super::*;
use crate::Frames;
use crate::fences::Rights;
use proptest::prelude::*;
use throng_protocol::frame;
use throng_protocol::ids::{ClientMessageId, Ts, UserId, UserNumber};

const CHANNEL: ChannelNumber = ChannelNumber(7);
const EPOCH: Epoch = Epoch(1);
const S1: Seat = seat(1);
const S2: Seat = seat(2);

/// Sessions with odd numbers are one worker's, those with even ones another's.
const fn seat(session: u64) -> Seat {
    Seat {
        worker: WorkerNumber((session % 2) as u16),
        session: SessionId(session),
    }
}

/// A worker is told.
fn news(seat: Seat) -> Effect {
    Effect::News { worker: seat.worker }
}

/// All steps of a worker's round: the sessions it names.
fn round(fanout: &mut ChannelFanout, worker: WorkerNumber) -> Vec<u64> {
    let mut due = Vec::new();
    while fanout.step(worker, |session| {
        due.push(session.0);
        ControlFlow::Break(())
    }) {}
    due
}

const SMALL: RingLimits = RingLimits {
    bytes_max: 100_000,
    frames_max: 4,
};

fn entry(seq: u64) -> Entry {
    Entry {
        seq: Seq(seq),
        ts: Ts(seq),
        kind: EntryKind::Message,
        sender_number: UserNumber(1),
        sender: UserId::new("u").expect("valid"),
        client_message_id: ClientMessageId(seq),
        body: Bytes::from(seq.to_string()),
        target: Seq(0),
        version: Seq(0),
        hole: Hole::None,
        expansion: Vec::new(),
        removed: Vec::new(),
        keys_elsewhere: false,
    }
}

/// What tests do with a session.
trait Sessions {
    /// The next frames, as they are for the only worker.
    fn get(&mut self, seat: Seat, budget: usize) -> Take;

    /// Begins a subscription and attaches it.
    fn enter(&mut self, ask: Ask, effects: &mut Vec<Effect>) -> Result<Subscription, SubscribeError>;

    /// Does so by a right that no fence has touched.
    fn begin(
        &mut self,
        seat: Seat,
        position: Position,
        log: Option<Position>,
        effects: &mut Vec<Effect>,
    ) -> Result<Subscription, SubscribeError>;
}

impl Sessions for ChannelFanout {
    fn get(&mut self, seat: Seat, budget: usize) -> Take {
        self.take(seat, budget, &mut Copies::shared())
    }

    fn enter(&mut self, ask: Ask, effects: &mut Vec<Effect>) -> Result<Subscription, SubscribeError> {
        let begun = self.subscribe(ask)?;
        assert!(self.attach(ask.seat, effects));
        assert_eq!(effects.pop(), Some(Effect::Wake { seat: ask.seat }));
        Ok(begun)
    }

    fn begin(
        &mut self,
        seat: Seat,
        position: Position,
        log: Option<Position>,
        effects: &mut Vec<Effect>,
    ) -> Result<Subscription, SubscribeError> {
        let rights = Rights {
            number: UserNumber(seat.session.0),
            version: 1,
            fenced: 0,
        };
        let ask = Ask {
            seat,
            request: 1,
            rights,
            position,
            located: false,
            log,
        };
        self.enter(ask, effects)
    }
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.map(entry).collect()
}

fn at(seq: u64) -> Position {
    Position {
        epoch: EPOCH,
        seq: Seq(seq),
    }
}

fn opened(head: u64, limits: RingLimits) -> ChannelFanout {
    let mut fanout = ChannelFanout::new(0, CHANNEL, limits, &mut Vec::new());
    fanout.on_opened(
        EPOCH,
        Seq(head),
        Seq(head),
        &FenceTable::default(),
        &mut Vec::new(),
    );
    fanout
}

fn batch(fanout: &mut ChannelFanout, range: std::ops::RangeInclusive<u64>) -> Vec<Effect> {
    let mut effects = Vec::new();
    fanout.on_batch(EPOCH, Seq(range.start() - 1), &entries(range), &mut effects);
    effects
}

/// (prev, seqs) of each frame.
fn decoded(frames: &[Bytes]) -> Vec<(u64, Vec<u64>)> {
    frames
        .iter()
        .map(|bytes| {
            let frame = frame::decode(&mut BytesMut::from(&bytes[..]))
                .expect("framed")
                .expect("whole");
            match Message::decode(&frame).expect("valid") {
                Some(Message::Deliver(deliver)) => {
                    assert_eq!((deliver.channel, deliver.epoch), (CHANNEL, EPOCH));
                    (
                        deliver.prev.0,
                        deliver.entries.iter().map(|entry| entry.seq.0).collect(),
                    )
                }
                other => panic!("not a delivery: {other:?}"),
            }
        })
        .collect()
}

fn chunk(take: Take) -> Chunk {
    match take {
        Take::Chunk(chunk) => chunk,
        other => panic!("expected a chunk, got {other:?}"),
    }
}

#[test]
fn a_new_channel_asks_to_be_followed_at_its_head_and_subscribes_nobody_before_it_is() {
    let mut effects = Vec::new();
    let mut fanout = ChannelFanout::new(0, CHANNEL, RingLimits::default(), &mut effects);
    assert_eq!(
        effects,
        vec![Effect::Follow {
            position: Position::default()
        }]
    );
    let refused = fanout.begin(S1, Position::default(), None, &mut effects);
    assert_eq!(refused, Err(SubscribeError::NotOpen));
}

#[test]
fn a_subscription_begins_where_its_position_says() {
    let mut fanout = opened(10, RingLimits::default());
    let mut begin = |position, log| fanout.begin(S1, position, log, &mut Vec::new());
    let of = |seq, head, start| {
        Ok(Subscription {
            position: at(seq),
            head: Seq(head),
            start,
            ts: None,
        })
    };
    assert_eq!(begin(Position::default(), None), of(10, 10, Start::Head));
    assert_eq!(begin(at(3), None), of(3, 10, Start::Resumed));
    assert_eq!(begin(at(10), None), of(10, 10, Start::Resumed));
    let foreign = Position {
        epoch: Epoch(2),
        seq: Seq(3),
    };
    assert_eq!(begin(foreign, None), of(10, 10, Start::FullEpoch));
    assert_eq!(begin(at(12), None), Err(SubscribeError::HeadNeeded));
    assert_eq!(begin(at(12), Some(at(12))), of(12, 12, Start::Resumed));
    assert_eq!(begin(at(12), Some(at(11))), of(11, 11, Start::FullAhead));
}

#[test]
fn an_entry_is_encoded_once_however_many_take_it() {
    let mut fanout = opened(0, RingLimits::default());
    for session in 0..100 {
        fanout
            .begin(seat(session), at(0), None, &mut Vec::new())
            .expect("open");
    }
    batch(&mut fanout, 1..=5);
    batch(&mut fanout, 3..=6);
    let mut first: Option<Frames> = None;
    for session in 0..100 {
        let frames = chunk(fanout.get(seat(session), usize::MAX)).frames;
        let shared = first.get_or_insert_with(|| frames.clone());
        let same = shared.iter().zip(&frames).all(|(a, b)| a.as_ptr() == b.as_ptr());
        assert!(same && frames.len() == 6, "frames are shared, not copied");
    }
    assert_eq!(fanout.encoded(), 6);
}

#[test]
fn each_of_several_workers_takes_one_copy_of_a_frame_for_all_its_sessions() {
    let mut fanout = opened(0, SMALL);
    let sessions = 0..10;
    for session in sessions.clone() {
        fanout
            .begin(seat(session), at(0), None, &mut Vec::new())
            .expect("open");
    }
    let mut copies = [Copies::own(), Copies::own()];
    let mut places: [BTreeSet<usize>; 2] = Default::default();
    for first in [1, 3] {
        batch(&mut fanout, first..=first + 1);
        for session in sessions.clone() {
            let worker = usize::from(seat(session).worker.0);
            let frames = chunk(fanout.take(seat(session), usize::MAX, &mut copies[worker])).frames;
            assert_eq!(
                decoded(&frames),
                vec![(first - 1, vec![first]), (first, vec![first + 1])]
            );
            places[worker].extend(frames.iter().map(|frame| frame.as_ptr() as usize));
        }
    }
    assert_eq!(places[0].len(), 4, "one copy of each frame");
    assert_eq!(places[1].len(), 4, "one copy of each frame");
    assert!(places[0].is_disjoint(&places[1]), "each worker has its own");
}

/// A change of entry `target`, as the feed brings it.
fn change(seq: u64, target: u64, kind: EntryKind, hole: Hole, body: &'static str) -> Entry {
    Entry {
        kind,
        target: Seq(target),
        hole,
        body: Bytes::from_static(body.as_bytes()),
        ..entry(seq)
    }
}

/// (seq, body, hole) of each entry.
fn bodies(frames: &[Bytes]) -> Vec<(u64, String, u8)> {
    let read = |bytes: &Bytes| {
        let frame = frame::decode(&mut BytesMut::from(&bytes[..]))
            .expect("framed")
            .expect("whole");
        match Message::decode(&frame).expect("valid") {
            Some(Message::Deliver(deliver)) => deliver.entries,
            other => panic!("not a delivery: {other:?}"),
        }
    };
    let entries = frames.iter().flat_map(read);
    let shown = |entry: message::Entry| {
        let body = String::from_utf8_lossy(&entry.body).into_owned();
        (entry.seq.0, body, entry.hole)
    };
    entries.map(shown).collect()
}

#[test]
fn nothing_of_a_recalled_message_is_handed_out_of_the_ring_whoever_comes() {
    let mut fanout = opened(0, RingLimits::default());
    fanout.begin(S1, at(0), None, &mut Vec::new()).expect("open");
    let feed = |fanout: &mut ChannelFanout, prev, entries: &[Entry]| {
        fanout.on_batch(EPOCH, Seq(prev), entries, &mut Vec::new());
    };
    feed(&mut fanout, 0, &[entry(1), entry(2)]);
    feed(
        &mut fanout,
        2,
        &[change(3, 1, EntryKind::Modify, Hole::None, "a secret")],
    );
    // A worker has copies of what it was before.
    let mut copies = Copies::own();
    let before = chunk(fanout.take(S1, usize::MAX, &mut copies)).frames;
    assert_eq!(bodies(&before)[2], (3, "a secret".to_owned(), 0));
    feed(
        &mut fanout,
        3,
        &[change(4, 1, EntryKind::Recall, Hole::Recalled, "")],
    );
    let bytes = fanout.ring_bytes();
    for seat in [seat(3), seat(5)] {
        fanout.begin(seat, at(0), None, &mut Vec::new()).expect("open");
        let frames = chunk(fanout.take(seat, usize::MAX, &mut copies)).frames;
        assert_eq!(
            frames.iter().map(Bytes::len).sum::<usize>(),
            bytes,
            "bytes are those held"
        );
        let recalled = |seq| (seq, String::new(), 1);
        let expected = [recalled(1), (2, "2".to_owned(), 0), recalled(3), recalled(4)];
        assert_eq!(bodies(&frames), expected);
    }
    assert_eq!(
        decoded(&chunk(fanout.get(S1, usize::MAX)).frames),
        vec![(3, vec![4])]
    );
}

#[test]
fn copies_are_bounded_and_made_again_for_whoever_is_further_behind() {
    let mut fanout = opened(0, RingLimits::default());
    for session in [1, 3, 5] {
        fanout
            .begin(seat(session), at(0), None, &mut Vec::new())
            .expect("open");
    }
    let large = |seq| Entry {
        body: Bytes::from(vec![seq as u8; 40 * 1024]),
        ..entry(seq)
    };
    fanout.on_batch(EPOCH, Seq(0), &[large(1), large(2), large(3)], &mut Vec::new());
    let mut copies = Copies::own();
    let mut taken = |session| chunk(fanout.take(seat(session), usize::MAX, &mut copies)).frames;
    let (first, second) = (taken(1), taken(3));
    assert_eq!(first, second);
    let same = |place: usize| first[place].as_ptr() == second[place].as_ptr();
    assert_eq!(
        [same(0), same(1)],
        [false, false],
        "two of these are more than is held"
    );
}

#[test]
fn copies_are_not_handed_out_in_another_epoch() {
    let mut fanout = opened(0, RingLimits::default());
    fanout.begin(S1, at(0), None, &mut Vec::new()).expect("open");
    let mut copies = Copies::own();
    batch(&mut fanout, 1..=1);
    let before = chunk(fanout.take(S1, usize::MAX, &mut copies)).frames;
    fanout.on_reset(Epoch(2), Seq(0), &FenceTable::default(), &mut Vec::new());
    fanout.on_batch(Epoch(2), Seq(0), &entries(1..=1), &mut Vec::new());
    let after = chunk(fanout.take(S1, usize::MAX, &mut copies)).frames;
    assert_ne!(before, after, "the frame names its epoch");
}

#[test]
fn a_worker_is_told_once_however_many_sessions_it_serves_until_its_round_is_over() {
    let mut fanout = opened(0, RingLimits::default());
    for session in [1, 3, 5, 2] {
        fanout
            .begin(seat(session), at(0), None, &mut Vec::new())
            .expect("open");
    }
    assert_eq!(batch(&mut fanout, 1..=1), vec![news(S2), news(S1)]);
    assert_eq!(batch(&mut fanout, 2..=2), vec![]);
    assert_eq!(round(&mut fanout, S1.worker), [1, 3, 5]);
    assert_eq!(batch(&mut fanout, 3..=3), vec![news(S1)]);
    for session in [1, 3, 5] {
        let frames = chunk(fanout.get(seat(session), usize::MAX)).frames;
        assert_eq!(decoded(&frames).len(), 3);
    }
    assert_eq!(round(&mut fanout, S1.worker), [], "nobody has anything to take");
    assert_eq!(round(&mut fanout, S2.worker), [2]);
    assert_eq!(batch(&mut fanout, 4..=4), vec![news(S2), news(S1)]);
}

#[test]
fn a_round_goes_through_all_sessions_again_when_something_came_while_it_was_under_way() {
    let mut fanout = opened(0, RingLimits::default());
    for session in [1, 3, 5] {
        fanout
            .begin(seat(session), at(0), None, &mut Vec::new())
            .expect("open");
    }
    let step = |fanout: &mut ChannelFanout| {
        let mut due = None;
        let goes_on = fanout.step(S1.worker, |session| {
            due = Some(session.0);
            ControlFlow::Break(())
        });
        if let Some(session) = due {
            chunk(fanout.get(seat(session), usize::MAX));
        }
        (due, goes_on)
    };
    batch(&mut fanout, 1..=1);
    assert_eq!(step(&mut fanout), (Some(1), true));
    assert_eq!(
        batch(&mut fanout, 2..=2),
        vec![],
        "the round under way sees to it"
    );
    assert_eq!(step(&mut fanout), (Some(3), true));
    assert_eq!(step(&mut fanout), (Some(5), true));
    assert_eq!(step(&mut fanout), (None, true), "again from the first");
    assert_eq!(step(&mut fanout), (Some(1), true));
    assert_eq!(step(&mut fanout), (None, false));
    assert_eq!(batch(&mut fanout, 3..=3), vec![news(S1)]);
}

#[test]
fn nothing_is_said_of_a_session_before_it_is_attached() {
    let mut fanout = opened(0, RingLimits::default());
    let begin = |fanout: &mut ChannelFanout| {
        let ask = fences::ask(S1, fences::rights(UserNumber(1), 1, 0), at(0));
        fanout.subscribe(ask).expect("open");
    };
    begin(&mut fanout);
    assert_eq!(batch(&mut fanout, 1..=1), vec![]);
    assert_eq!(round(&mut fanout, S1.worker), []);
    let mut effects = Vec::new();
    assert!(fanout.attach(S1, &mut effects) && !fanout.attach(S2, &mut effects));
    assert_eq!(effects, vec![Effect::Wake { seat: S1 }]);
    assert_eq!(batch(&mut fanout, 2..=2), vec![news(S1)]);
    begin(&mut fanout);
    assert_eq!(round(&mut fanout, S1.worker), [], "placed anew, it is told first");
    assert_eq!(batch(&mut fanout, 3..=3), vec![]);
    fanout.attach(S1, &mut effects);
    assert_eq!(batch(&mut fanout, 4..=4), vec![news(S1)]);
    fanout.unsubscribe(0, S1);
    assert_eq!(round(&mut fanout, S1.worker), []);
    assert_eq!(batch(&mut fanout, 5..=5), vec![]);
}

#[test]
fn a_step_looks_at_a_bounded_number_of_sessions() {
    let mut fanout = opened(0, RingLimits::default());
    for session in 0..3_000 {
        let place = seat(session * 2);
        fanout.begin(place, at(0), None, &mut Vec::new()).expect("open");
    }
    batch(&mut fanout, 1..=1);
    for session in 0..2_999 {
        chunk(fanout.get(seat(session * 2), usize::MAX));
    }
    let mut due = Vec::new();
    let mut step = || {
        fanout.step(S2.worker, |session| {
            due.push(session.0);
            ControlFlow::Continue(())
        })
    };
    assert_eq!([step(), step(), step()], [true, true, false]);
    assert_eq!(due, [5_998]);
}

#[test]
fn a_subscriber_behind_the_ring_is_served_from_pages_then_from_the_ring() {
    let mut fanout = opened(0, SMALL);
    let mut effects = Vec::new();
    fanout.begin(S1, at(0), None, &mut effects).expect("open");
    batch(&mut fanout, 1..=10);
    assert_eq!(
        fanout.get(S1, usize::MAX),
        Take::Behind {
            epoch: EPOCH,
            from: Seq(0)
        }
    );
    assert!(
        Advance::Gone == fanout.advance(S1, EPOCH, Seq(3), Seq(5), 0),
        "the cursor is elsewhere"
    );
    assert!(
        Advance::Gone == fanout.advance(S1, Epoch(2), Seq(0), Seq(5), 0),
        "the epoch is another"
    );
    assert!(
        Advance::Gone == fanout.advance(S2, EPOCH, Seq(0), Seq(5), 0),
        "not subscribed"
    );
    assert_eq!(fanout.behind(S1), Some((EPOCH, Seq(0))));
    assert_eq!(fanout.advance(S1, EPOCH, Seq(0), Seq(7), 0), Advance::To(Seq(7)));
    assert_eq!(fanout.behind(S1), None);
    let taken = chunk(fanout.get(S1, usize::MAX));
    assert_eq!(
        decoded(&taken.frames),
        vec![(7, vec![8]), (8, vec![9]), (9, vec![10])]
    );
}

#[test]
fn a_gap_is_asked_for_once_and_repaired_by_pages() {
    let mut fanout = opened(0, RingLimits::default());
    fanout.begin(S1, at(0), None, &mut Vec::new()).expect("open");
    assert_eq!(batch(&mut fanout, 4..=5), vec![Effect::Refetch { from: Seq(0) }]);
    assert_eq!(batch(&mut fanout, 6..=6), vec![]);
    let mut effects = Vec::new();
    fanout.on_page(EPOCH, Seq(0), &entries(1..=4), 0, &mut effects);
    assert_eq!(effects, vec![news(S1), Effect::Refetch { from: Seq(4) }]);
    effects.clear();
    fanout.on_page(EPOCH, Seq(4), &[], 0, &mut effects);
    assert_eq!(
        effects,
        vec![Effect::Refetch { from: Seq(4) }],
        "a failed read is tried again"
    );
    effects.clear();
    fanout.on_page(EPOCH, Seq(4), &entries(5..=6), 0, &mut effects);
    assert_eq!(effects, vec![]);
    assert_eq!(chunk(fanout.get(S1, usize::MAX)).frames.len(), 6);
}

#[test]
fn a_lost_feed_goes_on_from_what_is_held() {
    let mut fanout = opened(5, RingLimits::default());
    let mut effects = Vec::new();
    fanout.on_lost(&mut effects);
    assert_eq!(effects, vec![Effect::Follow { position: at(5) }]);
    effects.clear();
    fanout.on_opened(EPOCH, Seq(5), Seq(9), &FenceTable::default(), &mut effects);
    assert_eq!(effects, vec![], "what follows comes by the feed");
}

#[test]
fn a_feed_that_does_not_go_on_from_what_is_held_is_asked_for_anew_and_not_listened_to() {
    let mut fanout = opened(5, RingLimits::default());
    let mut effects = Vec::new();
    fanout.on_opened(EPOCH, Seq(9), Seq(9), &FenceTable::default(), &mut effects);
    assert_eq!(effects, vec![Effect::Follow { position: at(5) }]);
    effects.clear();
    fanout.on_batch(EPOCH, Seq(9), &entries(10..=10), &mut effects);
    assert_eq!((effects.len(), fanout.position()), (0, Some(at(5))));
    fanout.on_opened(EPOCH, Seq(5), Seq(10), &FenceTable::default(), &mut effects);
    batch(&mut fanout, 6..=10);
    assert_eq!((effects, fanout.position()), (vec![], Some(at(10))));
}

#[test]
fn a_reset_in_the_same_epoch_keeps_cursors_and_in_another_restarts_them() {
    let mut fanout = opened(0, RingLimits::default());
    let mut effects = Vec::new();
    fanout.begin(S1, at(0), None, &mut effects).expect("open");
    fanout.on_reset(EPOCH, Seq(50), &FenceTable::default(), &mut effects);
    assert_eq!(effects, vec![news(S1)]);
    assert_eq!(
        fanout.get(S1, 0),
        Take::Behind {
            epoch: EPOCH,
            from: Seq(0)
        }
    );
    effects.clear();
    fanout.on_reset(EPOCH, Seq(20), &FenceTable::default(), &mut effects);
    assert_eq!(
        (effects.len(), fanout.position()),
        (0, Some(at(50))),
        "an older head says nothing"
    );
    fanout.on_reset(Epoch(2), Seq(3), &FenceTable::default(), &mut effects);
    let position = Position {
        epoch: Epoch(2),
        seq: Seq(3),
    };
    assert_eq!((effects, fanout.position()), (vec![], Some(position)));
    assert_eq!(fanout.get(S1, 0), Take::Nothing);
}

#[test]
fn entries_of_another_epoch_are_ignored() {
    let mut fanout = opened(0, RingLimits::default());
    let mut effects = Vec::new();
    fanout.on_batch(Epoch(2), Seq(0), &entries(1..=2), &mut effects);
    fanout.on_page(Epoch(2), Seq(0), &entries(1..=2), 0, &mut effects);
    assert_eq!((effects, fanout.position()), (vec![], Some(at(0))));
}

#[test]
fn a_channel_is_unfollowed_only_after_its_last_subscriber_was_gone_for_a_while() {
    let mut fanout = opened(0, RingLimits::default());
    let mut effects = Vec::new();
    fanout.begin(S1, at(0), None, &mut effects).expect("open");
    fanout.begin(S2, at(0), None, &mut effects).expect("open");
    assert_eq!(fanout.poll_timeout(), None);
    assert!(fanout.unsubscribe(100, S1) && !fanout.unsubscribe(100, S1));
    assert_eq!(fanout.poll_timeout(), None);
    fanout.unsubscribe(200, S2);
    fanout.handle_timeout(200 + LINGER_MS - 1, &mut effects);
    assert_eq!(effects, vec![]);
    fanout.begin(S1, at(0), None, &mut effects).expect("open");
    fanout.handle_timeout(200 + LINGER_MS, &mut effects);
    assert_eq!(effects, vec![], "it is used again");
    fanout.unsubscribe(300, S1);
    fanout.handle_timeout(300 + LINGER_MS, &mut effects);
    assert_eq!(effects, vec![Effect::Unfollow]);
}

#[test]
fn acks_are_cumulative_and_never_beyond_what_was_handed_out() {
    let mut fanout = opened(0, RingLimits::default());
    fanout.begin(S1, at(0), None, &mut Vec::new()).expect("open");
    batch(&mut fanout, 1..=10);
    assert_eq!(
        fanout.lag(),
        Lag {
            unsent_max: 10,
            unacked_max: 10
        }
    );
    chunk(fanout.get(S1, usize::MAX));
    fanout.acked(S1, at(6));
    fanout.acked(S1, at(4));
    fanout.acked(
        S1,
        Position {
            epoch: Epoch(2),
            seq: Seq(9),
        },
    );
    assert_eq!(
        fanout.lag(),
        Lag {
            unsent_max: 0,
            unacked_max: 4
        }
    );
    fanout.acked(S1, at(99));
    assert_eq!(
        fanout.lag(),
        Lag {
            unsent_max: 0,
            unacked_max: 0
        }
    );
}

#[derive(Debug, Clone)]
enum Step {
    /// The log grows and the feed brings some of it: `skip` entries less are connected, `again`
    /// entries come a second time.
    Grow {
        count: u64,
        skip: u64,
        again: u64,
    },
    Subscribe {
        session: u64,
        behind: u64,
    },
    Unsubscribe {
        session: u64,
    },
    Take {
        session: u64,
        budget: usize,
        page: u64,
    },
    Page {
        count: u64,
    },
    /// A step of a worker's round that serves up to this many.
    Round {
        worker: u16,
        most: usize,
    },
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6u64, prop_oneof![4 => Just(0u64), 1 => 0..4u64], 0..3u64)
            .prop_map(|(count, skip, again)| Step::Grow { count, skip, again }),
        2 => (0..4u64, 0..12u64).prop_map(|(session, behind)| Step::Subscribe { session, behind }),
        1 => (0..4u64).prop_map(|session| Step::Unsubscribe { session }),
        4 => (0..4u64, 0..600usize, 1..5u64)
            .prop_map(|(session, budget, page)| Step::Take { session, budget, page }),
        2 => (0..4u64).prop_map(|count| Step::Page { count }),
        4 => (0..2u16, 1..3usize).prop_map(|(worker, most)| Step::Round { worker, most }),
        1 => Just(Step::Reset),
    ]
}

/// The naive model: each subscriber must get `next`, then the one behind it, and so on.
#[derive(Default)]
struct Model {
    log: u64,
    held: BTreeMap<u64, u64>,
    refetch: Option<u64>,
    /// Workers told, whose rounds are not over.
    told: BTreeSet<WorkerNumber>,
    /// Sessions woken or named in a round and not yet emptied: of a worker that was not told, nobody
    /// else may have anything to take.
    woken: BTreeSet<u64>,
}

impl Model {
    fn apply(&mut self, fanout: &mut ChannelFanout, step: &Step) {
        let mut effects = Vec::new();
        match *step {
            Step::Grow { count, skip, again } => {
                let first = (self.log + 1 + skip.min(count - 1)).saturating_sub(again).max(1);
                self.log += count;
                fanout.on_batch(EPOCH, Seq(first - 1), &entries(first..=self.log), &mut effects);
            }
            Step::Subscribe { session, behind } => {
                let from = self.log.saturating_sub(behind);
                let log = Some(at(self.log));
                let begun = fanout
                    .begin(seat(session), at(from), log, &mut effects)
                    .expect("open");
                assert_eq!(begun.position, at(from));
                self.woken.insert(session);
                self.held.insert(session, from);
            }
            Step::Unsubscribe { session } => {
                let was = self.held.remove(&session).is_some();
                assert_eq!(fanout.unsubscribe(0, seat(session)), was);
                self.woken.remove(&session);
            }
            Step::Take {
                session,
                budget,
                page,
            } => self.take(fanout, session, budget, page),
            Step::Page { count } => {
                if let Some(from) = self.refetch.take() {
                    let page = entries(from + 1..=(from + count).min(self.log));
                    // Also a page of a ring that was reset meanwhile is given.
                    fanout.on_page(EPOCH, Seq(from), &page, 0, &mut effects);
                }
            }
            Step::Round { worker, most } => self.round(fanout, WorkerNumber(worker), most),
            Step::Reset => fanout.on_reset(EPOCH, Seq(self.log), &FenceTable::default(), &mut effects),
        }
        for effect in effects {
            match effect {
                Effect::News { worker } => {
                    let theirs = self.held.keys().any(|session| seat(*session).worker == worker);
                    assert!(theirs, "a worker without sessions is told");
                    assert!(self.told.insert(worker), "told twice");
                }
                Effect::Refetch { from } => assert_eq!(self.refetch.replace(from.0), None),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn assert_told(&self, session: u64) {
        let told = self.told.contains(&seat(session).worker);
        assert!(told || self.woken.contains(&session), "nobody was told of it");
    }

    /// Only a worker that was told has a round.
    fn round(&mut self, fanout: &mut ChannelFanout, worker: WorkerNumber, most: usize) {
        if !self.told.contains(&worker) {
            return;
        }
        let mut named = 0;
        let goes_on = fanout.step(worker, |session| {
            assert!(self.held.contains_key(&session.0) && seat(session.0).worker == worker);
            self.woken.insert(session.0);
            named += 1;
            match named < most {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        if !goes_on {
            self.told.remove(&worker);
        }
    }

    fn take(&mut self, fanout: &mut ChannelFanout, session: u64, budget: usize, page: u64) {
        let id = seat(session);
        match fanout.get(id, budget) {
            Take::Nothing => {
                self.woken.remove(&session);
            }
            Take::Ended(_) => panic!("no fence has passed"),
            Take::Behind { epoch, from } => {
                self.assert_told(session);
                let held = self.held.get_mut(&session).expect("only subscribers are behind");
                assert_eq!((epoch, from.0), (EPOCH, *held));
                let to = (from.0 + page).min(self.log);
                assert!(to > from.0, "whoever is behind the ring has something to read");
                assert_eq!(fanout.advance(id, epoch, from, Seq(to), 0), Advance::To(Seq(to)));
                *held = to;
            }
            Take::Chunk(chunk) => {
                self.assert_told(session);
                let held = self.held.get_mut(&session).expect("only subscribers get chunks");
                for (prev, seqs) in decoded(&chunk.frames) {
                    assert_eq!((prev, seqs), (*held, vec![*held + 1]));
                    *held += 1;
                }
                if !chunk.more {
                    self.woken.remove(&session);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn every_subscriber_gets_every_entry_behind_its_position_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..120),
        frames_max in 1..9usize,
    ) {
        let limits = RingLimits { bytes_max: 2_000, frames_max };
        let mut fanout = opened(0, limits);
        let mut model = Model::default();
        for step in &steps {
            model.apply(&mut fanout, step);
            prop_assert!(fanout.ring_bytes() <= 2_000);
        }
        while model.refetch.is_some() {
            model.apply(&mut fanout, &Step::Page { count: 3 });
        }
        while let Some(worker) = model.told.first().copied() {
            model.apply(&mut fanout, &Step::Round { worker: worker.0, most: 2 });
        }
        let sessions: Vec<u64> = model.held.keys().copied().collect();
        for session in sessions {
            while model.woken.contains(&session) {
                model.apply(&mut fanout, &Step::Take { session, budget: 300, page: 3 });
            }
            prop_assert_eq!(model.held.get(&session), Some(&model.log));
        }
    }
}

#[test]
fn a_head_that_the_feed_has_not_brought_is_read_and_one_of_another_epoch_is_not() {
    let mut fanout = opened(3, SMALL);
    let mut effects = Vec::new();
    fanout.on_head(EPOCH, Seq(3), &mut effects);
    fanout.on_head(Epoch(2), Seq(9), &mut effects);
    assert_eq!(effects, vec![]);
    fanout.on_head(EPOCH, Seq(5), &mut effects);
    fanout.on_head(EPOCH, Seq(6), &mut effects);
    assert_eq!(
        effects,
        vec![Effect::Refetch { from: Seq(3) }],
        "one page at a time"
    );
    fanout.on_page(EPOCH, Seq(3), &entries(4..=6), 0, &mut effects);
    assert_eq!((fanout.position(), effects.len()), (Some(at(6)), 1));
}
