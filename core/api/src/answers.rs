//! Answers that several requests have.

use serde::Serialize;
use throng_protocol::cluster::{Reply, Request};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ChannelId, GroupId, UserId, UserNumber};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::{Api, unexpected};

/// What taking a right away came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Fenced {
    /// The version of the group that the change made.
    pub version: u64,
    /// Whether it holds in every channel. If not, it holds in each of `pending` before anything more is
    /// sent there.
    pub done: bool,
    /// Channels whose shard has not taken the change yet.
    pub pending: Vec<String>,
    /// Further such channels, not named.
    pub more: u32,
}

/// The answer to a kick or a mute.
pub async fn fenced(api: &Api, request: Request) -> Result<Fenced, ApiError> {
    match api.ask(request).await? {
        Reply::Fenced {
            version,
            pending,
            more,
        } => Ok(Fenced {
            version,
            done: pending.is_empty() && more == 0,
            pending: pending.iter().map(ChannelId::to_string).collect(),
            more,
        }),
        other => Err(unexpected(&other)),
    }
}

/// A user's number, issued if the user is new.
pub async fn number(api: &Api, app: &AppId, user: &UserId) -> Result<UserNumber, ApiError> {
    let request = Request::User {
        app: app.clone(),
        user: user.clone(),
    };
    match api.ask(request).await? {
        Reply::User(number) => Ok(number),
        other => Err(unexpected(&other)),
    }
}

/// The number of a user who must be a member: a mistyped name does not make a user.
pub async fn known_number(
    api: &Api,
    app: &AppId,
    group: &GroupId,
    user: &UserId,
) -> Result<UserNumber, ApiError> {
    let request = Request::KnownUser {
        app: app.clone(),
        user: user.clone(),
    };
    match api.ask(request).await? {
        Reply::KnownUser(Some(number)) => Ok(number),
        Reply::KnownUser(None) => {
            let text = format!("{user} is not a member of {group}");
            Err(ApiError::new(Code::NotMember, text))
        }
        other => Err(unexpected(&other)),
    }
}
