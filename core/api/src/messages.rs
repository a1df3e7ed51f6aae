//! Messages of a channel: sent for a member, and read page by page.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::digest;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::{
    Anchor, Append, By, ChannelInfo, Direction, Entry, Grant, Hole, Page, Reply, Request,
};
use throng_protocol::ids::{AppId, ChannelId, ClientMessageId, Epoch, GroupId, Seq, UserId, UserNumber};
use throng_protocol::limits::{PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX};
use utoipa::{IntoParams, ToSchema};

use crate::answers::known_number;
use crate::caller::Caller;
use crate::changes;
use crate::error::{ApiError, ErrorBody};
use crate::input::{Input, Names, Parameters, limit, named};
use crate::{Api, now_ms, unexpected};

/// The header of a request that may be asked again without being carried out twice.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Bytes of an idempotency key at most: a UUID has 36.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// A message to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// The member it is from; without it, the app itself: a system message.
    #[schema(value_type = String, required = false, example = "ann")]
    #[serde(default, deserialize_with = "named")]
    sender: Option<UserId>,
    /// Its body as text.
    #[schema(example = "hello")]
    text: Option<String>,
    /// Its body in base64, in place of `text`; at most 128 KiB.
    body: Option<String>,
}

/// What became of a message.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sent {
    /// What names it: its epoch and its seq.
    #[schema(example = "1-42")]
    place: String,
    /// The epoch of the channel's log.
    epoch: u32,
    /// Its place in the log.
    seq: u64,
    /// Its time stamp.
    ts: String,
    /// Whether an earlier request with the same idempotency key sent it.
    repeat: bool,
}

/// An entry of a channel's log: a message, or a change to one.
#[derive(Debug, Serialize, ToSchema)]
pub struct Message {
    /// What names it: its epoch and its seq.
    #[schema(example = "1-42")]
    place: String,
    /// Its place in the channel's log: 1, 2, 3, …
    seq: u64,
    /// What it is: `message`, `modify`, `recall`, `delete` or `expand`.
    kind: &'static str,
    /// Of a change: the place of the message it changes.
    target: Option<u64>,
    /// Of a message its last change, of a change the one before it; 0 for none.
    version: u64,
    /// `recalled` or `deleted` if nothing of the message is left. Of a change: what has become of the message.
    hole: Option<&'static str>,
    /// Of a message its expansion; of a change to one, what it set, as it is now.
    expansion: BTreeMap<String, String>,
    /// Of a change to an expansion: the keys it touched that are not there any more.
    removed: Vec<String>,
    /// The expansion is large, and read by itself.
    expansion_elsewhere: bool,
    /// Its time stamp, which grows strictly along the log: milliseconds above 16 bits of a counter.
    ts: String,
    /// The milliseconds of its time stamp, Unix.
    at_ms: u64,
    /// Who sent it; none for the app itself.
    sender: Option<String>,
    /// The sender's key.
    client_message_id: String,
    /// Its body, if that is text. Of a change: the message's, as it is now.
    text: Option<String>,
    /// Its body in base64.
    body: String,
}

impl Message {
    fn new(epoch: Epoch, entry: Entry) -> Self {
        Self {
            place: changes::place(epoch, entry.seq),
            seq: entry.seq.0,
            kind: entry.kind.name(),
            target: (entry.target != Seq(0)).then_some(entry.target.0),
            version: entry.version.0,
            hole: (entry.hole != Hole::None).then_some(entry.hole.name()),
            expansion: entry.expansion.into_iter().collect(),
            removed: entry.removed,
            expansion_elsewhere: entry.keys_elsewhere,
            ts: entry.ts.0.to_string(),
            at_ms: entry.ts.0 >> 16,
            sender: (entry.sender_number != UserNumber(0)).then(|| entry.sender.to_string()),
            client_message_id: entry.client_message_id.to_string(),
            text: std::str::from_utf8(&entry.body).ok().map(str::to_owned),
            body: STANDARD.encode(&entry.body),
        }
    }
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
pub struct Messages {
    /// The epoch of the channel's log. In another one, places and pages kept of this one are void.
    epoch: u32,
    /// The place of the last message of the channel.
    head: u64,
    /// Messages and changes to messages, by ascending place.
    messages: Vec<Message>,
}

/// Which messages are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Those behind this place.
    after: Option<u64>,
    /// Those before this place. With neither, the newest.
    before: Option<u64>,
    /// Most messages; 100 if not given. A page of large messages is shorter.
    #[param(minimum = 1, maximum = 300)]
    limit: Option<u32>,
}

/// Send a message for a member, or as the app itself
///
/// The app's own messages come under its name, and from no member: it needs to be none, and is never muted.
/// With an idempotency key the same request may be asked again for 48 hours: the message is sent once, and each
/// answer is the first one's.
#[utoipa::path(
    post,
    path = "/v1/groups/{group}/channels/{channel}/messages",
    tag = "messages",
    params(
        ("group" = String, Path, description = "The group"),
        ("channel" = String, Path, description = "The channel"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 bytes, unique among the sender's messages in the channel"),
    ),
    request_body = NewMessage,
    responses(
        (status = OK, description = "It is stored", body = Sent),
        (status = NOT_FOUND, description = "There is no such group, channel or member", body = ErrorBody),
        (status = FORBIDDEN, description = "The sender is muted, or has no permission to send", body = ErrorBody),
        (status = CONFLICT, description = "Another message had the same idempotency key, or the channel is archived", body = ErrorBody),
        (status = PAYLOAD_TOO_LARGE, description = "The body is over 128 KiB", body = ErrorBody),
    ),
)]
pub async fn send_message(
    State(api): State<Api>,
    caller: Caller,
    Names((group, channel)): Names<(GroupId, ChannelId)>,
    headers: HeaderMap,
    Input(new): Input<NewMessage>,
) -> Result<Json<Sent>, ApiError> {
    let client_message_id = client_message_id(&headers)?;
    let body = body(new.text, new.body)?;
    let by = by(&api, &caller.app, &group, new.sender.as_ref()).await?;
    let info = found(&api, caller.app, group, channel).await?;
    let request = Request::Append {
        shard: info.shard,
        append: Append {
            channel: info.number,
            by,
            client_message_id,
            first_attempt_ms: now_ms(),
            body,
        },
    };
    match api.ask(request).await? {
        Reply::Appended {
            epoch,
            seq,
            ts,
            repeat,
        } => Ok(Json(Sent {
            place: changes::place(epoch, seq),
            epoch: epoch.0,
            seq: seq.0,
            ts: ts.0.to_string(),
            repeat,
        })),
        other => Err(unexpected(&other)),
    }
}

