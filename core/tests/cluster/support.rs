//! A cluster of core nodes in one process, and peers that ask it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use throng_core::{
    CoreConfig, CoreError, CoreNode, InitialShards, PeerConfig, SharedClock, Storage, SystemClock, Timings,
    TlsFiles,
};
use throng_protocol::cluster::{
    self, Anchor, Answer, Append, By, ChannelInfo, FEED_LANE, FeedEvent, FeedRequest, FenceTable, Grant,
    PeerId, REQUEST_LANE, Refusal, Reply, Request,
};
use throng_protocol::code::Code;
use throng_protocol::ids::{
    AppId, ChannelId, ClientMessageId, EdgeId, Epoch, GroupId, NodeId, Position, Seq, ShardId, UserId,
    UserNumber,
};
use throng_protocol::placement::{ClusterMap, PlacementKey};
use throng_transport::cluster::{LaneReader, LaneWriter};
use throng_transport::dev_ca::DevCa;
use throng_transport::{ClusterEndpoint, ClusterPool, ClusterTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

pub const CLUSTER: &str = "test";
/// How long a cluster on a busy machine may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct TestCluster {
    folder: TempDir,
    pub configs: Vec<CoreConfig>,
    pub nodes: Vec<Option<CoreNode>>,
}

impl TestCluster {
    /// Three nodes with few shards, all ready.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// [`Self::start`] with changed settings.
    pub async fn start_with(change: impl Fn(&mut CoreConfig)) -> Self {
        let mut cluster = Self::prepare();
        cluster.configs.iter_mut().for_each(change);
        for place in 0..3 {
            cluster.start_node(place).await;
        }
        cluster.ready().await;
        cluster
    }

    /// Settings of three nodes, none started.
    pub fn prepare() -> Self {
        let folder = TempDir::new().unwrap();
        let ca = DevCa::open(&folder.path().join("ca")).unwrap();
        let addresses = free_addresses(3);
        let peers: Vec<PeerConfig> = (1..)
            .zip(&addresses)
            .map(|(id, address)| PeerConfig {
                id: NodeId(id),
                address: address.to_string(),
            })
            .collect();
        let configs = (1..)
            .zip(&addresses)
            .map(|(id, address)| {
                let files = ca.node(PeerId::Core(NodeId(id)), CLUSTER).unwrap();
                CoreConfig {
                    id: NodeId(id),
                    cluster: CLUSTER.to_owned(),
                    listen: *address,
                    advertise: None,
                    data: folder.path().join(format!("node-{id}")),
                    observe: Some("127.0.0.1:0".parse().unwrap()),
                    tls: TlsFiles {
                        ca: files.ca,
                        cert: files.cert,
                        key: files.key,
                    },
                    peers: peers.clone(),
                    shards: InitialShards {
                        management: 2,
                        message: 2,
                        replicas: 3,
                    },
                    timings: Timings::default(),
                    storage: Storage::default(),
                }
            })
            .collect();
        Self {
            folder,
            configs,
            nodes: vec![None, None, None],
        }
    }

    pub async fn start_node(&mut self, place: usize) {
        self.start_node_with_clock(place, Arc::new(SystemClock)).await;
    }

    pub async fn start_node_with_clock(&mut self, place: usize, clock: SharedClock) {
        let deadline = Instant::now() + PATIENCE;
        let node = loop {
            // Tasks of a node that ran here before may hold its store and its socket for a moment
            // longer than it.
            match CoreNode::start_with_clock(self.configs[place].clone(), clock.clone()).await {
                Err(CoreError::Locked { .. } | CoreError::AddressInUse { .. })
                    if Instant::now() < deadline =>
                {
                    sleep(Duration::from_millis(10)).await;
                }
                started => break started.unwrap(),
            }
        };
        self.nodes[place] = Some(node);
    }

    pub fn node(&self, place: usize) -> &CoreNode {
        self.nodes[place].as_ref().unwrap()
    }

    /// What a node's replica has applied.
    pub fn applied(&self, place: usize, shard: ShardId) -> u64 {
        let status = self.node(place).status();
        status
            .shards
            .iter()
            .find(|status| status.shard == shard)
            .unwrap()
            .applied
    }

