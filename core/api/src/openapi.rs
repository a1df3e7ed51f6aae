//! The OpenAPI document, apart from what the handlers say of themselves.

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::Modify;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "throng Server API",
        description = "For back ends of apps. Every request has `Authorization: Bearer KEY`; `throng ctl api-key` makes keys. Errors carry the numbered codes of the protocol's specification.",
    ),
    security(("key" = [])),
    modifiers(&WithKey),
    tags(
        (name = "users", description = "Users and their tokens"),
        (name = "groups", description = "Groups"),
        (name = "channels", description = "Channels of groups"),
        (name = "members", description = "Members of groups: let in, removed, muted"),
        (name = "messages", description = "Messages of channels"),
    ),
)]
struct Base;

struct WithKey;

impl Modify for WithKey {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The document without paths.
pub fn base() -> Document {
    Base::openapi()
}

/// The document as it is served.
pub fn rendered(document: &Document) -> impl IntoResponse + Clone + Send + 'static {
    let json = serde_json::to_string_pretty(document).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], json)
}
