//! Members of a group: who they are, who is let in, removed, muted.

use axum::Json;
use axum::extract::State;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::{MEMBERS_PAGE_MAX, MemberInfo, Reply, Request};
use throng_protocol::ids::{GroupId, RoleId, UserId, UserNumber};
use utoipa::{IntoParams, ToSchema};

use crate::answers::{Fenced, fenced, known_number, number};
use crate::caller::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::input::{Input, Names, Parameters, limit};
use crate::limits::{LOOKUPS_AT_ONCE, MUTE_SECONDS_MAX};
use crate::{Api, now_ms, unexpected};

/// Users to be let in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMembers {
    /// Their names, at most 500.
    #[schema(value_type = Vec<String>, max_items = 500, example = json!(["bob", "eve"]))]
    users: Vec<UserId>,
}

/// What letting users in came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Joined {
    /// How many of them were no members before.
    joined: u32,
}

/// A member.
#[derive(Debug, Serialize, ToSchema)]
pub struct Member {
    /// The user.
    user: String,
    /// The version of the group at which the membership began.
    since: u64,
    /// Until when the user may not send, Unix milliseconds; none for one who is not muted.
    muted_until_ms: Option<u64>,
    /// The member's roles, in the order of their names.
    roles: Vec<String>,
}

impl Member {
    fn at(now_ms: u64, info: MemberInfo) -> Self {
        Self {
            user: info.user.to_string(),
            since: info.since,
            muted_until_ms: (info.muted_until > now_ms).then_some(info.muted_until),
            roles: info.roles.iter().map(RoleId::to_string).collect(),
        }
    }
}

/// A page of members.
#[derive(Debug, Serialize, ToSchema)]
pub struct Members {
    /// Members in the order in which their users became known.
    members: Vec<Member>,
    /// `after` of the next page, which may be empty; none when this one is not full.
    next: Option<String>,
}

/// Where a page of members begins.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MembersAfter {
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<u64>,
    /// Most members; 500 if not given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Which membership of a user is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Meant {
    /// Its `since` in the list of members. A user who has come back in another one stays.
    since: Option<u64>,
}

/// For how long somebody is muted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mute {
    /// Seconds from now, 1 to 315,360,000 (ten years).
    #[schema(minimum = 1, maximum = 315_360_000, example = 3600)]
    seconds: u64,
}

/// Let users into a group
///
/// All in one step: all of them are members, or, when this is refused, none of them has become one. Members
/// stay as they are.
#[utoipa::path(
    post,
    path = "/v1/groups/{group}/members",
    tag = "members",
    params(("group" = String, Path, description = "The group")),
    request_body = NewMembers,
    responses(
        (status = OK, description = "They are members", body = Joined),
        (status = NOT_FOUND, description = "There is no such group", body = ErrorBody),
    ),
)]
pub async fn add_members(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<GroupId>,
    Input(new): Input<NewMembers>,
) -> Result<Json<Joined>, ApiError> {
    if new.users.len() > MEMBERS_PAGE_MAX as usize {
        let text = format!(
            "{} users, {MEMBERS_PAGE_MAX} are allowed at once",
            new.users.len()
        );
        return Err(ApiError::invalid(text));
    }
    let (api, app) = (&api, &caller.app);
    // First: users are not made known for a group that does not exist.
    let group_there = Request::Group {
        app: app.clone(),
        group: group.clone(),
    };
    match api.ask(group_there).await? {
        Reply::Group(_) => {}
        other => return Err(unexpected(&other)),
    }
    let numbered = new.users.into_iter().map(|user| async move {
        let number = number(api, app, &user).await?;
        Ok::<_, ApiError>((user, number))
    });
    let members = stream::iter(numbered)
        .buffered(LOOKUPS_AT_ONCE)
        .try_collect()
        .await?;
    let request = Request::JoinAll {
        app: app.clone(),
        group,
        members,
    };
    match api.ask(request).await? {
        Reply::Joined { joined } => Ok(Json(Joined { joined })),
        other => Err(unexpected(&other)),
    }
}