/// Read the messages of a channel
#[utoipa::path(
    get,
    path = "/v1/groups/{group}/channels/{channel}/messages",
    tag = "messages",
    params(
        ("group" = String, Path, description = "The group"),
        ("channel" = String, Path, description = "The channel"),
        Wanted,
    ),
    responses(
        (status = OK, description = "A page of messages", body = Messages),
        (status = NOT_FOUND, description = "There is no such group or channel", body = ErrorBody),
    ),
)]
pub async fn list_messages(
    State(api): State<Api>,
    caller: Caller,
    Names((group, channel)): Names<(GroupId, ChannelId)>,
    Parameters(wanted): Parameters<Wanted>,
) -> Result<Json<Messages>, ApiError> {
    let (anchor, direction) = match (wanted.after, wanted.before) {
        (Some(_), Some(_)) => return Err(ApiError::invalid("give `after` or `before`, not both")),
        (Some(after), None) => (after, Direction::After),
        (None, before) => (before.unwrap_or(u64::MAX), Direction::Before),
    };
    let info = found(&api, caller.app, group, channel).await?;
    let request = Request::Page {
        shard: info.shard,
        channel: info.number,
        anchor: Anchor::Seq(Seq(anchor)),
        direction,
        limit: limit(wanted.limit, PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX)?,
        grant: None,
        fences: false,
    };
    match api.ask(request).await? {
        Reply::Page(Page {
            epoch, head, entries, ..
        }) => Ok(Json(Messages {
            epoch: epoch.0,
            head: head.0,
            messages: entries
                .into_iter()
                .map(|entry| Message::new(epoch, entry))
                .collect(),
        })),
        other => Err(unexpected(&other)),
    }
}

/// By which right something is written: a member's, or that of the app itself.
pub async fn by(api: &Api, app: &AppId, group: &GroupId, member: Option<&UserId>) -> Result<By, ApiError> {
    Ok(match member {
        Some(user) => By::Member(grant(api, app, group, user).await?),
        None => By::App {
            app: app.clone(),
            group: group.clone(),
        },
    })
}

/// The id of a message: made from its idempotency key, so that the same key is the same id.
pub fn client_message_id(headers: &HeaderMap) -> Result<ClientMessageId, ApiError> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(ClientMessageId(rand::random()));
    };
    let key = key.as_bytes();
    if !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) {
        let text = format!("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
        return Err(ApiError::invalid(text));
    }
    let digest = digest::digest(&digest::SHA256, key);
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    Ok(ClientMessageId(u64::from_be_bytes(first)))
}

pub fn body(text: Option<String>, body: Option<String>) -> Result<Bytes, ApiError> {
    match (text, body) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(body)) => match STANDARD.decode(body) {
            Ok(body) => Ok(body.into()),
            Err(error) => Err(ApiError::invalid(format!("`body` is not base64: {error}"))),
        },
        _ => Err(ApiError::invalid("give `text` or `body`, one of them")),
    }
}

/// A fresh grant of a member.
async fn grant(api: &Api, app: &AppId, group: &GroupId, user: &UserId) -> Result<Grant, ApiError> {
    let number = known_number(api, app, group, user).await?;
    let request = Request::Grant {
        app: app.clone(),
        group: group.clone(),
        user: user.clone(),
        number,
    };
    match api.ask(request).await? {
        Reply::Grant(grant) => Ok(grant),
        other => Err(unexpected(&other)),
    }
}

pub async fn found(
    api: &Api,
    app: AppId,
    group: GroupId,
    channel: ChannelId,
) -> Result<ChannelInfo, ApiError> {
    match api.ask(Request::Channel { app, group, channel }).await? {
        Reply::Channel(info) => Ok(info),
        other => Err(unexpected(&other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_idempotency_key_is_one_id_and_no_key_is_a_new_one() {
        let with = |key: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, key.parse().unwrap());
            client_message_id(&headers)
        };
        assert_eq!(with("order-17"), with("order-17"));
        assert_ne!(with("order-17"), with("order-18"));
        assert!(with("").is_err() && with(&"x".repeat(129)).is_err());
        let none = HeaderMap::new();
        assert_ne!(client_message_id(&none), client_message_id(&none));
    }

    #[test]
    fn a_body_is_text_or_base64() {
        assert_eq!(body(Some("hi".to_owned()), None).unwrap(), b"hi"[..]);
        assert_eq!(body(None, Some("AP8=".to_owned())).unwrap(), [0, 255][..]);
        assert!(body(None, Some("%".to_owned())).is_err());
        assert!(body(None, None).is_err());
        assert!(body(Some(String::new()), Some(String::new())).is_err());
    }
}