    /// Waits until all nodes have applied all of a shard's log.
    pub async fn settled(&self, shard: ShardId) {
        until("a shard is settled", || {
            let of = |node: &CoreNode| {
                let status = node.status();
                let of_shard = status.shards.iter().find(|status| status.shard == shard).unwrap();
                (of_shard.leader, of_shard.last_log, of_shard.applied)
            };
            let all: Vec<_> = self.nodes.iter().flatten().map(of).collect();
            all.iter()
                .all(|seen| seen == &all[0] && seen.0.is_some() && seen.1 == seen.2)
        })
        .await;
    }

    /// Makes a node the leader of a shard.
    pub async fn lead(&self, place: usize, shard: ShardId) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader_of(shard).await;
            if leader == place {
                return;
            }
            // A follower that is behind refuses; the next attempt finds it caught up.
            let _ = self
                .node(leader)
                .transfer_leader(shard, self.configs[place].id)
                .await;
            assert!(
                Instant::now() < deadline,
                "node {place} does not take shard {shard}"
            );
        }
    }

    pub async fn ready(&self) {
        for node in self.nodes.iter().flatten() {
            timeout(PATIENCE, node.ready())
                .await
                .unwrap_or_else(|_| panic!("{:?}", node.unready()));
        }
    }

    /// Stops a node without handing anything over.
    pub async fn kill(&mut self, place: usize) {
        let node = self.nodes[place].take().unwrap();
        node.stop().await;
    }

    /// The place of the node that leads a shard.
    pub async fn leader_of(&self, shard: ShardId) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leads =
                |node: &Option<CoreNode>| node.as_ref().is_some_and(|node| node.leads().contains(&shard));
            if let Some(place) = self.nodes.iter().position(leads) {
                return place;
            }
            assert!(Instant::now() < deadline, "shard {shard} has no leader");
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn files(&self, peer: PeerId) -> TlsFiles {
        let ca = DevCa::open(&self.folder.path().join("ca")).unwrap();
        let files = ca.node(peer, CLUSTER).unwrap();
        TlsFiles {
            ca: files.ca,
            cert: files.cert,
            key: files.key,
        }
    }

    pub fn edge(&self) -> TestPeer {
        self.peer(PeerId::Edge(EdgeId(1)))
    }

    pub fn peer(&self, peer: PeerId) -> TestPeer {
        let files = self.files(peer);
        let tls = ClusterTls::load(&files.ca, &files.cert, &files.key, CLUSTER).unwrap();
        let endpoint = ClusterEndpoint::bind("127.0.0.1:0".parse().unwrap(), &tls).unwrap();
        TestPeer {
            pool: ClusterPool::new(Arc::new(endpoint)),
            nodes: self
                .configs
                .iter()
                .map(|config| (config.id, config.listen))
                .collect(),
        }
    }
}

/// An edge or another peer of the cluster.
#[derive(Clone)]
pub struct TestPeer {
    pool: ClusterPool,
    nodes: Vec<(NodeId, SocketAddr)>,
}

impl TestPeer {
    /// Asks one node once; `None` without an answer.
    pub async fn ask_node(&self, place: usize, request: &Request) -> Option<Answer> {
        let (id, address) = self.nodes[place];
        let client = self
            .pool
            .rpc(PeerId::Core(id), address, REQUEST_LANE)
            .await
            .ok()?;
        let answer = client
            .call(cluster::encode(request), Duration::from_secs(4))
            .await
            .ok()?;
        Some(cluster::decode(&answer).unwrap())
    }

    /// [`Self::ask_leader`] for requests whose grant is not stale.
    pub async fn ask(&self, request: &Request) -> Result<Reply, Code> {
        self.ask_leader(request).await.map_err(|refusal| match refusal {
            Refusal::Code { code, .. } => code,
            refusal => panic!("{request:?} was answered {refusal:?}"),
        })
    }

