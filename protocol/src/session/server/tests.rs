use super::*;
use crate::frame;
use crate::ids::{
    ChannelId, ChannelNumber, ClientMessageId, DeviceId, Epoch, GroupId, Position, Seq, SessionId, Ts,
    UserId, UserNumber,
};
use crate::message::{
    Ack, ClientAck, Deliver, Done, Join, Ping, Place, Resume, Send, Start, Subscribed, Unsubscribe,
};

mod in_flight;

const NOW: u64 = 1_700_000_000_000;
const EXPIRES: u64 = NOW + 3_600_000;

fn frame_of(message: impl Into<Message>) -> Frame {
    let mut bytes = bytes::BytesMut::from(&message.into().encode()[..]);
    frame::decode(&mut bytes).expect("framed").expect("whole")
}

fn sent(session: &mut ServerSession) -> Vec<Message> {
    std::iter::from_fn(|| session.poll_transmit())
        .map(|bytes| {
            let frame = frame::decode(&mut bytes::BytesMut::from(&bytes[..])).expect("framed");
            Message::decode(&frame.expect("whole"))
                .expect("valid")
                .expect("known")
        })
        .collect()
}

fn events(session: &mut ServerSession) -> Vec<ServerEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn hello() -> Hello {
    Hello {
        versions: vec![1],
        client: "test".into(),
    }
}

fn authenticate() -> Authenticate {
    Authenticate {
        token: "t".into(),
        device: DeviceId::new("d").expect("valid"),
    }
}

fn welcome() -> Welcome {
    Welcome {
        session: SessionId(1),
        user: UserId::new("u").expect("valid"),
        user_number: UserNumber(1),
        server_time_ms: NOW,
        token_expires_ms: EXPIRES,
        idempotency_window_ms: 1,
        ping_interval_ms: 1,
        body_bytes_max: 1,
        requests_in_flight_max: 1,
        subscriptions_max: 1,
    }
}

fn join(request: u64) -> Join {
    Join {
        request,
        group: GroupId::new("g").expect("valid"),
    }
}

fn resume(request: u64) -> Resume {
    let place = Place {
        group: GroupId::new("g").expect("valid"),
        channel: ChannelId::new("c").expect("valid"),
        position: Position::default(),
        ts: Ts(0),
    };
    Resume {
        request,
        places: vec![place; 2],
    }
}

fn subscribed(request: u64) -> Subscribed {
    Subscribed {
        request,
        group: GroupId::new("g").expect("valid"),
        channel_name: ChannelId::new("c").expect("valid"),
        channel: ChannelNumber(1),
        position: Position::default(),
        head: Seq(0),
        start: Start::Head,
        ts: Ts(0),
    }
}

fn open() -> ServerSession {
    let mut session = ServerSession::new(NOW, "edge");
    session.handle_frame(NOW, &frame_of(hello()));
    session.handle_frame(NOW, &frame_of(authenticate()));
    session.authenticated(NOW, welcome());
    sent(&mut session);
    events(&mut session);
    session
}

#[track_caller]
fn assert_closed(session: &mut ServerSession, code: Code) {
    assert!(session.is_closed());
    let last = sent(session).pop();
    let told =
        matches!(&last, Some(Message::Error(error)) if error.request == 0 && error.code == code.number());
    assert!(told, "expected error {code:?}, sent {last:?}");
    let event = events(session).pop();
    let asked = matches!(&event, Some(ServerEvent::Close { code: asked, .. }) if *asked == code);
    assert!(asked, "expected a close with {code:?}, got {event:?}");
    assert_eq!(session.poll_timeout(), None);
}

#[track_caller]
fn assert_refused(session: &mut ServerSession, request: u64, code: Code) {
    assert!(!session.is_closed());
    let sent = sent(session);
    let [Message::Error(error)] = sent.as_slice() else {
        panic!("expected one error, sent {sent:?}");
    };
    assert_eq!((error.request, error.code), (request, code.number()));
    assert_eq!(events(session), vec![]);
}

