//! The malformed vectors: frames a receiver refuses, with the code it reports, and frames it skips.

use bytes::Bytes;
use throng_protocol::cluster::PENDING_CHANNELS_MAX;
use throng_protocol::frame;
use throng_protocol::ids::{ChannelNumber, Epoch, Seq};
use throng_protocol::limits::{
    EXPANSION_KEY_BYTES_MAX, EXPANSION_VALUE_BYTES_MAX, FRAME_BYTES_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX,
    TOKEN_BYTES_MAX,
};
use throng_protocol::message::{Deliver, Join, Message, Ping};

use crate::raw::{self, Table, Value, framed, text};
use crate::samples;

/// Where a receiver notices what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The length prefix, or the end of the stream inside a frame.
    Frame,
    /// The frame type.
    Type,
    /// The FlatBuffers verifier: needs one that knows the schema.
    Verify,
    /// The fields of a sound table.
    Field,
}

/// One malformed vector.
#[derive(Debug, Clone)]
pub struct Malformed {
    pub name: String,
    pub layer: Layer,
    pub bytes: Bytes,
    /// The name of the code; `skip` for a frame that is skipped.
    pub outcome: &'static str,
    /// The request the error answers.
    pub request: u64,
}

fn at(layer: Layer, name: &str, bytes: impl Into<Bytes>, outcome: &'static str) -> Malformed {
    Malformed {
        name: name.to_owned(),
        layer,
        bytes: bytes.into(),
        outcome,
        request: 0,
    }
}

/// The files of malformed vectors, by name.
pub fn files() -> Vec<(&'static str, Vec<Malformed>)> {
    vec![
        ("framing", framing()),
        ("types", types()),
        ("payloads", payloads()),
        ("names", names()),
        (
            "fields",
            [ranges(), texts(), entries(), changes(), ranges_of_changes()].concat(),
        ),
    ]
}

/// A length prefix of up to three bytes.
fn length(mut length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).expect("seven bits"));
    out
}

fn framing() -> Vec<Malformed> {
    let ping = Message::from(Ping { nonce: 7 }).encode();
    let oversized = [length(FRAME_BYTES_MAX + 1), vec![10]].concat();
    let refused = |name, bytes: Vec<u8>| at(Layer::Frame, name, bytes, "malformed_frame");
    vec![
        refused("the_stream_ends_inside_the_length", vec![0x80]),
        refused("the_stream_ends_before_the_type", vec![0x10]),
        refused(
            "the_stream_ends_inside_the_payload",
            ping[..ping.len() - 1].to_vec(),
        ),
        refused("length_0_in_two_bytes", vec![0x80, 0x00, 20]),
        refused("length_1_in_three_bytes", vec![0x81, 0x80, 0x00, 20, 0]),
        refused("length_of_four_bytes", vec![0xff, 0xff, 0xff, 0x01, 20]),
        refused("length_that_never_ends", vec![0xff; 10]),
        at(
            Layer::Frame,
            "one_byte_over_the_limit_by_its_header_alone",
            oversized,
            "frame_too_large",
        ),
        at(
            Layer::Frame,
            "the_longest_length_by_its_header_alone",
            vec![0xff, 0xff, 0x7f, 10],
            "frame_too_large",
        ),
    ]
}

fn types() -> Vec<Malformed> {
    let of = |name, kind, outcome| at(Layer::Type, name, frame::encode(kind, b"anything"), outcome);
    vec![
        of("type_0", 0, "skip"),
        of("the_first_unknown_type", 33, "skip"),
        of("the_last_type_that_is_skipped", 127, "skip"),
        of(
            "the_first_type_that_is_not_skipped",
            128,
            "unknown_critical_frame",
        ),
        of("the_last_type", 255, "unknown_critical_frame"),
        at(
            Layer::Type,
            "an_unknown_type_without_payload",
            frame::encode(100, b""),
            "skip",
        ),
    ]
}

