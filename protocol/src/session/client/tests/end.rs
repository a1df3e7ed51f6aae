//! Ends of subscriptions, kicks and mutes, and time stamps against hand-written frames.

use proptest::prelude::*;

use super::*;
use crate::message::{Ended, Fenced};

fn ended(request: RequestId, seq: u64, code: Code) -> Ended {
    Ended {
        request,
        channel: ChannelNumber(7),
        position: at(1, seq),
        code: code.number(),
        message: "over".to_owned(),
    }
}

/// A machine subscribed to channel `a` behind (1, 10), and the request that began it.
fn subscribed_by() -> (ClientMachine, RequestId) {
    let mut machine = machine();
    open(&mut machine, 0);
    machine
        .subscribe(0, group(), channel("a"), SubscribeFrom::Head)
        .unwrap();
    let request = request_of(&sent(&mut machine)[0]);
    feed(&mut machine, 0, subscribed(request, at(1, 10), Start::Head));
    events(&mut machine);
    (machine, request)
}

/// The codes of the subscriptions that are over.
fn over(events: &[ClientEvent]) -> Vec<u16> {
    let over = events.iter().filter_map(|event| match event {
        ClientEvent::SubscriptionEnded { error, .. } => Some(error.code),
        _ => None,
    });
    over.collect()
}

#[test]
fn a_subscription_is_over_once_everything_up_to_its_end_was_emitted() {
    let (mut machine, request) = subscribed_by();
    feed(&mut machine, 1, ended(request, 12, Code::NotMember));
    feed(&mut machine, 2, deliver(1, 10, &[11]));
    let before = events(&mut machine);
    assert_eq!((emitted(&before), over(&before)), (vec![11], vec![]));
    feed(&mut machine, 3, deliver(1, 11, &[12]));
    let events = events(&mut machine);
    assert_eq!((emitted(&events), over(&events)), (vec![12], vec![302]));
    assert!(machine.positions().is_empty());
    let said = sent(&mut machine);
    assert!(
        !said.iter().any(|m| matches!(m, Message::Unsubscribe(_))),
        "the edge knows of no subscription any more: {said:?}"
    );
}

/// Lets the machine ask for a page, and answers that the user is no member.
fn refuse_page(machine: &mut ClientMachine, now_ms: u64) {
    machine.handle_timeout(now_ms);
    let asked = sent(machine);
    let Some(Message::Sync(sync)) = asked.iter().find(|m| matches!(m, Message::Sync(_))) else {
        panic!("no page is asked for: {asked:?}");
    };
    feed(machine, now_ms, error(sync.request, Code::NotMember));
}

#[test]
fn entries_before_the_end_that_are_slow_to_come_are_waited_for_though_no_page_brings_them() {
    let (mut machine, request) = subscribed_by();
    feed(&mut machine, 0, ended(request, 12, Code::NotMember));
    refuse_page(&mut machine, GAP_WAIT_MS);
    feed(&mut machine, 5_000, deliver(1, 10, &[11]));
    refuse_page(&mut machine, 5_000 + GAP_WAIT_MS);
    let before = events(&mut machine);
    assert_eq!((emitted(&before), over(&before)), (vec![11], vec![]));
    feed(&mut machine, 15_000, deliver(1, 11, &[12]));
    let events = events(&mut machine);
    assert_eq!((emitted(&events), over(&events)), (vec![12], vec![302]));
}

#[test]
fn a_page_refused_before_the_end_is_told_ends_nothing() {
    let (mut machine, request) = subscribed_by();
    feed(&mut machine, 0, deliver(1, 11, &[12]));
    refuse_page(&mut machine, GAP_WAIT_MS);
    feed(&mut machine, 2_000, deliver(1, 10, &[11]));
    let before = events(&mut machine);
    assert_eq!((emitted(&before), over(&before)), (vec![11, 12], vec![]));
    feed(&mut machine, 2_100, ended(request, 12, Code::NotMember));
    assert_eq!(over(&events(&mut machine)), [302]);
}

