//! `protocol/vectors` against the code, both ways. `THRONG_WRITE_VECTORS=1` writes them anew; a
//! change of an existing vector is a change of the protocol.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use serde_json::{Value, json};
use throng_protocol::code::Code;
use throng_protocol::frame::{self, Frame};
use throng_protocol::message::Message;

use crate::json::{fields, hex, unhex};
use crate::malformed::{self, Layer, Malformed};
use crate::raw::{Table, Value as Raw, framed, text};
use crate::samples;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn kind_name(kind: u8) -> &'static str {
    Message::kind_name(kind).expect("samples have known types")
}

fn positive(name: &str, message: &Message, bytes: &[u8], canonical: bool) -> Value {
    json!({
        "name": name, "kind": message.kind(), "type": kind_name(message.kind()),
        "canonical": canonical, "hex": hex(bytes), "fields": fields(message),
    })
}

/// Sound frames that this build would not write: fields of a later version, defaults written out,
/// everything optional left away.
fn foreign() -> Vec<(&'static str, u8, Table)> {
    let later = |mut table: Table, slot| {
        table.push((slot, Raw::U64(0xdead_beef)));
        table.push((slot + 1, text("of a later version")));
        table
    };
    let join: Table = vec![(0, Raw::U64(3)), (1, text("community"))];
    let ack: Table = vec![
        (0, Raw::U64(5)),
        (1, Raw::U64(6)),
        (3, Raw::U64(2)),
        (5, Raw::U8(0)),
    ];
    let entry: Table = later(vec![(0, Raw::U64(2)), (3, text("ann"))], 14);
    let deliver: Table = vec![(0, Raw::U64(6)), (2, Raw::U64(0)), (3, Raw::Tables(vec![entry]))];
    vec![
        ("join_with_later_fields", 7, later(join, 2)),
        ("ack_with_defaults_written_out", 11, ack),
        ("deliver_with_later_fields_in_entries", 15, later(deliver, 4)),
        ("done_of_nothing", 9, Vec::new()),
        ("ping_of_nothing", 20, Vec::new()),
        ("page_of_nothing_at_all", 19, Vec::new()),
        (
            "error_of_a_later_class",
            23,
            vec![(1, Raw::U16(999)), (2, Raw::U8(9))],
        ),
        (
            "send_without_a_body",
            10,
            vec![(0, Raw::U64(1)), (1, text("g")), (2, text("c"))],
        ),
    ]
}

fn malformed_json(vector: &Malformed) -> Value {
    json!({
        "name": vector.name, "hex": hex(&vector.bytes), "error": vector.outcome,
        "request": vector.request.to_string(),
        "layer": match vector.layer {
            Layer::Frame => "frame",
            Layer::Type => "type",
            Layer::Verify => "verify",
            Layer::Field => "field",
        },
    })
}

/// Every file as this build would write it.
fn files() -> BTreeMap<String, Value> {
    let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (name, message) in samples::all() {
        let file = format!(
            "messages/{:02}-{}.json",
            message.kind(),
            kind_name(message.kind())
        );
        let vector = positive(name, &message, &message.encode(), true);
        files.entry(file).or_default().push(vector);
    }
    for (name, kind, table) in foreign() {
        let bytes = framed(kind, &table);
        let message = decode(&bytes).expect("sound").expect("known");
        files
            .entry("messages/foreign.json".to_owned())
            .or_default()
            .push(positive(name, &message, &bytes, false));
    }
    for (name, vectors) in malformed::files() {
        let vectors = vectors.iter().map(malformed_json).collect();
        files.insert(format!("malformed/{name}.json"), vectors);
    }
    files
        .into_iter()
        .map(|(name, vectors)| (name, Value::Array(vectors)))
        .collect()
}

fn decode(bytes: &[u8]) -> Result<Option<Message>, (Code, u64)> {
    let mut buffer = BytesMut::from(bytes);
    match frame::decode(&mut buffer) {
        Err(error) => Err((error.code(), 0)),
        // The vector is all there is: the stream ends inside a frame.
        Ok(None) => Err((Code::MalformedFrame, 0)),
        Ok(Some(frame)) => {
            assert!(buffer.is_empty(), "a vector is one frame");
            decode_frame(&frame)
        }
    }
}

fn decode_frame(frame: &Frame) -> Result<Option<Message>, (Code, u64)> {
    Message::decode(frame).map_err(|error| (error.code(), error.request()))
}