/// List the members of a group
#[utoipa::path(
    get,
    path = "/v1/groups/{group}/members",
    tag = "members",
    params(("group" = String, Path, description = "The group"), MembersAfter),
    responses(
        (status = OK, description = "A page of members", body = Members),
        (status = NOT_FOUND, description = "There is no such group", body = ErrorBody),
    ),
)]
pub async fn list_members(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<GroupId>,
    Parameters(page): Parameters<MembersAfter>,
) -> Result<Json<Members>, ApiError> {
    let limit = limit(page.limit, MEMBERS_PAGE_MAX, MEMBERS_PAGE_MAX)?;
    let request = Request::Members {
        app: caller.app,
        group,
        after: UserNumber(page.after.unwrap_or(0)),
        limit,
    };
    let found = match api.ask(request).await? {
        Reply::Members(found) => found,
        other => return Err(unexpected(&other)),
    };
    let next = (found.len() == limit as usize)
        .then(|| found.last().map(|member| member.number.to_string()))
        .flatten();
    let now_ms = now_ms();
    let members = found.into_iter().map(|info| Member::at(now_ms, info)).collect();
    Ok(Json(Members { members, next }))
}

/// Remove a member from a group
///
/// From `done` on no message of theirs is taken and nothing reaches them any more. Asked again for a user who
/// was removed and has not come back, it answers for that removal; with `since` also for one who has.
#[utoipa::path(
    delete,
    path = "/v1/groups/{group}/members/{user}",
    tag = "members",
    params(
        ("group" = String, Path, description = "The group"),
        ("user" = String, Path, description = "The member"),
        Meant,
    ),
    responses(
        (status = OK, description = "It is done, or in which channels not yet", body = Fenced),
        (status = FORBIDDEN, description = "The member is the group's creator", body = ErrorBody),
        (status = NOT_FOUND, description = "There is no such group or member", body = ErrorBody),
    ),
)]
pub async fn remove_member(
    State(api): State<Api>,
    caller: Caller,
    Names((group, user)): Names<(GroupId, UserId)>,
    Parameters(meant): Parameters<Meant>,
) -> Result<Json<Fenced>, ApiError> {
    let number = known_number(&api, &caller.app, &group, &user).await?;
    let request = Request::Kick {
        app: caller.app,
        group,
        user,
        number,
        by: None,
        since: meant.since,
    };
    Ok(Json(fenced(&api, request).await?))
}

/// Let a member send nothing for a while
#[utoipa::path(
    put,
    path = "/v1/groups/{group}/members/{user}/mute",
    tag = "members",
    params(
        ("group" = String, Path, description = "The group"),
        ("user" = String, Path, description = "The member"),
    ),
    request_body = Mute,
    responses(
        (status = OK, description = "It is done, or in which channels not yet", body = Fenced),
        (status = FORBIDDEN, description = "The member is the group's creator", body = ErrorBody),
        (status = NOT_FOUND, description = "There is no such group or member", body = ErrorBody),
    ),
)]
pub async fn mute_member(
    State(api): State<Api>,
    caller: Caller,
    Names((group, user)): Names<(GroupId, UserId)>,
    Input(mute): Input<Mute>,
) -> Result<Json<Fenced>, ApiError> {
    if !(1..=MUTE_SECONDS_MAX).contains(&mute.seconds) {
        let text = format!("a mute is for 1 to {MUTE_SECONDS_MAX} seconds; DELETE ends it");
        return Err(ApiError::invalid(text));
    }
    let until_ms = now_ms() + mute.seconds * 1_000;
    muted(&api, caller, group, user, until_ms).await
}

/// Let a member send again
#[utoipa::path(
    delete,
    path = "/v1/groups/{group}/members/{user}/mute",
    tag = "members",
    params(
        ("group" = String, Path, description = "The group"),
        ("user" = String, Path, description = "The member"),
    ),
    responses(
        (status = OK, description = "It is done, or in which channels not yet", body = Fenced),
        (status = FORBIDDEN, description = "The member is the group's creator", body = ErrorBody),
        (status = NOT_FOUND, description = "There is no such group or member", body = ErrorBody),
    ),
)]
pub async fn unmute_member(
    State(api): State<Api>,
    caller: Caller,
    Names((group, user)): Names<(GroupId, UserId)>,
) -> Result<Json<Fenced>, ApiError> {
    muted(&api, caller, group, user, 0).await
}

async fn muted(
    api: &Api,
    caller: Caller,
    group: GroupId,
    user: UserId,
    until_ms: u64,
) -> Result<Json<Fenced>, ApiError> {
    let number = known_number(api, &caller.app, &group, &user).await?;
    let request = Request::Mute {
        app: caller.app,
        group,
        user,
        number,
        until_ms,
        by: None,
    };
    Ok(Json(fenced(api, request).await?))
}
