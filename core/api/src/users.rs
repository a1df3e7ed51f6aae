//! Users: tokens their clients authenticate with.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::{AppKey, Reply, Request, TokenAlgorithm};
use throng_protocol::code::Code;
use throng_protocol::ids::UserId;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::input::{Input, Names};
use crate::limits::{TOKEN_SECONDS, TOKEN_SECONDS_MAX};
use crate::{Api, now_ms, token, unexpected};

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// How long it is good, 1 to 86,400 seconds (a day); an hour if not given.
    #[schema(minimum = 1, maximum = 86_400, example = 3600)]
    seconds: Option<u64>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    /// What the user's client authenticates with.
    token: String,
    /// When it ends, Unix seconds.
    expires_s: u64,
}

/// Make a token for a user
///
/// Signed with the last of the app's token keys. A back end that has such a key can sign tokens itself.
#[utoipa::path(
    post,
    path = "/v1/users/{user}/token",
    tag = "users",
    params(("user" = String, Path, description = "The user, known before or not")),
    request_body = NewToken,
    responses(
        (status = OK, description = "The token", body = Token),
        (status = FORBIDDEN, description = "The app has no token key", body = ErrorBody),
    ),
)]
pub async fn make_token(
    State(api): State<Api>,
    caller: Caller,
    Names(user): Names<UserId>,
    Input(new): Input<NewToken>,
) -> Result<Json<Token>, ApiError> {
    let seconds = new.seconds.unwrap_or(TOKEN_SECONDS);
    if !(1..=TOKEN_SECONDS_MAX).contains(&seconds) {
        let text = format!("a token is good for 1 to {TOKEN_SECONDS_MAX} seconds");
        return Err(ApiError::invalid(text));
    }
    let app = caller.app;
    let keys = match api.ask(Request::App { app: app.clone() }).await? {
        Reply::App(keys) => keys.unwrap_or_default(),
        other => return Err(unexpected(&other)),
    };
    let signs = |key: &&AppKey| key.algorithm == TokenAlgorithm::Hs256;
    let key = keys
        .iter()
        .rfind(signs)
        .ok_or_else(|| ApiError::new(Code::Forbidden, format!("app {app} has no key that signs tokens")))?;
    let iat = now_ms() / 1_000;
    let expires_s = iat + seconds;
    let token = token::sign(key, &app, &user, iat, expires_s);
    let token = token.map_err(|error| ApiError::new(Code::Internal, error))?;
    Ok(Json(Token { token, expires_s }))
}
