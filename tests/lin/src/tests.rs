//! Histories that have an order and such that have none: the checker must tell them apart.

use std::collections::BTreeMap;

use super::*;

const ANN: User = User(1);
const BOB: User = User(2);

fn entry(user: User, key: u64) -> Entry {
    Entry { user, key, body: key }
}

fn send(start: u64, end: u64, entry: Entry, outcome: Outcome<u64>) -> Timed {
    Timed {
        start,
        end,
        operation: Operation::Send { entry, outcome },
    }
}

fn read(start: u64, end: u64, head: u64, shown: &[(u64, Entry)]) -> Timed {
    let outcome = Outcome::Done((head, shown.iter().copied().collect()));
    Timed {
        start,
        end,
        operation: Operation::Read {
            user: Some(BOB),
            outcome,
        },
    }
}

fn kick(start: u64, end: u64, user: User, outcome: Outcome<bool>) -> Timed {
    Timed {
        start,
        end,
        operation: Operation::Kick { user, outcome },
    }
}

fn join(start: u64, end: u64, user: User, outcome: Outcome<()>) -> Timed {
    Timed {
        start,
        end,
        operation: Operation::Join { user, outcome },
    }
}

fn judged(log: &[Entry], operations: Vec<Timed>) -> Verdict {
    check(&ChannelHistory {
        log: log.to_vec(),
        members: BTreeMap::from([(ANN, true), (BOB, true)]),
        operations,
    })
}

fn is_violated(log: &[Entry], operations: Vec<Timed>) -> bool {
    matches!(judged(log, operations), Verdict::Violated(_))
}

#[test]
fn overlapping_sends_are_stored_in_either_order() {
    let log = [entry(BOB, 7), entry(ANN, 1)];
    let sends = vec![
        send(0, 10, log[1], Outcome::Done(2)),
        send(5, 12, log[0], Outcome::Done(1)),
        read(20, 21, 2, &[(1, log[0]), (2, log[1])]),
    ];
    assert_eq!(judged(&log, sends), Verdict::Linearizable);
}

#[test]
fn a_send_acked_before_another_began_lies_before_it() {
    let log = [entry(BOB, 7), entry(ANN, 1)];
    let sends = vec![
        send(0, 4, log[1], Outcome::Done(2)),
        send(5, 12, log[0], Outcome::Done(1)),
    ];
    assert!(is_violated(&log, sends));
}

#[test]
fn an_ack_that_was_lost_is_found() {
    let log = [entry(ANN, 1)];
    let sends = |lost| {
        vec![
            send(0, 4, log[0], Outcome::Done(1)),
            send(5, 8, entry(ANN, 2), lost),
        ]
    };
    assert!(is_violated(&log, sends(Outcome::Done(2))));
    assert_eq!(judged(&log, sends(Outcome::Unknown)), Verdict::Linearizable);
    assert_eq!(judged(&log, sends(Outcome::Refused)), Verdict::Linearizable);
}

#[test]
fn a_stale_read_is_found_and_one_that_overlaps_the_send_is_none() {
    let log = [entry(ANN, 1)];
    let history = |start| vec![send(0, 4, log[0], Outcome::Done(1)), read(start, 6, 0, &[])];
    assert!(is_violated(&log, history(5)));
    assert_eq!(judged(&log, history(4)), Verdict::Linearizable);
}

#[test]
fn reads_never_go_back() {
    let log = [entry(ANN, 1)];
    let history = |first, second| {
        vec![
            send(0, 100, log[0], Outcome::Done(1)),
            read(10, 20, first, &[]),
            read(30, 40, second, &[]),
        ]
    };
    assert_eq!(judged(&log, history(0, 1)), Verdict::Linearizable);
    assert!(is_violated(&log, history(1, 0)));
}

#[test]
fn a_read_that_shows_another_entry_is_found() {
    let log = [entry(ANN, 1)];
    let shows = |shown| vec![send(0, 4, log[0], Outcome::Done(1)), read(5, 6, 1, &[(1, shown)])];
    assert_eq!(judged(&log, shows(log[0])), Verdict::Linearizable);
    assert!(is_violated(&log, shows(Entry { body: 9, ..log[0] })));
}

#[test]
fn a_message_stored_twice_is_found() {
    let log = [entry(ANN, 1), entry(ANN, 1)];
    assert!(is_violated(&log, vec![send(0, 4, log[0], Outcome::Done(1))]));
}

#[test]
fn a_message_sent_again_has_its_first_place() {
    let log = [entry(ANN, 1), entry(BOB, 2)];
    let again = |seq| {
        vec![
            send(0, 4, log[0], Outcome::Unknown),
            send(5, 8, log[1], Outcome::Done(2)),
            send(9, 12, log[0], Outcome::Done(seq)),
        ]
    };
    assert_eq!(judged(&log, again(1)), Verdict::Linearizable);
    assert!(is_violated(&log, again(2)));
}

