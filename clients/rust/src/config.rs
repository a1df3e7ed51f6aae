//! What a client is made from.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use throng_protocol::ids::DeviceId;
use throng_transport::{ClientEndpoint, Trust};

use crate::store::{LocalStore, MemoryStore};

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no token: {0}")]
pub struct TokenError(pub String);

/// Where tokens come from. Asked once per connection: tokens are short-lived.
pub trait TokenSource: Send + Sync + 'static {
    /// A token that is valid now.
    fn token(&self) -> BoxFuture<'static, Result<String, TokenError>>;
}

/// One token for as long as it lasts; for tools and tests.
#[derive(Clone)]
pub struct StaticToken(pub String);

impl fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticToken(..)")
    }
}

impl TokenSource for StaticToken {
    fn token(&self) -> BoxFuture<'static, Result<String, TokenError>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// A token source from a function that fetches or signs one.
pub fn token_fn<F, Fut>(fetch: F) -> Arc<dyn TokenSource>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<String, TokenError>> + Send + 'static,
{
    struct Fetch<F>(F);
    impl<F, Fut> TokenSource for Fetch<F>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        fn token(&self) -> BoxFuture<'static, Result<String, TokenError>> {
            Box::pin((self.0)())
        }
    }
    Arc::new(Fetch(fetch))
}

/// What a [`crate::Client`] is made from.
#[derive(Clone)]
pub struct ClientConfig {
    /// Edges, `host:port`; any of them will do.
    pub edges: Vec<String>,
    /// The name on the edges' certificates.
    pub server_name: String,
    /// Whose certificates are believed. Clone one per process.
    pub trust: Trust,
    /// Where tokens come from.
    pub tokens: Arc<dyn TokenSource>,
    /// This installation.
    pub device: DeviceId,
    /// A UDP socket shared with other clients of this process; `None` opens one.
    pub endpoint: Option<Arc<ClientEndpoint>>,
    /// What outlives the process.
    pub store: Arc<dyn LocalStore>,
    /// Seed of all jitter and of the first edge.
    pub seed: u64,
    /// How long a request is retried before it fails.
    pub request_deadline: Duration,
    /// How long [`crate::Client::connect`] tries before it gives up.
    pub connect_timeout: Duration,
    /// Most requests without an answer; further ones wait.
    pub requests_max: usize,
    /// Deliveries a subscription holds for its application before reading pauses.
    pub subscription_buffer: usize,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("edges", &self.edges)
            .field("server_name", &self.server_name)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// A configuration with the defaults: a socket and a memory store of its own, two minutes for a
    /// request, half a minute to connect, 1,024 requests and 256 deliveries held at most.
    pub fn new(edges: Vec<String>, trust: Trust, tokens: Arc<dyn TokenSource>, device: DeviceId) -> Self {
        Self {
            edges,
            server_name: "localhost".to_owned(),
            trust,
            tokens,
            device,
            endpoint: None,
            store: Arc::new(MemoryStore::default()),
            seed: rand::random(),
            request_deadline: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(30),
            requests_max: 1_024,
            subscription_buffer: 256,
        }
    }
}
