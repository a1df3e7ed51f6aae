//! The machine against hand-written frames; `model` runs it against a whole scripted server.

mod delivery;
mod end;
mod model;
mod succession;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::frame;
use crate::ids::{ChannelNumber, ClientMessageId, Epoch, Position, Seq, SessionId, Ts, UserId, UserNumber};
use crate::message::{Ack, Deliver, Done, Drain, Entry, HelloOk, Page, Place, Start, Subscribed};

pub(super) fn group() -> GroupId {
    GroupId::new("group").unwrap()
}

pub(super) fn channel(name: &str) -> ChannelId {
    ChannelId::new(name).unwrap()
}

pub(super) fn machine() -> ClientMachine {
    ClientMachine::new(ClientMachineConfig::new(DeviceId::new("device").unwrap(), 1))
}

pub(super) fn decode(bytes: &Bytes) -> Message {
    let frame = frame::decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
    Message::decode(&frame).unwrap().unwrap()
}

pub(super) fn feed(machine: &mut ClientMachine, now_ms: u64, message: impl Into<Message>) {
    let bytes = message.into().encode();
    let frame = frame::decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
    machine.handle_frame(now_ms, &frame);
}

pub(super) fn sent(machine: &mut ClientMachine) -> Vec<Message> {
    std::iter::from_fn(|| machine.poll_transmit())
        .map(|bytes| decode(&bytes))
        .collect()
}

pub(super) fn events(machine: &mut ClientMachine) -> Vec<ClientEvent> {
    std::iter::from_fn(|| machine.poll_event()).collect()
}

pub(super) fn welcome(server_time_ms: u64, in_flight: u32) -> Welcome {
    Welcome {
        session: SessionId(1),
        user: UserId::new("ann").unwrap(),
        user_number: UserNumber(1),
        server_time_ms,
        token_expires_ms: u64::MAX,
        idempotency_window_ms: 1_000_000,
        ping_interval_ms: 25_000,
        body_bytes_max: 131_072,
        requests_in_flight_max: in_flight,
        subscriptions_max: 1_000,
    }
}

/// Connects and drops what was sent and told on the way, but not what follows the welcome.
fn open(machine: &mut ClientMachine, now_ms: u64) {
    machine.handle_connected(now_ms);
    let edge = "edge".to_owned();
    let server_time_ms = 0;
    feed(
        machine,
        now_ms,
        HelloOk {
            version: 1,
            edge,
            server_time_ms,
        },
    );
    machine.authenticate("token".to_owned());
    sent(machine);
    events(machine);
    feed(machine, now_ms, welcome(1_000_000 + now_ms, 64));
}

fn send(machine: &mut ClientMachine, now_ms: u64, name: &str, id: u64) -> OpId {
    let body = Bytes::from_static(b"hi");
    machine
        .send(now_ms, group(), channel(name), ClientMessageId(id), body)
        .unwrap()
}

fn ack(request: RequestId, seq: u64) -> Ack {
    Ack {
        request,
        channel: ChannelNumber(7),
        epoch: Epoch(1),
        seq: Seq(seq),
        ts: Ts(seq),
        repeat: false,
        before: Seq(0),
    }
}

fn sends(messages: &[Message]) -> Vec<message::Send> {
    messages
        .iter()
        .filter_map(|message| match message {
            Message::Send(send) => Some(send.clone()),
            _ => None,
        })
        .collect()
}

fn answers(events: &[ClientEvent]) -> Vec<(OpId, Result<Answer, RequestError>)> {
    events
        .iter()
        .filter_map(|event| match event {
            ClientEvent::Answered { op, outcome } => Some((*op, outcome.clone())),
            _ => None,
        })
        .collect()
}