    /// Asks until a node answers with anything but "not me" or "not now".
    pub async fn ask_leader(&self, request: &Request) -> Result<Reply, Refusal> {
        let deadline = Instant::now() + PATIENCE;
        let mut place = 0;
        loop {
            let answer = self.ask_node(place, request).await;
            place = match answer {
                Some(Ok(reply)) => return Ok(reply),
                Some(Err(Refusal::Code { code, text })) => {
                    if code != Code::Unavailable {
                        return Err(Refusal::Code { code, text });
                    }
                    assert!(Instant::now() < deadline, "{text}");
                    (place + 1) % self.nodes.len()
                }
                Some(Err(stale @ Refusal::GrantStale)) => return Err(stale),
                Some(Err(Refusal::NotLeader { leader: Some(leader) })) => {
                    self.nodes.iter().position(|(id, _)| *id == leader).unwrap()
                }
                Some(Err(Refusal::NotLeader { leader: None })) | None => (place + 1) % self.nodes.len(),
            };
            assert!(Instant::now() < deadline, "nobody answers {request:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn map(&self) -> ClusterMap {
        let Ok(Reply::Map(map)) = self.ask(&Request::Map).await else {
            panic!("no map")
        };
        map
    }

    pub async fn user(&self, name: &str) -> UserNumber {
        let request = Request::User {
            app: app(),
            user: user(name),
        };
        let Ok(Reply::User(number)) = self.ask(&request).await else {
            panic!("no number")
        };
        number
    }

    pub async fn create_group(&self, name: &str, creator: &str) -> UserNumber {
        let number = self.user(creator).await;
        let request = Request::CreateGroup {
            app: app(),
            group: group(name),
            user: user(creator),
            number,
        };
        assert_eq!(self.ask(&request).await, Ok(Reply::Done));
        number
    }

    pub async fn create_channel(&self, in_group: &str, name: &str, number: UserNumber) -> ChannelInfo {
        let request = Request::CreateChannel {
            app: app(),
            group: group(in_group),
            channel: channel(name),
            by: Some(number),
        };
        match self.ask(&request).await {
            Ok(Reply::Channel(info)) => info,
            other => panic!("{other:?}"),
        }
    }

    pub async fn grant(&self, of_group: &str, name: &str, number: UserNumber) -> Result<Grant, Code> {
        let request = Request::Grant {
            app: app(),
            group: group(of_group),
            user: user(name),
            number,
        };
        match self.ask(&request).await? {
            Reply::Grant(grant) => Ok(grant),
            other => panic!("{other:?}"),
        }
    }

    pub async fn append(
        &self,
        info: &ChannelInfo,
        grant: &Grant,
        id: u64,
        body: &str,
    ) -> Result<Appended, Code> {
        match self.ask(&append(info, grant, id, body)).await? {
            Reply::Appended {
                epoch, seq, repeat, ..
            } => Ok(Appended { epoch, seq, repeat }),
            other => panic!("{other:?}"),
        }
    }

    /// Bodies of a whole channel, by pages; checks that they are dense.
    pub async fn history(&self, info: &ChannelInfo) -> Vec<String> {
        let mut bodies = Vec::new();
        loop {
            let anchor = Seq(bodies.len() as u64);
            let request = Request::Page {
                shard: info.shard,
                channel: info.number,
                anchor: Anchor::Seq(anchor),
                direction: cluster::Direction::After,
                limit: 100,
                grant: None,
                fences: false,
            };
            let Ok(Reply::Page(page)) = self.ask(&request).await else {
                panic!("no page")
            };
            assert_eq!(page.prev, anchor);
            if page.entries.is_empty() {
                assert_eq!(page.head, anchor);
                return bodies;
            }
            for entry in page.entries {
                bodies.push(text(&entry.body));
                assert_eq!(entry.seq, Seq(bodies.len() as u64));
            }
        }
    }

    /// Appends at whichever node takes it, beginning with one, as an edge does: a replica that has
    /// stopped is passed over.
    pub async fn append_anywhere(&self, first: usize, request: &Request) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut place = first;
        while Instant::now() < deadline {
            if let Some(Ok(Reply::Appended { .. })) = self.ask_node(place, request).await {
                return true;
            }
            place = (place + 1) % self.nodes.len();
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    pub async fn feed(&self, place: usize) -> TestFeed {
        let (id, address) = self.nodes[place];
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(connection) = self.pool.connection(PeerId::Core(id), address).await
                && let Ok((writer, reader)) = connection.open_lane(FEED_LANE).await
            {
                return TestFeed { writer, reader };
            }
            assert!(Instant::now() < deadline, "no lane to node {id}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub epoch: Epoch,
    pub seq: Seq,
    pub repeat: bool,
}

/// A feed lane.
pub struct TestFeed {
    writer: LaneWriter,
    reader: LaneReader,
}

impl TestFeed {
    pub async fn send(&mut self, request: &FeedRequest) {
        self.writer.write_one(cluster::encode(request)).await.unwrap();
    }

    /// Follows a channel from behind a position of its first epoch; follows again while the replica
    /// is behind it. Returns the fences the feed begins with.
    pub async fn follow(&mut self, channel: &ChannelInfo, seq: u64) -> FenceTable {
        let position = Position {
            epoch: Epoch(1),
            seq: Seq(seq),
        };
        let follow = FeedRequest::Follow {
            channel: channel.clone(),
            position,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.send(&follow).await;
            match self.next().await {
                Some(FeedEvent::Opened {
                    epoch, from, fences, ..
                }) => {
                    assert_eq!((epoch, from), (Epoch(1), Seq(seq)));
                    return fences;
                }
                Some(FeedEvent::Refused { .. }) => assert!(Instant::now() < deadline, "nobody feeds"),
                other => panic!("{other:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The next event; `None` when the lane is lost.
    pub async fn next(&mut self) -> Option<FeedEvent> {
        let frame = timeout(PATIENCE, self.reader.next())
            .await
            .expect("the feed is silent");
        Some(cluster::decode(&frame.ok()??).unwrap())
    }
}

pub fn append(info: &ChannelInfo, grant: &Grant, id: u64, body: &str) -> Request {
    Request::Append {
        shard: info.shard,
        append: Append {
            channel: info.number,
            by: By::Member(grant.clone()),
            client_message_id: ClientMessageId(id),
            first_attempt_ms: now_ms(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        },
    }
}

pub fn now_ms() -> u64 {
    throng_core::Clock::now_ms(&SystemClock)
}

pub fn text(body: &Bytes) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

pub fn app() -> AppId {
    AppId::new("app").unwrap()
}

pub fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub fn group(name: &str) -> GroupId {
    GroupId::new(name).unwrap()
}

pub fn channel(name: &str) -> ChannelId {
    ChannelId::new(name).unwrap()
}

/// The management shard of a group.
pub fn management_of(map: &ClusterMap, name: &str) -> ShardId {
    map.shard_of(PlacementKey::Group(&app(), &group(name)))
        .unwrap()
        .id
}

/// The message shard of a channel.
pub fn message_of(map: &ClusterMap, in_group: &str, name: &str) -> ShardId {
    map.shard_of(PlacementKey::Channel(&app(), &group(in_group), &channel(name)))
        .unwrap()
        .id
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The value of a metric.
pub async fn metric(address: SocketAddr, name: &str) -> u64 {
    let (_, metrics) = http(address, "/metrics").await;
    let line = metrics
        .lines()
        .find(|line| line.starts_with(name) && !line.starts_with('#'));
    let line = line.unwrap_or_else(|| panic!("{metrics}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Waits until a metric is above zero.
pub async fn counted(address: SocketAddr, name: &str) {
    let deadline = Instant::now() + PATIENCE;
    while metric(address, name).await == 0 {
        assert!(Instant::now() < deadline, "{name} stays 0");
        sleep(Duration::from_millis(20)).await;
    }
}

/// What an HTTP endpoint answers: its status line and body.
pub async fn http(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn free_addresses(count: usize) -> Vec<SocketAddr> {
    // All are held until all are chosen, so that none comes twice.
    let sockets: Vec<UdpSocket> = (0..count)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    sockets
        .iter()
        .map(|socket| socket.local_addr().unwrap())
        .collect()
}
