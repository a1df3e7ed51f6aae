//! Every message survives its frame; malformed payloads are refused with the code of SPEC.md.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::cluster;
use crate::frame::{self, Frame};
use crate::limits::{BODY_BYTES_MAX, PAGE_ENTRIES_MAX};

fn frame_of(message: &Message) -> Frame {
    let mut bytes = message.encode().into();
    frame::decode(&mut bytes).expect("a frame").expect("whole")
}

fn entry(seq: u64, body: &'static [u8]) -> Entry {
    Entry {
        seq: Seq(seq),
        ts: Ts(seq << 16),
        kind: 1,
        sender: UserId::new("ann").expect("valid"),
        sender_number: UserNumber(3),
        client_message_id: ClientMessageId(u64::MAX - seq),
        body: Bytes::from_static(body),
        target: Seq(0),
        version: Seq(0),
        hole: 0,
        expansion: Vec::new(),
        removed: Vec::new(),
        keys_elsewhere: false,
    }
}

#[expect(
    clippy::too_many_lines,
    reason = "a sample of every frame type, one after the other"
)]
fn samples() -> Vec<Message> {
    let group = GroupId::new("community").expect("valid");
    let channel = ChannelId::new("lean4").expect("valid");
    let position = Position {
        epoch: Epoch(1),
        seq: Seq(41),
    };
    let mut samples = vec![
        Hello {
            versions: vec![2, 1],
            client: "test 1".to_owned(),
        }
        .into(),
        HelloOk {
            version: 1,
            edge: "edge-1".to_owned(),
            server_time_ms: 5,
        }
        .into(),
        Authenticate {
            token: "a.b.c".to_owned(),
            device: DeviceId::new("phone").expect("valid"),
        }
        .into(),
        Welcome {
            session: SessionId(9),
            user: UserId::new("ann").expect("valid"),
            user_number: UserNumber(3),
            server_time_ms: 1,
            token_expires_ms: 2,
            idempotency_window_ms: 3,
            ping_interval_ms: 4,
            body_bytes_max: 5,
            requests_in_flight_max: 6,
            subscriptions_max: 7,
        }
        .into(),
        CreateGroup {
            request: 1,
            group: group.clone(),
        }
        .into(),
        CreateChannel {
            request: 2,
            group: group.clone(),
            channel: channel.clone(),
        }
        .into(),
        Join {
            request: 3,
            group: group.clone(),
        }
        .into(),
        Leave {
            request: 4,
            group: group.clone(),
        }
        .into(),
        Done { request: 4 }.into(),
        Send {
            request: 5,
            group: group.clone(),
            channel: channel.clone(),
            client_message_id: ClientMessageId(77),
            first_attempt_ms: 8,
            body: Bytes::from_static(b"hi"),
        }
        .into(),
        Ack {
            request: 5,
            channel: ChannelNumber(6),
            epoch: Epoch(1),
            seq: Seq(2),
            ts: Ts(3),
            repeat: true,
            before: Seq(0),
        }
        .into(),
        Subscribe {
            request: 6,
            group: group.clone(),
            channel: channel.clone(),
            position,
            ts: Ts(0),
        }
        .into(),
        Subscribed {
            request: 6,
            group: group.clone(),
            channel_name: channel.clone(),
            channel: ChannelNumber(6),
            position,
            head: Seq(50),
            start: Start::FullFence,
            ts: Ts(1 << 20),
        }
        .into(),
        Unsubscribe {
            request: 7,
            channel: ChannelNumber(6),
        }
        .into(),
        Deliver {
            channel: ChannelNumber(6),
            epoch: Epoch(1),
            prev: Seq(41),
            entries: vec![entry(42, b"one"), entry(44, b"")],
        }
        .into(),
        ClientAck {
            channel: ChannelNumber(6),
            position,
        }
        .into(),
        Sync {
            request: 8,
            group: group.clone(),
            channel: channel.clone(),
            position,
            limit: 100,
            ts: Ts(0),
        }
        .into(),
        History {
            request: 9,
            group: group.clone(),
            channel: channel.clone(),
            anchor: Seq(0),
            direction: Direction::Before,
            limit: 20,
            ts: Ts(7),
        }
        .into(),
        Page {
            request: 9,
            channel: ChannelNumber(6),
            epoch: Epoch(1),
            prev: Seq(0),
            head: Seq(2),
            entries: vec![entry(1, b"a"), entry(2, b"b")],
        }
        .into(),
        Ping { nonce: 1 }.into(),
        Pong { nonce: 1, time_ms: 2 }.into(),
        Drain {
            deadline_ms: 10,
            reason: "upgrade".to_owned(),
            edges: vec!["h:1".to_owned()],
        }
        .into(),
        Error::new(9, Code::NotMember, "no").into(),
        Resume {
            request: 10,
            places: vec![Place {
                group: group.clone(),
                channel: channel.clone(),
                position: Position::default(),
                ts: Ts(9),
            }],
        }
        .into(),
    ];
    samples.extend(rights(&group, &channel, position));
    samples.extend(changes(&group, &channel, position));
    samples
}

