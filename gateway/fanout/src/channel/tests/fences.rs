//! Fences against subscriptions: nothing behind one reaches an older grant, everything before it does.

use throng_protocol::cluster::FenceKind;

use super::*;

const ANN: UserNumber = UserNumber(1);
const BOB: UserNumber = UserNumber(2);

pub(super) fn rights(number: UserNumber, version: u64, fenced: u64) -> Rights {
    Rights {
        number,
        version,
        fenced,
    }
}

pub(super) fn ask(seat: Seat, rights: Rights, position: Position) -> Ask {
    Ask {
        seat,
        request: seat.session.0 + 100,
        rights,
        position,
        located: false,
        log: None,
    }
}

fn kick(number: UserNumber, version: u64) -> Fence {
    Fence {
        version,
        number,
        kind: FenceKind::Kick,
    }
}

pub(super) fn table(floor: u64, last: u64, fenced: &[(UserNumber, u64, u64)]) -> FenceTable {
    let fenced = fenced.iter().map(|(number, version, after)| Fenced {
        number: *number,
        version: *version,
        after: Seq(*after),
    });
    FenceTable {
        floor,
        last,
        fenced: fenced.collect(),
    }
}

pub(super) fn end(take: Take) -> Ended {
    let Take::Ended(bytes) = take else {
        panic!("not an end: {take:?}")
    };
    let frame = frame::decode(&mut BytesMut::from(&bytes[..]))
        .expect("framed")
        .expect("whole");
    match Message::decode(&frame).expect("valid") {
        Some(Message::Ended(ended)) => ended,
        other => panic!("not an end: {other:?}"),
    }
}

fn seqs(take: Take) -> Vec<u64> {
    decoded(&chunk(take).frames)
        .into_iter()
        .flat_map(|(_, seqs)| seqs)
        .collect()
}

#[test]
fn a_fence_ends_the_older_subscriptions_of_its_user_at_its_place_and_no_others() {
    let mut fanout = opened(0, RingLimits::default());
    let mut effects = Vec::new();
    fanout
        .enter(ask(S1, rights(ANN, 1, 0), at(0)), &mut effects)
        .expect("open");
    fanout
        .enter(ask(S2, rights(BOB, 1, 0), at(0)), &mut effects)
        .expect("open");
    batch(&mut fanout, 1..=3);
    fanout.on_fence(Seq(3), kick(ANN, 5), &mut effects);
    batch(&mut fanout, 4..=6);
    assert_eq!(seqs(fanout.get(S1, usize::MAX)), [1, 2, 3]);
    let ended = end(fanout.get(S1, usize::MAX));
    assert_eq!(
        (ended.position, ended.code, ended.request, ended.channel),
        (at(3), Code::NotMember.number(), 101, CHANNEL)
    );
    assert!(fanout.unsubscribe(0, S1), "the shell ends what is over");
    assert_eq!(fanout.get(S1, usize::MAX), Take::Nothing);
    assert_eq!(seqs(fanout.get(S2, usize::MAX)), [1, 2, 3, 4, 5, 6]);
    assert_eq!(fanout.get(S2, usize::MAX), Take::Nothing);
}

#[test]
fn a_session_that_had_everything_is_woken_for_its_end() {
    let mut fanout = opened(3, RingLimits::default());
    let mut effects = Vec::new();
    fanout
        .enter(ask(S1, rights(ANN, 1, 0), at(3)), &mut effects)
        .expect("open");
    fanout.on_fence(Seq(3), kick(ANN, 5), &mut effects);
    assert_eq!(effects, vec![Effect::Wake { seat: S1 }]);
    assert_eq!(end(fanout.get(S1, 0)).position, at(3));
}

#[test]
fn a_subscription_by_a_grant_that_knows_the_fence_goes_on() {
    let mut fanout = opened(0, RingLimits::default());
    let mut effects = Vec::new();
    fanout.on_fence(Seq(0), kick(ANN, 5), &mut effects);
    let stale = fanout.enter(ask(S1, rights(ANN, 4, 0), at(0)), &mut effects);
    assert_eq!(stale, Err(SubscribeError::Stale));
    fanout
        .enter(ask(S1, rights(ANN, 6, 5), at(0)), &mut effects)
        .expect("open");
    batch(&mut fanout, 1..=2);
    fanout.on_fence(Seq(0), kick(ANN, 5), &mut effects);
    fanout.on_opened(EPOCH, Seq(2), Seq(2), &table(0, 5, &[(ANN, 5, 0)]), &mut effects);
    assert_eq!(seqs(fanout.get(S1, usize::MAX)), [1, 2]);
    assert_eq!(fanout.get(S1, usize::MAX), Take::Nothing);
}

