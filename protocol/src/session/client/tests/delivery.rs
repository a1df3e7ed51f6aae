//! Deliveries and subscriptions against hand-written frames.

use super::*;

#[test]
fn duplicates_are_dropped_and_an_overlapping_batch_is_cut() {
    let mut machine = subscribed_machine(10);
    feed(&mut machine, 1, deliver(1, 10, &[11, 12]));
    feed(&mut machine, 1, deliver(1, 10, &[11, 12]));
    feed(&mut machine, 1, deliver(1, 11, &[12, 13]));
    assert_eq!(emitted(&events(&mut machine)), [11, 12, 13]);
}

#[test]
fn a_delivery_that_overtakes_another_waits_for_it() {
    let mut machine = subscribed_machine(10);
    feed(&mut machine, 1, deliver(1, 12, &[13]));
    assert!(emitted(&events(&mut machine)).is_empty());
    feed(&mut machine, 2, deliver(1, 10, &[11, 12]));
    assert_eq!(emitted(&events(&mut machine)), [11, 12, 13]);
    machine.handle_timeout(1_000);
    assert!(!sent(&mut machine).iter().any(|m| matches!(m, Message::Sync(_))));
}

#[test]
fn filtered_delivery_is_no_gap() {
    let mut machine = subscribed_machine(10);
    feed(&mut machine, 1, deliver(1, 10, &[14, 20]));
    feed(&mut machine, 1, deliver(1, 20, &[31]));
    assert_eq!(emitted(&events(&mut machine)), [14, 20, 31]);
}

#[test]
fn a_gap_that_stays_is_asked_for_page_by_page_until_it_is_closed() {
    let mut machine = subscribed_machine(10);
    feed(&mut machine, 0, deliver(1, 14, &[15]));
    assert_eq!(machine.poll_timeout(), Some((GAP_WAIT_MS, Reason::Gap)));
    machine.handle_timeout(GAP_WAIT_MS);
    for (prev, seqs) in [(10, vec![11, 12]), (12, vec![13, 14])] {
        let asked = sent(&mut machine);
        let [Message::Sync(sync)] = &asked[..] else {
            panic!("one sync is asked for, not {asked:?}");
        };
        assert_eq!(sync.position, at(1, prev));
        let page = Page {
            request: sync.request,
            channel: ChannelNumber(7),
            epoch: Epoch(1),
            prev: Seq(prev),
            head: Seq(15),
            entries: seqs.into_iter().map(entry).collect(),
        };
        feed(&mut machine, 600, page);
    }
    assert_eq!(emitted(&events(&mut machine)), [11, 12, 13, 14, 15]);
    assert!(sent(&mut machine).is_empty());
}

#[test]
fn entries_beyond_the_reorder_bound_are_asked_for_again() {
    let mut machine = subscribed_machine(0);
    let bound = crate::limits::REORDER_ENTRIES_MAX as u64;
    let late: Vec<u64> = (2..bound + 10).collect();
    for part in late.chunks(100) {
        feed(&mut machine, 0, deliver(1, part[0] - 1, part));
    }
    feed(&mut machine, 1, deliver(1, 0, &[1]));
    assert_eq!(emitted(&events(&mut machine)).len() as u64, bound + 1);
    machine.handle_timeout(1 + GAP_WAIT_MS);
    let asked = sent(&mut machine);
    assert!(
        asked
            .iter()
            .any(|m| matches!(m, Message::Sync(s) if s.position == at(1, bound + 1)))
    );
}

#[test]
fn no_gap_is_asked_for_while_the_application_is_slow() {
    let mut machine = subscribed_machine(10);
    feed(&mut machine, 0, deliver(1, 14, &[15]));
    machine.set_paused(true);
    machine.handle_timeout(600);
    assert!(!sent(&mut machine).iter().any(|m| matches!(m, Message::Sync(_))));
    machine.set_paused(false);
    machine.handle_timeout(1_200);
    assert!(sent(&mut machine).iter().any(|m| matches!(m, Message::Sync(_))));
}

