//! Roles of a group: what members may do, as data.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::{Permissions, Reply, Request, RoleInfo};
use throng_protocol::ids::{GroupId, RoleId, UserId};
use utoipa::ToSchema;

use crate::answers::{Fenced, fenced, known_number};
use crate::caller::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::input::{Input, Names};
use crate::{Api, unexpected};

/// What a role lets do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRole {
    /// `send`, `expand`, `modify_others`, `recall_others`, `delete_messages`, `create_channels`, `kick`, `mute`.
    #[schema(example = json!(["recall_others", "mute"]))]
    permissions: Vec<String>,
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
pub struct Role {
    /// Its name.
    role: String,
    /// What it lets do.
    permissions: Vec<&'static str>,
}

/// The roles of a group.
#[derive(Debug, Serialize, ToSchema)]
pub struct Roles {
    /// In the order of their names; `everyone` is always among them.
    roles: Vec<Role>,
}

/// The roles of a member.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberRoles {
    /// All of them, at most 32; the member has no others any more.
    #[schema(value_type = Vec<String>, max_items = 32, example = json!(["moderator"]))]
    roles: Vec<RoleId>,
}

impl From<RoleInfo> for Role {
    fn from(info: RoleInfo) -> Self {
        Self {
            role: info.role.to_string(),
            permissions: names(info.permissions),
        }
    }
}

fn names(permissions: Permissions) -> Vec<&'static str> {
    let held = Permissions::NAMES.iter().filter(|(_, one)| permissions.has(*one));
    held.map(|(name, _)| *name).collect()
}

fn permissions(names: &[String]) -> Result<Permissions, ApiError> {
    let mut permissions = Permissions::NONE;
    for name in names {
        let known = Permissions::NAMES.iter().find(|(known, _)| known == name);
        let Some((_, one)) = known else {
            let all: Vec<&str> = Permissions::NAMES.iter().map(|(name, _)| *name).collect();
            let text = format!("{name:?} is no permission; there are {}", all.join(", "));
            return Err(ApiError::invalid(text));
        };
        permissions = permissions.with(*one);
    }
    Ok(permissions)
}

/// Make a role, or give it other permissions
///
/// `everyone` is what all members may do; until it is changed, that is `send`, `expand` and `create_channels`. What
/// a role gains holds at once; what it loses, from `done` on.
#[utoipa::path(
    put,
    path = "/v1/groups/{group}/roles/{role}",
    tag = "roles",
    params(
        ("group" = String, Path, description = "The group"),
        ("role" = String, Path, description = "The role"),
    ),
    request_body = NewRole,
    responses(
        (status = OK, description = "It is done, or in which channels not yet", body = Fenced),
        (status = FORBIDDEN, description = "The group has 250 roles", body = ErrorBody),
        (status = NOT_FOUND, description = "There is no such group", body = ErrorBody),
    ),
)]
pub async fn put_role(
    State(api): State<Api>,
    caller: Caller,
    Names((group, role)): Names<(GroupId, RoleId)>,
    Input(new): Input<NewRole>,
) -> Result<Json<Fenced>, ApiError> {
    let permissions = permissions(&new.permissions)?;
    let request = Request::PutRole {
        app: caller.app,
        group,
        role,
        permissions,
    };
    Ok(Json(fenced(&api, request).await?))
}

/// Remove a role, from every member as well
///
/// `everyone` goes back to what it is until it is changed. A role that is made anew under the same name is another
/// one, which nobody has.
#[utoipa::path(
    delete,
    path = "/v1/groups/{group}/roles/{role}",
    tag = "roles",
    params(
        ("group" = String, Path, description = "The group"),
        ("role" = String, Path, description = "The role"),
    ),
    responses(
        (status = OK, description = "It is done, or in which channels not yet", body = Fenced),
        (status = NOT_FOUND, description = "There is no such group", body = ErrorBody),
    ),
)]
pub async fn remove_role(
    State(api): State<Api>,
    caller: Caller,
    Names((group, role)): Names<(GroupId, RoleId)>,
) -> Result<Json<Fenced>, ApiError> {
    let request = Request::RemoveRole {
        app: caller.app,
        group,
        role,
    };
    Ok(Json(fenced(&api, request).await?))
}

/// List the roles of a group
#[utoipa::path(
    get,
    path = "/v1/groups/{group}/roles",
    tag = "roles",
    params(("group" = String, Path, description = "The group")),
    responses(
        (status = OK, description = "The roles", body = Roles),
        (status = NOT_FOUND, description = "There is no such group", body = ErrorBody),
    ),
)]
pub async fn list_roles(
    State(api): State<Api>,
    caller: Caller,
    Names(group): Names<GroupId>,
) -> Result<Json<Roles>, ApiError> {
    let request = Request::Roles {
        app: caller.app,
        group,
    };
    let mut roles: Vec<Role> = match api.ask(request).await? {
        Reply::Roles(found) => found.into_iter().map(Role::from).collect(),
        other => return Err(unexpected(&other)),
    };
    if !roles.iter().any(|role| role.role == EVERYONE) {
        let everyone = Role {
            role: EVERYONE.to_owned(),
            permissions: names(Permissions::EVERYONE),
        };
        let place = roles.partition_point(|role| role.role.as_str() < EVERYONE);
        roles.insert(place, everyone);
    }
    Ok(Json(Roles { roles }))
}

/// The role that all members have.
const EVERYONE: &str = "everyone";

/// Give a member roles, and take others away
#[utoipa::path(
    put,
    path = "/v1/groups/{group}/members/{user}/roles",
    tag = "roles",
    params(
        ("group" = String, Path, description = "The group"),
        ("user" = String, Path, description = "The member"),
    ),
    request_body = MemberRoles,
    responses(
        (status = OK, description = "It is done, or in which channels not yet", body = Fenced),
        (status = NOT_FOUND, description = "There is no such group, member or role", body = ErrorBody),
    ),
)]
pub async fn assign_roles(
    State(api): State<Api>,
    caller: Caller,
    Names((group, user)): Names<(GroupId, UserId)>,
    Input(new): Input<MemberRoles>,
) -> Result<Json<Fenced>, ApiError> {
    let number = known_number(&api, &caller.app, &group, &user).await?;
    let request = Request::AssignRoles {
        app: caller.app,
        group,
        user,
        number,
        roles: new.roles,
    };
    Ok(Json(fenced(&api, request).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_named_and_an_unknown_name_is_refused() {
        let all: Vec<String> = Permissions::NAMES
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        assert_eq!(names(permissions(&all).unwrap()), all);
        assert_eq!(permissions(&[]).unwrap(), Permissions::NONE);
        assert!(permissions(&["fly".to_owned()]).is_err());
        assert_eq!(
            names(Permissions::EVERYONE),
            ["send", "expand", "create_channels"]
        );
        assert_eq!(names(Permissions::ALL).len(), Permissions::NAMES.len());
    }
}