#[test]
fn whoever_was_readmitted_begins_at_or_behind_the_fence_and_not_before_it_is_told() {
    let mut fanout = opened(10, RingLimits::default());
    let mut effects = Vec::new();
    let early = fanout.enter(ask(S1, rights(ANN, 8, 7), at(4)), &mut effects);
    assert_eq!(early, Err(SubscribeError::NotTold));
    fanout.on_fence(Seq(10), kick(ANN, 7), &mut effects);
    batch(&mut fanout, 11..=12);
    let mut begin = |position| {
        let begun = fanout.enter(ask(S1, rights(ANN, 8, 7), position), &mut Vec::new());
        begun.map(|begun| (begun.position.seq.0, begun.start))
    };
    assert_eq!(begin(at(4)), Ok((12, Start::FullFence)));
    assert_eq!(begin(at(9)), Ok((12, Start::FullFence)));
    assert_eq!(begin(at(10)), Ok((10, Start::Resumed)));
    assert_eq!(begin(at(11)), Ok((11, Start::Resumed)));
    assert_eq!(begin(Position::default()), Ok((12, Start::Head)));
}

#[test]
fn a_ring_that_has_a_gap_begins_nobody_before_a_fence() {
    let mut fanout = opened(3, RingLimits::default());
    let mut effects = Vec::new();
    fanout.on_fence(Seq(8), kick(ANN, 7), &mut effects);
    assert_eq!(effects, vec![Effect::Refetch { from: Seq(3) }]);
    for position in [Position::default(), at(2)] {
        let begun = fanout.enter(ask(S1, rights(ANN, 9, 7), position), &mut effects);
        assert_eq!(begun.map(|begun| begun.position), Ok(at(8)));
    }
    fanout.on_page(EPOCH, Seq(3), &entries(4..=9), 7, &mut effects);
    assert_eq!(seqs(fanout.get(S1, usize::MAX)), [9]);
}

#[test]
fn a_page_whose_shard_knew_more_fences_than_were_told_is_read_again() {
    let mut fanout = opened(0, RingLimits::default());
    let mut effects = Vec::new();
    fanout
        .enter(ask(S1, rights(ANN, 1, 0), at(0)), &mut effects)
        .expect("open");
    batch(&mut fanout, 3..=3);
    effects.clear();
    fanout.on_page(EPOCH, Seq(0), &entries(1..=3), 5, &mut effects);
    assert_eq!(effects, vec![Effect::Refetch { from: Seq(0) }], "not used");
    assert_eq!(fanout.get(S1, usize::MAX), Take::Nothing);
    fanout.on_fence(Seq(2), kick(ANN, 5), &mut effects);
    fanout.on_page(EPOCH, Seq(0), &entries(1..=3), 5, &mut effects);
    assert_eq!(seqs(fanout.get(S1, usize::MAX)), [1, 2]);
    assert_eq!(end(fanout.get(S1, 0)).position, at(2));
}

#[test]
fn catching_up_by_pages_stops_at_the_fence() {
    let mut fanout = opened(0, SMALL);
    let mut effects = Vec::new();
    fanout
        .enter(ask(S1, rights(ANN, 1, 0), at(0)), &mut effects)
        .expect("open");
    batch(&mut fanout, 1..=10);
    assert_eq!(fanout.behind(S1), Some((EPOCH, Seq(0))));
    assert_eq!(fanout.advance(S1, EPOCH, Seq(0), Seq(5), 7), Advance::NotTold);
    fanout.on_fence(Seq(3), kick(ANN, 7), &mut effects);
    assert_eq!(fanout.advance(S1, EPOCH, Seq(0), Seq(5), 7), Advance::To(Seq(3)));
    assert_eq!(fanout.behind(S1), None, "nothing more is the session's");
    assert_eq!(end(fanout.get(S1, usize::MAX)).position, at(3));
}

#[test]
fn fences_of_a_feed_that_opens_are_judged_as_those_that_pass() {
    let mut fanout = opened(0, RingLimits::default());
    let mut effects = Vec::new();
    fanout
        .enter(ask(S1, rights(ANN, 1, 0), at(0)), &mut effects)
        .expect("open");
    batch(&mut fanout, 1..=4);
    fanout.on_lost(&mut effects);
    fanout.on_opened(EPOCH, Seq(4), Seq(4), &table(0, 5, &[(ANN, 5, 4)]), &mut effects);
    batch(&mut fanout, 5..=6);
    assert_eq!(seqs(fanout.get(S1, usize::MAX)), [1, 2, 3, 4]);
    assert_eq!(end(fanout.get(S1, 0)).position, at(4));
}