#[test]
fn entries_before_the_end_that_never_come_are_given_up() {
    let (mut machine, request) = subscribed_by();
    feed(&mut machine, 0, ended(request, 12, Code::NotMember));
    refuse_page(&mut machine, GAP_WAIT_MS);
    machine.handle_timeout(GAP_WAIT_MS + LAST_ENTRIES_WAIT_MS - 1);
    assert_eq!(over(&events(&mut machine)), []);
    machine.handle_timeout(GAP_WAIT_MS + LAST_ENTRIES_WAIT_MS);
    assert_eq!(over(&events(&mut machine)), [302]);
    let said = sent(&mut machine);
    assert!(said.iter().all(|m| matches!(m, Message::Ping(_))), "{said:?}");
}

#[test]
fn what_lies_behind_the_end_is_dropped_whenever_it_came() {
    let (mut machine, request) = subscribed_by();
    feed(&mut machine, 1, deliver(1, 12, &[13, 14]));
    feed(&mut machine, 2, ended(request, 12, Code::NotMember));
    feed(&mut machine, 3, deliver(1, 10, &[11, 12, 13]));
    feed(&mut machine, 4, deliver(1, 13, &[14]));
    let events = events(&mut machine);
    assert_eq!((emitted(&events), over(&events)), (vec![11, 12], vec![302]));
}

#[test]
fn an_end_may_come_before_the_subscription_begins() {
    let mut machine = machine();
    open(&mut machine, 0);
    let op = machine
        .subscribe(0, group(), channel("a"), SubscribeFrom::Position(at(1, 3)))
        .unwrap();
    let request = request_of(&sent(&mut machine)[0]);
    feed(&mut machine, 1, ended(request, 4, Code::NotMember));
    feed(&mut machine, 1, deliver(1, 3, &[4, 5]));
    feed(&mut machine, 2, subscribed(request, at(1, 3), Start::Resumed));
    let events = events(&mut machine);
    assert!(matches!(&answers(&events)[..], [(answered, Ok(_))] if *answered == op));
    assert_eq!((emitted(&events), over(&events)), (vec![4], vec![302]));
}

#[test]
fn an_end_of_an_earlier_subscription_does_not_end_the_one_begun_since() {
    let (mut machine, first) = subscribed_by();
    feed(&mut machine, 1, ended(first, 10, Code::NotMember));
    assert_eq!(over(&events(&mut machine)), [302]);
    machine
        .subscribe(2, group(), channel("a"), SubscribeFrom::Position(at(1, 10)))
        .unwrap();
    let second = request_of(&sent(&mut machine)[0]);
    feed(&mut machine, 3, ended(first, 10, Code::NotMember));
    feed(&mut machine, 3, subscribed(second, at(1, 10), Start::Resumed));
    feed(&mut machine, 4, ended(first, 10, Code::NotMember));
    feed(&mut machine, 5, deliver(1, 10, &[11]));
    let events = events(&mut machine);
    assert_eq!((emitted(&events), over(&events)), (vec![11], vec![]));
}

#[test]
fn an_end_that_may_pass_has_the_subscription_asked_for_again() {
    let (mut machine, request) = subscribed_by();
    feed(&mut machine, 1, ended(request, 10, Code::Unavailable));
    assert_eq!(over(&events(&mut machine)), []);
    machine.handle_timeout(10_000);
    let asked = sent(&mut machine);
    let Some(Message::Subscribe(again)) = asked.iter().find(|m| matches!(m, Message::Subscribe(_))) else {
        panic!("not asked for again: {asked:?}");
    };
    assert_eq!(again.position, at(1, 10));
}

#[test]
fn a_kicked_client_that_comes_back_learns_it_once_and_asks_no_more() {
    let (mut machine, _) = subscribed_by();
    machine.handle_disconnected(1);
    open(&mut machine, 2);
    let resume = request_of(&sent(&mut machine)[0]);
    feed(&mut machine, 3, error(resume, Code::NotMember));
    feed(&mut machine, 3, Done { request: resume });
    let single = sent(&mut machine);
    assert!(matches!(&single[..], [Message::Subscribe(_)]), "{single:?}");
    feed(&mut machine, 4, error(request_of(&single[0]), Code::NotMember));
    assert_eq!(over(&events(&mut machine)), [302]);
    machine.handle_timeout(20_000);
    let said = sent(&mut machine);
    assert!(said.iter().all(|m| matches!(m, Message::Ping(_))), "{said:?}");
}