fn payloads() -> Vec<Malformed> {
    let refused = |name: &str, kind, payload: &[u8]| {
        at(
            Layer::Verify,
            name,
            frame::encode(kind, payload),
            "malformed_frame",
        )
    };
    let join = raw::payload(&vec![(0, Value::U64(3)), (1, text("community"))]);
    let mut root_outside = join.clone();
    root_outside[..4].copy_from_slice(&0xffff_u32.to_le_bytes());
    let mut out = vec![
        refused("an_empty_payload", 7, b""),
        refused("three_bytes", 7, &[4, 0, 0]),
        refused("the_root_lies_outside", 7, &root_outside),
        refused("half_a_table", 7, &join[..join.len() / 2]),
        refused("text_instead_of_a_table", 10, b"this is no table at all"),
    ];
    let position = join
        .windows(9)
        .position(|bytes| bytes == b"community")
        .expect("the name");
    let mut not_utf8 = join.clone();
    not_utf8[position] = 0xff;
    out.push(refused("a_name_that_is_not_utf_8", 7, &not_utf8));
    let mut unterminated = join.clone();
    unterminated[position + 9] = b'!';
    out.push(refused("a_text_without_its_terminator", 7, &unterminated));
    let mut long = join;
    long[position - 4..position].copy_from_slice(&0x00ff_ffff_u32.to_le_bytes());
    out.push(refused("a_text_longer_than_the_payload", 7, &long));
    let place: Table = vec![(0, text("g")), (1, text("c"))];
    let crowd = raw::payload(&vec![(0, Value::U64(1)), (1, Value::Tables(vec![place; 1_100]))]);
    out.push(refused("more_tables_than_allowed", 24, &crowd));
    out
}

/// Every name of a client's frame: absent, empty, too long, with a control character.
fn names() -> Vec<Malformed> {
    let request = (0, Value::U64(5));
    let group = (1, text("g"));
    let cases: [(&str, u8, Table, u16, u64); 14] = [
        ("create_group_group", 5, vec![request.clone()], 1, 5),
        (
            "create_channel_channel",
            6,
            vec![request.clone(), group.clone()],
            2,
            5,
        ),
        ("join_group", 7, vec![request.clone()], 1, 5),
        ("leave_group", 8, vec![request.clone()], 1, 5),
        ("send_channel", 10, vec![request.clone(), group.clone()], 2, 5),
        ("subscribe_group", 12, vec![request.clone(), (2, text("c"))], 1, 5),
        ("sync_channel", 17, vec![request.clone(), group.clone()], 2, 5),
        ("history_channel", 18, vec![request.clone(), group.clone()], 2, 5),
        ("kick_user", 25, vec![request.clone(), group], 2, 5),
        ("mute_group", 26, vec![request.clone(), (2, text("u"))], 1, 5),
        ("change_channel", 29, vec![request.clone(), (1, text("g"))], 2, 5),
        (
            "changes_group",
            30,
            [at_seq(&request), vec![(5, Value::U64(1))]].concat(),
            1,
            5,
        ),
        ("read_expansion_group", 31, at_seq(&request), 1, 5),
        ("authenticate_device", 3, vec![(0, text("t"))], 1, 0),
    ];
    let bad = [
        ("absent", None),
        ("empty", Some(String::new())),
        ("too_long", Some("x".repeat(NAME_BYTES_MAX + 1))),
        ("with_a_control_character", Some("a\u{85}b".to_owned())),
    ];
    let mut out = Vec::new();
    for (case, kind, table, slot, request) in cases {
        for (how, name) in &bad {
            let mut table = table.clone();
            table.extend(name.iter().map(|name| (slot, text(name.clone()))));
            out.push(Malformed {
                request,
                ..at(
                    Layer::Field,
                    &format!("{case}_{how}"),
                    framed(kind, &table),
                    "invalid_field",
                )
            });
        }
    }
    out
}

fn field(name: &str, kind: u8, request: u64, table: &Table) -> Malformed {
    Malformed {
        request,
        ..at(Layer::Field, name, framed(kind, table), "invalid_field")
    }
}