#[test]
fn a_session_opens_by_hello_authenticate_and_welcome() {
    let mut session = ServerSession::new(NOW, "edge");
    session.handle_frame(NOW + 5, &frame_of(hello()));
    let expected = HelloOk {
        version: 1,
        edge: "edge".into(),
        server_time_ms: NOW + 5,
    };
    assert_eq!(sent(&mut session), vec![expected.into()]);
    session.handle_frame(NOW + 6, &frame_of(authenticate()));
    let Authenticate { token, device } = authenticate();
    assert_eq!(
        events(&mut session),
        vec![ServerEvent::Authenticate { token, device }]
    );
    assert!(!session.is_open());
    session.authenticated(NOW + 7, welcome());
    assert_eq!(sent(&mut session), vec![welcome().into()]);
    assert!(session.is_open());
    session.handle_frame(NOW + 8, &frame_of(join(1)));
    assert_eq!(
        events(&mut session),
        vec![ServerEvent::Request(ServerRequest::Join(join(1)))]
    );
}

#[test]
fn every_frame_type_has_a_role_and_the_unknown_have_none() {
    for kind in 0..=u8::MAX {
        assert_eq!(
            Message::kind_name(kind).is_none(),
            role(kind) == Role::Unknown,
            "{kind}"
        );
    }
}

#[test]
fn anything_before_hello_is_out_of_order() {
    for message in [
        Message::from(authenticate()),
        join(1).into(),
        Ping { nonce: 1 }.into(),
        hello_ok(),
    ] {
        let mut session = ServerSession::new(NOW, "edge");
        session.handle_frame(NOW, &frame_of(message));
        assert_closed(&mut session, Code::OutOfOrder);
    }
}

fn hello_ok() -> Message {
    HelloOk {
        version: 1,
        edge: "e".into(),
        server_time_ms: 0,
    }
    .into()
}

#[test]
fn a_request_before_welcome_is_out_of_order_but_a_ping_is_answered() {
    for authenticating in [false, true] {
        let mut session = ServerSession::new(NOW, "edge");
        session.handle_frame(NOW, &frame_of(hello()));
        if authenticating {
            session.handle_frame(NOW, &frame_of(authenticate()));
        }
        sent(&mut session);
        session.handle_frame(NOW, &frame_of(Ping { nonce: 9 }));
        let pong = Pong {
            nonce: 9,
            time_ms: NOW,
        };
        assert_eq!(sent(&mut session), vec![pong.into()]);
        session.handle_frame(NOW, &frame_of(join(1)));
        assert_closed(&mut session, Code::OutOfOrder);
    }
}

#[test]
fn a_malformed_request_before_welcome_is_out_of_order_not_an_invalid_field() {
    let mut session = ServerSession::new(NOW, "edge");
    session.handle_frame(NOW, &frame_of(join(0)));
    assert_closed(&mut session, Code::OutOfOrder);
}

#[test]
fn a_second_hello_or_authenticate_is_out_of_order() {
    for message in [Message::from(hello()), authenticate().into()] {
        let mut session = open();
        session.handle_frame(NOW, &frame_of(message));
        assert_closed(&mut session, Code::OutOfOrder);
    }
    let mut session = ServerSession::new(NOW, "edge");
    session.handle_frame(NOW, &frame_of(hello()));
    session.handle_frame(NOW, &frame_of(authenticate()));
    session.handle_frame(NOW, &frame_of(authenticate()));
    assert_closed(&mut session, Code::OutOfOrder);
}

#[test]
fn frames_only_servers_send_are_out_of_order() {
    let deliver = Deliver {
        channel: ChannelNumber(1),
        epoch: Epoch(1),
        prev: Seq(0),
        entries: vec![],
    };
    for message in [
        hello_ok(),
        welcome().into(),
        Done { request: 1 }.into(),
        deliver.into(),
    ] {
        let mut session = open();
        session.handle_frame(NOW, &frame_of(message));
        assert_closed(&mut session, Code::OutOfOrder);
    }
}

