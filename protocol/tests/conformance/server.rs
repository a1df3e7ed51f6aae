//! The rules of SPEC.md for an edge that its own tests do not state one by one.

use bytes::{BufMut, Bytes, BytesMut};
use throng_protocol::code::Code;
use throng_protocol::frame;
use throng_protocol::ids::{ChannelNumber, DeviceId, Ts};
use throng_protocol::limits::{
    FRAME_BYTES_MAX, IDLE_TIMEOUT_MS, REQUESTS_IN_FLIGHT_MAX, RESUME_POSITIONS_MAX,
};
use throng_protocol::message::{
    ClientAck, Done, Error, Hello, Join, Message, Ping, Place, Resume, Start, Welcome,
};
use throng_protocol::session::server::{ServerEvent, ServerSession};

use crate::raw::{Value, framed, text};
use crate::samples::{channel, group};
use crate::support::{
    asked_of_shell, at, authenticate, frame_of, hello, open_server, subscribed, told, welcome,
};

fn places(count: usize) -> Vec<Place> {
    vec![
        Place {
            group: group(),
            channel: channel(),
            position: at(1, 1),
            ts: Ts(0),
        };
        count
    ]
}

fn only_error(session: &mut ServerSession) -> Error {
    match told(session).as_slice() {
        [Message::Error(error)] => error.clone(),
        other => panic!("expected one error, not {other:?}"),
    }
}

#[test]
fn the_largest_payload_is_waited_for_and_one_byte_more_is_not() {
    let mut header = BytesMut::new();
    frame::encode_header(100, FRAME_BYTES_MAX, &mut header);
    let mut whole = header.clone();
    assert_eq!(
        frame::decode(&mut header),
        Ok(None),
        "the payload is still to come"
    );
    whole.put_bytes(0, FRAME_BYTES_MAX);
    let frame = frame::decode(&mut whole).expect("allowed").expect("whole");
    assert_eq!(frame.payload.len(), FRAME_BYTES_MAX);
    // 196609 as a varint, and not a byte of payload.
    let refused = frame::decode(&mut BytesMut::from(&[0x81, 0x80, 0x0c][..]));
    assert_eq!(refused.map_err(|error| error.code()), Err(Code::FrameTooLarge));
}

#[test]
fn a_client_ack_is_answered_with_nothing_whatever_it_says() {
    let mut session = open_server();
    for (channel, position) in [(7, at(1, 9)), (7, at(1, 3)), (99, at(5, 1)), (0, at(0, 0))] {
        let ack = ClientAck {
            channel: ChannelNumber(channel),
            position,
        };
        session.handle_frame(1, &frame_of(ack));
        assert_eq!(told(&mut session), vec![]);
        assert_eq!(asked_of_shell(&mut session), vec![ServerEvent::ClientAck(ack)]);
    }
    assert!(session.is_open());
}

#[test]
fn a_resume_is_answered_for_each_place_and_then_done() {
    let mut session = open_server();
    session.handle_frame(
        1,
        &frame_of(Resume {
            request: 4,
            places: places(2),
        }),
    );
    session.respond(&subscribed(4, at(1, 1), Start::Resumed).into());
    session.error(4, Code::NotMember, "no", 0);
    session.respond(&Done { request: 4 }.into());
    // Behind Done the request is over.
    session.respond(&subscribed(4, at(1, 1), Start::Resumed).into());
    let names: Vec<u8> = told(&mut session).iter().map(Message::kind).collect();
    assert_eq!(names, [13, 23, 9]);
}

