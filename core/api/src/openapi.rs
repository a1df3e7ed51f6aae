//! The OpenAPI document, apart from what the handlers say of themselves.

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, PathItem, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi, PartialSchema as _, ToSchema as _};

use crate::error::{ErrorBody, ErrorDetail};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "throng Server API",
        description = "For back ends of apps. Every request has `Authorization: Bearer KEY`; `throng ctl api-key` makes keys. Errors carry the numbered codes of the protocol's specification. Names of users, groups and channels have 1 to 64 bytes and no control characters.",
    ),
    security(("key" = [])),
    modifiers(&WithKey),
    tags(
        (name = "users", description = "Users and their tokens"),
        (name = "groups", description = "Groups"),
        (name = "channels", description = "Channels of groups"),
        (name = "members", description = "Members of groups: let in, removed, muted"),
        (name = "roles", description = "Roles of a group: what members may do"),
        (name = "messages", description = "Messages of channels"),
    ),
)]
struct Base;

struct WithKey;

impl Modify for WithKey {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        let mut add = |name: &str, schema| components.schemas.insert(name.to_owned(), schema);
        add(&ErrorBody::name(), ErrorBody::schema());
        add(&ErrorDetail::name(), ErrorDetail::schema());
    }
}

/// What any request may be answered with.
const ANY: [(&str, &str); 4] = [
    (
        "400",
        "Something given is not what is asked for; the text says what",
    ),
    ("401", "No key, or none of its app"),
    ("500", "Something of ours failed; ask again"),
    (
        "503",
        "No leader could be reached in time, or the node drains; ask again",
    ),
];

/// The document without paths.
pub fn base() -> Document {
    Base::openapi()
}

/// The document as it is served.
pub fn rendered(document: &Document) -> impl IntoResponse + Clone + Send + 'static {
    let mut document = document.clone();
    document
        .paths
        .paths
        .values_mut()
        .flat_map(operations)
        .for_each(with_any);
    let json = serde_json::to_string_pretty(&document).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], json)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete]
        .into_iter()
        .flatten()
}

fn with_any(operation: &mut Operation) {
    for (status, description) in ANY {
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(ErrorBody::name())))
            .build();
        let response = ResponseBuilder::new()
            .description(description)
            .content("application/json", content)
            .build();
        let responses = &mut operation.responses.responses;
        responses.entry(status.to_owned()).or_insert(response.into());
    }
}