#[test]
fn the_highest_common_version_is_chosen_and_none_in_common_closes() {
    let mut session = ServerSession::new(NOW, "edge");
    let offer = Hello {
        versions: vec![7, 1],
        client: String::new(),
    };
    session.handle_frame(NOW, &frame_of(offer));
    assert!(matches!(&sent(&mut session)[..], [Message::HelloOk(ok)] if ok.version == 1));
    let mut session = ServerSession::new(NOW, "edge");
    let offer = Hello {
        versions: vec![7, 9],
        client: String::new(),
    };
    session.handle_frame(NOW, &frame_of(offer));
    assert_closed(&mut session, Code::VersionUnsupported);
}

#[test]
fn an_unknown_skippable_frame_is_ignored_and_an_unknown_critical_one_closes() {
    let mut session = open();
    let skippable = Frame {
        kind: 100,
        payload: Bytes::from_static(b"?"),
    };
    session.handle_frame(NOW, &skippable);
    assert_eq!((sent(&mut session), events(&mut session)), (vec![], vec![]));
    let critical = Frame {
        kind: 128,
        payload: Bytes::new(),
    };
    session.handle_frame(NOW, &critical);
    assert_closed(&mut session, Code::UnknownCriticalFrame);
}

#[test]
fn a_payload_that_does_not_verify_closes() {
    let mut session = open();
    let garbage = Frame {
        kind: 10,
        payload: Bytes::from_static(&[0xff; 7]),
    };
    session.handle_frame(NOW, &garbage);
    assert_closed(&mut session, Code::MalformedFrame);
}

#[test]
fn bytes_that_are_no_frame_close_with_their_code() {
    for (error, code) in [
        (FrameError::Length, Code::MalformedFrame),
        (FrameError::TooLarge(1 << 20), Code::FrameTooLarge),
    ] {
        let mut session = open();
        session.handle_frame_error(error);
        assert_closed(&mut session, code);
    }
}

#[test]
fn a_field_outside_its_range_is_refused_and_the_session_goes_on() {
    let mut session = open();
    session.handle_frame(NOW, &frame_of(join(0)));
    assert_refused(&mut session, 0, Code::InvalidField);
    let too_large = Send {
        request: 5,
        group: GroupId::new("g").expect("valid"),
        channel: ChannelId::new("c").expect("valid"),
        client_message_id: ClientMessageId(1),
        first_attempt_ms: 0,
        body: Bytes::from(vec![0; crate::limits::BODY_BYTES_MAX + 1]),
    };
    session.handle_frame(NOW, &frame_of(too_large));
    assert_refused(&mut session, 5, Code::MessageTooLarge);
    session.handle_frame(NOW, &frame_of(join(5)));
    assert_eq!(events(&mut session).len(), 1);
}

#[test]
fn one_request_too_many_is_refused_and_an_answer_makes_room() {
    let mut session = open();
    let most = REQUESTS_IN_FLIGHT_MAX as u64;
    for request in 1..=most {
        session.handle_frame(NOW, &frame_of(join(request)));
    }
    assert_eq!(events(&mut session).len(), REQUESTS_IN_FLIGHT_MAX);
    assert_eq!(sent(&mut session), vec![]);
    session.handle_frame(NOW, &frame_of(join(most + 1)));
    assert_refused(&mut session, most + 1, Code::TooManyRequests);
    session.respond(&Done { request: 3 }.into());
    assert_eq!(sent(&mut session), vec![Done { request: 3 }.into()]);
    session.handle_frame(NOW, &frame_of(join(most + 1)));
    assert_eq!(events(&mut session).len(), 1);
    session.error(most + 1, Code::NotMember, "no", 0);
    assert_refused(&mut session, most + 1, Code::NotMember);
    assert_eq!(session.requests_in_flight(), REQUESTS_IN_FLIGHT_MAX - 1);
}