fn rights(group: &GroupId, channel: &ChannelId, position: Position) -> [Message; 4] {
    let user = UserId::new("bob").expect("valid");
    [
        Kick {
            request: 11,
            group: group.clone(),
            user: user.clone(),
        }
        .into(),
        Mute {
            request: 12,
            group: group.clone(),
            user,
            until_ms: 7,
        }
        .into(),
        Fenced {
            request: 12,
            version: 5,
            pending: vec![channel.clone()],
            more: 2,
        }
        .into(),
        Ended {
            request: 6,
            channel: ChannelNumber(6),
            position,
            code: Code::NotMember.number(),
            message: "over".to_owned(),
        }
        .into(),
    ]
}

fn changes(group: &GroupId, channel: &ChannelId, position: Position) -> [Message; 4] {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    [
        Change {
            request: 13,
            group: group.clone(),
            channel: channel.clone(),
            client_message_id: ClientMessageId(5),
            first_attempt_ms: 9,
            target: position,
            change: cluster::Change::Expand {
                set: vec![pair("like", "3")],
                remove: vec!["seen".to_owned()],
            },
        }
        .into(),
        Changes {
            request: 14,
            group: group.clone(),
            channel: channel.clone(),
            from: position,
            to: Seq(60),
            since: Seq(70),
        }
        .into(),
        ReadExpansion {
            request: 15,
            group: group.clone(),
            channel: channel.clone(),
            target: position,
            after: "like".to_owned(),
        }
        .into(),
        Expansion {
            request: 15,
            channel: ChannelNumber(6),
            target: position,
            version: Seq(44),
            expansion: vec![pair("seen", ""), pair("\u{1f600}", "x")],
            more: true,
        }
        .into(),
    ]
}

#[test]
fn every_change_survives_its_frame_and_every_field_of_an_entry_too() {
    let group = GroupId::new("g").expect("valid");
    let channel = ChannelId::new("c").expect("valid");
    let target = Position {
        epoch: Epoch(1),
        seq: Seq(4),
    };
    let body = Bytes::from_static(b"new");
    for change in [
        cluster::Change::Modify { body },
        cluster::Change::Recall,
        cluster::Change::Delete,
    ] {
        let message = Message::from(Change {
            request: 1,
            group: group.clone(),
            channel: channel.clone(),
            client_message_id: ClientMessageId(5),
            first_attempt_ms: 9,
            target,
            change,
        });
        assert_eq!(Message::decode(&frame_of(&message)), Ok(Some(message)));
    }
    let changed = Entry {
        kind: EntryKind::Expand.number(),
        target: Seq(4),
        version: Seq(9),
        hole: Hole::Deleted.number(),
        expansion: vec![("k".to_owned(), "v".to_owned())],
        removed: vec!["r".to_owned()],
        keys_elsewhere: true,
        ..entry(11, b"")
    };
    let page = Message::from(Page {
        request: 3,
        channel: ChannelNumber(6),
        epoch: Epoch(1),
        prev: Seq(10),
        head: Seq(11),
        entries: vec![changed],
    });
    assert_eq!(Message::decode(&frame_of(&page)), Ok(Some(page)));
}

#[test]
fn every_message_survives_its_frame() {
    let samples = samples();
    let kinds: Vec<u8> = {
        let mut kinds: Vec<u8> = samples.iter().map(Message::kind).collect();
        kinds.sort_unstable();
        kinds
    };
    assert_eq!(kinds, (1..=32).collect::<Vec<u8>>(), "a sample of every type");
    for message in samples {
        assert_eq!(Message::decode(&frame_of(&message)), Ok(Some(message)));
    }
}

