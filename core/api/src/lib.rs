//! The Server API: HTTP and JSON for the back ends of apps, which own groups, channels and memberships.
//!
//! ```text
//!  back end ──TLS──► serve ──► router ──► caller (whose key?) ──► handlers ──► Cluster::ask
//! ```
//!
//! Every handler turns what was asked into requests of the cluster wire and the answers into JSON; what
//! they come to is decided where the edges' requests are. A back end speaks for the app of its key and
//! for no other. The OpenAPI document is made from the handlers and served at `/openapi.json`. It
//! refuses to hold any state but the keys of the last second, and to know shards and leaders.

#![expect(unused_qualifications, reason = "utoipa's macro writes them")]

mod answers;
mod caller;
mod changes;
mod channels;
mod error;
mod groups;
mod input;
mod key;
mod known_keys;
mod limits;
mod members;
mod messages;
mod openapi;
mod patient;
mod roles;
mod serve;
pub mod token;
mod users;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::routing::get;
use futures_util::future::BoxFuture;
use throng_protocol::cluster::{Answer, Refusal, Reply, Request};
use throng_protocol::code::Code;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use key::Key;
pub use serve::serve;

use crate::error::ApiError;
use crate::known_keys::KnownKeys;

/// Who carries requests out: a core node, wherever the leader of the shard is.
pub trait Cluster: fmt::Debug + Send + Sync + 'static {
    /// Carries a request out.
    fn ask(&self, request: Request) -> BoxFuture<'_, Answer>;
}

/// What every handler has.
#[derive(Debug, Clone)]
struct Api {
    cluster: Arc<dyn Cluster>,
    keys: Arc<KnownKeys>,
}

impl Api {
    async fn ask(&self, request: Request) -> Result<Reply, ApiError> {
        Ok(self.cluster.ask(request).await?)
    }
}

/// For a reply that cannot be the answer to what was asked.
fn unexpected(reply: &Reply) -> ApiError {
    tracing::error!(?reply, "a request was answered with the reply to another");
    ApiError::from(Refusal::Code {
        code: Code::Internal,
        text: "the cluster gave another kind of reply".to_owned(),
    })
}

/// Now, Unix milliseconds.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// All paths, and the document that says what they are.
pub fn router(cluster: Arc<dyn Cluster>) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(groups::put_group, groups::get_group))
        .routes(routes!(channels::list_channels))
        .routes(routes!(channels::put_channel))
        .routes(routes!(channels::archive_channel, channels::reopen_channel))
        .routes(routes!(members::list_members, members::add_members))
        .routes(routes!(members::remove_member))
        .routes(routes!(members::mute_member, members::unmute_member))
        .routes(routes!(roles::list_roles))
        .routes(routes!(roles::put_role, roles::remove_role))
        .routes(routes!(roles::assign_roles))
        .routes(routes!(messages::list_messages, messages::send_message))
        .routes(routes!(changes::modify_message, changes::delete_message))
        .routes(routes!(changes::recall_message))
        .routes(routes!(changes::expand_message, changes::read_expansion))
        .routes(routes!(users::make_token))
        .split_for_parts();
    let document = openapi::rendered(&document);
    router
        .route("/openapi.json", get(async move || document.clone()))
        .fallback(async || ApiError::no_such_path())
        .method_not_allowed_fallback(async || ApiError::no_such_method())
        .with_state(Api {
            cluster,
            keys: Arc::default(),
        })
}
