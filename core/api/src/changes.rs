//! Changes to messages: by the app itself, or for a member.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::{AppendChange, Change, Reply, Request};
use throng_protocol::ids::{ChannelId, Epoch, GroupId, Position, Seq, UserId};
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::input::{Input, Names, Parameters, named};
use crate::messages::{body, by as right, client_message_id, found};
use crate::{Api, now_ms, unexpected};

/// Another body for a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBody {
    /// The member who changes it; the app itself if not given.
    #[schema(value_type = String, required = false, example = "ann")]
    #[serde(default, deserialize_with = "named")]
    by: Option<UserId>,
    /// The body as text.
    #[schema(example = "better")]
    text: Option<String>,
    /// The body in base64, in place of `text`; at most 128 KiB.
    body: Option<String>,
}

/// Who takes a message back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Recalling {
    /// The member; the app itself if not given.
    #[schema(value_type = String, required = false, example = "ann")]
    #[serde(default, deserialize_with = "named")]
    by: Option<UserId>,
}

/// Who deletes a message.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Deleting {
    /// The member; the app itself if not given.
    #[param(value_type = Option<String>)]
    by: Option<UserId>,
}

/// Keys to set and to remove: 1 to 20 together, each once.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKeys {
    /// The member who changes them; the app itself if not given.
    #[schema(value_type = String, required = false, example = "ann")]
    #[serde(default, deserialize_with = "named")]
    by: Option<UserId>,
    /// Keys of 1 to 32 bytes and their values of at most 4,096 bytes.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Keys that go.
    #[serde(default)]
    remove: Vec<String>,
}

/// What became of a change.
#[derive(Debug, Serialize, ToSchema)]
pub struct Changed {
    /// What names the change: its epoch and its seq.
    #[schema(example = "1-43")]
    place: String,
    /// The epoch of the channel's log.
    epoch: u32,
    /// The place of the change in the log: the version that the message has by it.
    seq: u64,
    /// Its time stamp.
    ts: String,
    /// Whether an earlier request with the same idempotency key made it.
    repeat: bool,
    /// The last change of the message before this one; 0 for none.
    before: u64,
}

/// Behind which key to go on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Behind {
    /// The last key of the page before.
    after: Option<String>,
}

/// The expansion of a message.
#[derive(Debug, Serialize, ToSchema)]
pub struct Expansion {
    /// The last change of the message; 0 for none.
    version: u64,
    /// Keys and their values.
    keys: BTreeMap<String, String>,
    /// Whether there are more behind the last.
    more: bool,
}

type Target = (GroupId, ChannelId, String);

/// Give a message another body
///
/// A member may do so with messages of their own, and with others' by the permission `modify_others`; the app with all.
#[utoipa::path(
    put,
    path = "/v1/groups/{group}/channels/{channel}/messages/{message}",
    tag = "messages",
    params(
        ("group" = String, Path, description = "The group"),
        ("channel" = String, Path, description = "The channel"),
        ("message" = String, Path, description = "The message's `place`: its epoch and its seq, as in 1-42"),
        ("Idempotency-Key" = Option<String>, Header, description = "As of a message"),
    ),
    request_body = NewBody,
    responses(
        (status = OK, description = "It has another body", body = Changed),
        (status = FORBIDDEN, description = "The member may not, or is muted", body = ErrorBody),
        (status = NOT_FOUND, description = "There is no such message, group, channel or member", body = ErrorBody),
        (status = CONFLICT, description = "Something else had the same idempotency key, or the channel is archived", body = ErrorBody),
        (status = GONE, description = "The message was recalled or deleted", body = ErrorBody),
        (status = PAYLOAD_TOO_LARGE, description = "The body is over 128 KiB", body = ErrorBody),
    ),
)]
pub async fn modify_message(
    State(api): State<Api>,
    caller: Caller,
    Names(target): Names<Target>,
    headers: HeaderMap,
    Input(new): Input<NewBody>,
) -> Result<Json<Changed>, ApiError> {
    let body = body(new.text, new.body)?;
    change(&api, caller, target, &headers, new.by, Change::Modify { body }).await
}