fn ranges() -> Vec<Malformed> {
    let names = || vec![(1, text("g")), (2, text("c"))];
    let with = |mut table: Table, request: u64, slot: u16, value: Value| {
        table.insert(0, (0, Value::U64(request)));
        table.push((slot, value));
        table
    };
    let place: Table = vec![(0, text("g")), (1, text("c"))];
    let places = |count| vec![(0, Value::U64(6)), (1, Value::Tables(vec![place.clone(); count]))];
    // A position, of which epochs are 32 bits wide, and a time stamp.
    let both = |slot: u16, ts: u16| {
        let number = if slot == 3 && ts == 5 {
            Value::U32(1)
        } else {
            Value::U64(1)
        };
        let mut table = with(names(), 4, slot, number);
        table.push((ts, Value::U64(1)));
        table
    };
    let by_both = vec![
        (0, text("g")),
        (1, text("c")),
        (3, Value::U64(1)),
        (4, Value::U64(1)),
    ];
    let place_by_both = vec![(0, Value::U64(6)), (1, Value::Tables(vec![by_both]))];
    let fenced = |pending: Vec<String>| vec![(0, Value::U64(6)), (2, Value::Texts(pending))];
    let crowded = fenced(
        (0..=PENDING_CHANNELS_MAX)
            .map(|number| number.to_string())
            .collect(),
    );
    let nameless = fenced(vec![String::new()]);
    let long_end = vec![(5, text("x".repeat(TEXT_BYTES_MAX + 1)))];
    let request_0 = Message::from(Join {
        request: 0,
        group: samples::group(),
    })
    .encode();
    vec![
        at(Layer::Field, "join_request_0", request_0, "invalid_field"),
        field("send_request_absent", 10, 0, &names()),
        field("unsubscribe_request_0", 14, 0, &vec![(1, Value::U64(7))]),
        field("sync_limit_301", 17, 4, &with(names(), 4, 5, Value::U32(301))),
        field("history_limit_301", 18, 4, &with(names(), 4, 5, Value::U32(301))),
        field("history_direction_2", 18, 4, &with(names(), 4, 4, Value::U8(2))),
        field("subscribed_start_5", 13, 4, &with(names(), 4, 7, Value::U8(5))),
        field("subscribe_by_seq_and_ts", 12, 4, &both(4, 5)),
        field("subscribe_by_epoch_and_ts", 12, 4, &both(3, 5)),
        field("sync_by_seq_and_ts", 17, 4, &both(4, 6)),
        field("history_by_anchor_and_ts", 18, 4, &both(3, 6)),
        field("resume_by_seq_and_ts", 24, 6, &place_by_both),
        field("fenced_with_101_channels", 27, 6, &crowded),
        field("fenced_with_a_channel_without_a_name", 27, 6, &nameless),
        field("ended_message_too_long", 28, 0, &long_end),
        field("hello_without_versions", 1, 0, &vec![(1, text("x"))]),
        field(
            "hello_with_17_versions",
            1,
            0,
            &vec![(0, Value::Numbers((1..=17).collect()))],
        ),
        field("resume_without_places", 24, 6, &places(0)),
        field("resume_with_501_places", 24, 6, &places(501)),
    ]
}

/// A request about entry 1 of epoch 1 of a channel, without its group.
fn at_seq(request: &(u16, Value)) -> Table {
    vec![
        request.clone(),
        (2, text("c")),
        (3, Value::U32(1)),
        (4, Value::U64(1)),
    ]
}

fn changes() -> Vec<Malformed> {
    let names = || vec![(0, Value::U64(8)), (1, text("g")), (2, text("c"))];
    let change = |epoch, target, kind, more: &[(u16, Value)]| {
        let of = [
            (5, Value::U32(epoch)),
            (6, Value::U64(target)),
            (7, Value::U8(kind)),
        ];
        [&names()[..], &of, more].concat()
    };
    let keys = |keys: &[&str]| Value::Texts(keys.iter().map(|key| (*key).to_owned()).collect());
    let many = |count: usize| Value::Texts((0..count).map(|n| n.to_string()).collect());
    let expand = |more: &[(u16, Value)]| change(1, 4, 5, more);
    let long_key = "k".repeat(EXPANSION_KEY_BYTES_MAX + 1);
    let long_value = Value::Texts(vec!["v".repeat(EXPANSION_VALUE_BYTES_MAX + 1)]);
    let fields = |name, table| field(name, 29, 8, &table);
    vec![
        fields("change_of_epoch_0", change(0, 4, 3, &[])),
        fields("change_of_seq_0", change(1, 0, 3, &[])),
        fields("change_of_kind_1", change(1, 4, 1, &[])),
        fields("change_of_kind_6", change(1, 4, 6, &[])),
        fields("expand_without_keys", expand(&[])),
        fields("expand_with_21_keys", expand(&[(9, many(21)), (10, many(21))])),
        fields(
            "expand_with_21_keys_set_and_removed",
            expand(&[(9, many(20)), (10, many(20)), (11, keys(&["x"]))]),
        ),
        fields(
            "expand_with_a_key_without_a_value",
            expand(&[(9, keys(&["a", "b"])), (10, keys(&["1"]))]),
        ),
        fields(
            "expand_with_a_value_without_a_key",
            expand(&[(10, keys(&["1"])), (11, keys(&["x"]))]),
        ),
        fields(
            "expand_with_an_empty_key",
            expand(&[(9, keys(&[""])), (10, keys(&["1"]))]),
        ),
        fields(
            "expand_with_a_key_of_33_bytes",
            expand(&[(9, keys(&[&long_key])), (10, keys(&["1"]))]),
        ),
        fields(
            "expand_with_a_control_character",
            expand(&[(11, keys(&["a\u{7}"]))]),
        ),
        fields(
            "expand_with_a_value_of_4097_bytes",
            expand(&[(9, keys(&["a"])), (10, long_value)]),
        ),
        fields(
            "expand_that_sets_a_key_twice",
            expand(&[(9, keys(&["a", "a"])), (10, keys(&["1", "2"]))]),
        ),
        fields(
            "expand_that_sets_and_removes_a_key",
            expand(&[(9, keys(&["a"])), (10, keys(&["1"])), (11, keys(&["a"]))]),
        ),
    ]
}

