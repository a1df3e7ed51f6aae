//! The tables of SPEC.md against the constants of the code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use throng_protocol::code::{Class, Code};
use throng_protocol::ids::{ChannelNumber, Epoch, MessageId, Seq};
use throng_protocol::limits;
use throng_protocol::message::{ALPN, Message};

fn spec() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SPEC.md")).expect("SPEC.md")
}

/// The cells of the rows of tables under a heading that starts with `heading`.
fn rows(spec: &str, heading: &str) -> Vec<Vec<String>> {
    spec.lines()
        .skip_while(|line| !line.starts_with(heading))
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with('|') && !line.contains("---"))
        .skip(1)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn the_table_of_errors_is_the_codes() {
    let written: Vec<Vec<String>> = rows(&spec(), "## 8.")
        .into_iter()
        .map(|row| row[..4].to_vec())
        .collect();
    let codes: Vec<Vec<String>> = Code::ALL
        .iter()
        .map(|code| {
            let class = match code.class() {
                Class::Retryable => "retryable",
                Class::Redirect => "redirect",
                Class::Fatal => "fatal",
            };
            let closes = if code.closes() { "yes" } else { "no" };
            vec![
                code.number().to_string(),
                format!("`{}`", code.name()),
                class.to_owned(),
                closes.to_owned(),
            ]
        })
        .collect();
    assert_eq!(written, codes);
}

#[test]
fn the_table_of_limits_is_the_constants() {
    let written: BTreeMap<String, u64> = rows(&spec(), "## 9.")
        .into_iter()
        .map(|row| {
            (
                row[0].trim_matches('`').to_owned(),
                row[1].parse().expect("a number"),
            )
        })
        .collect();
    let long = |value: usize| u64::try_from(value).expect("small");
    let constants: BTreeMap<String, u64> = [
        ("NAME_BYTES_MAX", long(limits::NAME_BYTES_MAX)),
        ("BODY_BYTES_MAX", long(limits::BODY_BYTES_MAX)),
        ("FRAME_BYTES_MAX", long(limits::FRAME_BYTES_MAX)),
        ("PAGE_BYTES_TARGET", long(limits::PAGE_BYTES_TARGET)),
        ("PAGE_ENTRIES_MAX", limits::PAGE_ENTRIES_MAX.into()),
        ("PAGE_ENTRIES_DEFAULT", limits::PAGE_ENTRIES_DEFAULT.into()),
        ("RESUME_POSITIONS_MAX", long(limits::RESUME_POSITIONS_MAX)),
        ("HELLO_VERSIONS_MAX", long(limits::HELLO_VERSIONS_MAX)),
        ("TOKEN_BYTES_MAX", long(limits::TOKEN_BYTES_MAX)),
        ("TEXT_BYTES_MAX", long(limits::TEXT_BYTES_MAX)),
        ("SUBSCRIPTIONS_MAX", long(limits::SUBSCRIPTIONS_MAX)),
        ("REQUESTS_IN_FLIGHT_MAX", long(limits::REQUESTS_IN_FLIGHT_MAX)),
        ("IDEMPOTENCY_WINDOW_MS", limits::IDEMPOTENCY_WINDOW_MS),
        ("PING_INTERVAL_MS", limits::PING_INTERVAL_MS.into()),
        ("IDLE_TIMEOUT_MS", limits::IDLE_TIMEOUT_MS.into()),
        ("AUTHENTICATE_TIMEOUT_MS", limits::AUTHENTICATE_TIMEOUT_MS),
        ("FRAME_TIMEOUT_MS", limits::FRAME_TIMEOUT_MS),
        ("LIVE_LANES", limits::LIVE_LANES.into()),
        ("REORDER_ENTRIES_MAX", long(limits::REORDER_ENTRIES_MAX)),
        (
            "EXPANSION_KEYS_PER_CHANGE_MAX",
            long(limits::EXPANSION_KEYS_PER_CHANGE_MAX),
        ),
        ("EXPANSION_KEYS_MAX", long(limits::EXPANSION_KEYS_MAX)),
        ("EXPANSION_KEY_BYTES_MAX", long(limits::EXPANSION_KEY_BYTES_MAX)),
        (
            "EXPANSION_VALUE_BYTES_MAX",
            long(limits::EXPANSION_VALUE_BYTES_MAX),
        ),
        (
            "EXPANSION_INLINE_BYTES_MAX",
            long(limits::EXPANSION_INLINE_BYTES_MAX),
        ),
        ("CHANGES_RANGE_MAX", limits::CHANGES_RANGE_MAX),
        ("VERIFIER_DEPTH_MAX", long(limits::VERIFIER_DEPTH_MAX)),
        ("VERIFIER_TABLES_MAX", long(limits::VERIFIER_TABLES_MAX)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(written, constants);
}

#[test]
fn every_limit_of_the_code_is_in_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/limits.rs");
    let source = fs::read_to_string(source).expect("limits.rs");
    let constants = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'));
    let spec = rows(&spec(), "## 9.");
    for (name, _) in constants {
        assert!(
            spec.iter().any(|row| row[0] == format!("`{name}`")),
            "{name} is not in SPEC.md §9"
        );
    }
}

#[test]
fn the_table_of_types_is_the_messages() {
    let mut written = BTreeMap::new();
    for row in rows(&spec(), "### 2.2") {
        for half in [&row[0..2], &row[5..7]] {
            let kind: u8 = half[0].parse().expect("a number");
            written.insert(kind, half[1].trim_matches('`').to_owned());
        }
    }
    let known: BTreeMap<u8, String> = (0..=255)
        .filter_map(|kind| Some((kind, Message::kind_name(kind)?.to_owned())))
        .collect();
    assert_eq!(written, known);
}

#[test]
fn the_worked_examples_are_what_the_code_does() {
    let spec = spec();
    assert_eq!(ALPN, b"throng/1");
    let id = MessageId {
        channel: ChannelNumber(31),
        epoch: Epoch(1),
        seq: Seq(255),
    };
    assert!(spec.contains(&format!("`{id}`")), "the text form of a message id");
    let example: Vec<u8> = spec
        .lines()
        .skip_while(|line| !line.contains("A frame byte by byte"))
        .skip_while(|line| !line.starts_with("```"))
        .skip(1)
        .take_while(|line| !line.starts_with("```"))
        .flat_map(|line| {
            let bytes = line.split("  ").next().unwrap_or_default();
            bytes
                .split(' ')
                .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
                .collect::<Vec<_>>()
        })
        .collect();
    let join = throng_protocol::message::Join {
        request: 3,
        group: crate::samples::group(),
    };
    assert_eq!(example, Message::from(join).encode().to_vec());
}