#[test]
fn a_resume_that_is_refused_as_a_whole_has_that_one_answer() {
    let mut session = open_server();
    for (count, allowed) in [
        (0, false),
        (RESUME_POSITIONS_MAX, true),
        (RESUME_POSITIONS_MAX + 1, false),
    ] {
        session.handle_frame(
            1,
            &frame_of(Resume {
                request: 4,
                places: places(count),
            }),
        );
        if allowed {
            session.respond(&Done { request: 4 }.into());
            assert_eq!(told(&mut session), vec![Done { request: 4 }.into()]);
        } else {
            let error = only_error(&mut session);
            assert_eq!((error.request, error.known_code()), (4, Some(Code::InvalidField)));
            session.respond(&Done { request: 4 }.into());
            assert_eq!(told(&mut session), vec![], "nothing is in flight");
        }
    }
    for request in 10..10 + u64::try_from(REQUESTS_IN_FLIGHT_MAX).expect("small") {
        session.handle_frame(
            1,
            &frame_of(Join {
                request,
                group: group(),
            }),
        );
    }
    session.handle_frame(
        1,
        &frame_of(Resume {
            request: 4,
            places: places(1),
        }),
    );
    assert_eq!(only_error(&mut session).known_code(), Some(Code::TooManyRequests));
    session.respond(&Done { request: 4 }.into());
    assert_eq!(told(&mut session), vec![], "nothing is in flight");
}

#[test]
fn an_error_of_one_session_says_nothing_to_another() {
    let (mut bad, mut good) = (open_server(), open_server());
    bad.handle_frame_error(frame::FrameError::Length);
    assert!(bad.is_closed());
    good.handle_frame(1, &frame_of(Ping { nonce: 5 }));
    assert!(good.is_open());
    assert!(matches!(&told(&mut good)[..], [Message::Pong(pong)] if pong.nonce == 5));
}

#[test]
fn opening_frames_with_bad_fields_are_refused_and_may_be_sent_again() {
    let mut session = ServerSession::new(0, "edge");
    let empty = framed(1, &vec![(1, text("no versions"))]);
    let crowd = framed(1, &vec![(0, Value::Numbers((1..=17).collect()))]);
    for bytes in [empty, crowd] {
        let frame = frame::decode(&mut BytesMut::from(&bytes[..]))
            .expect("a frame")
            .expect("whole");
        session.handle_frame(0, &frame);
        let error = only_error(&mut session);
        assert_eq!((error.request, error.known_code()), (0, Some(Code::InvalidField)));
    }
    session.handle_frame(0, &frame_of(hello()));
    assert!(matches!(&told(&mut session)[..], [Message::HelloOk(_)]));
    let nameless = framed(3, &vec![(0, text("token"))]);
    let frame = frame::decode(&mut BytesMut::from(&nameless[..]))
        .expect("a frame")
        .expect("whole");
    session.handle_frame(0, &frame);
    assert_eq!(only_error(&mut session).known_code(), Some(Code::InvalidField));
    assert!(DeviceId::new("").is_err());
    assert_eq!(asked_of_shell(&mut session), vec![], "no token was handed on");
}

#[test]
fn requests_are_answered_with_their_ids_in_the_order_the_edge_is_done() {
    let mut session = open_server();
    for request in [30, 10, 20] {
        session.handle_frame(
            1,
            &frame_of(Join {
                request,
                group: group(),
            }),
        );
    }
    for request in [20, 30, 10] {
        session.respond(&Done { request }.into());
        // A second answer to the same request goes nowhere.
        session.respond(&Done { request }.into());
    }
    let answered: Vec<Message> = [20, 30, 10].map(|request| Done { request }.into()).into();
    assert_eq!(told(&mut session), answered);
}

#[test]
fn a_body_of_any_bytes_reaches_the_shell_as_it_came() {
    let mut session = open_server();
    for body in [
        Bytes::new(),
        Bytes::from_static(&[0, 0xff, 0x80]),
        Bytes::from(vec![7; 131_072]),
    ] {
        let table = vec![(0, Value::U64(1)), (1, text("g")), (2, text("c"))];
        let mut send = match crate::support::read(&framed(10, &table)) {
            Message::Send(send) => send,
            other => panic!("{other:?}"),
        };
        send.body = body.clone();
        session.handle_frame(1, &frame_of(send));
        let events = asked_of_shell(&mut session);
        let [ServerEvent::Request(request)] = events.as_slice() else {
            panic!("{events:?}")
        };
        let throng_protocol::session::server::ServerRequest::Send(send) = request else {
            panic!("{request:?}")
        };
        assert_eq!(send.body, body);
        session.error(1, Code::NotMember, "no", 0);
        told(&mut session);
    }
}