pub(super) fn entry(seq: u64) -> Entry {
    Entry {
        seq: Seq(seq),
        ts: Ts(seq),
        kind: 1,
        sender: UserId::new("bob").unwrap(),
        sender_number: UserNumber(2),
        client_message_id: ClientMessageId(seq),
        body: Bytes::from_static(b"hi"),
        target: Seq(0),
        version: Seq(0),
        hole: 0,
        expansion: Vec::new(),
        removed: Vec::new(),
        keys_elsewhere: false,
    }
}

fn deliver(epoch: u32, prev: u64, seqs: &[u64]) -> Deliver {
    Deliver {
        channel: ChannelNumber(7),
        epoch: Epoch(epoch),
        prev: Seq(prev),
        entries: seqs.iter().map(|seq| entry(*seq)).collect(),
    }
}

fn at(epoch: u32, seq: u64) -> Position {
    Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    }
}

fn subscribed(request: RequestId, position: Position, start: Start) -> Subscribed {
    Subscribed {
        request,
        group: group(),
        channel_name: channel("a"),
        channel: ChannelNumber(7),
        position,
        head: position.seq,
        start,
        ts: Ts(0),
    }
}

/// The positions of all entries emitted, each checked to follow the one before.
fn emitted(events: &[ClientEvent]) -> Vec<u64> {
    let batches = events.iter().filter_map(|event| match event {
        ClientEvent::Entries(entries) => Some(entries),
        _ => None,
    });
    batches
        .flat_map(|batch| batch.entries.iter().map(|entry| entry.seq.0))
        .collect()
}

fn request_of(message: &Message) -> RequestId {
    match message {
        Message::Subscribe(m) => m.request,
        Message::Resume(m) => m.request,
        Message::History(m) => m.request,
        Message::Sync(m) => m.request,
        Message::Unsubscribe(m) => m.request,
        Message::Send(m) => m.request,
        other => panic!("not a request: {other:?}"),
    }
}

/// A machine subscribed to channel `a` behind (1, `seq`).
fn subscribed_machine(seq: u64) -> ClientMachine {
    let mut machine = machine();
    open(&mut machine, 0);
    machine
        .subscribe(0, group(), channel("a"), SubscribeFrom::Head)
        .unwrap();
    let asked = sent(&mut machine);
    feed(
        &mut machine,
        0,
        subscribed(request_of(&asked[0]), at(1, seq), Start::Head),
    );
    events(&mut machine);
    machine
}

fn error(request: RequestId, code: Code) -> message::Error {
    message::Error::new(request, code, "text")
}

#[test]
fn a_session_opens_with_hello_then_authenticate_then_requests() {
    let mut machine = machine();
    send(&mut machine, 0, "a", 1);
    machine.handle_connected(5);
    assert!(matches!(sent(&mut machine)[..], [Message::Hello(_)]));
    let edge = "edge-1".to_owned();
    feed(
        &mut machine,
        6,
        HelloOk {
            version: 1,
            edge: edge.clone(),
            server_time_ms: 0,
        },
    );
    assert_eq!(events(&mut machine), [ClientEvent::TokenNeeded { edge }]);
    machine.authenticate("token".to_owned());
    assert!(matches!(&sent(&mut machine)[..], [Message::Authenticate(a)] if a.token == "token"));
    feed(&mut machine, 10, welcome(1_000, 64));
    assert!(matches!(&sends(&sent(&mut machine))[..], [send] if send.first_attempt_ms == 1_000));
}

#[test]
fn one_send_of_a_channel_is_in_flight_and_channels_do_not_wait_for_each_other() {
    let mut machine = machine();
    open(&mut machine, 0);
    let first = send(&mut machine, 0, "a", 1);
    let second = send(&mut machine, 0, "a", 2);
    send(&mut machine, 0, "b", 3);
    let out = sends(&sent(&mut machine));
    assert_eq!(
        out.iter().map(|s| s.client_message_id.0).collect::<Vec<_>>(),
        [1, 3]
    );
    feed(&mut machine, 1, ack(out[0].request, 1));
    assert_eq!(answers(&events(&mut machine))[0].0, first);
    let out = sends(&sent(&mut machine));
    assert_eq!(out[0].client_message_id.0, 2);
    feed(&mut machine, 2, ack(out[0].request, 2));
    assert_eq!(answers(&events(&mut machine))[0].0, second);
}

