//! A message as the JSON of the vectors: the schema's field names, 64-bit numbers as decimal
//! strings, bytes in base16, enum values by name.

use serde_json::{Map, Value, json};
use throng_protocol::cluster::Change;
use throng_protocol::code::Class;
use throng_protocol::ids::Position;
use throng_protocol::message::{Direction, Entry, Message, Place, Start};

/// Lower-case base16.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads base16; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn long(number: u64) -> Value {
    Value::String(number.to_string())
}

fn with_position(mut fields: Value, position: Position) -> Value {
    fields["epoch"] = json!(position.epoch.0);
    fields["seq"] = long(position.seq.0);
    fields
}

fn entries(entries: &[Entry]) -> Value {
    let entry = |entry: &Entry| {
        json!({
            "seq": long(entry.seq.0), "ts": long(entry.ts.0), "kind": entry.kind,
            "sender": entry.sender.as_str(), "sender_number": long(entry.sender_number.0),
            "client_message_id": long(entry.client_message_id.0), "body": hex(&entry.body),
            "target": long(entry.target.0), "version": long(entry.version.0), "hole": entry.hole,
            "keys": keys(&entry.expansion), "values": values(&entry.expansion), "removed": entry.removed,
            "keys_elsewhere": entry.keys_elsewhere,
        })
    };
    entries.iter().map(entry).collect()
}

fn keys(pairs: &[(String, String)]) -> Vec<&str> {
    pairs.iter().map(|(key, _)| key.as_str()).collect()
}

fn values(pairs: &[(String, String)]) -> Vec<&str> {
    pairs.iter().map(|(_, value)| value.as_str()).collect()
}

fn place(place: &Place) -> Value {
    let names = json!({
        "group": place.group.as_str(), "channel": place.channel.as_str(), "ts": long(place.ts.0),
    });
    with_position(names, place.position)
}

/// The fields of a message.
pub fn fields(message: &Message) -> Map<String, Value> {
    let value = opening(message)
        .or_else(|| group(message))
        .or_else(|| delivery(message))
        .or_else(|| reading(message))
        .or_else(|| rights(message))
        .or_else(|| changes(message))
        .or_else(|| rest(message));
    match value {
        Some(Value::Object(fields)) => fields,
        other => unreachable!("every message has fields, not {other:?}"),
    }
}

fn opening(message: &Message) -> Option<Value> {
    Some(match message {
        Message::Hello(m) => json!({"versions": m.versions, "client": m.client}),
        Message::HelloOk(m) => {
            json!({"version": m.version, "edge": m.edge, "server_time_ms": long(m.server_time_ms)})
        }
        Message::Authenticate(m) => json!({"token": m.token, "device": m.device.as_str()}),
        Message::Welcome(m) => json!({
            "session": long(m.session.0), "user": m.user.as_str(), "user_number": long(m.user_number.0),
            "server_time_ms": long(m.server_time_ms), "token_expires_ms": long(m.token_expires_ms),
            "idempotency_window_ms": long(m.idempotency_window_ms),
            "ping_interval_ms": m.ping_interval_ms, "body_bytes_max": m.body_bytes_max,
            "requests_in_flight_max": m.requests_in_flight_max, "subscriptions_max": m.subscriptions_max,
        }),
        _ => return None,
    })
}

fn group(message: &Message) -> Option<Value> {
    Some(match message {
        Message::CreateGroup(m) => json!({"request": long(m.request), "group": m.group.as_str()}),
        Message::CreateChannel(m) => json!({
            "request": long(m.request), "group": m.group.as_str(), "channel": m.channel.as_str(),
        }),
        Message::Join(m) => json!({"request": long(m.request), "group": m.group.as_str()}),
        Message::Leave(m) => json!({"request": long(m.request), "group": m.group.as_str()}),
        Message::Done(m) => json!({"request": long(m.request)}),
        _ => return None,
    })
}

fn delivery(message: &Message) -> Option<Value> {
    Some(match message {
        Message::Send(m) => json!({
            "request": long(m.request), "group": m.group.as_str(), "channel": m.channel.as_str(),
            "client_message_id": long(m.client_message_id.0),
            "first_attempt_ms": long(m.first_attempt_ms), "body": hex(&m.body),
        }),
        Message::Ack(m) => json!({
            "request": long(m.request), "channel": long(m.channel.0), "epoch": m.epoch.0,
            "seq": long(m.seq.0), "ts": long(m.ts.0), "repeat": m.repeat,
            "before": long(m.before.0),
        }),
        Message::Deliver(m) => json!({
            "channel": long(m.channel.0), "epoch": m.epoch.0, "prev": long(m.prev.0),
            "entries": entries(&m.entries),
        }),
        Message::ClientAck(m) => with_position(json!({"channel": long(m.channel.0)}), m.position),
        _ => return None,
    })
}

