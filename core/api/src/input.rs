//! What is taken from a request, with our errors in place of axum's.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::Api;
use crate::error::ApiError;
use crate::limits::BODY_BYTES_MAX;

/// Names in the path.
#[derive(Debug)]
pub struct Names<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Names<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, api).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                Err(ApiError::invalid(format!("the path: {}", error.body_text())))
            }
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
        let bytes = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await;
        let bytes = bytes.map_err(|_| {
            ApiError::too_large(format!(
                "the body is not whole or has more than {BODY_BYTES_MAX} bytes"
            ))
        })?;
        let input = serde_json::from_slice(&bytes);
        Ok(Self(input.map_err(|error| {
            ApiError::invalid(format!("the body: {error}"))
        })?))
    }
}
