//! An edge under test and the core node it talks to.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use throng_gateway::{ClientTlsFiles, ClusterTlsFiles, CoreAddress, Gateway, GatewayConfig, GatewayLimits};
use throng_protocol::cluster::{
    self, Anchor, Answer, AppKey, By, ChannelInfo, Direction, Entry, EntryKind, FEED_LANE, FeedEvent,
    FeedRequest, FenceKind, Grant, GrantClaims, Hole, Page, PeerId, Refusal, Reply, Request, TokenAlgorithm,
};
use throng_protocol::code::Code;
use throng_protocol::ids::{
    AppId, ChannelId, ChannelNumber, ClientMessageId, EdgeId, Epoch, GroupId, NodeId, Seq, ShardId, Ts,
    UserId, UserNumber,
};
use throng_protocol::placement::{ClusterMap, NodeInfo};
use throng_transport::cluster::{LaneReader, LaneWriter};
use throng_transport::dev_ca::DevCa;
use throng_transport::{ClusterConnection, ClusterEndpoint, ClusterTls, serve_rpc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{oneshot, watch};

use crate::rights::{Group, Placed};

pub const CLUSTER: &str = "test";
pub const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
pub const EPOCH: Epoch = Epoch(1);

/// Whoever may kick and mute.
pub const CREATOR: &str = "ann";

/// What the stand-in's logs take for the time, Unix milliseconds.
const NOW_MS: u64 = 1_000;

/// The stamp of an entry: strictly ascending, with gaps, as clocks give them.
pub fn ts_of(seq: Seq) -> Ts {
    Ts(seq.0 * 10)
}

/// The node that leads all shards.
pub const LEADER: NodeId = NodeId(1);

/// A node that lags behind without saying so, if there is one.
const FOLLOWER: NodeId = NodeId(2);

/// How far a feed of a channel has got.
#[derive(Debug)]
struct Fed {
    sent: Seq,
    /// Fences of the group told.
    told: usize,
}

/// What the stand-in holds and how it misbehaves when told to.
#[derive(Debug)]
pub struct State {
    logs: Mutex<BTreeMap<ChannelNumber, Vec<Entry>>>,
    users: Mutex<HashMap<UserId, UserNumber>>,
    /// Grows with every append; feeds look when it does.
    grown: watch::Sender<usize>,
    /// Users that management takes for members.
    pub strangers: Mutex<Vec<UserId>>,
    /// Answers to the next appends instead of appending.
    pub refuse_appends: Mutex<Vec<Refusal>>,
    /// Grants made before this many are taken for outdated by appends.
    pub grants_void_below: AtomicUsize,
    pub grants: AtomicUsize,
    pub appends: AtomicUsize,
    pub pages: AtomicUsize,
    /// Readings of an app's keys.
    pub apps: AtomicUsize,
    /// Holds the answer to the next grant: told when it is made, and waits until it may go.
    pub hold_grant: Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
    pub no_leader: AtomicBool,
    /// Bumped to end all feed lanes.
    pub cut_feeds: watch::Sender<usize>,
    /// Entries that the next batch leaves out at its beginning.
    pub skip: AtomicUsize,
    /// Channels that fences are said not to hold in yet.
    pub pending: Mutex<Vec<ChannelId>>,
    /// Fences of the group and their places.
    group: Mutex<Group>,
    /// While set, feeds bring nothing new.
    pub hush: watch::Sender<bool>,
    map: Mutex<ClusterMap>,
}

/// Channels are named by their number.
pub fn number(channel: &ChannelId) -> Option<ChannelNumber> {
    channel.as_str().parse().ok().map(ChannelNumber)
}

impl State {
    fn new() -> Self {
        Self {
            logs: Mutex::default(),
            users: Mutex::default(),
            grown: watch::Sender::new(0),
            strangers: Mutex::default(),
            refuse_appends: Mutex::default(),
            grants_void_below: AtomicUsize::new(0),
            grants: AtomicUsize::new(0),
            appends: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
            apps: AtomicUsize::new(0),
            hold_grant: Mutex::default(),
            no_leader: AtomicBool::new(false),
            cut_feeds: watch::Sender::new(0),
            skip: AtomicUsize::new(0),
            pending: Mutex::default(),
            group: Mutex::default(),
            hush: watch::Sender::new(false),
            map: Mutex::default(),
        }
    }

    /// Appends as if another edge had sent it.
    pub fn append(&self, channel: u64, key: u64, body: Bytes) -> Seq {
        let mut logs = self.logs.lock();
        let log = logs.entry(ChannelNumber(channel)).or_default();
        let seq = Seq(log.len() as u64 + 1);
        log.push(Entry {
            seq,
            ts: ts_of(seq),
            kind: EntryKind::Message,
            sender_number: UserNumber(1),
            sender: UserId::new("ann").unwrap(),
            client_message_id: ClientMessageId(key),
            body,
            target: Seq(0),
            version: Seq(0),
            hole: Hole::None,
            expansion: Vec::new(),
            removed: Vec::new(),
            keys_elsewhere: false,
        });
        drop(logs);
        self.grown.send_modify(|grown| *grown += 1);
        seq
    }

    fn page(&self, channel: ChannelNumber, anchor: Anchor, direction: Direction, limit: usize) -> Page {
        let logs = self.logs.lock();
        let log = logs.get(&channel).map(Vec::as_slice).unwrap_or_default();
        let anchor = match (anchor, direction) {
            (Anchor::Seq(seq), _) => seq,
            // The place between two entries, as a position after or before it.
            (Anchor::Ts(ts), Direction::After) => Seq(log.partition_point(|entry| entry.ts <= ts) as u64),
            (Anchor::Ts(ts), Direction::Before) => Seq(log.partition_point(|entry| entry.ts < ts) as u64 + 1),
        };
        let entries: Vec<Entry> = match direction {
            Direction::After => log
                .iter()
                .filter(|entry| entry.seq > anchor)
                .take(limit)
                .cloned()
                .collect(),
            Direction::Before => {
                let before: Vec<_> = log.iter().filter(|entry| entry.seq < anchor).collect();
                before[before.len().saturating_sub(limit)..]
                    .iter()
                    .map(|entry| (*entry).clone())
                    .collect()
            }
        };
        let prev = entries.first().map_or(anchor, |entry| Seq(entry.seq.0 - 1));
        Page {
            epoch: EPOCH,
            prev,
            entries,
            head: Seq(log.len() as u64),
            fenced: self.group.lock().last_fence(),
            fences: Vec::new(),
        }
    }

    fn answer(&self, request: Request) -> Answer {
        if self.no_leader.load(Ordering::SeqCst) && !matches!(request, Request::Map | Request::App { .. }) {
            return Err(Refusal::NotLeader { leader: None });
        }
        match request {
            Request::Map => Ok(Reply::Map(self.map.lock().clone())),
            Request::App { app } => {
                self.apps.fetch_add(1, Ordering::SeqCst);
                Ok(Reply::App((app.as_str() == "app").then(|| {
                    vec![AppKey {
                        kid: "1".to_owned(),
                        algorithm: TokenAlgorithm::Hs256,
                        material: Bytes::from_static(SECRET),
                    }]
                })))
            }
            Request::User { user, .. } => Ok(Reply::User(self.number_of(&user))),
            Request::KnownUser { user, .. } => Ok(Reply::KnownUser(self.known(&user))),
            Request::Grant { app, group, user, .. } => self.grant(&app, &group, &user),
            Request::Channel { app, group, channel } => match number(&channel) {
                Some(number) => Ok(Reply::Channel(ChannelInfo {
                    app,
                    group,
                    channel,
                    number,
                    shard: ShardId(101),
                })),
                None => Err(no(Code::ChannelUnknown)),
            },
            Request::Append { append, .. } => {
                self.appends.fetch_add(1, Ordering::SeqCst);
                let By::Member(grant) = append.by else {
                    return Err(no(Code::Forbidden));
                };
                self.judge(&grant, true)?;
                if (grant.key_id as usize) < self.grants_void_below.load(Ordering::SeqCst) {
                    return Err(no(Code::NotMember));
                }
                if let Some(refusal) = self.refuse_appends.lock().pop() {
                    return Err(refusal);
                }
                let seq = self.append(append.channel.0, append.client_message_id.0, append.body);
                Ok(Reply::Appended {
                    epoch: EPOCH,
                    seq,
                    ts: ts_of(seq),
                    repeat: false,
                })
            }
            Request::Page {
                channel,
                anchor,
                direction,
                limit,
                grant,
                ..
            } => {
                self.pages.fetch_add(1, Ordering::SeqCst);
                if let Some(grant) = &grant {
                    self.judge(grant, false)?;
                }
                Ok(Reply::Page(self.page(channel, anchor, direction, limit as usize)))
            }
            request => self.answer_rights(request),
        }
    }

    fn answer_rights(&self, request: Request) -> Answer {
        match request {
            Request::Kick { user, number, by, .. } => self.take_right(&user, number, by, FenceKind::Kick, 0),
            Request::Mute {
                user,
                number,
                by,
                until_ms,
                ..
            } => self.take_right(&user, number, by, FenceKind::Mute, until_ms),
            Request::Leave { number, .. } => {
                let users = self.users.lock();
                let user = users.iter().find(|(_, known)| **known == number);
                let user = user.map(|(user, _)| user.clone()).unwrap();
                drop(users);
                self.fence(&user, FenceKind::Left);
                Ok(Reply::Done)
            }
            Request::Join { user, .. } => {
                self.readmit(&user);
                Ok(Reply::Done)
            }
            _ => Ok(Reply::Done),
        }
    }

    fn grant(&self, app: &AppId, group: &GroupId, user: &UserId) -> Answer {
        if group.as_str() != "group" {
            return Err(no(Code::GroupUnknown));
        }
        if self.strangers.lock().contains(user) {
            return Err(no(Code::NotMember));
        }
        let made = self.grants.fetch_add(1, Ordering::SeqCst);
        Ok(Reply::Grant(Grant {
            key_id: u32::try_from(made).unwrap(),
            claims: cluster::encode(&self.group.lock().claims(app, group, user, self.number_of(user))),
            seal: [0; 32],
        }))
    }

    /// What comes next on a channel's feed: entries up to the next fence, then the fence.
    fn go_on(&self, channel: ChannelNumber, fed: &mut Fed) -> Vec<FeedEvent> {
        let mut page = self.page(channel, Anchor::Seq(fed.sent), Direction::After, 300);
        // Read after the page: a fence that was not there yet lies behind it.
        let group = self.group.lock();
        let next = group.fences.get(fed.told);
        let next = next.map(|fence| (fence.fence, fence.place(channel)));
        drop(group);
        page.entries
            .retain(|entry| next.is_none_or(|(_, after)| entry.seq <= after));
        let mut events = Vec::new();
        if let Some(last) = page.entries.last().map(|entry| entry.seq) {
            fed.sent = last;
            let skip = self.skip.swap(0, Ordering::SeqCst).min(page.entries.len() - 1);
            if let Some(skipped) = page.entries.drain(..skip).next_back() {
                page.prev = skipped.seq;
            }
            events.push(FeedEvent::Batch {
                channel,
                epoch: EPOCH,
                prev: page.prev,
                entries: page.entries,
            });
        }
        if let Some((fence, after)) = next.filter(|(_, after)| *after <= fed.sent) {
            fed.told += 1;
            events.push(FeedEvent::Fence {
                channel,
                after,
                fence,
            });
        }
        events
    }

    /// A user's number, if there is one.
    pub fn known(&self, user: &UserId) -> Option<UserNumber> {
        self.users.lock().get(user).copied()
    }

    fn number_of(&self, user: &UserId) -> UserNumber {
        let mut users = self.users.lock();
        let next = UserNumber(users.len() as u64 + 1);
        *users.entry(user.clone()).or_insert(next)
    }

    /// As the shard judges a grant: stale ones are never answered with anything else.
    fn judge(&self, grant: &Grant, sends: bool) -> Result<(), Refusal> {
        let claims: GrantClaims = cluster::decode(&grant.claims).unwrap();
        let group = self.group.lock();
        let touches =
            |fence: &&Placed| fence.fence.number == claims.number && fence.fence.version > claims.version;
        if group.fences.iter().any(|fence| touches(&fence)) {
            return Err(Refusal::GrantStale);
        }
        if sends && claims.muted_until > NOW_MS {
            return Err(no(Code::Muted));
        }
        Ok(())
    }

    fn take_right(
        &self,
        user: &UserId,
        number: UserNumber,
        by: Option<UserNumber>,
        kind: FenceKind,
        until_ms: u64,
    ) -> Answer {
        let known = self.known(user);
        assert_eq!(
            known.unwrap_or_default(),
            number,
            "the edge knows the user's number"
        );
        if by.is_some_and(|by| by != self.number_of(&UserId::new(CREATOR).unwrap())) {
            return Err(no(Code::Forbidden));
        }
        if known.is_none() || self.strangers.lock().contains(user) {
            return Err(no(Code::NotMember));
        }
        let version = if kind == FenceKind::Mute {
            self.mute(user, until_ms)
        } else {
            self.fence(user, kind)
        };
        let pending = self.pending.lock().clone();
        Ok(Reply::Fenced {
            version,
            pending,
            more: 0,
        })
    }

    /// Ends a membership, as the core does for another edge; the fence lies behind what was appended.
    pub fn fence(&self, user: &UserId, kind: FenceKind) -> u64 {
        if kind.ends_reading() {
            self.strangers.lock().push(user.clone());
        }
        let number = self.number_of(user);
        // Also held while entries are appended: a fence lies between two of them.
        let logs = self.logs.lock();
        let heads = logs
            .iter()
            .map(|(channel, log)| (*channel, Seq(log.len() as u64)));
        let version = self.group.lock().fence(number, kind, heads.collect());
        drop(logs);
        self.grown.send_modify(|grown| *grown += 1);
        version
    }

    /// Takes the right to send away, or gives it back, which needs no fence.
    pub fn mute(&self, user: &UserId, until_ms: u64) -> u64 {
        let number = self.number_of(user);
        self.group.lock().muted.insert(number, until_ms);
        if until_ms > 0 {
            return self.fence(user, FenceKind::Mute);
        }
        self.group.lock().next_version()
    }

    /// Makes a user a member again.
    pub fn readmit(&self, user: &UserId) {
        self.strangers.lock().retain(|stranger| stranger != user);
        self.group.lock().next_version();
    }

    async fn answer_of(&self, node: NodeId, request: Request) -> Answer {
        let any = matches!(request, Request::Map | Request::App { .. });
        if node != LEADER && !any {
            return Err(Refusal::NotLeader { leader: None });
        }
        let held = match request {
            Request::Grant { .. } => self.hold_grant.lock().take(),
            _ => None,
        };
        let answer = self.answer(request);
        if let Some((made, go)) = held {
            made.send(()).unwrap();
            let _ = go.await;
        }
        answer
    }

    /// Feeds channels; a node that does not lead opens feeds and brings nothing.
    async fn feed(&self, node: NodeId, mut writer: LaneWriter, mut reader: LaneReader) {
        let mut grown = self.grown.subscribe();
        let mut cut = self.cut_feeds.subscribe();
        let mut hush = self.hush.subscribe();
        let mut feeds: BTreeMap<ChannelNumber, Fed> = BTreeMap::new();
        loop {
            let mut events = Vec::new();
            tokio::select! {
                Ok(()) = cut.changed() => return,
                Ok(()) = grown.changed() => {}
                Ok(()) = hush.changed() => {}
                frame = reader.next() => {
                    let Ok(Some(frame)) = frame else { return };
                    match cluster::decode(&frame).unwrap() {
                        FeedRequest::Follow { channel, position } => {
                            let channel = channel.number;
                            let head = self.page(channel, Anchor::Seq(Seq(0)), Direction::After, 0).head;
                            let from = if position.epoch == EPOCH { position.seq } else { head };
                            let (fences, told) = self.group.lock().table(channel, from);
                            feeds.insert(channel, Fed { sent: from, told });
                            events.push(FeedEvent::Opened { channel, epoch: EPOCH, from, head, fences });
                        }
                        FeedRequest::Unfollow { channel } => drop(feeds.remove(&channel)),
                    }
                }
            }
            if node == LEADER && !*hush.borrow_and_update() {
                for (channel, fed) in &mut feeds {
                    events.extend(self.go_on(*channel, fed));
                }
                if events
                    .iter()
                    .any(|event| matches!(event, FeedEvent::Batch { .. } | FeedEvent::Fence { .. }))
                {
                    // What did not fit comes with the next look.
                    grown.mark_changed();
                }
            }
            for event in events {
                if writer.write_one(cluster::encode(&event)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// An edge and the core node it talks to, on this machine.
pub struct Edge {
    pub gateway: Option<Gateway>,
    pub core: Arc<State>,
    pub addr: SocketAddr,
    pub ca: PathBuf,
    pub config: GatewayConfig,
    _folder: tempfile::TempDir,
}

impl Edge {
    pub async fn start() -> Self {
        Self::with(GatewayLimits::default()).await
    }

    pub async fn with(limits: GatewayLimits) -> Self {
        Self::with_cores(limits, None, &[LEADER], None).await
    }

    /// With so many threads for clients.
    pub async fn with_workers(workers: usize) -> Self {
        Self::with_cores(GatewayLimits::default(), Some(workers), &[LEADER], None).await
    }

    /// With a follower that lags behind.
    pub async fn with_follower() -> Self {
        Self::with_cores(GatewayLimits::default(), None, &[LEADER, FOLLOWER], None).await
    }

    /// With a follower that nobody reaches.
    pub async fn with_dead_follower() -> Self {
        Self::with_cores(GatewayLimits::default(), None, &[LEADER], Some(FOLLOWER)).await
    }

    /// What the edge counts, as Prometheus reads it.
    pub async fn metrics(&self) -> String {
        let addr = self.gateway.as_ref().unwrap().observe_addr().unwrap();
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn with_cores(
        limits: GatewayLimits,
        workers: Option<usize>,
        nodes: &[NodeId],
        dead: Option<NodeId>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = DevCa::open(folder.path()).unwrap();
        let core = Arc::new(State::new());
        let mut nodes: Vec<NodeInfo> = nodes.iter().map(|node| start_core(&ca, &core, *node)).collect();
        nodes.extend(dead.map(|id| NodeInfo {
            id,
            // The port of `discard`, where nothing answers.
            address: "127.0.0.1:9".to_owned(),
        }));
        let address = nodes[0].address.clone();
        let replicas = nodes.len();
        *core.map.lock() = ClusterMap::initial(nodes, 1, 1, replicas);
        let public = ca.server("edge", &[]).unwrap();
        let node = ca.node(PeerId::Edge(EdgeId(1)), CLUSTER).unwrap();
        let config = GatewayConfig {
            id: EdgeId(1),
            name: Some("the edge".to_owned()),
            cluster: CLUSTER.to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            observe: Some(([127, 0, 0, 1], 0).into()),
            cores: vec![CoreAddress { id: LEADER, address }],
            tls: ClientTlsFiles {
                cert: public.cert,
                key: public.key,
            },
            cluster_tls: ClusterTlsFiles {
                ca: node.ca,
                cert: node.cert,
                key: node.key,
            },
            edges: vec!["other:7443".to_owned()],
            workers,
            limits,
        };
        let gateway = Gateway::start(config.clone()).await.unwrap();
        Self {
            addr: gateway.listen_addr(),
            gateway: Some(gateway),
            core,
            ca: ca.ca_file(),
            config,
            _folder: folder,
        }
    }
}

fn start_core(ca: &DevCa, state: &Arc<State>, node: NodeId) -> NodeInfo {
    let files = ca.node(PeerId::Core(node), CLUSTER).unwrap();
    let tls = ClusterTls::load(&files.ca, &files.cert, &files.key, CLUSTER).unwrap();
    let endpoint = ClusterEndpoint::bind(([127, 0, 0, 1], 0).into(), &tls).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let state = Arc::clone(state);
    tokio::spawn(async move {
        while let Some(handshake) = endpoint.accept().await {
            let connection = handshake.finish(Duration::from_secs(5)).await;
            if let Ok(connection) = connection {
                tokio::spawn(serve(Arc::clone(&state), node, connection));
            }
        }
    });
    NodeInfo {
        id: node,
        address: addr.to_string(),
    }
}

async fn serve(state: Arc<State>, node: NodeId, connection: ClusterConnection) {
    while let Ok((kind, writer, reader)) = connection.accept_lane().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            if kind == FEED_LANE {
                return state.feed(node, writer, reader).await;
            }
            let handler = |payload: Bytes| {
                let state = Arc::clone(&state);
                async move {
                    let request = cluster::decode(&payload).unwrap();
                    cluster::encode(&state.answer_of(node, request).await)
                }
            };
            let _ = serve_rpc(writer, reader, handler, 64).await;
        });
    }
}

fn no(code: Code) -> Refusal {
    Refusal::Code {
        code,
        text: code.name().to_owned(),
    }
}

pub fn group() -> GroupId {
    GroupId::new("group").unwrap()
}

pub fn channel(number: u64) -> ChannelId {
    ChannelId::new(&number.to_string()).unwrap()
}