fn ranges_of_changes() -> Vec<Malformed> {
    let names = || vec![(0, Value::U64(8)), (1, text("g")), (2, text("c"))];
    let range = |epoch, from, to| {
        let of = [(3, Value::U32(epoch)), (4, Value::U64(from)), (5, Value::U64(to))];
        [&names()[..], &of].concat()
    };
    vec![
        field("changes_of_epoch_0", 30, 8, &range(0, 1, 1)),
        field("changes_from_0", 30, 8, &range(1, 0, 1)),
        field("changes_backwards", 30, 8, &range(1, 5, 4)),
        field("changes_of_301_entries", 30, 8, &range(1, 5, 305)),
        field("changes_of_every_entry", 30, 8, &range(1, 1, u64::MAX)),
        field(
            "read_expansion_of_seq_0",
            31,
            8,
            &[&names()[..], &[(3, Value::U32(1))]].concat(),
        ),
    ]
}

fn texts() -> Vec<Malformed> {
    let long = || text("x".repeat(TEXT_BYTES_MAX + 1));
    let token = text("t".repeat(TOKEN_BYTES_MAX + 1));
    let edges = Value::Texts(vec!["x".repeat(TEXT_BYTES_MAX + 1)]);
    vec![
        field(
            "authenticate_token_too_long",
            3,
            0,
            &vec![(0, token), (1, text("phone"))],
        ),
        field(
            "hello_client_too_long",
            1,
            0,
            &vec![(0, Value::Numbers(vec![1])), (1, long())],
        ),
        field("hello_ok_edge_too_long", 2, 0, &vec![(1, long())]),
        field("drain_reason_too_long", 22, 0, &vec![(1, long())]),
        field("drain_edge_too_long", 22, 0, &vec![(2, edges)]),
        field("error_message_too_long", 23, 0, &vec![(3, long())]),
    ]
}

fn entries() -> Vec<Malformed> {
    let deliver = |name, prev, seqs: &[u64]| {
        let entries = seqs.iter().map(|seq| samples::entry(*seq, b"x")).collect();
        let (channel, epoch, prev) = (ChannelNumber(7), Epoch(1), Seq(prev));
        let bytes = Message::from(Deliver {
            channel,
            epoch,
            prev,
            entries,
        })
        .encode();
        at(Layer::Field, name, bytes, "invalid_field")
    };
    let nameless: Table = vec![(0, Value::U64(1))];
    let page = vec![(0, Value::U64(9)), (5, Value::Tables(vec![nameless]))];
    vec![
        deliver("deliver_of_nothing", 1, &[]),
        deliver("deliver_descending", 1, &[3, 2]),
        deliver("deliver_the_same_twice", 1, &[2, 2]),
        deliver("deliver_prev_is_the_first", 2, &[2, 3]),
        deliver("deliver_prev_is_behind_the_first", 5, &[2, 3]),
        field("page_entry_without_a_sender", 19, 9, &page),
    ]
}