#[test]
fn a_lost_send_goes_out_again_with_its_id_and_first_attempt_and_is_answered_once() {
    let mut machine = machine();
    open(&mut machine, 0);
    let op = send(&mut machine, 10, "a", 1);
    let before = sends(&sent(&mut machine)).remove(0);
    machine.handle_disconnected(20);
    open(&mut machine, 5_000);
    let again = sends(&sent(&mut machine)).remove(0);
    assert_eq!(again.client_message_id, before.client_message_id);
    assert_eq!(again.first_attempt_ms, before.first_attempt_ms);
    assert_ne!(again.request, before.request);
    feed(&mut machine, 5_001, ack(before.request, 1));
    assert!(answers(&events(&mut machine)).is_empty());
    feed(&mut machine, 5_002, ack(again.request, 1));
    assert_eq!(
        answers(&events(&mut machine)),
        [(op, Ok(Answer::Sent(ack(again.request, 1))))]
    );
}

#[test]
fn a_retryable_refusal_is_retried_before_anything_behind_it_and_a_fatal_one_is_answered() {
    let mut machine = machine();
    open(&mut machine, 0);
    let first = send(&mut machine, 0, "a", 1);
    send(&mut machine, 0, "a", 2);
    let request = sends(&sent(&mut machine))[0].request;
    let mut refusal = error(request, Code::Unavailable);
    refusal.retry_after_ms = 700;
    feed(&mut machine, 1, refusal);
    assert!(sends(&sent(&mut machine)).is_empty());
    assert_eq!(machine.poll_timeout(), Some((701, Reason::Retry)));
    machine.handle_timeout(701);
    let again = sends(&sent(&mut machine));
    assert_eq!(again[0].client_message_id.0, 1);
    let refusal = error(again[0].request, Code::NotMember);
    feed(&mut machine, 702, refusal.clone());
    assert_eq!(
        answers(&events(&mut machine)),
        [(first, Err(RequestError::RefusedLater(refusal)))]
    );
    assert_eq!(sends(&sent(&mut machine))[0].client_message_id.0, 2);
}

#[test]
fn a_refusal_says_whether_an_earlier_attempt_may_have_been_carried_out() {
    let refused = |lost: bool, code: Code| {
        let mut machine = machine();
        open(&mut machine, 0);
        send(&mut machine, 0, "a", 1);
        if lost {
            // Its answer may have been on its way.
            machine.handle_disconnected(1);
            open(&mut machine, 2);
        }
        let request = sends(&sent(&mut machine))[0].request;
        feed(&mut machine, 3, error(request, code));
        answers(&events(&mut machine)).remove(0).1
    };
    let is_certain = |answer| matches!(answer, Err(RequestError::Refused(_)));
    assert!(is_certain(refused(false, Code::NotMember)));
    assert!(matches!(
        refused(true, Code::NotMember),
        Err(RequestError::RefusedLater(_))
    ));
    assert!(is_certain(refused(true, Code::IdempotencyConflict)));
}

#[test]
fn a_send_given_up_in_flight_holds_its_channel_until_its_answer_comes() {
    let mut machine = machine();
    open(&mut machine, 0);
    let op = send(&mut machine, 0, "a", 1);
    let request = sends(&sent(&mut machine))[0].request;
    machine.handle_timeout(120_000);
    let outcome = RequestError::Deadline {
        attempted: true,
        last: None,
    };
    assert_eq!(answers(&events(&mut machine)), [(op, Err(outcome))]);
    send(&mut machine, 120_001, "a", 2);
    assert!(sends(&sent(&mut machine)).is_empty());
    feed(&mut machine, 120_002, ack(request, 1));
    assert!(answers(&events(&mut machine)).is_empty());
    assert_eq!(sends(&sent(&mut machine))[0].client_message_id.0, 2);
}