/// Take a message back
///
/// A hole stays in its place; nothing of its body and its expansion is shown any more.
#[utoipa::path(
    post,
    path = "/v1/groups/{group}/channels/{channel}/messages/{message}/recall",
    tag = "messages",
    params(
        ("group" = String, Path, description = "The group"),
        ("channel" = String, Path, description = "The channel"),
        ("message" = String, Path, description = "The message's `place`"),
        ("Idempotency-Key" = Option<String>, Header, description = "As of a message"),
    ),
    request_body = Recalling,
    responses(
        (status = OK, description = "It is taken back", body = Changed),
        (status = FORBIDDEN, description = "The member may not", body = ErrorBody),
        (status = NOT_FOUND, description = "There is no such message, group, channel or member", body = ErrorBody),
        (status = CONFLICT, description = "Something else had the same idempotency key, or the channel is archived", body = ErrorBody),
        (status = GONE, description = "The message was recalled or deleted", body = ErrorBody),
    ),
)]
pub async fn recall_message(
    State(api): State<Api>,
    caller: Caller,
    Names(target): Names<Target>,
    headers: HeaderMap,
    Input(new): Input<Recalling>,
) -> Result<Json<Changed>, ApiError> {
    change(&api, caller, target, &headers, new.by, Change::Recall).await
}

/// Delete a message for all
#[utoipa::path(
    delete,
    path = "/v1/groups/{group}/channels/{channel}/messages/{message}",
    tag = "messages",
    params(
        ("group" = String, Path, description = "The group"),
        ("channel" = String, Path, description = "The channel"),
        ("message" = String, Path, description = "The message's `place`"),
        ("Idempotency-Key" = Option<String>, Header, description = "As of a message"),
        Deleting,
    ),
    responses(
        (status = OK, description = "It is deleted", body = Changed),
        (status = FORBIDDEN, description = "The member may not", body = ErrorBody),
        (status = NOT_FOUND, description = "There is no such message, group, channel or member", body = ErrorBody),
        (status = CONFLICT, description = "Something else had the same idempotency key, or the channel is archived", body = ErrorBody),
        (status = GONE, description = "The message was deleted before", body = ErrorBody),
    ),
)]
pub async fn delete_message(
    State(api): State<Api>,
    caller: Caller,
    Names(target): Names<Target>,
    headers: HeaderMap,
    Parameters(deleting): Parameters<Deleting>,
) -> Result<Json<Changed>, ApiError> {
    change(&api, caller, target, &headers, deleting.by, Change::Delete).await
}

/// Set and remove keys of a message's expansion
///
/// Of several who write one key the last in the order of the log wins.
#[utoipa::path(
    post,
    path = "/v1/groups/{group}/channels/{channel}/messages/{message}/expansion",
    tag = "messages",
    params(
        ("group" = String, Path, description = "The group"),
        ("channel" = String, Path, description = "The channel"),
        ("message" = String, Path, description = "The message's `place`"),
        ("Idempotency-Key" = Option<String>, Header, description = "As of a message"),
    ),
    request_body = NewKeys,
    responses(
        (status = OK, description = "They are set and removed", body = Changed),
        (status = FORBIDDEN, description = "The member may not, or is muted", body = ErrorBody),
        (status = NOT_FOUND, description = "There is no such message, group, channel or member", body = ErrorBody),
        (status = CONFLICT, description = "The message would have more than 300 keys, something else had the same idempotency key, or the channel is archived", body = ErrorBody),
        (status = GONE, description = "The message was recalled or deleted", body = ErrorBody),
    ),
)]
pub async fn expand_message(
    State(api): State<Api>,
    caller: Caller,
    Names(target): Names<Target>,
    headers: HeaderMap,
    Input(new): Input<NewKeys>,
) -> Result<Json<Changed>, ApiError> {
    let expand = Change::Expand {
        set: new.set.into_iter().collect(),
        remove: new.remove,
    };
    change(&api, caller, target, &headers, new.by, expand).await
}