#[test]
fn whoever_was_out_in_between_is_told_where_entries_go_on() {
    let (mut machine, _) = subscribed_by();
    machine.handle_disconnected(1);
    open(&mut machine, 2);
    let resume = request_of(&sent(&mut machine)[0]);
    feed(&mut machine, 3, subscribed(resume, at(1, 30), Start::FullFence));
    feed(&mut machine, 3, Done { request: resume });
    feed(&mut machine, 4, deliver(1, 30, &[31]));
    let events = events(&mut machine);
    let reset = ClientEvent::Reset {
        group: group(),
        channel: channel("a"),
        from: at(1, 10),
        to: at(1, 30),
    };
    assert!(events.contains(&reset), "{events:?}");
    assert_eq!(emitted(&events), [31]);
    machine.handle_timeout(4 + GAP_WAIT_MS);
    assert!(
        !sent(&mut machine).iter().any(|m| matches!(m, Message::Sync(_))),
        "what lies between is no gap"
    );
}

#[test]
fn leaving_a_group_ends_its_subscriptions_and_no_others() {
    let (mut machine, _) = subscribed_by();
    let other = GroupId::new("other").unwrap();
    machine.leave(1, other).unwrap();
    let Message::Leave(leave) = &sent(&mut machine)[0] else {
        panic!("not a leave")
    };
    feed(
        &mut machine,
        2,
        Done {
            request: leave.request,
        },
    );
    assert_eq!(over(&events(&mut machine)), []);
    machine.leave(3, group()).unwrap();
    let Message::Leave(leave) = &sent(&mut machine)[0] else {
        panic!("not a leave")
    };
    feed(
        &mut machine,
        4,
        Done {
            request: leave.request,
        },
    );
    assert_eq!(over(&events(&mut machine)), [302]);
}

#[test]
fn a_kick_and_a_mute_are_answered_with_where_they_do_not_hold_yet() {
    let mut machine = machine();
    open(&mut machine, 0);
    let bob = UserId::new("bob").unwrap();
    let kick = machine.kick(0, group(), bob.clone()).unwrap();
    let mute = machine.mute(0, group(), bob, 5_000).unwrap();
    let fenced = |request, pending| Fenced {
        request,
        version: 3,
        pending,
        more: 0,
    };
    let asked = sent(&mut machine);
    let [Message::Kick(first), Message::Mute(second)] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!(second.until_ms, 5_000);
    let (held, held_not) = (
        fenced(first.request, vec![]),
        fenced(second.request, vec![channel("a")]),
    );
    feed(&mut machine, 1, held_not.clone());
    feed(&mut machine, 1, held.clone());
    let expected = [
        (mute, Ok(Answer::Fenced(held_not))),
        (kick, Ok(Answer::Fenced(held))),
    ];
    assert_eq!(answers(&events(&mut machine)), expected);
}

#[test]
fn a_kick_answered_with_done_ends_the_connection_and_goes_out_again() {
    let mut machine = machine();
    open(&mut machine, 0);
    machine.kick(0, group(), UserId::new("bob").unwrap()).unwrap();
    let Message::Kick(kick) = &sent(&mut machine)[0] else {
        panic!("not a kick")
    };
    feed(
        &mut machine,
        1,
        Done {
            request: kick.request,
        },
    );
    assert!(answers(&events(&mut machine)).is_empty() && !machine.is_open());
    machine.handle_disconnected(2);
    open(&mut machine, 3);
    assert!(matches!(&sent(&mut machine)[..], [Message::Kick(_)]));
}

#[test]
fn a_time_stamp_stands_for_the_position_until_there_is_one() {
    let mut machine = machine();
    open(&mut machine, 0);
    machine
        .subscribe(0, group(), channel("a"), SubscribeFrom::Ts(Ts(500)))
        .unwrap();
    let asked = sent(&mut machine);
    let [Message::Subscribe(subscribe)] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!((subscribe.position, subscribe.ts), (Position::default(), Ts(500)));
    feed(
        &mut machine,
        1,
        subscribed(subscribe.request, at(1, 6), Start::Resumed),
    );
    machine.handle_disconnected(2);
    open(&mut machine, 3);
    let asked = sent(&mut machine);
    assert!(
        matches!(&asked[..], [Message::Resume(r)] if r.places[0].position == at(1, 6) && r.places[0].ts == Ts(0)),
        "{asked:?}"
    );
}

