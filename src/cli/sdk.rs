//! The SDK as the tools use it: development tokens, the cluster's CA, a few shared sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use throng_client::{
    ChannelId, Client, ClientConfig, ClientEndpoint, CloseReason, Code, ConnectError, DeviceId, GroupId,
    State, StaticToken, TokenError, TokenSource, Trust, token_fn,
};

use super::cluster_file::ClusterFile;
use super::failure::Failure;
use super::token;

/// Sockets that the clients of one tool share: one would be a single receive buffer for a thousand
/// clients, one each would be a thousand descriptors.
const SOCKETS: usize = 16;

/// How long a link may be silent before it is probed: these clients have no battery, and one that only
/// listens should learn soon that its edge is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How long a client tries to connect at first; the patience of its requests if that is longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes clients.
#[derive(Debug)]
pub struct Sdk {
    file: ClusterFile,
    trust: Trust,
    endpoints: Vec<Arc<ClientEndpoint>>,
    turn: AtomicUsize,
    patience: Duration,
}

impl Sdk {
    /// For the cluster of a file; requests are retried for `patience`.
    pub fn new(file: &ClusterFile, patience: Duration) -> Result<Self, Failure> {
        let trust = Trust::ca_file(&file.ca_cert).map_err(|error| super::tls::failure(&error))?;
        let endpoint = || {
            let made = ClientEndpoint::with_keep_alive(&trust, KEEP_ALIVE);
            made.map(Arc::new).map_err(|error| {
                Failure::new(error.to_string(), "this machine", "free a UDP port and try again")
            })
        };
        let endpoints = (0..SOCKETS).map(|_| endpoint()).collect::<Result<_, _>>()?;
        Ok(Self {
            file: file.clone(),
            trust,
            endpoints,
            turn: AtomicUsize::new(0),
            patience,
        })
    }

    /// Connects a user with tokens signed here.
    pub async fn connect(&self, user: &str, device: &str) -> Result<Client, Failure> {
        self.connect_to(self.file.edges.clone(), user, device).await
    }

    /// Connects a user to one edge alone, chosen by its place among the edges, and to no other later.
    pub async fn connect_at(&self, edge: usize, user: &str, device: &str) -> Result<Client, Failure> {
        let edge = self.file.edges.get(edge % self.file.edges.len().max(1));
        self.connect_to(edge.into_iter().cloned().collect(), user, device)
            .await
    }

    async fn connect_to(&self, edges: Vec<String>, user: &str, device: &str) -> Result<Client, Failure> {
        let (file, name) = (self.file.clone(), user.to_owned());
        let tokens = token_fn(move || {
            let token =
                token::sign(&file, &name, token::LIFETIME).map_err(|failure| TokenError(failure.what));
            std::future::ready(token)
        });
        self.connect_with(edges, tokens, device).await
    }

    /// Connects with a token that was given.
    pub async fn connect_with_token(&self, token: &str, device: &str) -> Result<Client, Failure> {
        let token = Arc::new(StaticToken(token.to_owned()));
        self.connect_with(self.file.edges.clone(), token, device).await
    }

    async fn connect_with(
        &self,
        edges: Vec<String>,
        tokens: Arc<dyn TokenSource>,
        device: &str,
    ) -> Result<Client, Failure> {
        let device = DeviceId::new(device).map_err(|error| name("device", device, &error))?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let config = ClientConfig {
            endpoint: self.endpoints.get(turn % SOCKETS).cloned(),
            request_deadline: self.patience,
            connect_timeout: self.patience.max(CONNECT_TIMEOUT),
            ..ClientConfig::new(edges, self.trust.clone(), tokens, device)
        };
        Client::connect(config)
            .await
            .map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &ConnectError) -> Failure {
        let edges = self.file.edges.join(", ");
        let code = match error {
            ConnectError::Closed(CloseReason::Refused { code, .. }) => *code,
            _ => None,
        };
        match code {
            Some(Code::TokenExpired) => Failure::token(true, &edges),
            Some(Code::TokenInvalid | Code::AppUnknown) => Failure::token(false, &edges),
            _ => Failure::new(
                format!("no edge takes the client: {error}"),
                edges,
                "check that it runs (`throng ctl status --cluster DIR`) and look into its log",
            ),
        }
    }
}

/// Makes a group if it is not there, and the client a member.
pub async fn found(client: &Client, group: &GroupId) -> Result<(), Failure> {
    match client.create_group(group).await {
        Ok(()) => return Ok(()),
        Err(error) if error.code == Some(Code::AlreadyExists) => {}
        Err(error) => return Err(refused("the group cannot be made", group.as_str(), &error)),
    }
    client
        .join(group)
        .await
        .map_err(|error| refused("the group cannot be joined", group.as_str(), &error))
}

/// How often a client came back to its session.
pub fn resumes(client: &Client) -> u64 {
    match &*client.state().borrow() {
        State::Open { connection, .. } => u64::from(connection.saturating_sub(1)),
        State::Connecting { .. } | State::Closed(_) => 0,
    }
}

/// A group by the name somebody typed.
pub fn group(text: &str) -> Result<GroupId, Failure> {
    GroupId::new(text).map_err(|error| name("group", text, &error))
}

/// A channel by the name somebody typed.
pub fn channel(text: &str) -> Result<ChannelId, Failure> {
    ChannelId::new(text).map_err(|error| name("channel", text, &error))
}

/// A request the cluster refused, for people.
pub fn refused(what: &str, place: &str, error: &throng_client::RequestError) -> Failure {
    Failure::new(
        format!("{what}: {error}"),
        place.to_owned(),
        "look into the edge's log",
    )
}

fn name(what: &str, text: &str, error: &throng_client::NameError) -> Failure {
    Failure::usage(
        error.to_string(),
        format!("the {what}'s name `{text}`"),
        "give another name",
    )
}