#[test]
fn an_entry_that_nobody_sent_is_found() {
    let log = [entry(ANN, 1), entry(BOB, 2)];
    assert!(is_violated(&log, vec![send(0, 4, log[0], Outcome::Done(1))]));
    let refused = vec![
        send(0, 4, log[0], Outcome::Done(1)),
        send(5, 6, log[1], Outcome::Refused),
    ];
    assert!(is_violated(&log, refused));
}

#[test]
fn a_send_acked_after_a_kick_was_done_is_found() {
    let log = [entry(ANN, 1)];
    let history = |start, outcome| {
        vec![
            kick(0, 10, ANN, outcome),
            send(start, 20, log[0], Outcome::Done(1)),
        ]
    };
    assert!(is_violated(&log, history(11, Outcome::Done(true))));
    let fine = [
        (9, Outcome::Done(true)),
        (11, Outcome::Done(false)),
        (11, Outcome::Unknown),
        (11, Outcome::Refused),
    ];
    for (start, outcome) in fine {
        assert_eq!(judged(&log, history(start, outcome)), Verdict::Linearizable);
    }
}

#[test]
fn a_member_is_not_refused_and_a_kicked_one_may_be_from_the_kicks_first_step_on() {
    let refused = |start, end| send(start, end, entry(ANN, 9), Outcome::NotMember);
    assert!(is_violated(&[], vec![refused(0, 5)]));
    assert!(is_violated(
        &[],
        vec![refused(0, 5), kick(6, 9, ANN, Outcome::Done(true))]
    ));
    let log = [entry(ANN, 1)];
    let between = vec![
        kick(0, 100, ANN, Outcome::Done(true)),
        refused(10, 20),
        send(30, 40, log[0], Outcome::Done(1)),
        refused(110, 120),
    ];
    assert_eq!(judged(&log, between), Verdict::Linearizable);
}

#[test]
fn one_who_has_come_back_is_a_member_again() {
    let log = [entry(ANN, 1)];
    let history = |joined: Outcome<()>, last: Timed| {
        let kick = kick(0, 10, ANN, Outcome::Done(true));
        vec![kick, join(20, 30, ANN, joined), last]
    };
    let acked = send(40, 50, log[0], Outcome::Done(1));
    let refused = send(40, 50, entry(ANN, 1), Outcome::NotMember);
    assert_eq!(
        judged(&log, history(Outcome::Done(()), acked.clone())),
        Verdict::Linearizable
    );
    assert_eq!(
        judged(&log, history(Outcome::Unknown, acked.clone())),
        Verdict::Linearizable
    );
    assert!(is_violated(&log, history(Outcome::Refused, acked)));
    assert!(is_violated(&[], history(Outcome::Done(()), refused.clone())));
    assert_eq!(
        judged(&[], history(Outcome::Unknown, refused)),
        Verdict::Linearizable
    );
}

#[test]
fn another_attempt_of_a_change_may_come_behind_its_answer() {
    let kicked = kick(0, 10, ANN, Outcome::Done(true));
    let joined = join(20, 30, ANN, Outcome::Done(()));
    let refused = send(40, 50, entry(ANN, 1), Outcome::NotMember);
    let once = vec![kicked.clone(), joined, refused.clone()];
    assert!(is_violated(&[], once.clone()));
    let twice = once.into_iter().chain(kicked.again()).collect();
    assert_eq!(judged(&[], twice), Verdict::Linearizable);
    let none = [
        refused,
        read(0, 1, 0, &[]),
        kick(0, 10, ANN, Outcome::NotMember),
        join(0, 10, ANN, Outcome::Refused),
    ];
    for timed in none {
        assert_eq!(timed.again(), Vec::new(), "{timed:?}");
    }
}

#[test]
fn a_kicked_user_reads_no_more() {
    let history = |start| vec![kick(0, 10, BOB, Outcome::Done(true)), read(start, 20, 0, &[])];
    assert!(is_violated(&[], history(11)));
    assert_eq!(judged(&[], history(9)), Verdict::Linearizable);
}

#[test]
fn a_search_without_steps_and_a_history_without_operations_are_no_pass() {
    let log = [entry(ANN, 1)];
    let history = ChannelHistory {
        log: log.to_vec(),
        operations: vec![send(0, 4, log[0], Outcome::Done(1))],
        ..ChannelHistory::default()
    };
    assert!(check(&history).is_linearizable());
    assert!(matches!(check_within(&history, 0), Verdict::Unknown(_)));
    assert!(matches!(check(&ChannelHistory::default()), Verdict::Unknown(_)));
}

#[test]
fn thousands_of_operations_of_many_clients_are_judged() {
    let clients = 8;
    let log: Vec<Entry> = (0..2_000).map(|key| entry(User(key % clients), key)).collect();
    // Each overlaps the ones of the other clients.
    let operations = log.iter().zip(1..).map(|(entry, seq)| {
        let start = seq * 10;
        send(start, start + 10 * (clients - 1), *entry, Outcome::Done(seq))
    });
    let mut history = ChannelHistory {
        log: log.clone(),
        members: BTreeMap::new(),
        operations: operations.collect(),
    };
    assert!(check(&history).is_linearizable());
    history.log.swap(1_000, 1_500);
    assert!(matches!(check(&history), Verdict::Violated(_)));
}