#[test]
fn a_request_id_in_flight_must_not_be_used_again_before_its_answer() {
    let mut session = open();
    session.handle_frame(NOW, &frame_of(join(1)));
    session.respond(&Done { request: 1 }.into());
    session.handle_frame(NOW, &frame_of(join(1)));
    assert_eq!(events(&mut session).len(), 2);
    session.handle_frame(NOW, &frame_of(join(1)));
    assert_closed(&mut session, Code::OutOfOrder);
}

#[test]
fn a_resume_keeps_its_slot_until_done() {
    let mut session = open();
    session.handle_frame(NOW, &frame_of(resume(4)));
    session.respond(&subscribed(4).into());
    session.error(4, Code::NotMember, "no", 0);
    assert_eq!(sent(&mut session).len(), 2);
    assert_eq!(session.requests_in_flight(), 1);
    session.respond(&Done { request: 4 }.into());
    assert_eq!(session.requests_in_flight(), 0);
}

#[test]
fn an_answer_to_nothing_in_flight_is_dropped() {
    let mut session = open();
    let ack = Ack {
        request: 1,
        channel: ChannelNumber(1),
        epoch: Epoch(1),
        seq: Seq(1),
        ts: Ts(1),
        repeat: false,
        before: Seq(0),
    };
    session.respond(&ack.into());
    session.error(1, Code::NotMember, "no", 0);
    assert_eq!(sent(&mut session), vec![]);
}

#[test]
fn a_client_ack_and_an_unsubscribe_reach_the_shell() {
    let mut session = open();
    let ack = ClientAck {
        channel: ChannelNumber(1),
        position: Position::default(),
    };
    let unsubscribe = Unsubscribe {
        request: 2,
        channel: ChannelNumber(1),
    };
    session.handle_frame(NOW, &frame_of(ack));
    session.handle_frame(NOW, &frame_of(unsubscribe.clone()));
    let request = ServerRequest::Unsubscribe(unsubscribe);
    assert_eq!(
        events(&mut session),
        vec![ServerEvent::ClientAck(ack), ServerEvent::Request(request)]
    );
    // An ack waits for no answer.
    assert_eq!(session.requests_in_flight(), 1);
}

#[test]
fn a_client_slow_to_authenticate_is_closed_with_timeout() {
    let mut session = ServerSession::new(NOW, "edge");
    session.handle_frame(NOW + 4_000, &frame_of(hello()));
    assert_eq!(session.poll_timeout(), Some((NOW + 5_000, Reason::Authenticate)));
    session.handle_timeout(NOW + 4_999);
    assert!(!session.is_closed());
    session.handle_timeout(NOW + 5_000);
    assert_closed(&mut session, Code::Timeout);
}

#[test]
fn a_token_under_verification_is_not_hurried() {
    let mut session = ServerSession::new(NOW, "edge");
    session.handle_frame(NOW, &frame_of(hello()));
    session.handle_frame(NOW, &frame_of(authenticate()));
    session.handle_timeout(NOW + 5_001);
    assert!(!session.is_closed());
}

#[test]
fn a_silent_client_is_closed_and_any_frame_counts_as_life() {
    let idle = u64::from(IDLE_TIMEOUT_MS);
    let mut session = open();
    assert_eq!(session.poll_timeout(), Some((NOW + idle, Reason::Idle)));
    session.handle_frame(NOW + 10_000, &frame_of(Pong { nonce: 1, time_ms: 0 }));
    session.handle_timeout(NOW + idle);
    assert!(!session.is_closed());
    session.handle_timeout(NOW + 10_000 + idle);
    assert_closed(&mut session, Code::Timeout);
}