#[test]
fn requests_in_flight_stay_within_what_welcome_names_and_the_queue_within_its_bound() {
    let mut config = ClientMachineConfig::new(DeviceId::new("device").unwrap(), 1);
    config.operations_max = 5;
    let mut machine = ClientMachine::new(config);
    open(&mut machine, 0);
    machine.welcome = Some((welcome(0, 2), 0));
    for id in 0..5 {
        send(&mut machine, 0, &format!("c{id}"), id);
    }
    let body = Bytes::new();
    let refused = machine.send(0, group(), channel("x"), ClientMessageId(9), body);
    assert_eq!(refused, Err(CommandError::QueueFull(5)));
    let out = sends(&sent(&mut machine));
    assert_eq!(out.len(), 2);
    feed(&mut machine, 1, ack(out[0].request, 1));
    assert_eq!(sends(&sent(&mut machine)).len(), 1);
}

#[test]
fn a_body_over_the_limit_is_not_taken() {
    let body = Bytes::from(vec![0; 131_073]);
    let refused = machine().send(0, group(), channel("a"), ClientMessageId(1), body);
    assert_eq!(refused, Err(CommandError::BodyTooLarge(131_073)));
}

#[test]
fn entries_are_acked_every_sixty_four_or_after_a_delay() {
    let mut machine = subscribed_machine(0);
    feed(&mut machine, 0, deliver(1, 0, &[1]));
    // Session 1 is one sooner than the bounds.
    let delay_ms = ACK_DELAY_MS - 1;
    assert_eq!(machine.poll_timeout(), Some((delay_ms, Reason::Ack)));
    machine.handle_timeout(delay_ms);
    assert!(matches!(&sent(&mut machine)[..], [Message::ClientAck(a)] if a.position == at(1, 1)));
    let many: Vec<u64> = (2..1 + u64::from(ACK_ENTRIES)).collect();
    let (last, before) = many.split_last().unwrap();
    feed(&mut machine, 300, deliver(1, 1, before));
    assert!(sent(&mut machine).is_empty());
    feed(&mut machine, 301, deliver(1, last - 1, &[*last]));
    assert!(matches!(&sent(&mut machine)[..], [Message::ClientAck(a)] if a.position == at(1, *last)));
}

#[test]
fn sessions_do_not_all_ack_at_the_same_moment() {
    let at_of = |session| {
        let mut machine = subscribed_machine(0);
        let mut welcome = welcome(0, 64);
        welcome.session = SessionId(session);
        machine.welcome = Some((welcome, 0));
        feed(&mut machine, 0, deliver(1, 0, &[1]));
        machine.poll_timeout().unwrap().0
    };
    let times: BTreeSet<u64> = (0..100).map(|n| at_of((1_700_000_000_000 << 20) + n)).collect();
    assert_eq!(times.len(), 100);
    assert!(
        times
            .iter()
            .all(|at| (ACK_DELAY_MS / 2..=ACK_DELAY_MS).contains(at))
    );
}

#[test]
fn silence_after_a_ping_ends_the_connection_and_any_frame_prevents_it() {
    let mut machine = machine();
    open(&mut machine, 0);
    assert_eq!(machine.poll_timeout(), Some((25_000, Reason::Ping)));
    machine.handle_timeout(25_000);
    assert!(matches!(&sent(&mut machine)[..], [Message::Ping(_)]));
    feed(&mut machine, 26_000, Pong { nonce: 1, time_ms: 0 });
    machine.handle_timeout(50_000);
    assert_eq!(machine.poll_timeout(), Some((58_000, Reason::Silence)));
    events(&mut machine);
    machine.handle_timeout(58_000);
    assert_eq!(
        events(&mut machine),
        [ClientEvent::Disconnect(DisconnectReason::Silent)]
    );
}

