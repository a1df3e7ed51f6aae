//! Frame → message: verified first, then read; every field is checked against its limit.

mod fields;

use bytes::Bytes;

use super::{
    Ack, Authenticate, CRITICAL_KINDS_FROM, ClientAck, CreateChannel, CreateGroup, Deliver, Done, Drain,
    Error, Hello, HelloOk, History, Join, Leave, Message, Page, Ping, Place, Pong, Resume, Send, Start,
    Subscribe, Subscribed, Sync, Unsubscribe, Welcome, change, rights,
};
use crate::cluster::Direction;
use crate::code::{Class, Code};
use crate::frame::Frame;
use crate::ids::{
    ChannelId, ChannelNumber, ClientMessageId, DeviceId, Epoch, GroupId, Seq, SessionId, Ts, UserId,
    UserNumber,
};
use crate::limits::{HELLO_VERSIONS_MAX, RESUME_POSITIONS_MAX, TEXT_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::wire::v1;
pub(super) use fields::{Fields, position, table};

/// Why a frame is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The payload does not verify as the table of its type.
    #[error("the payload of frame type {kind} does not verify")]
    Malformed {
        /// The frame type.
        kind: u8,
    },
    /// A type that must not be skipped, and that this build does not know.
    #[error("frame type {kind} is unknown and must not be skipped")]
    UnknownCritical {
        /// The frame type.
        kind: u8,
    },
    /// A field is missing or outside its range.
    #[error("frame type {kind}, field {field}: {reason}")]
    Field {
        /// The frame type.
        kind: u8,
        /// The request the error answers; 0 if the frame carries none.
        request: u64,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
        /// The code to report.
        code: Code,
    },
}

impl DecodeError {
    /// The code the other side is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed { .. } => Code::MalformedFrame,
            Self::UnknownCritical { .. } => Code::UnknownCriticalFrame,
            Self::Field { code, .. } => *code,
        }
    }

    /// The request the error answers; 0 for the connection.
    pub fn request(&self) -> u64 {
        match self {
            Self::Field { request, .. } => *request,
            Self::Malformed { .. } | Self::UnknownCritical { .. } => 0,
        }
    }
}

impl Message {
    /// Verifies and reads a frame. `None` for a type this build does not know and may skip.
    pub fn decode(frame: &Frame) -> Result<Option<Self>, DecodeError> {
        let (kind, payload) = (frame.kind, &frame.payload);
        match kind {
            1..=4 => decode_opening(kind, payload).map(Some),
            5..=9 => decode_group(kind, payload).map(Some),
            10 | 11 | 15 | 16 => decode_delivery(kind, payload).map(Some),
            12..=14 | 24 => decode_subscription(kind, payload).map(Some),
            17..=19 => decode_page(kind, payload).map(Some),
            20..=23 => decode_rest(kind, payload).map(Some),
            25..=28 => rights::decode(kind, payload).map(Some),
            29..=32 => change::decode(kind, payload).map(Some),
            CRITICAL_KINDS_FROM.. => Err(DecodeError::UnknownCritical { kind }),
            _ => Ok(None),
        }
    }
}

fn decode_opening(kind: u8, payload: &Bytes) -> Result<Message, DecodeError> {
    let fields = Fields {
        kind,
        request: 0,
        payload,
    };
    Ok(match kind {
        1 => {
            let t = table::<v1::Hello<'_>>(kind, payload)?;
            let versions: Vec<u16> = t
                .versions()
                .iter()
                .flatten()
                .take(HELLO_VERSIONS_MAX + 1)
                .collect();
            if versions.is_empty() || versions.len() > HELLO_VERSIONS_MAX {
                return Err(fields.error(
                    "versions",
                    format!("1 to {HELLO_VERSIONS_MAX} versions are offered"),
                ));
            }
            Hello {
                versions,
                client: fields.text("client", t.client(), TEXT_BYTES_MAX)?,
            }
            .into()
        }
        2 => {
            let t = table::<v1::HelloOk<'_>>(kind, payload)?;
            let edge = fields.text("edge", t.edge(), TEXT_BYTES_MAX)?;
            HelloOk {
                version: t.version(),
                edge,
                server_time_ms: t.server_time_ms(),
            }
            .into()
        }
        3 => {
            let t = table::<v1::Authenticate<'_>>(kind, payload)?;
            let token = fields.text("token", t.token(), TOKEN_BYTES_MAX)?;
            Authenticate {
                token,
                device: fields.name("device", t.device(), DeviceId::new)?,
            }
            .into()
        }
        _ => {
            let t = table::<v1::Welcome<'_>>(kind, payload)?;
            Welcome {
                session: SessionId(t.session()),
                user: fields.name("user", t.user(), UserId::new)?,
                user_number: UserNumber(t.user_number()),
                server_time_ms: t.server_time_ms(),
                token_expires_ms: t.token_expires_ms(),
                idempotency_window_ms: t.idempotency_window_ms(),
                ping_interval_ms: t.ping_interval_ms(),
                body_bytes_max: t.body_bytes_max(),
                requests_in_flight_max: t.requests_in_flight_max(),
                subscriptions_max: t.subscriptions_max(),
            }
            .into()
        }
    })
}

