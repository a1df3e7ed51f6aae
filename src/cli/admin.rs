//! Operator's access to a cluster: requests on the cluster wire with the certificate of an admin.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use throng_protocol::cluster::{
    self, Anchor, Answer, ApiKey, AppKey, ChannelInfo, Direction, FenceAt, NodeStatus, Page, PeerId,
    REQUEST_LANE, Refusal, Reply, Request, TokenAlgorithm,
};
use throng_protocol::ids::{AppId, ChannelId, GroupId, NodeId, Seq, UserId, UserNumber};
use throng_protocol::limits::PAGE_ENTRIES_MAX;
use throng_transport::{ClusterEndpoint, ClusterPool, ClusterTls};
use tokio::time::Instant;

use super::cluster_file::ClusterFile;
use super::failure::Failure;
use super::tls;

/// How long a request may take, elections and restarts included.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two rounds over the nodes while no leader is known: a fraction of an election.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// What a kick or a mute came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fencing {
    /// The version the change has in the group.
    pub version: u64,
    /// Channels whose shard has not taken it yet; it takes it before it sequences anything more of the
    /// user.
    pub pending: Vec<ChannelId>,
    /// Further such channels, not named.
    pub more: u32,
}

/// An operator's connection to the core nodes.
#[derive(Debug)]
pub struct Admin {
    pool: ClusterPool,
    nodes: Vec<(NodeId, SocketAddr)>,
}

impl Admin {
    /// Prepares access to the cluster of a file; connects when asked something.
    pub async fn connect(file: &ClusterFile) -> Result<Self, Failure> {
        let files = tls::admin_files(&file.tls);
        let tls = ClusterTls::load(&files.ca, &files.cert, &files.key, &file.cluster)
            .map_err(|error| tls::failure(&error))?;
        let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let endpoint = ClusterEndpoint::bind(addr, &tls).map_err(|error| {
            Failure::new(error.to_string(), "this machine", "free a UDP port and try again")
        })?;
        let nodes = file.cores().map(|(id, node)| (NodeId(id), node.addr)).collect();
        Ok(Self {
            pool: ClusterPool::new(Arc::new(endpoint)),
            nodes,
        })
    }

    /// Registers an app's token key.
    pub async fn put_app(&self, app: &str, kid: &str, secret: &[u8]) -> Result<(), Failure> {
        let key = AppKey {
            kid: kid.to_owned(),
            algorithm: TokenAlgorithm::Hs256,
            material: Bytes::copy_from_slice(secret),
        };
        self.only_done(Request::PutApp {
            app: app_id(app)?,
            keys: vec![key],
        })
        .await
    }

    /// An app's keys of the Server API, without their secrets.
    pub async fn api_keys(&self, app: &str) -> Result<Vec<ApiKey>, Failure> {
        match self.ask(Request::ApiKeys { app: app_id(app)? }).await? {
            Reply::ApiKeys(keys) => Ok(keys),
            other => Err(surprise(&other)),
        }
    }

    /// Adds a key of the Server API.
    pub async fn add_api_key(&self, app: &str, key: ApiKey) -> Result<(), Failure> {
        let app = app_id(app)?;
        self.only_done(Request::AddApiKey { app, key }).await
    }

    /// Removes a key of the Server API.
    pub async fn remove_api_key(&self, app: &str, kid: &str) -> Result<(), Failure> {
        let (app, kid) = (app_id(app)?, kid.to_owned());
        self.only_done(Request::RemoveApiKey { app, kid }).await
    }