fn stored(part: &str) -> Vec<Value> {
    let mut vectors = Vec::new();
    let mut paths: Vec<_> = fs::read_dir(folder().join(part))
        .expect("the folder of vectors")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).expect("readable");
        let file: Vec<Value> = serde_json::from_str(&text).expect("an array of vectors");
        vectors.extend(file);
    }
    vectors
}

fn bytes_of(vector: &Value) -> Vec<u8> {
    unhex(vector["hex"].as_str().expect("hex")).expect("base16")
}

/// Text of a file of vectors: one vector a line, so that a change shows as one.
fn text_of(vectors: &Value) -> String {
    let lines: Vec<String> = vectors
        .as_array()
        .expect("an array")
        .iter()
        .map(Value::to_string)
        .collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

#[test]
fn the_vectors_are_what_this_build_writes() {
    let write = std::env::var_os("THRONG_WRITE_VECTORS").is_some();
    for (name, vectors) in files() {
        let path = folder().join(&name);
        let text = text_of(&vectors);
        if write {
            fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            fs::write(&path, &text).expect("writable");
        }
        let stored = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == text,
            "{name} differs: run with THRONG_WRITE_VECTORS=1 and look at the difference"
        );
    }
}

#[test]
fn every_file_of_vectors_is_known_here() {
    let known = files();
    for part in ["messages", "malformed"] {
        for entry in fs::read_dir(folder().join(part)).expect("the folder of vectors") {
            let name = entry.expect("readable").file_name().into_string().expect("UTF-8");
            assert!(
                known.contains_key(&format!("{part}/{name}")),
                "{part}/{name} is nobody's"
            );
        }
    }
}

#[test]
fn every_type_has_two_positive_vectors() {
    let mut counts = BTreeMap::new();
    for vector in stored("messages") {
        if vector["canonical"] == json!(true) {
            *counts
                .entry(vector["kind"].as_u64().expect("a number"))
                .or_insert(0) += 1;
        }
    }
    assert_eq!(
        counts.keys().copied().collect::<Vec<_>>(),
        (1..=32).collect::<Vec<_>>()
    );
    assert!(counts.values().all(|count| *count >= 2), "{counts:?}");
}

#[test]
fn a_positive_vector_decodes_to_its_fields_and_encodes_to_its_message() {
    for vector in stored("messages") {
        let name = &vector["name"];
        let bytes = bytes_of(&vector);
        let message = decode(&bytes).expect("sound").expect("known");
        assert_eq!(Value::Object(fields(&message)), vector["fields"], "{name}");
        assert_eq!(json!(message.kind()), vector["kind"], "{name}");
        let again = message.encode();
        assert_eq!(decode(&again), Ok(Some(message)), "{name}");
        if vector["canonical"] == json!(true) {
            assert_eq!(hex(&again), hex(&bytes), "{name}");
        }
    }
}

#[test]
fn a_malformed_vector_is_refused_with_its_code_and_request() {
    for vector in stored("malformed") {
        let outcome = match decode(&bytes_of(&vector)) {
            Ok(None) => ("skip", 0),
            Ok(Some(message)) => panic!("{} was taken as {message:?}", vector["name"]),
            Err((code, request)) => (code.name(), request),
        };
        let expected = (
            vector["error"].as_str().expect("a name"),
            vector["request"]
                .as_str()
                .expect("a number")
                .parse()
                .expect("a number"),
        );
        assert_eq!(outcome, expected, "{}", vector["name"]);
    }
}

#[test]
fn a_vector_cut_anywhere_waits_for_the_rest() {
    for vector in stored("messages") {
        let bytes = bytes_of(&vector);
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert_eq!(
                frame::decode(&mut buffer),
                Ok(None),
                "{} at {cut}",
                vector["name"]
            );
            buffer.extend_from_slice(&bytes[cut..]);
            let whole = frame::decode(&mut buffer).expect("a frame").expect("whole");
            assert_eq!(Some(u64::from(whole.kind)), vector["kind"].as_u64());
        }
    }
}

#[test]
fn fields_of_a_later_version_are_ignored() {
    let plain = framed(7, &vec![(0, Raw::U64(3)), (1, text("community"))]);
    let later = stored("messages")
        .into_iter()
        .find(|vector| vector["name"] == "join_with_later_fields")
        .expect("the vector");
    assert_ne!(hex(&plain), later["hex"]);
    assert_eq!(decode(&plain), decode(&bytes_of(&later)));
}

#[test]
fn a_field_of_this_version_in_another_place_is_not_ignored() {
    let wrong = framed(7, &vec![(1, Raw::U64(3)), (0, text("community"))]);
    assert!(decode(&wrong).is_err());
}