fn decode_group(kind: u8, payload: &Bytes) -> Result<Message, DecodeError> {
    macro_rules! group_request {
        ($name:ident) => {{
            let t = table::<v1::$name<'_>>(kind, payload)?;
            let fields = Fields {
                kind,
                request: t.request(),
                payload,
            };
            fields.request_given()?;
            $name {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
            }
            .into()
        }};
    }
    Ok(match kind {
        5 => group_request!(CreateGroup),
        6 => {
            let t = table::<v1::CreateChannel<'_>>(kind, payload)?;
            let fields = Fields {
                kind,
                request: t.request(),
                payload,
            };
            fields.request_given()?;
            CreateChannel {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                channel: fields.name("channel", t.channel(), ChannelId::new)?,
            }
            .into()
        }
        7 => group_request!(Join),
        8 => group_request!(Leave),
        _ => Done {
            request: table::<v1::Done<'_>>(kind, payload)?.request(),
        }
        .into(),
    })
}

fn decode_delivery(kind: u8, payload: &Bytes) -> Result<Message, DecodeError> {
    Ok(match kind {
        10 => {
            let t = table::<v1::Send<'_>>(kind, payload)?;
            let fields = Fields {
                kind,
                request: t.request(),
                payload,
            };
            fields.request_given()?;
            Send {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                channel: fields.name("channel", t.channel(), ChannelId::new)?,
                client_message_id: ClientMessageId(t.client_message_id()),
                first_attempt_ms: t.first_attempt_ms(),
                body: fields.body(t.body())?,
            }
            .into()
        }
        11 => {
            let t = table::<v1::Ack<'_>>(kind, payload)?;
            Ack {
                request: t.request(),
                channel: ChannelNumber(t.channel()),
                epoch: Epoch(t.epoch()),
                seq: Seq(t.seq()),
                ts: Ts(t.ts()),
                repeat: t.repeat(),
                before: Seq(t.before()),
            }
            .into()
        }
        15 => {
            let t = table::<v1::Deliver<'_>>(kind, payload)?;
            let fields = Fields {
                kind,
                request: 0,
                payload,
            };
            let entries = fields.entries(t.entries())?;
            match entries.first() {
                None => return Err(fields.error("entries", "a deliver frame holds at least one")),
                Some(first) if first.seq.0 <= t.prev() => {
                    return Err(fields.error("prev", "it is not before the first entry"));
                }
                Some(_) => {}
            }
            let (channel, epoch) = (ChannelNumber(t.channel()), Epoch(t.epoch()));
            Deliver {
                channel,
                epoch,
                prev: Seq(t.prev()),
                entries,
            }
            .into()
        }
        _ => {
            let t = table::<v1::ClientAck<'_>>(kind, payload)?;
            ClientAck {
                channel: ChannelNumber(t.channel()),
                position: position(t.epoch(), t.seq()),
            }
            .into()
        }
    })
}

fn decode_subscription(kind: u8, payload: &Bytes) -> Result<Message, DecodeError> {
    Ok(match kind {
        12 => {
            let t = table::<v1::Subscribe<'_>>(kind, payload)?;
            let fields = Fields {
                kind,
                request: t.request(),
                payload,
            };
            fields.request_given()?;
            Subscribe {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                channel: fields.name("channel", t.channel(), ChannelId::new)?,
                position: position(t.epoch(), t.seq()),
                ts: fields.one_place(t.epoch() != 0 || t.seq() != 0, t.ts())?,
            }
            .into()
        }
        13 => {
            let t = table::<v1::Subscribed<'_>>(kind, payload)?;
            let fields = Fields {
                kind,
                request: t.request(),
                payload,
            };
            Subscribed {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                channel_name: fields.name("channel_name", t.channel_name(), ChannelId::new)?,
                channel: ChannelNumber(t.channel()),
                position: position(t.epoch(), t.seq()),
                head: Seq(t.head()),
                start: start(&fields, t.start())?,
                ts: Ts(t.ts()),
            }
            .into()
        }
        14 => {
            let t = table::<v1::Unsubscribe<'_>>(kind, payload)?;
            Fields {
                kind,
                request: t.request(),
                payload,
            }
            .request_given()?;
            Unsubscribe {
                request: t.request(),
                channel: ChannelNumber(t.channel()),
            }
            .into()
        }
        _ => decode_resume(kind, payload)?.into(),
    })
}

