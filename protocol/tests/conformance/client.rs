//! The rules of SPEC.md for a client, about requests, errors and keeping a connection.

use throng_protocol::code::{Class, Code};
use throng_protocol::frame::Frame;
use throng_protocol::message::{Done, Drain, Error, HelloOk, Message, Ping, Pong, Welcome};
use throng_protocol::session::client::{Answer, ClientEvent, DisconnectReason, RequestError};

use crate::raw::{Value, framed};
use crate::samples::group;
use crate::support::{Client, Outcome, error, read, request_of, welcome};

#[test]
fn a_retry_of_a_send_is_the_same_but_for_its_request() {
    let mut client = Client::open(0, welcome());
    client.send(10, 77);
    let first = client.sends().remove(0);
    client.feed(20, error(first.request, Code::Unavailable));
    client.machine.handle_timeout(10_000);
    let second = client.sends().remove(0);
    client.machine.handle_disconnected(11_000);
    client.connect(
        60_000,
        Welcome {
            server_time_ms: 5_000_000,
            ..welcome()
        },
    );
    let third = client.sends().remove(0);
    for again in [second, third] {
        assert_ne!(again.request, first.request);
        assert_eq!(again.client_message_id, first.client_message_id);
        assert_eq!(again.first_attempt_ms, first.first_attempt_ms);
        assert_eq!(again.body, first.body);
    }
}

#[test]
fn answers_are_taken_in_any_order() {
    let mut client = Client::open(0, welcome());
    let join = client.machine.join(0, group()).expect("taken");
    let leave = client.machine.leave(0, group()).expect("taken");
    let requests: Vec<u64> = client.said().iter().map(request_of).collect();
    client.feed(1, Done { request: requests[1] });
    client.feed(2, Done { request: requests[0] });
    assert_eq!(
        client.answers(),
        [(leave, Ok(Answer::Done)), (join, Ok(Answer::Done))]
    );
}

#[test]
fn an_answer_to_nothing_is_ignored() {
    let mut client = Client::open(0, welcome());
    let join = client.machine.join(0, group()).expect("taken");
    let request = request_of(&client.said()[0]);
    client.feed(1, Done { request: 4_242 });
    client.feed(1, error(4_243, Code::NotMember));
    assert!(client.answers().is_empty());
    client.feed(2, Done { request });
    client.feed(3, Done { request });
    assert_eq!(client.answers(), [(join, Ok(Answer::Done))]);
    assert!(client.machine.is_open());
}

#[test]
fn a_client_sends_no_more_at_once_than_welcome_allows() {
    let mut client = Client::open(
        0,
        Welcome {
            requests_in_flight_max: 2,
            ..welcome()
        },
    );
    for _ in 0..5 {
        client.machine.join(0, group()).expect("taken");
    }
    let said = client.said();
    assert_eq!(said.len(), 2, "the table of SPEC.md allows 64, this welcome 2");
    client.feed(
        1,
        Done {
            request: request_of(&said[0]),
        },
    );
    assert_eq!(client.said().len(), 1);
}

/// What a client does with a code it does not know: whether it asks again, and what it answers.
fn with_unknown_code(class: Class) -> (bool, Vec<Outcome>) {
    let mut client = Client::open(0, welcome());
    client.machine.join(0, group()).expect("taken");
    let request = request_of(&client.said()[0]);
    let (message, retry_after_ms) = (String::new(), 0);
    client.feed(
        1,
        Error {
            request,
            code: 999,
            class,
            message,
            retry_after_ms,
        },
    );
    client.machine.handle_timeout(10_000);
    let again = client
        .said()
        .iter()
        .any(|message| matches!(message, Message::Join(_)));
    (again, client.answers())
}

#[test]
fn a_request_refused_with_an_unknown_retryable_code_is_tried_again() {
    let (again, answers) = with_unknown_code(Class::Retryable);
    assert!(again && answers.is_empty());
}

#[test]
fn a_request_refused_with_an_unknown_fatal_code_is_given_up() {
    let (again, answers) = with_unknown_code(Class::Fatal);
    assert!(!again);
    assert!(matches!(&answers[..], [(_, Err(RequestError::Refused(error)))] if error.code == 999));
}