/// Read the expansion of a message
#[utoipa::path(
    get,
    path = "/v1/groups/{group}/channels/{channel}/messages/{message}/expansion",
    tag = "messages",
    params(
        ("group" = String, Path, description = "The group"),
        ("channel" = String, Path, description = "The channel"),
        ("message" = String, Path, description = "The message's `place`"),
        Behind,
    ),
    responses(
        (status = OK, description = "Keys and their values, by the bytes of the keys", body = Expansion),
        (status = NOT_FOUND, description = "There is no such message, group or channel", body = ErrorBody),
    ),
)]
pub async fn read_expansion(
    State(api): State<Api>,
    caller: Caller,
    Names((group, channel, message)): Names<Target>,
    Parameters(behind): Parameters<Behind>,
) -> Result<Json<Expansion>, ApiError> {
    let target = position(&message)?;
    let info = found(&api, caller.app, group, channel).await?;
    let request = Request::Expansion {
        shard: info.shard,
        channel: info.number,
        target,
        after: behind.after.unwrap_or_default(),
        grant: None,
    };
    match api.ask(request).await? {
        Reply::Expansion {
            version,
            expansion,
            more,
            ..
        } => Ok(Json(Expansion {
            version: version.0,
            keys: expansion.into_iter().collect(),
            more,
        })),
        other => Err(unexpected(&other)),
    }
}

async fn change(
    api: &Api,
    caller: Caller,
    (group, channel, message): Target,
    headers: &HeaderMap,
    by: Option<UserId>,
    change: Change,
) -> Result<Json<Changed>, ApiError> {
    let target = position(&message)?;
    change
        .check()
        .map_err(|error| ApiError::new(error.code(), error.to_string()))?;
    let client_message_id = client_message_id(headers)?;
    let app = caller.app;
    let by = right(api, &app, &group, by.as_ref()).await?;
    let info = found(api, app, group, channel).await?;
    let request = Request::Change {
        shard: info.shard,
        change: AppendChange {
            channel: info.number,
            by,
            client_message_id,
            first_attempt_ms: now_ms(),
            target,
            change,
        },
    };
    match api.ask(request).await? {
        Reply::Changed {
            epoch,
            seq,
            ts,
            repeat,
            before,
        } => Ok(Json(Changed {
            place: place(epoch, seq),
            epoch: epoch.0,
            seq: seq.0,
            ts: ts.0.to_string(),
            repeat,
            before: before.0,
        })),
        other => Err(unexpected(&other)),
    }
}

/// The position that a message's place names.
fn position(place: &str) -> Result<Position, ApiError> {
    let parts = place.split_once('-');
    let position = parts.and_then(|(epoch, seq)| {
        Some(Position {
            epoch: Epoch(epoch.parse().ok()?),
            seq: Seq(seq.parse().ok()?),
        })
    });
    // One text for one place.
    let position = position.filter(|at: &Position| self::place(at.epoch, at.seq) == place);
    position.ok_or_else(|| ApiError::invalid("a message's place is its epoch and its seq, as in 1-42"))
}

/// The place of a message, by which this API names it.
pub fn place(epoch: Epoch, seq: Seq) -> String {
    format!("{epoch}-{seq}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_the_position_it_was_made_from_and_nothing_else_does() {
        let at = position(&place(Epoch(3), Seq(42))).unwrap();
        assert_eq!((at.epoch, at.seq), (Epoch(3), Seq(42)));
        for wrong in [
            "",
            "42",
            "1-",
            "-1",
            "1-2-3",
            "a-1",
            "4294967296-1",
            "1 -2",
            "+1-2",
            "1-02",
        ] {
            assert!(position(wrong).is_err(), "{wrong}");
        }
    }
}
