//! Clients of throng: publishers are the SDK's, subscribers those of [`wire`].

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use throng_client::{ChannelId, Client, ClientConfig, ClientEndpoint, DeviceId, GroupId, StaticToken, Trust};
use tokio::task::JoinSet;

use super::wire::{self, Subscriber};
use super::{TOPIC, Target, in_turns};
use crate::fanout::meter::Meter;
use crate::fanout::scenario::Scenario;

/// UDP sockets that the clients share, as with bare quinn; more where there are very many clients.
pub const SOCKETS: usize = 16;

/// Clients of one socket at most: fewer than the handshakes an edge takes from one network at once.
const SOCKET_CLIENTS: usize = 900;

/// Longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// What a load needs of `cluster.json`.
#[derive(Deserialize)]
struct ClusterFile {
    edges: Vec<String>,
    ca_cert: std::path::PathBuf,
    app_id: String,
    app_secret: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    app: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
}

/// Makes clients of one cluster.
pub struct Factory {
    file: ClusterFile,
    trust: Trust,
    endpoints: Vec<Arc<ClientEndpoint>>,
}

/// Sends, and keeps what is on its way: an open loop does not wait for acks.
pub struct Publisher {
    client: Client,
    groups: Arc<[GroupId]>,
    channel: ChannelId,
    sends: JoinSet<Result<()>>,
}

impl Publisher {
    pub fn publish(&mut self, group: usize, body: Bytes) -> Result<()> {
        while let Some(acked) = self.sends.try_join_next() {
            acked??;
        }
        let group = self.groups.get(group).context("there is no such group")?.clone();
        let (client, channel) = (self.client.clone(), self.channel.clone());
        self.sends.spawn(async move {
            client.send(&group, &channel, body).await.context("sending")?;
            Ok(())
        });
        Ok(())
    }

    /// Waits for every ack.
    pub async fn finish(mut self) -> Result<()> {
        while let Some(acked) = self.sends.join_next().await {
            acked??;
        }
        Ok(())
    }
}

/// Connects everybody, each a member under a name of their own.
pub async fn connect(scenario: &Scenario, cluster: &Path, meter: &Arc<Meter>) -> Result<Vec<Publisher>> {
    let factory = Arc::new(Factory::read(cluster, scenario.subscribers)?);
    let names = (0..scenario.groups).map(|number| GroupId::new(&format!("{TOPIC}-{number}")));
    let groups: Arc<[GroupId]> = names.collect::<Result<_, _>>()?;
    let channel = ChannelId::new("general")?;
    let owner = factory.client("owner").await?;
    for group in groups.iter() {
        owner.create_group(group).await?;
        owner.create_channel(group, &channel).await?;
    }
    let subscribers = in_turns(scenario.subscribers, |number| {
        let (factory, channel, meter) = (factory.clone(), channel.clone(), meter.clone());
        let group = groups[scenario.group_of(number)].clone();
        async move {
            let token = factory.token(&format!("subscriber-{number}"))?;
            let endpoint = factory.endpoint(number);
            Subscriber::connect(endpoint, factory.edge()?, token, &group, &channel, meter).await
        }
    })
    .await?;
    tokio::spawn(async move {
        if let Err(error) = wire::ack(subscribers).await {
            eprintln!("a subscriber cannot ack: {error:#}");
        }
    });
    in_turns(scenario.publishers, |number| {
        let (factory, groups, channel) = (factory.clone(), groups.clone(), channel.clone());
        async move {
            let client = factory.client(&format!("publisher-{number}")).await?;
            for group in groups.iter() {
                client.join(group).await?;
            }
            Ok(Publisher {
                client,
                groups,
                channel,
                sends: JoinSet::new(),
            })
        }
    })
    .await
}

impl Factory {
    /// For so many clients of what a server serves.
    pub fn of(target: &Target, clients: usize) -> Result<Self> {
        match target {
            Target::Throng { cluster } => Self::read(cluster, clients),
            other => bail!("{other:?} has no clients of throng"),
        }
    }

    fn read(cluster: &Path, clients: usize) -> Result<Self> {
        let file = std::fs::read(cluster.join("cluster.json")).context("reading cluster.json")?;
        let file: ClusterFile = serde_json::from_slice(&file)?;
        let trust = Trust::ca_file(&file.ca_cert)?;
        // Each from a network of its own: an edge bounds what the addresses of one may ask.
        let sockets = clients.div_ceil(SOCKET_CLIENTS).max(SOCKETS);
        let endpoint = |number: usize| -> Result<_> {
            let network = u8::try_from(number).context("that many clients need more networks")?;
            let from = SocketAddr::from(([127, 0, network, 1], 0));
            Ok(Arc::new(ClientEndpoint::bind(from, &trust)?))
        };
        let endpoints = (0..sockets).map(endpoint).collect::<Result<_>>()?;
        Ok(Self {
            file,
            trust,
            endpoints,
        })
    }

    /// The socket of a client.
    pub fn endpoint(&self, number: usize) -> &ClientEndpoint {
        &self.endpoints[number % self.endpoints.len()]
    }

    /// Where the edge is.
    pub fn edge(&self) -> Result<&str> {
        let edge = self.file.edges.first().context("the cluster has no edges")?;
        Ok(edge)
    }

    /// A client of the SDK.
    pub async fn client(&self, user: &str) -> Result<Client> {
        let turn = user.bytes().map(usize::from).sum::<usize>() % self.endpoints.len();
        let tokens = Arc::new(StaticToken(self.token(user)?));
        let config = ClientConfig {
            endpoint: self.endpoints.get(turn).cloned(),
            ..ClientConfig::new(
                self.file.edges.clone(),
                self.trust.clone(),
                tokens,
                DeviceId::new("bench")?,
            )
        };
        Ok(Client::connect(config).await?)
    }

    /// A token of a user.
    pub fn token(&self, user: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = Claims {
            app: &self.file.app_id,
            sub: user,
            iat: now,
            exp: now + TOKEN_LIFETIME.as_secs(),
        };
        let header = Header {
            kid: Some("1".to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        let key = EncodingKey::from_secret(self.file.app_secret.as_bytes());
        jsonwebtoken::encode(&header, &claims, &key).context("signing a token")
    }
}