fn class_of(number: u8) -> Class {
    match read(&framed(23, &vec![(1, Value::U16(500)), (2, Value::U8(number))])) {
        Message::Error(error) => error.class,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_class_of_an_error_is_that_of_the_frame_whatever_its_code() {
    assert_eq!(
        [0, 1, 2].map(class_of),
        [Class::Retryable, Class::Redirect, Class::Fatal]
    );
}

#[test]
fn an_unknown_class_is_fatal() {
    assert_eq!([3, 9, 255].map(class_of), [Class::Fatal; 3]);
}

#[test]
fn what_is_asked_of_a_drained_client_goes_out_on_the_next_connection_only() {
    let mut client = Client::open(0, welcome());
    client.machine.join(0, group()).expect("taken");
    let request = request_of(&client.said()[0]);
    let drain = Drain {
        deadline_ms: 60_000,
        reason: String::new(),
        edges: Vec::new(),
    };
    client.feed(1, drain);
    client.machine.leave(2, group()).expect("taken");
    client.send(2, 1);
    client.feed(3, Done { request });
    assert!(client.said().is_empty());
    let told = client.events().pop();
    assert_eq!(told, Some(ClientEvent::Disconnect(DisconnectReason::Drained)));
    client.machine.handle_disconnected(4);
    client.connect(5, welcome());
    let kinds: Vec<u8> = client.said().iter().map(Message::kind).collect();
    assert!(kinds.contains(&8) && kinds.contains(&10), "{kinds:?}");
}

#[test]
fn a_fatal_refusal_is_not_tried_again() {
    let mut client = Client::open(0, welcome());
    for code in [
        Code::NotMember,
        Code::IdempotencyConflict,
        Code::RetryTooOld,
        Code::MessageTooLarge,
    ] {
        let op = client.send(0, code.number().into());
        let send = client.sends().remove(0);
        let refusal = error(send.request, code);
        client.feed(1, refusal.clone());
        assert_eq!(client.answers(), [(op, Err(RequestError::Refused(refusal)))]);
    }
    for now_ms in [1_000, 10_000, 20_000] {
        client.machine.handle_timeout(now_ms);
        assert!(client.sends().is_empty());
    }
}

#[test]
fn a_ping_is_answered_with_its_nonce_in_every_phase() {
    let mut client = Client::new();
    client.machine.handle_connected(0);
    client.said();
    client.feed(0, Ping { nonce: 8 });
    assert!(matches!(&client.said()[..], [Message::Pong(pong)] if pong.nonce == 8));
    client.machine.handle_disconnected(0);
    client.connect(0, welcome());
    client.feed(0, Ping { nonce: u64::MAX });
    assert!(matches!(&client.said()[..], [Message::Pong(pong)] if pong.nonce == u64::MAX));
}

#[test]
fn pings_go_out_at_the_interval_of_the_welcome_also_when_frames_flow() {
    let mut client = Client::open(
        0,
        Welcome {
            ping_interval_ms: 5_000,
            ..welcome()
        },
    );
    let mut pings = Vec::new();
    for now_ms in (100..=20_000).step_by(100) {
        client.feed(now_ms, Ping { nonce: now_ms });
        client.machine.handle_timeout(now_ms);
        pings.extend(
            client
                .said()
                .iter()
                .filter(|m| matches!(m, Message::Ping(_)))
                .map(|_| now_ms),
        );
    }
    assert_eq!(pings, [5_000, 10_000, 15_000, 20_000]);
}

#[test]
fn a_pong_nobody_asked_for_changes_nothing() {
    let mut client = Client::open(0, welcome());
    client.machine.join(0, group()).expect("taken");
    client.said();
    client.feed(
        1,
        Pong {
            nonce: 31_337,
            time_ms: u64::MAX,
        },
    );
    assert_eq!((client.said(), client.events()), (vec![], vec![]));
    assert!(client.machine.is_open());
    assert_eq!(client.machine.server_time_ms(1), welcome().server_time_ms + 1);
}

#[test]
fn an_unknown_frame_is_skipped_below_128_and_ends_the_connection_from_there() {
    let frame = |kind| Frame {
        kind,
        payload: b"of a later version".as_slice().into(),
    };
    let mut client = Client::open(0, welcome());
    client.machine.handle_frame(1, &frame(127));
    assert_eq!((client.said(), client.events()), (vec![], vec![]));
    client.machine.handle_frame(1, &frame(128));
    let said = client.said();
    assert!(
        matches!(&said[..], [Message::Error(e)] if e.known_code() == Some(Code::UnknownCriticalFrame)),
        "{said:?}"
    );
    let told = client.events();
    assert!(
        matches!(
            &told[..],
            [ClientEvent::Disconnect(DisconnectReason::Protocol { .. })]
        ),
        "{told:?}"
    );
}

#[test]
fn a_frame_that_only_clients_send_or_that_opens_again_is_out_of_order() {
    let again = HelloOk {
        version: 1,
        edge: String::new(),
        server_time_ms: 0,
    };
    let messages: [Message; 4] = [
        crate::support::hello().into(),
        crate::support::authenticate().into(),
        again.into(),
        welcome().into(),
    ];
    for message in messages {
        let mut client = Client::open(0, welcome());
        client.feed(1, message);
        let said = client.said();
        assert!(
            matches!(&said[..], [Message::Error(e)] if e.known_code() == Some(Code::OutOfOrder)),
            "{said:?}"
        );
    }
}