#[test]
fn sync_and_history_ask_by_position_or_by_time_stamp_and_never_by_both() {
    let mut machine = machine();
    open(&mut machine, 0);
    let (group, channel) = (group(), channel("a"));
    let direction = message::Direction::Before;
    let of = |machine: &mut ClientMachine| match &sent(machine)[..] {
        [Message::Sync(m)] => (m.position, Seq(0), m.ts),
        [Message::History(m)] => (Position::default(), m.anchor, m.ts),
        other => panic!("{other:?}"),
    };
    machine
        .sync(0, group.clone(), channel.clone(), at(1, 3), 0)
        .unwrap();
    assert_eq!(of(&mut machine), (at(1, 3), Seq(0), Ts(0)));
    machine.sync(0, group.clone(), channel.clone(), Ts(9), 0).unwrap();
    assert_eq!(of(&mut machine), (Position::default(), Seq(0), Ts(9)));
    machine
        .history(0, group.clone(), channel.clone(), Seq(4), direction, 0)
        .unwrap();
    assert_eq!(of(&mut machine), (Position::default(), Seq(4), Ts(0)));
    machine.history(0, group, channel, Ts(8), direction, 0).unwrap();
    assert_eq!(of(&mut machine), (Position::default(), Seq(0), Ts(8)));
}

#[test]
fn the_time_stamp_0_stands_before_every_entry_and_not_for_the_head() {
    let mut machine = machine();
    open(&mut machine, 0);
    machine
        .subscribe(0, group(), channel("a"), SubscribeFrom::Ts(Ts(0)))
        .unwrap();
    let asked = sent(&mut machine);
    assert!(
        matches!(&asked[..], [Message::History(m)] if m.direction == message::Direction::After && m.anchor == Seq(0)),
        "the epoch is found out, as for a subscription from the start: {asked:?}"
    );
    for (direction, ts) in [
        (message::Direction::Before, Ts(1)),
        (message::Direction::After, Ts(0)),
    ] {
        machine
            .history(0, group(), channel("a"), Ts(0), direction, 0)
            .unwrap();
        let asked = sent(&mut machine);
        assert!(
            matches!(&asked[..], [Message::History(m)] if (m.anchor, m.ts) == (Seq(0), ts)),
            "{asked:?}"
        );
    }
}

/// The entries of a log cut into frames, each on one of three streams.
fn frames() -> impl Strategy<Value = Vec<(u64, usize)>> {
    proptest::collection::vec((1u64..5, 0usize..3), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the order of the streams, and whatever an edge wrongly sends behind the end.
    #[test]
    fn exactly_what_lies_up_to_the_end_is_emitted_and_then_it_is_over(
        frames in frames(), rogue: bool, on in 0usize..3, last in 0u64..30, order in proptest::collection::vec(0usize..3, 60)
    ) {
        let (mut machine, request) = subscribed_by();
        let mut streams: [VecDeque<Message>; 3] = Default::default();
        let mut head = 10;
        let end = 10 + frames.iter().map(|(count, _)| count).sum::<u64>();
        let last = 10 + last % (end - 9);
        for (count, stream) in frames {
            let sent = if rogue { head + count } else { (head + count).min(last) };
            let seqs: Vec<u64> = (head + 1..=sent).collect();
            if !seqs.is_empty() {
                streams[stream].push_back(deliver(1, head, &seqs).into());
            }
            head += count;
        }
        let place = usize::try_from(last % 5).unwrap().min(streams[on].len());
        streams[on].insert(place, ended(request, last, Code::NotMember).into());
        let (mut told, mut over_at) = (Vec::new(), None);
        for stream in order.into_iter().chain((0..3).flat_map(|stream| std::iter::repeat_n(stream, 20))) {
            if let Some(message) = streams[stream].pop_front() {
                feed(&mut machine, 1, message);
            }
            let events = events(&mut machine);
            told.extend(emitted(&events));
            if !over(&events).is_empty() {
                prop_assert_eq!(over_at.replace(told.len()), None, "it is over once");
            }
        }
        // What a rogue edge sends behind the end may come before the end is known.
        let entitled: Vec<u64> = (11..=last).collect();
        prop_assert!(told.starts_with(&entitled), "{:?} of {:?}", told, entitled);
        prop_assert!(rogue || told == entitled, "{:?} of {:?}", told, entitled);
        prop_assert_eq!(over_at, Some(told.len()), "nothing comes after the end");
    }
}