#[test]
fn a_request_without_any_answer_probes_the_connection_early() {
    let mut machine = machine();
    open(&mut machine, 0);
    send(&mut machine, 100, "a", 1);
    sent(&mut machine);
    assert_eq!(machine.poll_timeout(), Some((2_100, Reason::Ping)));
    machine.handle_timeout(2_100);
    assert!(matches!(&sent(&mut machine)[..], [Message::Ping(_)]));
    assert_eq!(machine.poll_timeout(), Some((10_100, Reason::Silence)));
}

#[test]
fn a_process_that_was_frozen_probes_again_before_it_gives_up() {
    let mut machine = machine();
    open(&mut machine, 0);
    machine.handle_timeout(25_000);
    events(&mut machine);
    machine.handle_timeout(90_000);
    assert!(events(&mut machine).is_empty());
    machine.handle_timeout(98_000);
    assert_eq!(
        events(&mut machine),
        [ClientEvent::Disconnect(DisconnectReason::Silent)]
    );
}

#[test]
fn a_drain_waits_for_answers_and_starts_nothing_new() {
    let mut machine = machine();
    open(&mut machine, 0);
    send(&mut machine, 0, "a", 1);
    let request = sends(&sent(&mut machine))[0].request;
    let edges = vec!["other:1".to_owned()];
    let reason = "deploy".to_owned();
    events(&mut machine);
    feed(
        &mut machine,
        1,
        Drain {
            deadline_ms: 5_000,
            reason: reason.clone(),
            edges: edges.clone(),
        },
    );
    send(&mut machine, 2, "b", 2);
    assert!(sent(&mut machine).is_empty());
    assert_eq!(events(&mut machine), [ClientEvent::Drain { reason, edges }]);
    feed(&mut machine, 3, ack(request, 1));
    let last = events(&mut machine).pop();
    assert_eq!(last, Some(ClientEvent::Disconnect(DisconnectReason::Drained)));
}

#[test]
fn a_refused_token_is_fatal_and_an_expired_session_is_not() {
    let mut machine = machine();
    machine.handle_connected(0);
    feed(
        &mut machine,
        0,
        HelloOk {
            version: 1,
            edge: "e".to_owned(),
            server_time_ms: 0,
        },
    );
    machine.authenticate("bad".to_owned());
    events(&mut machine);
    let refusal = error(0, Code::TokenInvalid);
    feed(&mut machine, 0, refusal.clone());
    assert_eq!(
        events(&mut machine),
        [ClientEvent::Disconnect(DisconnectReason::Refused(refusal))]
    );
    machine.handle_disconnected(1);
    open(&mut machine, 2);
    events(&mut machine);
    let expired = error(0, Code::TokenExpired);
    feed(&mut machine, 3, expired.clone());
    assert_eq!(
        events(&mut machine),
        [ClientEvent::Disconnect(DisconnectReason::Server(expired))]
    );
}

#[test]
fn a_frame_that_only_clients_send_ends_the_connection_with_a_code() {
    let mut machine = machine();
    open(&mut machine, 0);
    events(&mut machine);
    let hello = Hello {
        versions: vec![1],
        client: String::new(),
    };
    feed(&mut machine, 1, hello);
    assert!(
        matches!(&sent(&mut machine)[..], [Message::Error(e)] if e.known_code() == Some(Code::OutOfOrder))
    );
    assert!(matches!(
        &events(&mut machine)[..],
        [ClientEvent::Disconnect(DisconnectReason::Protocol { .. })]
    ));
}

#[test]
fn closing_for_good_answers_everything_once() {
    let mut machine = machine();
    open(&mut machine, 0);
    let op = send(&mut machine, 0, "a", 1);
    let closed = RequestError::Closed("bye".to_owned());
    machine.abort(1, &closed);
    assert_eq!(answers(&events(&mut machine)), [(op, Err(closed))]);
}