#[test]
fn unknown_types_are_skipped_below_128_and_refused_from_there() {
    let frame = |kind| Frame {
        kind,
        payload: Bytes::from_static(b"anything"),
    };
    assert_eq!(Message::decode(&frame(33)), Ok(None));
    assert_eq!(Message::decode(&frame(127)), Ok(None));
    assert_eq!(Message::decode(&frame(0)), Ok(None));
    let refused = Message::decode(&frame(128)).expect_err("critical");
    assert_eq!(refused.code(), Code::UnknownCriticalFrame);
}

#[test]
fn a_body_over_the_limit_is_refused_for_its_request_alone() {
    let send = |bytes| {
        Message::from(Send {
            request: 5,
            group: GroupId::new("g").expect("valid"),
            channel: ChannelId::new("c").expect("valid"),
            client_message_id: ClientMessageId(1),
            first_attempt_ms: 0,
            body: Bytes::from(vec![7; bytes]),
        })
    };
    assert!(Message::decode(&frame_of(&send(BODY_BYTES_MAX))).is_ok());
    let refused = Message::decode(&frame_of(&send(BODY_BYTES_MAX + 1))).expect_err("too large");
    assert_eq!((refused.code(), refused.request()), (Code::MessageTooLarge, 5));
    assert!(!refused.code().closes());
}

#[test]
fn a_body_is_a_slice_of_its_frame() {
    let frame = frame_of(
        &samples()
            .into_iter()
            .find(|message| message.kind() == 15)
            .expect("a deliver"),
    );
    let Ok(Some(Message::Deliver(deliver))) = Message::decode(&frame) else {
        panic!("a deliver")
    };
    let range = frame.payload.as_ptr_range();
    assert!(range.contains(&deliver.entries[0].body.as_ptr()));
}

#[test]
fn out_of_range_fields_are_refused_with_their_request() {
    let refused = |message: Message| {
        let error = Message::decode(&frame_of(&message)).expect_err("refused");
        (error.code(), error.request())
    };
    let group = GroupId::new("g").expect("valid");
    let channel = ChannelId::new("c").expect("valid");
    let position = Position::default();
    assert_eq!(
        refused(
            Join {
                request: 0,
                group: group.clone()
            }
            .into()
        ),
        (Code::InvalidField, 0)
    );
    let both = Subscribe {
        request: 4,
        group: group.clone(),
        channel: channel.clone(),
        position: Position {
            epoch: Epoch(1),
            ..position
        },
        ts: Ts(1),
    };
    assert_eq!(refused(both.into()), (Code::InvalidField, 4));
    let sync = Sync {
        request: 4,
        group,
        channel,
        position,
        limit: PAGE_ENTRIES_MAX + 1,
        ts: Ts(0),
    };
    assert_eq!(refused(sync.into()), (Code::InvalidField, 4));
    assert_eq!(
        refused(
            Resume {
                request: 6,
                places: Vec::new()
            }
            .into()
        ),
        (Code::InvalidField, 6)
    );
    assert_eq!(
        refused(
            Hello {
                versions: Vec::new(),
                client: String::new()
            }
            .into()
        ),
        (Code::InvalidField, 0)
    );
    let backwards = Deliver {
        channel: ChannelNumber(1),
        epoch: Epoch(1),
        prev: Seq(0),
        entries: vec![entry(2, b""), entry(1, b"")],
    };
    assert_eq!(refused(backwards.into()), (Code::InvalidField, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_payload_makes_the_decoder_panic(kind: u8, payload in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = Message::decode(&Frame { kind, payload: Bytes::from(payload) });
    }

    #[test]
    fn no_flipped_byte_makes_the_decoder_panic(sample in 0usize..24, at: prop::sample::Index, value: u8) {
        let frame = frame_of(&samples()[sample]);
        let mut payload = frame.payload.to_vec();
        let at = at.index(payload.len());
        payload[at] = value;
        let _ = Message::decode(&Frame { kind: frame.kind, payload: Bytes::from(payload) });
    }
}
