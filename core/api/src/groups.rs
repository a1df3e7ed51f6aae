//! Groups.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::{GroupInfo, Reply, Request};
use throng_protocol::ids::{GroupId, UserId};
use utoipa::ToSchema;

use crate::answers::number;
use crate::caller::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::input::{Input, Names};
use crate::{Api, unexpected};

/// A group to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Who is its creator and first member, and may do everything in it.
    #[schema(value_type = String, min_length = 1, max_length = 64, example = "ann")]
    creator: UserId,
}

/// A group.
#[derive(Debug, Serialize, ToSchema)]
pub struct Group {
    /// Its name.
    group: String,
    /// The version of its members and channels; grows with every change.
    version: u64,
    /// Its creator, while a member.
    creator: Option<String>,
    /// How many members it has.
    members: u64,
    /// How many channels it has.
    channels: u32,
}

/// Create a group
///
/// Done again for the same creator it changes nothing.
#[utoipa::path(
    put,
    path = "/v1/groups/{group}",
    tag = "groups",
    params(("group" = String, Path, description = "Its name, 1 to 64 bytes")),
    request_body = NewGroup,
    responses(
        (status = OK, description = "The group", body = Group),
        (status = CONFLICT, description = "Another user created it", body = ErrorBody),
    ),
)]
pub async fn put_group(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<GroupId>,
    Input(new): Input<NewGroup>,
) -> Result<Json<Group>, ApiError> {
    let number = number(&api, &caller.app, &new.creator).await?;
    let request = Request::CreateGroup {
        app: caller.app.clone(),
        group: group.clone(),
        user: new.creator,
        number,
    };
    match api.ask(request).await? {
        Reply::Done => shown(&api, &caller, group).await,
        other => Err(unexpected(&other)),
    }
}

/// Look at a group
#[utoipa::path(
    get,
    path = "/v1/groups/{group}",
    tag = "groups",
    params(("group" = String, Path, description = "Its name")),
    responses(
        (status = OK, description = "The group", body = Group),
        (status = NOT_FOUND, description = "There is no such group", body = ErrorBody),
    ),
)]
pub async fn get_group(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<GroupId>,
) -> Result<Json<Group>, ApiError> {
    shown(&api, &caller, group).await
}

async fn shown(api: &Api, caller: &Caller, group: GroupId) -> Result<Json<Group>, ApiError> {
    let request = Request::Group {
        app: caller.app.clone(),
        group: group.clone(),
    };
    match api.ask(request).await? {
        Reply::Group(GroupInfo {
            version,
            creator,
            members,
            channels,
        }) => Ok(Json(Group {
            group: group.to_string(),
            version,
            creator: creator.map(|creator| creator.to_string()),
            members,
            channels,
        })),
        other => Err(unexpected(&other)),
    }
}