#[test]
fn any_offer_that_holds_a_version_of_the_edge_is_taken() {
    for versions in [vec![1], vec![1, 900], vec![900, 1], (1..=16).collect()] {
        let mut session = ServerSession::new(0, "edge");
        session.handle_frame(
            0,
            &frame_of(Hello {
                versions,
                client: String::new(),
            }),
        );
        assert!(matches!(&told(&mut session)[..], [Message::HelloOk(ok)] if ok.version == 1));
    }
}

#[test]
fn a_session_lives_as_long_as_its_token() {
    let expires_ms = 30_000;
    let mut session = ServerSession::new(0, "edge");
    session.handle_frame(0, &frame_of(hello()));
    session.handle_frame(0, &frame_of(authenticate()));
    session.authenticated(
        0,
        Welcome {
            token_expires_ms: expires_ms,
            ..welcome()
        },
    );
    told(&mut session);
    asked_of_shell(&mut session);
    session.handle_timeout(expires_ms - 1);
    session.handle_frame(
        expires_ms - 1,
        &frame_of(Join {
            request: 1,
            group: group(),
        }),
    );
    assert_eq!(asked_of_shell(&mut session).len(), 1);
    assert!(session.is_open());
}

#[test]
fn an_id_is_free_again_with_its_answer() {
    let mut session = open_server();
    for _ in 0..3 {
        session.handle_frame(
            1,
            &frame_of(Join {
                request: 9,
                group: group(),
            }),
        );
        assert_eq!(asked_of_shell(&mut session).len(), 1);
        session.respond(&Done { request: 9 }.into());
        assert_eq!(told(&mut session), vec![Done { request: 9 }.into()]);
    }
}

#[test]
fn as_many_requests_as_allowed_are_all_served() {
    let mut session = open_server();
    let most = u64::try_from(REQUESTS_IN_FLIGHT_MAX).expect("small");
    for request in 1..=most {
        session.handle_frame(
            1,
            &frame_of(Join {
                request,
                group: group(),
            }),
        );
    }
    assert_eq!(asked_of_shell(&mut session).len(), REQUESTS_IN_FLIGHT_MAX);
    // One too many disturbs none of them.
    session.handle_frame(
        1,
        &frame_of(Join {
            request: most + 1,
            group: group(),
        }),
    );
    assert_eq!(only_error(&mut session).request, most + 1);
    for request in 1..=most {
        session.respond(&Done { request }.into());
    }
    let served = (1..=most)
        .map(|request| Done { request }.into())
        .collect::<Vec<Message>>();
    assert_eq!(told(&mut session), served);
}

#[test]
fn a_client_that_says_anything_now_and_then_is_not_closed() {
    let mut session = open_server();
    let step = u64::from(IDLE_TIMEOUT_MS) - 1;
    for turn in 1..=10 {
        session.handle_timeout(turn * step);
        assert!(session.is_open());
        session.handle_frame(turn * step, &frame_of(Ping { nonce: turn }));
        assert!(matches!(&told(&mut session)[..], [Message::Pong(pong)] if pong.nonce == turn));
    }
}

#[test]
fn a_drained_connection_ends_at_its_deadline_with_draining() {
    let mut session = open_server();
    session.drain(0, 500, "restart", Vec::new());
    told(&mut session);
    session.handle_timeout(499);
    assert!(session.is_open());
    session.handle_timeout(500);
    let error = only_error(&mut session);
    assert_eq!((error.request, error.known_code()), (0, Some(Code::Draining)));
    session.handle_frame(
        501,
        &frame_of(Join {
            request: 1,
            group: group(),
        }),
    );
    let events = asked_of_shell(&mut session);
    assert!(
        matches!(
            &events[..],
            [ServerEvent::Close {
                code: Code::Draining,
                ..
            }]
        ),
        "{events:?}"
    );
}
