//! Channels of a group.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::{CHANNELS_PAGE_MAX, ChannelInfo, ListedChannel, Reply, Request};
use throng_protocol::ids::{ChannelId, GroupId};
use utoipa::{IntoParams, ToSchema};

use crate::answers::{Fenced, fenced};
use crate::caller::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::input::{Names, Parameters, limit};
use crate::{Api, unexpected};

/// A channel.
#[derive(Debug, Serialize, ToSchema)]
pub struct Channel {
    /// Its name.
    channel: String,
    /// Its number, as frames of the protocol have it.
    number: String,
}

/// A channel in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listed {
    /// Its name.
    channel: String,
    /// Its number, as frames of the protocol have it.
    number: String,
    /// Whether members only read it.
    archived: bool,
}

impl From<ListedChannel> for Listed {
    fn from(listed: ListedChannel) -> Self {
        Self {
            channel: listed.info.channel.to_string(),
            number: listed.info.number.to_string(),
            archived: listed.archived,
        }
    }
}

impl From<ChannelInfo> for Channel {
    fn from(info: ChannelInfo) -> Self {
        Self {
            channel: info.channel.to_string(),
            number: info.number.to_string(),
        }
    }
}

/// A page of channels.
#[derive(Debug, Serialize, ToSchema)]
pub struct Channels {
    /// Channels in the order of their names.
    channels: Vec<Listed>,
    /// `after` of the next page, which may be empty; none when this one is not full.
    next: Option<String>,
}

/// Where a page of channels begins.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChannelsAfter {
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<ChannelId>,
    /// Most channels; 500 if not given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Create a channel
///
/// Members of the group send into it and read it. Done again it changes nothing.
#[utoipa::path(
    put,
    path = "/v1/groups/{group}/channels/{channel}",
    tag = "channels",
    params(
        ("group" = String, Path, description = "The group"),
        ("channel" = String, Path, description = "Its name, 1 to 64 bytes"),
    ),
    responses(
        (status = OK, description = "The channel", body = Channel),
        (status = NOT_FOUND, description = "There is no such group", body = ErrorBody),
        (status = FORBIDDEN, description = "The group has 10,000 channels", body = ErrorBody),
    ),
)]
pub async fn put_channel(
    State(api): State<Api>,
    caller: Caller,
    Names((group, channel)): Names<(GroupId, ChannelId)>,
) -> Result<Json<Channel>, ApiError> {
    let request = Request::CreateChannel {
        app: caller.app,
        group,
        channel,
        by: None,
    };
    match api.ask(request).await? {
        Reply::Channel(info) => Ok(Json(info.into())),
        other => Err(unexpected(&other)),
    }
}

/// List the channels of a group
#[utoipa::path(
    get,
    path = "/v1/groups/{group}/channels",
    tag = "channels",
    params(("group" = String, Path, description = "The group"), ChannelsAfter),
    responses(
        (status = OK, description = "A page of channels", body = Channels),
        (status = NOT_FOUND, description = "There is no such group", body = ErrorBody),
    ),
)]
pub async fn list_channels(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<GroupId>,
    Parameters(page): Parameters<ChannelsAfter>,
) -> Result<Json<Channels>, ApiError> {
    let limit = limit(page.limit, CHANNELS_PAGE_MAX, CHANNELS_PAGE_MAX)?;
    let request = Request::Channels {
        app: caller.app,
        group,
        after: page.after,
        limit,
    };
    let found = match api.ask(request).await? {
        Reply::Channels(found) => found,
        other => return Err(unexpected(&other)),
    };
    let next = (found.len() == limit as usize)
        .then(|| found.last().map(|last| last.info.channel.to_string()))
        .flatten();
    let channels = found.into_iter().map(Listed::from).collect();
    Ok(Json(Channels { channels, next }))
}

/// Archive a channel
///
/// Members read it and write nothing to it any more (`channel_archived`); the app itself still may.
#[utoipa::path(
    put,
    path = "/v1/groups/{group}/channels/{channel}/archive",
    tag = "channels",
    params(
        ("group" = String, Path, description = "The group"),
        ("channel" = String, Path, description = "The channel"),
    ),
    responses(
        (status = OK, description = "It is done, or not yet", body = Fenced),
        (status = NOT_FOUND, description = "There is no such group or channel", body = ErrorBody),
    ),
)]
pub async fn archive_channel(
    State(api): State<Api>,
    caller: Caller,
    Names(names): Names<(GroupId, ChannelId)>,
) -> Result<Json<Fenced>, ApiError> {
    archive(&api, caller, names, true).await
}

/// Open an archived channel again
#[utoipa::path(
    delete,
    path = "/v1/groups/{group}/channels/{channel}/archive",
    tag = "channels",
    params(
        ("group" = String, Path, description = "The group"),
        ("channel" = String, Path, description = "The channel"),
    ),
    responses(
        (status = OK, description = "It is done, or not yet", body = Fenced),
        (status = NOT_FOUND, description = "There is no such group or channel", body = ErrorBody),
    ),
)]
pub async fn reopen_channel(
    State(api): State<Api>,
    caller: Caller,
    Names(names): Names<(GroupId, ChannelId)>,
) -> Result<Json<Fenced>, ApiError> {
    archive(&api, caller, names, false).await
}

async fn archive(
    api: &Api,
    caller: Caller,
    (group, channel): (GroupId, ChannelId),
    archived: bool,
) -> Result<Json<Fenced>, ApiError> {
    let request = Request::ArchiveChannel {
        app: caller.app,
        group,
        channel,
        archived,
    };
    Ok(Json(fenced(api, request).await?))
}