#[test]
fn an_expired_token_ends_the_session_at_its_time() {
    let mut session = open();
    session.handle_frame(EXPIRES - 1, &frame_of(Ping { nonce: 1 }));
    session.handle_timeout(EXPIRES - 1);
    assert!(!session.is_closed());
    assert_eq!(session.poll_timeout(), Some((EXPIRES, Reason::TokenExpiry)));
    session.handle_timeout(EXPIRES);
    assert_closed(&mut session, Code::TokenExpired);
}

#[test]
fn a_refused_token_closes_whatever_the_code() {
    for code in [Code::TokenInvalid, Code::AppUnknown, Code::Unavailable] {
        let mut session = ServerSession::new(NOW, "edge");
        session.handle_frame(NOW, &frame_of(hello()));
        session.handle_frame(NOW, &frame_of(authenticate()));
        events(&mut session);
        session.refuse(code, "no");
        assert_closed(&mut session, code);
    }
    let mut session = open();
    session.refuse(Code::TokenInvalid, "too late");
    assert!(!session.is_closed());
}

#[test]
fn a_draining_session_serves_requests_until_its_deadline() {
    let mut session = open();
    session.drain(NOW, 2_000, "restart", vec!["other:1".into()]);
    let drain = Drain {
        deadline_ms: 2_000,
        reason: "restart".into(),
        edges: vec!["other:1".into()],
    };
    assert_eq!(sent(&mut session), vec![drain.into()]);
    session.handle_frame(NOW + 1, &frame_of(join(1)));
    assert_eq!(events(&mut session).len(), 1);
    session.handle_timeout(NOW + 1_999);
    assert!(!session.is_closed());
    session.handle_timeout(NOW + 2_000);
    assert_closed(&mut session, Code::Draining);
}

#[test]
fn a_session_not_open_yet_is_closed_by_a_drain() {
    let mut session = ServerSession::new(NOW, "edge");
    session.handle_frame(NOW, &frame_of(hello()));
    session.drain(NOW, 2_000, "restart", vec![]);
    assert_closed(&mut session, Code::Draining);
}

#[test]
fn nothing_comes_in_or_out_of_a_closed_session() {
    let mut session = open();
    session.handle_frame(NOW, &frame_of(join(1)));
    session.close(Code::Internal, "x");
    assert_closed(&mut session, Code::Internal);
    session.handle_frame(NOW, &frame_of(join(2)));
    session.respond(&Done { request: 1 }.into());
    session.error(1, Code::NotMember, "no", 0);
    session.close(Code::Timeout, "again");
    assert_eq!((sent(&mut session), events(&mut session)), (vec![], vec![]));
}

#[test]
fn a_frame_that_is_not_finished_in_time_closes() {
    let mut session = open();
    session.frame_begun(NOW + 1_000);
    // More of the same frame changes nothing.
    session.frame_begun(NOW + 15_000);
    assert_eq!(session.poll_timeout(), Some((NOW + 21_000, Reason::Frame)));
    session.handle_timeout(NOW + 20_999);
    assert!(!session.is_closed());
    session.handle_timeout(NOW + 21_000);
    assert_closed(&mut session, Code::Timeout);
}

#[test]
fn a_frame_that_is_finished_in_time_leaves_no_deadline() {
    let mut session = open();
    session.frame_begun(NOW + 1_000);
    session.handle_frame(NOW + 20_999, &frame_of(Ping { nonce: 1 }));
    assert!(matches!(session.poll_timeout(), Some((_, Reason::Idle))));
    session.handle_timeout(NOW + 30_000);
    assert!(!session.is_closed());
}

#[test]
fn a_hello_that_trickles_is_given_no_more_time_than_a_silent_client() {
    let mut session = ServerSession::new(NOW, "edge");
    session.frame_begun(NOW + 4_000);
    assert_eq!(session.poll_timeout(), Some((NOW + 5_000, Reason::Authenticate)));
    session.handle_timeout(NOW + 5_000);
    assert_closed(&mut session, Code::Timeout);
}
