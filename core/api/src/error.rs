//! Refusals as back ends see them: the protocol's numbered codes under an HTTP status.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use throng_protocol::cluster::Refusal;
use throng_protocol::code::{Class, Code};
use utoipa::ToSchema;

use crate::limits::RETRY_AFTER_S;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// A numbered error, as in the specification of the protocol, section 8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// The number of the code.
    #[schema(example = 302)]
    pub code: u16,
    /// The name of the code.
    #[schema(example = "not_member")]
    pub name: String,
    /// What happened, for people.
    pub text: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    code: Code,
    text: String,
}

impl ApiError {
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            status: status(code),
            code,
            text: text.into(),
        }
    }

    /// What was given is not what is asked for.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Code::InvalidField, text)
    }

    /// The request has no key, or one that is not the app's.
    pub fn unauthorized(text: impl Into<String>) -> Self {
        Self::new(Code::TokenInvalid, text)
    }

    pub fn too_large(text: impl Into<String>) -> Self {
        Self::new(Code::MessageTooLarge, text)
    }

    pub fn too_slow() -> Self {
        Self::new(
            Code::Unavailable,
            "the request took too long; it may have been carried out",
        )
    }

    pub fn no_such_path() -> Self {
        let text = "there is no such path; see /openapi.json";
        Self {
            status: StatusCode::NOT_FOUND,
            ..Self::invalid(text)
        }
    }

    pub fn no_such_method() -> Self {
        let text = "the path has no such method; see /openapi.json";
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..Self::invalid(text)
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Code { code, text } => Self::new(code, text),
            Refusal::NotLeader { .. } => Self::new(Code::Unavailable, "no leader could be reached in time"),
            Refusal::GrantStale => Self::new(Code::Unavailable, "the user's rights are changing"),
        }
    }
}

/// The HTTP status of a code.
fn status(code: Code) -> StatusCode {
    match code {
        Code::TokenInvalid | Code::TokenExpired | Code::AppUnknown => StatusCode::UNAUTHORIZED,
        Code::GroupUnknown
        | Code::ChannelUnknown
        | Code::NotMember
        | Code::TargetUnknown
        | Code::RoleUnknown => StatusCode::NOT_FOUND,
        Code::Forbidden | Code::Muted => StatusCode::FORBIDDEN,
        Code::AlreadyExists | Code::IdempotencyConflict | Code::ExpansionFull | Code::ChannelArchived => {
            StatusCode::CONFLICT
        }
        Code::RetryTooOld | Code::TargetGone => StatusCode::GONE,
        Code::MessageTooLarge | Code::FrameTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable | Code::StoreFailed | Code::Draining | Code::Overloaded => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, text } = self;
        let retryable = code.class() != Class::Fatal;
        let body = Json(ErrorBody {
            error: ErrorDetail {
                code: code.number(),
                name: code.name().to_owned(),
                text,
                retryable,
            },
        });
        match status {
            StatusCode::UNAUTHORIZED => {
                (status, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response()
            }
            _ if retryable => {
                (status, [(header::RETRY_AFTER, RETRY_AFTER_S.to_string())], body).into_response()
            }
            _ => (status, body).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_of_an_error() {
        for code in Code::ALL {
            let status = status(*code);
            assert!(status.is_client_error() || status.is_server_error(), "{code:?}");
            // Whatever a client may ask again is told so by its status too.
            let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            assert!(
                passing == (code.class() != Class::Fatal) || *code == Code::Timeout,
                "{code:?} {status}"
            );
        }
    }
}
