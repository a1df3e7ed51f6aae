//! Requests in flight: ids, their number, resumes, and the bytes of waiting sends.

use super::*;

#[test]
fn an_invalid_request_with_the_id_of_one_in_flight_is_out_of_order() {
    let mut session = open();
    session.handle_frame(NOW, &frame_of(join(5)));
    let too_large = Send {
        request: 5,
        group: GroupId::new("g").expect("valid"),
        channel: ChannelId::new("c").expect("valid"),
        client_message_id: ClientMessageId(1),
        first_attempt_ms: 0,
        body: Bytes::from(vec![0; crate::limits::BODY_BYTES_MAX + 1]),
    };
    session.handle_frame(NOW, &frame_of(too_large));
    assert_closed(&mut session, Code::OutOfOrder);
    session.respond(&Done { request: 5 }.into());
    assert_eq!(sent(&mut session), vec![]);
}

#[test]
fn a_third_resume_is_refused_until_one_is_done() {
    let mut session = open();
    for request in [1, 2] {
        session.handle_frame(NOW, &frame_of(resume(request)));
    }
    assert_eq!(events(&mut session).len(), 2);
    session.handle_frame(NOW, &frame_of(resume(3)));
    assert_refused(&mut session, 3, Code::TooManyRequests);
    session.handle_frame(NOW, &frame_of(join(4)));
    assert_eq!(events(&mut session).len(), 1, "other requests go on");
    session.respond(&Done { request: 1 }.into());
    sent(&mut session);
    session.handle_frame(NOW, &frame_of(resume(3)));
    assert_eq!(events(&mut session).len(), 1);
}
