//! What is taken from a request, with our errors in place of axum's.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Deserializer};
use throng_protocol::ids::UserId;

use crate::Api;
use crate::error::ApiError;
use crate::limits::BODY_BYTES_MAX;

/// Names in the path.
#[derive(Debug)]
pub struct Names<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Names<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let found: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, api).await;
        match found {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => Err(ApiError::invalid(format!("the path: {}", error.body_text()))),
        }
    }
}

/// Parameters behind the path.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let found: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, api).await;
        match found {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(error) => Err(ApiError::invalid(format!(
                "the parameters: {}",
                error.body_text()
            ))),
        }
    }
}

/// A body of JSON, whatever its content type is said to be: curl says another one by itself.
#[derive(Debug)]
pub struct Input<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequest<Api> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Api) -> Result<Self, ApiError> {
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => ApiError::too_large(format!("the body has more than {BODY_BYTES_MAX} bytes")),
            false => ApiError::invalid(format!("the body did not come whole: {error}")),
        })?;
        let bytes = body.to_bytes();
        // serde takes the fields of an object from an array as well.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(ApiError::invalid("the body is not an object of JSON"));
        }
        let input = serde_json::from_slice(&bytes);
        Ok(Self(input.map_err(|error| {
            ApiError::invalid(format!("the body: {error}"))
        })?))
    }
}

/// How many are wanted of at most so many.
pub fn limit(given: Option<u32>, default: u32, max: u32) -> Result<u32, ApiError> {
    let limit = given.unwrap_or(default);
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::invalid(format!("`limit` is 1 to {max}, not {limit}")))
}

/// A user who is named, or not at all: `null` is neither, for by leaving a name out the app itself is meant.
pub fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UserId>, D::Error> {
    UserId::deserialize(deserializer).map(Some)
}
