//! The messages of the positive vectors: at least two of every type, one plain and one at the edges
//! of its fields.

use bytes::Bytes;
use throng_protocol::cluster;
use throng_protocol::code::{Class, Code};
use throng_protocol::ids::{
    ChannelId, ChannelNumber, ClientMessageId, DeviceId, Epoch, GroupId, Position, Seq, SessionId, Ts,
    UserId, UserNumber,
};
use throng_protocol::message::{
    Ack, Authenticate, Change, Changes, ClientAck, CreateChannel, CreateGroup, Deliver, Direction, Done,
    Drain, Ended, Entry, EntryKind, Error, Expansion, Fenced, Hello, HelloOk, History, Hole, Join, Kick,
    Leave, Message, Mute, Page, Ping, Place, Pong, ReadExpansion, Resume, Send, Start, Subscribe, Subscribed,
    Sync, Unsubscribe, Welcome,
};

/// A named message.
pub type Sample = (&'static str, Message);

/// A 64-byte name: the longest.
const LONG: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// A channel number as clusters issue them: shard 3, counter 7.
const CHANNEL: u64 = (3 << 40) | 7;
const TIME_MS: u64 = 1_795_478_400_000;

pub fn group() -> GroupId {
    GroupId::new("community").expect("valid")
}

pub fn channel() -> ChannelId {
    ChannelId::new("lean4").expect("valid")
}

fn long_group() -> GroupId {
    GroupId::new(LONG).expect("valid")
}

fn other_channel() -> ChannelId {
    ChannelId::new("général ☕").expect("valid")
}

fn position(epoch: u32, seq: u64) -> Position {
    Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    }
}

pub fn entry(seq: u64, body: &'static [u8]) -> Entry {
    Entry {
        seq: Seq(seq),
        ts: Ts::from_millis(TIME_MS + seq),
        kind: 1,
        sender: UserId::new("ann").expect("valid"),
        sender_number: UserNumber(3),
        client_message_id: ClientMessageId(0x1234_5678_9abc_def0 + seq),
        body: Bytes::from_static(body),
        target: Seq(0),
        version: Seq(0),
        hole: 0,
        expansion: Vec::new(),
        removed: Vec::new(),
        keys_elsewhere: false,
    }
}

/// All of them, by type.
pub fn all() -> Vec<Sample> {
    [
        opening(),
        groups(),
        sends(),
        subscriptions(),
        resumptions(),
        deliveries(),
        pages(),
        rights(),
        changes(),
        rest(),
    ]
    .concat()
}

fn welcome() -> Welcome {
    Welcome {
        session: SessionId(9),
        user: UserId::new("ann").expect("valid"),
        user_number: UserNumber(3),
        server_time_ms: TIME_MS,
        token_expires_ms: TIME_MS + 3_600_000,
        idempotency_window_ms: 172_800_000,
        ping_interval_ms: 25_000,
        body_bytes_max: 131_072,
        requests_in_flight_max: 64,
        subscriptions_max: 1_000,
    }
}

