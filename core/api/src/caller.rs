//! Whose back end asks: decided by its key, before anything else of a request is looked at.

use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use throng_protocol::cluster::{ApiKey, Reply, Request};
use throng_protocol::ids::AppId;

use crate::error::ApiError;
use crate::key::Key;
use crate::{Api, unexpected};

/// The app whose back end asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub app: AppId,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let key = presented(parts)?;
        let keys = confirmed(api, key.app()).await?;
        // An app that is not known and a key that is not its own get the same answer.
        if !key.is_among(&keys) {
            return Err(ApiError::unauthorized("the key is not one of its app"));
        }
        Ok(Self {
            app: key.app().clone(),
        })
    }
}

fn presented(parts: &Parts) -> Result<Key, ApiError> {
    let header = parts.headers.get(header::AUTHORIZATION);
    let header = header.ok_or_else(|| ApiError::unauthorized("give `Authorization: Bearer KEY`"))?;
    let text = header.to_str().ok().and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    text.and_then(Key::parse)
        .ok_or_else(|| ApiError::unauthorized("the header is not `Authorization: Bearer KEY`"))
}

/// An app's keys, as a quorum knew them a moment ago.
async fn confirmed(api: &Api, app: &AppId) -> Result<Vec<ApiKey>, ApiError> {
    // Before the question: what is removed while it is answered counts as removed after it.
    let asked = Instant::now();
    if let Some(keys) = api.keys.get(app, asked) {
        return Ok(keys);
    }
    match api.ask(Request::ApiKeys { app: app.clone() }).await? {
        Reply::ApiKeys(keys) => {
            api.keys.put(app.clone(), asked, keys.clone());
            Ok(keys)
        }
        other => Err(unexpected(&other)),
    }
}