#[test]
fn a_delivery_that_overtakes_its_subscribed_is_kept() {
    let mut machine = machine();
    open(&mut machine, 0);
    machine
        .subscribe(0, group(), channel("a"), SubscribeFrom::Head)
        .unwrap();
    let asked = sent(&mut machine);
    feed(&mut machine, 0, deliver(1, 10, &[11]));
    feed(
        &mut machine,
        0,
        subscribed(request_of(&asked[0]), at(1, 10), Start::Head),
    );
    assert_eq!(emitted(&events(&mut machine)), [11]);
}

#[test]
fn a_subscription_from_the_start_learns_the_epoch_and_subscribes_before_the_first_entry() {
    let mut machine = machine();
    open(&mut machine, 0);
    machine
        .subscribe(0, group(), channel("a"), SubscribeFrom::Start)
        .unwrap();
    let asked = sent(&mut machine);
    assert!(matches!(asked[0], Message::History(_)));
    let page = Page {
        request: request_of(&asked[0]),
        channel: ChannelNumber(7),
        epoch: Epoch(3),
        prev: Seq(0),
        head: Seq(0),
        entries: Vec::new(),
    };
    feed(&mut machine, 1, page);
    assert!(matches!(&sent(&mut machine)[..], [Message::Subscribe(s)] if s.position == at(3, 0)));
}

#[test]
fn a_new_connection_resumes_behind_what_was_emitted_and_another_epoch_is_a_reset() {
    let mut machine = subscribed_machine(10);
    feed(&mut machine, 1, deliver(1, 10, &[11]));
    events(&mut machine);
    machine.handle_disconnected(2);
    open(&mut machine, 3);
    let asked = sent(&mut machine);
    let place = Place {
        group: group(),
        channel: channel("a"),
        position: at(1, 11),
        ts: Ts(0),
    };
    assert!(matches!(&asked[..], [Message::Resume(r)] if r.places == [place]));
    let request = request_of(&asked[0]);
    feed(&mut machine, 4, subscribed(request, at(2, 4), Start::FullEpoch));
    feed(&mut machine, 4, Done { request });
    feed(&mut machine, 5, deliver(2, 4, &[5]));
    let events = events(&mut machine);
    assert!(events.contains(&ClientEvent::Reset {
        group: group(),
        channel: channel("a"),
        from: at(1, 11),
        to: at(2, 4),
    }));
    assert_eq!(emitted(&events), [5]);
}

#[test]
fn an_edge_that_sees_less_of_the_same_log_repeats_nothing_to_the_application() {
    let mut machine = subscribed_machine(10);
    machine.handle_disconnected(2);
    open(&mut machine, 3);
    let request = request_of(&sent(&mut machine)[0]);
    feed(&mut machine, 4, subscribed(request, at(1, 8), Start::FullAhead));
    feed(&mut machine, 5, deliver(1, 8, &[9, 10, 11]));
    assert_eq!(emitted(&events(&mut machine)), [11]);
}

#[test]
fn a_place_that_a_resume_refuses_is_asked_for_alone_and_ends_on_a_fatal_answer() {
    let mut machine = subscribed_machine(10);
    machine.handle_disconnected(2);
    open(&mut machine, 3);
    let request = request_of(&sent(&mut machine)[0]);
    feed(&mut machine, 4, error(request, Code::NotMember));
    feed(&mut machine, 4, Done { request });
    let asked = sent(&mut machine);
    assert!(matches!(&asked[..], [Message::Subscribe(s)] if s.position == at(1, 10)));
    events(&mut machine);
    feed(&mut machine, 5, error(request_of(&asked[0]), Code::NotMember));
    assert!(matches!(
        &events(&mut machine)[..],
        [ClientEvent::SubscriptionEnded { .. }]
    ));
    assert!(machine.positions().is_empty());
}

#[test]
fn nothing_comes_after_unsubscribe_and_the_channel_can_be_subscribed_again() {
    let mut machine = subscribed_machine(10);
    let op = machine.unsubscribe(0, group(), channel("a")).unwrap();
    let request = request_of(&sent(&mut machine)[0]);
    feed(&mut machine, 1, deliver(1, 10, &[11]));
    machine
        .subscribe(1, group(), channel("a"), SubscribeFrom::Head)
        .unwrap();
    assert!(sent(&mut machine).is_empty());
    feed(&mut machine, 2, Done { request });
    assert_eq!(answers(&events(&mut machine)), [(op, Ok(Answer::Done))]);
    assert!(matches!(&sent(&mut machine)[..], [Message::Subscribe(_)]));
}