fn reading(message: &Message) -> Option<Value> {
    Some(match message {
        Message::Subscribe(m) => {
            let names = json!({
                "request": long(m.request), "group": m.group.as_str(), "channel": m.channel.as_str(),
                "ts": long(m.ts.0),
            });
            with_position(names, m.position)
        }
        Message::Subscribed(m) => {
            let start = match m.start {
                Start::Resumed => "Resumed",
                Start::Head => "Head",
                Start::FullEpoch => "FullEpoch",
                Start::FullAhead => "FullAhead",
                Start::FullFence => "FullFence",
            };
            let fields = json!({
                "request": long(m.request), "group": m.group.as_str(),
                "channel_name": m.channel_name.as_str(), "channel": long(m.channel.0),
                "head": long(m.head.0), "start": start, "ts": long(m.ts.0),
            });
            with_position(fields, m.position)
        }
        Message::Unsubscribe(m) => json!({"request": long(m.request), "channel": long(m.channel.0)}),
        Message::Resume(m) => json!({
            "request": long(m.request), "places": m.places.iter().map(place).collect::<Value>(),
        }),
        Message::Sync(m) => {
            let fields = json!({
                "request": long(m.request), "group": m.group.as_str(), "channel": m.channel.as_str(),
                "limit": m.limit, "ts": long(m.ts.0),
            });
            with_position(fields, m.position)
        }
        Message::History(m) => json!({
            "request": long(m.request), "group": m.group.as_str(), "channel": m.channel.as_str(),
            "anchor": long(m.anchor.0), "limit": m.limit, "ts": long(m.ts.0),
            "direction": match m.direction { Direction::After => "After", Direction::Before => "Before" },
        }),
        Message::Page(m) => json!({
            "request": long(m.request), "channel": long(m.channel.0), "epoch": m.epoch.0,
            "prev": long(m.prev.0), "head": long(m.head.0), "entries": entries(&m.entries),
        }),
        _ => return None,
    })
}

fn rights(message: &Message) -> Option<Value> {
    Some(match message {
        Message::Kick(m) => {
            json!({"request": long(m.request), "group": m.group.as_str(), "user": m.user.as_str()})
        }
        Message::Mute(m) => json!({
            "request": long(m.request), "group": m.group.as_str(), "user": m.user.as_str(),
            "until_ms": long(m.until_ms),
        }),
        Message::Fenced(m) => json!({
            "request": long(m.request), "version": long(m.version), "more": m.more,
            "pending": m.pending.iter().map(|channel| channel.as_str()).collect::<Vec<_>>(),
        }),
        Message::Ended(m) => {
            let fields = json!({
                "request": long(m.request), "channel": long(m.channel.0), "code": m.code, "message": m.message,
            });
            with_position(fields, m.position)
        }
        _ => return None,
    })
}

fn changes(message: &Message) -> Option<Value> {
    Some(match message {
        Message::Change(m) => {
            let (body, set, removed) = match &m.change {
                Change::Modify { body } => (hex(body), &[][..], &[][..]),
                Change::Recall | Change::Delete => (String::new(), &[][..], &[][..]),
                Change::Expand { set, remove } => (String::new(), &set[..], &remove[..]),
            };
            json!({
                "request": long(m.request), "group": m.group.as_str(), "channel": m.channel.as_str(),
                "client_message_id": long(m.client_message_id.0),
                "first_attempt_ms": long(m.first_attempt_ms), "epoch": m.target.epoch.0,
                "target": long(m.target.seq.0), "kind": m.change.kind().number(), "body": body,
                "keys": keys(set), "values": values(set), "removed": removed,
            })
        }
        Message::Changes(m) => json!({
            "request": long(m.request), "group": m.group.as_str(), "channel": m.channel.as_str(),
            "epoch": m.from.epoch.0, "from": long(m.from.seq.0), "to": long(m.to.0),
            "since": long(m.since.0),
        }),
        Message::ReadExpansion(m) => {
            let fields = json!({
                "request": long(m.request), "group": m.group.as_str(), "channel": m.channel.as_str(),
                "after": m.after,
            });
            with_position(fields, m.target)
        }
        Message::Expansion(m) => {
            let fields = json!({
                "request": long(m.request), "channel": long(m.channel.0), "version": long(m.version.0),
                "keys": keys(&m.expansion), "values": values(&m.expansion), "more": m.more,
            });
            with_position(fields, m.target)
        }
        _ => return None,
    })
}

fn rest(message: &Message) -> Option<Value> {
    Some(match message {
        Message::Ping(m) => json!({"nonce": long(m.nonce)}),
        Message::Pong(m) => json!({"nonce": long(m.nonce), "time_ms": long(m.time_ms)}),
        Message::Drain(m) => {
            json!({"deadline_ms": m.deadline_ms, "reason": m.reason, "edges": m.edges})
        }
        Message::Error(m) => json!({
            "request": long(m.request), "code": m.code, "message": m.message,
            "retry_after_ms": m.retry_after_ms,
            "class": match m.class {
                Class::Retryable => "Retryable",
                Class::Redirect => "Redirect",
                Class::Fatal => "Fatal",
            },
        }),
        _ => return None,
    })
}