    async fn only_done(&self, request: Request) -> Result<(), Failure> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            other => Err(surprise(&other)),
        }
    }

    /// A channel by its name.
    pub async fn channel(&self, app: &str, group: &str, channel: &str) -> Result<ChannelInfo, Failure> {
        let group = GroupId::new(group).map_err(|error| name("group", &error))?;
        let channel = ChannelId::new(channel).map_err(|error| name("channel", &error))?;
        match self
            .ask(Request::Channel {
                app: app_id(app)?,
                group,
                channel,
            })
            .await?
        {
            Reply::Channel(info) => Ok(info),
            other => Err(surprise(&other)),
        }
    }

    /// Reads a channel's log from its first entry to its end, page by page, each confirmed by a quorum,
    /// with the fences in it.
    pub async fn read_log(
        &self,
        info: &ChannelInfo,
        mut take: impl FnMut(&Page) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut position = Seq(0);
        loop {
            let request = Request::Page {
                shard: info.shard,
                channel: info.number,
                anchor: Anchor::Seq(position),
                direction: Direction::After,
                limit: PAGE_ENTRIES_MAX,
                grant: None,
                fences: true,
            };
            let page = match self.ask(request).await? {
                Reply::Page(page) => page,
                other => return Err(surprise(&other)),
            };
            take(&page)?;
            match page.entries.last() {
                Some(last) if last.seq < page.head => position = last.seq,
                // The page that reaches the end has told the fences behind its last entry.
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// The fences of a channel's log, in order.
    pub async fn fences(&self, app: &str, group: &str, channel: &str) -> Result<Vec<FenceAt>, Failure> {
        let info = self.channel(app, group, channel).await?;
        let mut fences = Vec::new();
        self.read_log(&info, |page| {
            fences.extend(page.fences.iter().cloned());
            Ok(())
        })
        .await?;
        Ok(fences)
    }

    /// Kicks a member as the operator.
    pub async fn kick(&self, app: &str, group: &str, user: &str) -> Result<Fencing, Failure> {
        let (app, group, user, number) = self.who(app, group, user).await?;
        let request = Request::Kick {
            app,
            group,
            user,
            number,
            by: None,
            since: None,
        };
        self.fence(request).await
    }

    /// Mutes a member until a moment, Unix milliseconds, as the operator; 0 ends a mute.
    pub async fn mute(&self, app: &str, group: &str, user: &str, until_ms: u64) -> Result<Fencing, Failure> {
        let (app, group, user, number) = self.who(app, group, user).await?;
        let request = Request::Mute {
            app,
            group,
            user,
            number,
            until_ms,
            by: None,
        };
        self.fence(request).await
    }

    async fn fence(&self, request: Request) -> Result<Fencing, Failure> {
        match self.ask(request).await? {
            Reply::Fenced {
                version,
                pending,
                more,
            } => Ok(Fencing {
                version,
                pending,
                more,
            }),
            other => Err(surprise(&other)),
        }
    }

    async fn who(
        &self,
        app: &str,
        group: &str,
        user: &str,
    ) -> Result<(AppId, GroupId, UserId, UserNumber), Failure> {
        let (app, group) = (
            app_id(app)?,
            GroupId::new(group).map_err(|error| name("group", &error))?,
        );
        let user = UserId::new(user).map_err(|error| name("user", &error))?;
        let request = Request::KnownUser {
            app: app.clone(),
            user: user.clone(),
        };
        match self.ask(request).await? {
            // A number that is never issued stands for a name that nobody has.
            Reply::KnownUser(number) => Ok((app, group, user, number.unwrap_or_default())),
            other => Err(surprise(&other)),
        }
    }

    /// One node's replicas; an error if that node cannot be reached now.
    pub async fn status(&self, node: NodeId) -> Result<NodeStatus, Failure> {
        let addr = self
            .nodes
            .iter()
            .find(|(id, _)| *id == node)
            .map(|(_, addr)| *addr);
        let addr = addr.ok_or_else(|| {
            Failure::new(
                format!("node {node} is unknown"),
                "cluster.json",
                "name one that is there",
            )
        })?;
        match self.ask_node(node, addr, &Request::Status).await {
            Some(Ok(Reply::Status(status))) => Ok(status),
            _ => Err(Failure::new(
                format!("node {node} does not answer"),
                addr.to_string(),
                "look into its log",
            )),
        }
    }

    /// Asks until a node answers for its shard, following leaders.
    async fn ask(&self, request: Request) -> Result<Reply, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = "no node answered".to_owned();
        let mut hint = None;
        loop {
            let mut order = self.nodes.clone();
            order.sort_by_key(|(id, _)| Some(*id) != hint);
            hint = None;
            for (id, addr) in order {
                match self.ask_node(id, addr, &request).await {
                    Some(Ok(reply)) => return Ok(reply),
                    Some(Err(Refusal::NotLeader { leader })) => {
                        last = "no leader was found".to_owned();
                        hint = leader.filter(|leader| *leader != id);
                        if hint.is_some() {
                            break;
                        }
                    }
                    Some(Err(Refusal::Code { code, text })) => {
                        if code.class() == throng_protocol::code::Class::Fatal {
                            let what = format!("{} ({})", text, code.name());
                            return Err(Failure::new(what, format!("core-{id}"), "correct the request"));
                        }
                        last = text;
                    }
                    Some(Err(Refusal::GrantStale)) => {
                        "a node judged a grant where none was given".clone_into(&mut last);
                    }
                    None => {}
                }
            }
            if Instant::now() > deadline {
                let places: Vec<String> = self.nodes.iter().map(|(_, addr)| addr.to_string()).collect();
                return Err(Failure::new(
                    format!("the cluster did not answer: {last}"),
                    places.join(", "),
                    "check that a majority of its nodes runs (`throng ctl status --cluster DIR`)",
                ));
            }
            if hint.is_none() {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
    }

    async fn ask_node(&self, id: NodeId, addr: SocketAddr, request: &Request) -> Option<Answer> {
        let asked = async {
            let lane = self.pool.rpc(PeerId::Core(id), addr, REQUEST_LANE).await.ok()?;
            let answer = lane.call(cluster::encode(request), ANSWER_TIMEOUT).await.ok()?;
            cluster::decode::<Answer>(&answer).ok()
        };
        tokio::time::timeout(ANSWER_TIMEOUT, asked).await.ok().flatten()
    }
}

fn app_id(app: &str) -> Result<AppId, Failure> {
    AppId::new(app).map_err(|error| name("app", &error))
}

fn name(what: &str, error: &throng_protocol::ids::NameError) -> Failure {
    Failure::usage(
        error.to_string(),
        format!("the {what}'s name"),
        "give another name",
    )
}

fn surprise(reply: &Reply) -> Failure {
    Failure::new(
        format!("a node answered something else: {reply:?}"),
        "the cluster wire",
        "upgrade nodes and tools together",
    )
}