fn decode_resume(kind: u8, payload: &Bytes) -> Result<Resume, DecodeError> {
    let t = table::<v1::Resume<'_>>(kind, payload)?;
    let fields = Fields {
        kind,
        request: t.request(),
        payload,
    };
    fields.request_given()?;
    let count = t.places().map_or(0, |places| places.len());
    if count == 0 || count > RESUME_POSITIONS_MAX {
        return Err(fields.error(
            "places",
            format!("{count} places are not in 1 to {RESUME_POSITIONS_MAX}"),
        ));
    }
    let mut places = Vec::with_capacity(count);
    for place in t.places().iter().flatten() {
        places.push(Place {
            group: fields.name("group", place.group(), GroupId::new)?,
            channel: fields.name("channel", place.channel(), ChannelId::new)?,
            position: position(place.epoch(), place.seq()),
            ts: fields.one_place(place.epoch() != 0 || place.seq() != 0, place.ts())?,
        });
    }
    Ok(Resume {
        request: t.request(),
        places,
    })
}

fn start(fields: &Fields<'_>, start: v1::Start) -> Result<Start, DecodeError> {
    match start {
        v1::Start::Resumed => Ok(Start::Resumed),
        v1::Start::Head => Ok(Start::Head),
        v1::Start::FullEpoch => Ok(Start::FullEpoch),
        v1::Start::FullAhead => Ok(Start::FullAhead),
        v1::Start::FullFence => Ok(Start::FullFence),
        v1::Start(other) => Err(fields.error("start", format!("{other} is unknown"))),
    }
}

fn decode_page(kind: u8, payload: &Bytes) -> Result<Message, DecodeError> {
    Ok(match kind {
        17 => {
            let t = table::<v1::Sync<'_>>(kind, payload)?;
            let fields = Fields {
                kind,
                request: t.request(),
                payload,
            };
            fields.request_given()?;
            Sync {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                channel: fields.name("channel", t.channel(), ChannelId::new)?,
                position: position(t.epoch(), t.seq()),
                limit: fields.limit(t.limit())?,
                ts: fields.one_place(t.epoch() != 0 || t.seq() != 0, t.ts())?,
            }
            .into()
        }
        18 => {
            let t = table::<v1::History<'_>>(kind, payload)?;
            let fields = Fields {
                kind,
                request: t.request(),
                payload,
            };
            fields.request_given()?;
            let direction = match t.direction() {
                v1::Direction::After => Direction::After,
                v1::Direction::Before => Direction::Before,
                v1::Direction(other) => return Err(fields.error("direction", format!("{other} is unknown"))),
            };
            History {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                channel: fields.name("channel", t.channel(), ChannelId::new)?,
                anchor: Seq(t.anchor()),
                direction,
                limit: fields.limit(t.limit())?,
                ts: fields.one_place(t.anchor() != 0, t.ts())?,
            }
            .into()
        }
        _ => {
            let t = table::<v1::Page<'_>>(kind, payload)?;
            let fields = Fields {
                kind,
                request: t.request(),
                payload,
            };
            Page {
                request: t.request(),
                channel: ChannelNumber(t.channel()),
                epoch: Epoch(t.epoch()),
                prev: Seq(t.prev()),
                head: Seq(t.head()),
                entries: fields.entries(t.entries())?,
            }
            .into()
        }
    })
}

fn decode_rest(kind: u8, payload: &Bytes) -> Result<Message, DecodeError> {
    let fields = Fields {
        kind,
        request: 0,
        payload,
    };
    Ok(match kind {
        20 => Ping {
            nonce: table::<v1::Ping<'_>>(kind, payload)?.nonce(),
        }
        .into(),
        21 => {
            let t = table::<v1::Pong<'_>>(kind, payload)?;
            Pong {
                nonce: t.nonce(),
                time_ms: t.time_ms(),
            }
            .into()
        }
        22 => {
            let t = table::<v1::Drain<'_>>(kind, payload)?;
            let mut edges = Vec::new();
            for edge in t.edges().iter().flatten() {
                edges.push(fields.text("edges", Some(edge), TEXT_BYTES_MAX)?);
            }
            let reason = fields.text("reason", t.reason(), TEXT_BYTES_MAX)?;
            Drain {
                deadline_ms: t.deadline_ms(),
                reason,
                edges,
            }
            .into()
        }
        _ => {
            let t = table::<v1::Error<'_>>(kind, payload)?;
            let class = match t.class() {
                v1::ErrorClass::Retryable => Class::Retryable,
                v1::ErrorClass::Redirect => Class::Redirect,
                // A class from the future is the cautious one.
                _ => Class::Fatal,
            };
            Error {
                request: t.request(),
                code: t.code(),
                class,
                message: fields.text("message", t.message(), TEXT_BYTES_MAX)?,
                retry_after_ms: t.retry_after_ms(),
            }
            .into()
        }
    })
}