/// Kicked, back and kicked again while no feed came: a table from behind both has the second fence
/// only, and the first is the one that ends what was begun before.
#[test]
fn a_late_answer_to_an_earlier_follow_does_not_hide_the_first_of_two_fences() {
    let mut fanout = opened(3, RingLimits::default());
    let mut effects = Vec::new();
    fanout
        .enter(ask(S1, rights(ANN, 1, 0), at(3)), &mut effects)
        .expect("open");
    fanout.on_opened(EPOCH, Seq(6), Seq(6), &table(0, 9, &[(ANN, 9, 6)]), &mut effects);
    fanout.on_fence(Seq(6), kick(BOB, 10), &mut effects);
    fanout.on_page(EPOCH, Seq(3), &entries(4..=6), 10, &mut effects);
    assert_eq!(fanout.get(S1, usize::MAX), Take::Nothing);
    // The feed that was asked for then tells both, each at its place.
    fanout.on_opened(EPOCH, Seq(3), Seq(6), &table(0, 0, &[]), &mut effects);
    batch(&mut fanout, 4..=4);
    fanout.on_fence(Seq(4), kick(ANN, 5), &mut effects);
    batch(&mut fanout, 5..=6);
    fanout.on_fence(Seq(6), kick(ANN, 9), &mut effects);
    assert_eq!(seqs(fanout.get(S1, usize::MAX)), [4]);
    assert_eq!(end(fanout.get(S1, usize::MAX)).position, at(4));
}

/// The feed went elsewhere and back while its node had more to tell: part of it, the kick too, came
/// while nobody listened.
#[test]
fn what_an_earlier_feed_still_brings_does_not_hide_a_fence() {
    let mut fanout = opened(3, RingLimits::default());
    let mut effects = Vec::new();
    fanout
        .enter(ask(S1, rights(ANN, 1, 0), at(3)), &mut effects)
        .expect("open");
    fanout.on_follow();
    batch(&mut fanout, 6..=6);
    fanout.on_fence(Seq(6), kick(BOB, 9), &mut effects);
    fanout.on_page(EPOCH, Seq(3), &entries(4..=6), 9, &mut effects);
    assert_eq!(fanout.get(S1, usize::MAX), Take::Nothing);
    fanout.on_opened(EPOCH, Seq(3), Seq(6), &table(0, 0, &[]), &mut effects);
    batch(&mut fanout, 4..=5);
    fanout.on_fence(Seq(5), kick(ANN, 7), &mut effects);
    batch(&mut fanout, 6..=6);
    assert_eq!(seqs(fanout.get(S1, usize::MAX)), [4, 5]);
    assert_eq!(end(fanout.get(S1, usize::MAX)).position, at(5));
}

#[test]
fn a_reset_judges_by_its_table_in_the_same_epoch_and_in_another() {
    for (epoch, place) in [(EPOCH, 7), (Epoch(2), 5)] {
        let mut fanout = opened(0, RingLimits::default());
        let mut effects = Vec::new();
        fanout
            .enter(ask(S1, rights(ANN, 1, 0), at(0)), &mut effects)
            .expect("open");
        fanout
            .enter(ask(S2, rights(BOB, 1, 0), at(0)), &mut effects)
            .expect("open");
        fanout.on_reset(epoch, Seq(9), &table(0, 5, &[(ANN, 5, place)]), &mut effects);
        if epoch == EPOCH {
            assert_eq!(fanout.advance(S1, epoch, Seq(0), Seq(9), 5), Advance::To(Seq(7)));
        }
        let ended = end(fanout.get(S1, 0));
        assert_eq!((ended.position.epoch, ended.position.seq), (epoch, Seq(place)));
        assert!(!matches!(fanout.get(S2, 0), Take::Ended(_)));
    }
}

#[test]
fn a_floor_above_what_was_told_has_older_grants_ask_again() {
    let mut fanout = opened(0, RingLimits::default());
    let mut effects = Vec::new();
    fanout
        .enter(ask(S1, rights(ANN, 1, 0), at(0)), &mut effects)
        .expect("open");
    fanout
        .enter(ask(S2, rights(BOB, 20, 0), at(0)), &mut effects)
        .expect("open");
    batch(&mut fanout, 1..=2);
    fanout.on_opened(EPOCH, Seq(2), Seq(2), &table(9, 12, &[]), &mut effects);
    batch(&mut fanout, 3..=4);
    assert_eq!(seqs(fanout.get(S1, usize::MAX)), [1, 2], "what was certain");
    let ended = end(fanout.get(S1, 0));
    assert_eq!((ended.position, ended.code), (at(2), Code::Unavailable.number()));
    assert_eq!(seqs(fanout.get(S2, usize::MAX)), [1, 2, 3, 4]);
}