fn opening() -> Vec<Sample> {
    let hello = |versions: &[u16], client: &str| Hello {
        versions: versions.to_vec(),
        client: client.to_owned(),
    };
    let largest = Welcome {
        session: SessionId(u64::MAX),
        user: UserId::new("Zoë").expect("valid"),
        user_number: UserNumber(u64::MAX),
        ping_interval_ms: u32::MAX,
        ..welcome()
    };
    let authenticate = |token: &str, device: &str| Authenticate {
        token: token.to_owned(),
        device: DeviceId::new(device).expect("valid"),
    };
    let hello_ok = |edge: &str, server_time_ms| HelloOk {
        version: 1,
        edge: edge.to_owned(),
        server_time_ms,
    };
    vec![
        ("hello", hello(&[1], "example/1.0").into()),
        ("hello_without_a_name", hello(&[3, 2, 1], "").into()),
        (
            "hello_with_as_many_versions_as_allowed",
            hello(&(1..=16).rev().collect::<Vec<_>>(), "x").into(),
        ),
        ("hello_ok", hello_ok("edge-1", TIME_MS).into()),
        ("hello_ok_at_the_epoch", hello_ok("", 0).into()),
        (
            "authenticate",
            authenticate("eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "phone").into(),
        ),
        (
            "authenticate_with_the_longest_names",
            authenticate(&"t".repeat(4_096), LONG).into(),
        ),
        ("welcome", welcome().into()),
        ("welcome_with_the_largest_numbers", largest.into()),
    ]
}

fn groups() -> Vec<Sample> {
    vec![
        (
            "create_group",
            CreateGroup {
                request: 1,
                group: group(),
            }
            .into(),
        ),
        (
            "create_group_with_the_longest_name",
            CreateGroup {
                request: u64::MAX,
                group: long_group(),
            }
            .into(),
        ),
        (
            "create_channel",
            CreateChannel {
                request: 2,
                group: group(),
                channel: channel(),
            }
            .into(),
        ),
        (
            "create_channel_with_a_name_beyond_ascii",
            CreateChannel {
                request: 3,
                group: group(),
                channel: other_channel(),
            }
            .into(),
        ),
        (
            "join",
            Join {
                request: 3,
                group: group(),
            }
            .into(),
        ),
        (
            "join_with_the_longest_name",
            Join {
                request: 4,
                group: long_group(),
            }
            .into(),
        ),
        (
            "leave",
            Leave {
                request: 4,
                group: group(),
            }
            .into(),
        ),
        (
            "leave_with_the_longest_name",
            Leave {
                request: 5,
                group: long_group(),
            }
            .into(),
        ),
        ("done", Done { request: 4 }.into()),
        ("done_of_the_largest_request", Done { request: u64::MAX }.into()),
    ]
}

fn sends() -> Vec<Sample> {
    let send = Send {
        request: 5,
        group: group(),
        channel: channel(),
        client_message_id: ClientMessageId(77),
        first_attempt_ms: TIME_MS,
        body: Bytes::from_static(b"hello, world"),
    };
    let empty = Send {
        client_message_id: ClientMessageId(u64::MAX),
        channel: other_channel(),
        body: Bytes::new(),
        ..send.clone()
    };
    let binary = Send {
        body: Bytes::from_static(&[0, 255, 128, 10, 0]),
        ..send.clone()
    };
    let ack = Ack {
        request: 5,
        channel: ChannelNumber(CHANNEL),
        epoch: Epoch(1),
        seq: Seq(42),
        ts: Ts::from_millis(TIME_MS),
        repeat: false,
        before: Seq(0),
    };
    let repeat = Ack {
        repeat: true,
        ts: Ts(u64::MAX),
        seq: Seq(u64::MAX),
        epoch: Epoch(u32::MAX),
        ..ack
    };
    vec![
        ("send", send.into()),
        ("send_an_empty_body", empty.into()),
        ("send_bytes_that_are_no_text", binary.into()),
        ("ack", ack.into()),
        ("ack_of_a_repeat", repeat.into()),
    ]
}

/// Twenty places, as a client that comes back has them.
fn many_places() -> Vec<Place> {
    (0..20)
        .map(|number| Place {
            group: group(),
            channel: ChannelId::new(&format!("channel-{number}")).expect("valid"),
            position: position(1, number * 1_000),
            ts: Ts(0),
        })
        .collect()
}

fn subscriptions() -> Vec<Sample> {
    let subscribe = |position| Subscribe {
        request: 6,
        group: group(),
        channel: channel(),
        position,
        ts: Ts(0),
    };
    let by_ts = Subscribe {
        ts: Ts::from_millis(TIME_MS),
        ..subscribe(position(0, 0))
    };
    let subscribed = |position, head, start| Subscribed {
        request: 6,
        group: group(),
        channel_name: channel(),
        channel: ChannelNumber(CHANNEL),
        position,
        head: Seq(head),
        start,
        ts: Ts(0),
    };
    let with_ts = Subscribed {
        ts: Ts(u64::MAX),
        ..subscribed(position(1, 41), 50, Start::Resumed)
    };
    vec![
        ("subscribe_at_the_head", subscribe(position(0, 0)).into()),
        ("subscribe_behind_a_position", subscribe(position(1, 41)).into()),
        (
            "subscribed_resumed",
            subscribed(position(1, 41), 50, Start::Resumed).into(),
        ),
        (
            "subscribed_head",
            subscribed(position(1, 0), 0, Start::Head).into(),
        ),
        (
            "subscribed_full_epoch",
            subscribed(position(2, 30), 30, Start::FullEpoch).into(),
        ),
        (
            "subscribed_full_ahead",
            subscribed(position(1, 30), 30, Start::FullAhead).into(),
        ),
        ("subscribe_behind_a_time_stamp", by_ts.into()),
        ("subscribed_with_a_time_stamp", with_ts.into()),
        (
            "subscribed_full_fence",
            subscribed(position(1, 30), 30, Start::FullFence).into(),
        ),
    ]
}

fn deliveries() -> Vec<Sample> {
    let deliver = |prev, entries| Deliver {
        channel: ChannelNumber(CHANNEL),
        epoch: Epoch(1),
        prev: Seq(prev),
        entries,
    };
    let unknown_kind = Entry {
        kind: 200,
        ..entry(2, b"of a later version")
    };
    let ack = |position| ClientAck {
        channel: ChannelNumber(CHANNEL),
        position,
    };
    vec![
        ("deliver_one", deliver(41, vec![entry(42, b"one")]).into()),
        (
            "deliver_several_with_holes",
            deliver(41, vec![entry(42, b"one"), entry(44, b""), entry(50, b"x")]).into(),
        ),
        ("deliver_the_first", deliver(0, vec![entry(1, b"first")]).into()),
        ("deliver_an_unknown_kind", deliver(1, vec![unknown_kind]).into()),
        ("client_ack", ack(position(1, 42)).into()),
        ("client_ack_of_nothing", ack(position(1, 0)).into()),
    ]
}

fn resumptions() -> Vec<Sample> {
    let place = |group, channel, position| Place {
        group,
        channel,
        position,
        ts: Ts(0),
    };
    let by_ts = Place {
        ts: Ts::from_millis(TIME_MS),
        ..place(group(), other_channel(), position(0, 0))
    };
    vec![
        (
            "unsubscribe",
            Unsubscribe {
                request: 7,
                channel: ChannelNumber(CHANNEL),
            }
            .into(),
        ),
        (
            "unsubscribe_channel_0",
            Unsubscribe {
                request: 8,
                channel: ChannelNumber(0),
            }
            .into(),
        ),
        (
            "resume",
            Resume {
                request: 10,
                places: vec![place(group(), channel(), position(1, 41))],
            }
            .into(),
        ),
        (
            "resume_many",
            Resume {
                request: 11,
                places: many_places(),
            }
            .into(),
        ),
        (
            "resume_behind_a_time_stamp",
            Resume {
                request: 12,
                places: vec![place(group(), channel(), position(1, 41)), by_ts],
            }
            .into(),
        ),
    ]
}

fn pages() -> Vec<Sample> {
    let sync = |position, limit| Sync {
        request: 8,
        group: group(),
        channel: channel(),
        position,
        limit,
        ts: Ts(0),
    };
    let sync_by_ts = Sync {
        ts: Ts(u64::MAX),
        ..sync(position(0, 0), 100)
    };
    let history = |anchor, direction, limit| History {
        request: 9,
        group: group(),
        channel: channel(),
        anchor: Seq(anchor),
        direction,
        limit,
        ts: Ts(0),
    };
    let history_by_ts = History {
        ts: Ts::from_millis(TIME_MS),
        ..history(0, Direction::Before, 20)
    };
    let page = |prev, head, entries| Page {
        request: 9,
        channel: ChannelNumber(CHANNEL),
        epoch: Epoch(1),
        prev: Seq(prev),
        head: Seq(head),
        entries,
    };
    vec![
        ("sync", sync(position(1, 41), 100).into()),
        ("sync_from_the_start", sync(position(1, 0), 0).into()),
        (
            "sync_with_the_largest_limit",
            sync(position(1, u64::MAX), 300).into(),
        ),
        ("history_before_the_end", history(0, Direction::Before, 20).into()),
        ("history_after", history(10, Direction::After, 0).into()),
        ("page", page(0, 2, vec![entry(1, b"a"), entry(2, b"b")]).into()),
        ("page_of_nothing", page(41, 41, Vec::new()).into()),
        ("sync_behind_a_time_stamp", sync_by_ts.into()),
        ("history_before_a_time_stamp", history_by_ts.into()),
    ]
}

fn rights() -> Vec<Sample> {
    let user = |name| UserId::new(name).expect("valid");
    let kick = |request, group, user| Kick { request, group, user };
    let mute = |request, until_ms| Mute {
        request,
        group: group(),
        user: user("bob"),
        until_ms,
    };
    let fenced = |pending, more| Fenced {
        request: 12,
        version: 8,
        pending,
        more,
    };
    let ended = |seq, code: u16, message: &str| Ended {
        request: 6,
        channel: ChannelNumber(CHANNEL),
        position: position(1, seq),
        code,
        message: message.to_owned(),
    };
    vec![
        ("kick", kick(12, group(), user("bob")).into()),
        (
            "kick_with_the_longest_names",
            kick(u64::MAX, long_group(), user(LONG)).into(),
        ),
        ("mute", mute(13, TIME_MS + 60_000).into()),
        ("unmute", mute(14, 0).into()),
        ("fenced_everywhere", fenced(Vec::new(), 0).into()),
        (
            "fenced_but_for_some_channels",
            fenced(vec![channel(), other_channel()], 3).into(),
        ),
        ("ended", ended(42, 302, "the membership has ended").into()),
        ("ended_with_an_unknown_code", ended(u64::MAX, 999, "").into()),
    ]
}

fn changes() -> Vec<Sample> {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let change = |request, change| Change {
        request,
        group: group(),
        channel: channel(),
        client_message_id: ClientMessageId(0x1234_5678_9abc_def0),
        first_attempt_ms: TIME_MS,
        target: position(1, 42),
        change,
    };
    let body = Bytes::from_static(b"better");
    let full = cluster::Change::Expand {
        set: (0..19).map(|n| pair(&format!("{n:032}"), "")).collect(),
        remove: vec!["ключ ☕".to_owned()],
    };
    let changes = |to, since| Changes {
        request: 16,
        group: group(),
        channel: other_channel(),
        from: position(1, 41),
        to: Seq(to),
        since: Seq(since),
    };
    let read = |after: &str| ReadExpansion {
        request: 17,
        group: group(),
        channel: channel(),
        target: position(1, 42),
        after: after.to_owned(),
    };
    let expansion = |version, expansion, more| Expansion {
        request: 17,
        channel: ChannelNumber(CHANNEL),
        target: position(1, 42),
        version: Seq(version),
        expansion,
        more,
    };
    let set = vec![pair("like", "3")];
    vec![
        ("modify", change(15, cluster::Change::Modify { body }).into()),
        ("recall", change(15, cluster::Change::Recall).into()),
        ("delete", change(u64::MAX, cluster::Change::Delete).into()),
        (
            "expand",
            change(
                15,
                cluster::Change::Expand {
                    set: set.clone(),
                    remove: Vec::new(),
                },
            )
            .into(),
        ),
        ("expand_with_as_many_keys_as_allowed", change(15, full).into()),
        ("changes", changes(99, 120).into()),
        ("changes_of_the_largest_range", changes(340, 0).into()),
        ("read_expansion", read("").into()),
        ("read_expansion_behind_a_key", read("ключ ☕").into()),
        ("expansion", expansion(44, set, true).into()),
        ("expansion_of_nothing", expansion(0, Vec::new(), false).into()),
        ("deliver_changes", Message::from(changed())),
    ]
}

/// A modification, a recall and two changes of expansions, as they are delivered.
fn changed() -> Deliver {
    let of = |seq, kind: EntryKind| Entry {
        kind: kind.number(),
        target: Seq(42),
        ..entry(seq, b"")
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Deliver {
        channel: ChannelNumber(CHANNEL),
        epoch: Epoch(1),
        prev: Seq(43),
        entries: vec![
            Entry {
                body: Bytes::from_static(b"better"),
                ..of(44, EntryKind::Modify)
            },
            Entry {
                expansion: vec![pair("like", "3")],
                removed: vec!["seen".to_owned()],
                ..of(45, EntryKind::Expand)
            },
            Entry {
                version: Seq(40),
                expansion: vec![pair("a", "1"), pair("b", "")],
                ..entry(46, b"changed before it was delivered")
            },
            Entry {
                hole: Hole::Recalled.number(),
                ..of(47, EntryKind::Recall)
            },
            Entry {
                version: Seq(41),
                keys_elsewhere: true,
                ..entry(48, b"with a large expansion")
            },
        ],
    }
}

fn rest() -> Vec<Sample> {
    let drain = |deadline_ms, reason: &str, edges: &[&str]| Drain {
        deadline_ms,
        reason: reason.to_owned(),
        edges: edges.iter().map(|edge| (*edge).to_owned()).collect(),
    };
    let waiting = Error {
        retry_after_ms: 1_500,
        ..Error::new(7, Code::Overloaded, "try again")
    };
    let future = Error {
        request: 3,
        code: 999,
        class: Class::Redirect,
        message: "a code of a later version".to_owned(),
        retry_after_ms: 0,
    };
    vec![
        ("ping", Ping { nonce: 1 }.into()),
        ("ping_with_nonce_0", Ping { nonce: 0 }.into()),
        (
            "pong",
            Pong {
                nonce: 1,
                time_ms: TIME_MS,
            }
            .into(),
        ),
        (
            "pong_with_the_largest_nonce",
            Pong {
                nonce: u64::MAX,
                time_ms: 0,
            }
            .into(),
        ),
        (
            "drain",
            drain(10_000, "upgrade", &["edge-2.example:4433", "[::1]:4433"]).into(),
        ),
        ("drain_without_edges", drain(0, "", &[]).into()),
        (
            "error_of_a_request",
            Error::new(9, Code::NotMember, "not a member of community").into(),
        ),
        (
            "error_of_the_connection",
            Error::new(0, Code::TokenExpired, "").into(),
        ),
        ("error_with_a_wait", waiting.into()),
        ("error_of_an_unknown_code", future.into()),
    ]
}
