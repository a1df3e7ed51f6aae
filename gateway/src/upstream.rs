//! The way to the core nodes: the cluster's map, who leads which shard, and calls that follow
//! leaders for a bounded time.
//!
//! Every request of an edge is idempotent (appends by their key), so a call without an answer may be
//! repeated at another node. Beyond [`REQUEST_BUDGET`] nothing is retried here.

mod map;
mod silence;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;
use throng_protocol::cluster::{
    self, Anchor, Answer, ChannelInfo, Direction, Grant, Page, PeerId, REQUEST_LANE, Refusal, Reply, Request,
};
use throng_protocol::code::Code;
use throng_protocol::ids::{NodeId, Seq, ShardId};
use throng_protocol::placement::{ClusterMap, PlacementKey};
use throng_transport::{ClusterConnection, ClusterPool};
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use crate::config::CoreAddress;
use crate::limits::{ATTEMPT, ELECTION_WAIT, FENCE_ATTEMPT, FENCE_BUDGET, PROBE, REQUEST_BUDGET};
use crate::metrics::Metrics;
use crate::refused::Refused;
use crate::upstream::silence::Silences;

/// When a request must be answered, and how long one node may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    attempt: Duration,
}

impl Deadline {
    /// For a request that has just come.
    pub fn start() -> Self {
        Self {
            at: Instant::now() + REQUEST_BUDGET,
            attempt: ATTEMPT,
        }
    }

    /// For a kick or mute, which the core answers when all shards of the group have it.
    pub fn fence() -> Self {
        Self {
            at: Instant::now() + FENCE_BUDGET,
            attempt: FENCE_ATTEMPT,
        }
    }

    pub fn at(self) -> Instant {
        self.at
    }

    pub fn passed(self) -> bool {
        Instant::now() >= self.at
    }

    /// Waits, but not beyond the deadline.
    pub async fn wait(self, wait: Duration) {
        let _ = timeout_at(self.at, sleep(wait)).await;
    }
}

/// The way to the core nodes.
#[derive(Debug)]
pub(crate) struct Upstream {
    pool: ClusterPool,
    seeds: Vec<CoreAddress>,
    map: watch::Sender<Option<Arc<ClusterMap>>>,
    /// Notified when something suggests that the map is old.
    doubt: Notify,
    leaders: Mutex<HashMap<ShardId, Led>>,
    /// Counts changes of `leaders`.
    led: watch::Sender<u64>,
    /// Nodes that did not answer.
    silent: Mutex<Silences>,
    turn: AtomicUsize,
    metrics: Metrics,
}

/// Who leads a shard, and when it last answered as its leader.
#[derive(Debug, Clone, Copy)]
struct Led {
    node: NodeId,
    at: Instant,
}

/// Which page of a channel's log is read, and on whose behalf.
#[derive(Debug, Clone)]
pub(crate) struct PageAsk {
    pub anchor: Anchor,
    pub direction: Direction,
    pub limit: u32,
    /// The reader's, judged by the shard; `None` for what the edge judges itself by the page's count
    /// of fences.
    pub grant: Option<Grant>,
}

impl PageAsk {
    /// Entries behind a position, on the edge's own behalf.
    pub fn behind(seq: Seq, limit: u32) -> Self {
        Self {
            anchor: Anchor::Seq(seq),
            direction: Direction::After,
            limit,
            grant: None,
        }
    }

    /// The last entry of the log, on the edge's own behalf.
    pub fn newest() -> Self {
        Self {
            anchor: Anchor::Seq(Seq(u64::MAX)),
            direction: Direction::Before,
            limit: 1,
            grant: None,
        }
    }
}

/// Why one attempt at one node has no reply.
enum Miss {
    /// The node answered that it will not.
    Refused(Refusal),
    /// There was no answer.
    Silent {
        /// What is known of why.
        text: String,
        /// Whether the node may have heard the question.
        sent: bool,
    },
}

impl Miss {
    fn silent(text: impl Into<String>, sent: bool) -> Self {
        Self::Silent {
            text: text.into(),
            sent,
        }
    }
}

impl Upstream {
    pub fn new(pool: ClusterPool, seeds: Vec<CoreAddress>, metrics: Metrics) -> Self {
        Self {
            pool,
            seeds,
            map: watch::Sender::new(None),
            doubt: Notify::new(),
            leaders: Mutex::new(HashMap::new()),
            led: watch::Sender::new(0),
            silent: Mutex::default(),
            turn: AtomicUsize::new(0),
            metrics,
        }
    }

    /// The node that leads a shard, as far as its last answer tells.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.leaders.lock().get(&shard).map(|led| led.node)
    }

    /// Whether a node has answered as a shard's leader within this time.
    pub fn led_by(&self, shard: ShardId, node: NodeId, within: Duration) -> bool {
        let leaders = self.leaders.lock();
        let led = leaders.get(&shard).filter(|led| led.node == node);
        led.is_some_and(|led| led.at.elapsed() < within)
    }

    /// Tells of changes of leaders.
    pub fn leader_changes(&self) -> watch::Receiver<u64> {
        self.led.subscribe()
    }

    /// Carries out a request that the leader of a shard answers.
    pub async fn call_shard(
        &self,
        shard: ShardId,
        request: &Request,
        by: Deadline,
    ) -> Result<Reply, Refused> {
        let map = self.map_by(by).await?;
        let voters = map
            .shard(shard)
            .map(|info| info.voters.clone())
            .unwrap_or_default();
        self.call(Some(shard), &voters, request, by).await
    }

    /// Carries out a request of the plane that a key is placed on.
    pub async fn call_key(
        &self,
        key: PlacementKey<'_>,
        request: &Request,
        by: Deadline,
    ) -> Result<Reply, Refused> {
        let map = self.map_by(by).await?;
        let Some(shard) = map.shard_of(key) else {
            return Err(Refused::unavailable("the cluster has no shard for it"));
        };
        self.call(Some(shard.id), &shard.voters, request, by).await
    }

    /// Carries out a request that any node answers.
    pub async fn call_any(&self, request: &Request, by: Deadline) -> Result<Reply, Refused> {
        let nodes: Vec<NodeId> = match self.current_map() {
            Some(map) => map.nodes.iter().map(|node| node.id).collect(),
            None => self.seeds.iter().map(|seed| seed.id).collect(),
        };
        self.call(None, &nodes, request, by).await
    }

    /// A page of a channel's log.
    pub async fn page(&self, info: &ChannelInfo, ask: PageAsk, by: Deadline) -> Result<Page, Refused> {
        let request = Request::Page {
            shard: info.shard,
            channel: info.number,
            anchor: ask.anchor,
            direction: ask.direction,
            limit: ask.limit,
            grant: ask.grant,
            fences: false,
        };
        match self.call_shard(info.shard, &request, by).await? {
            Reply::Page(page) => Ok(page),
            other => Err(Refused::unexpected(&other)),
        }
    }

    /// The connection to a node, for a feed lane.
    pub async fn connection(&self, node: NodeId) -> Result<ClusterConnection, String> {
        let addr = self.address(node).await?;
        let connected = self.pool.connection(PeerId::Core(node), addr).await;
        connected.map_err(|error| error.to_string())
    }

    async fn call(
        &self,
        shard: Option<ShardId>,
        nodes: &[NodeId],
        request: &Request,
        by: Deadline,
    ) -> Result<Reply, Refused> {
        if nodes.is_empty() {
            return Err(Refused::unavailable("the cluster's map names no nodes for it"));
        }
        let payload = cluster::encode(request);
        let nodes = self.in_order(nodes);
        let mut named = shard.and_then(|shard| self.leader(shard));
        let mut last = String::from("no core node was reached");
        let (mut tries, mut stopped) = (0, 0);
        // An attempt that may have been carried out all the same, as no answer says otherwise.
        let mut open = false;
        while !by.passed() {
            let node = named.take().unwrap_or_else(|| self.next(&nodes, tries));
            tries += 1;
            let refusal = match self.attempt(node, &payload, by).await {
                Ok(reply) => {
                    self.learn(shard, node);
                    return Ok(reply);
                }
                Err(Miss::Refused(refusal)) => refusal,
                Err(Miss::Silent { text, sent }) => {
                    self.unlearn(shard, node);
                    self.metrics.upstream_failures.inc();
                    self.silent.lock().note(node, Instant::now());
                    (last, named, open) = (text, None, open || sent);
                    if tries >= nodes.len() {
                        self.doubt(by).await;
                    }
                    continue;
                }
            };
            match refusal {
                Refusal::NotLeader { leader } => {
                    self.unlearn(shard, node);
                    self.metrics.redirects.inc();
                    last = "the shard has no leader now".to_owned();
                    // A leader that is gone is named until its followers notice.
                    named = leader.filter(|leader| *leader != node && self.may_ask(*leader));
                    if named.is_none() || tries > nodes.len() {
                        self.doubt(by).await;
                    }
                }
                Refusal::Code {
                    code: Code::Unavailable,
                    text,
                } => {
                    (last, open) = (text, true);
                    by.wait(jittered(ELECTION_WAIT)).await;
                }
                Refusal::Code {
                    code: Code::StoreFailed,
                    text,
                } => {
                    // The replica of this node has stopped; the others may go on without it, and with
                    // what it had accepted.
                    self.unlearn(shard, node);
                    (stopped, open) = (stopped + 1, true);
                    if stopped >= nodes.len() {
                        return Err(Refused::new(Code::StoreFailed, text));
                    }
                }
                other => return Err(final_refusal(other, open && changes(request))),
            }
        }
        Err(Refused::unavailable(last))
    }

    /// Nodes in the order they are asked in: each call begins with another one.
    fn in_order(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<NodeId> = nodes.to_vec();
        order.rotate_left(first % nodes.len());
        order
    }

    /// The node asked next where no leader is known: in turn, and one that may be asked if there is one.
    fn next(&self, nodes: &[NodeId], tries: usize) -> NodeId {
        let turn = nodes.iter().cycle().skip(tries % nodes.len()).take(nodes.len());
        let mut asked = turn.copied().filter(|node| self.may_ask(*node));
        asked.next().unwrap_or_else(|| nodes[tries % nodes.len()])
    }

    fn may_ask(&self, node: NodeId) -> bool {
        self.silent.lock().may_ask(node, Instant::now())
    }

    /// Has the map read again, and waits a moment for an election.
    async fn doubt(&self, by: Deadline) {
        self.doubt.notify_one();
        by.wait(jittered(ELECTION_WAIT)).await;
    }

    async fn attempt(&self, node: NodeId, payload: &Bytes, by: Deadline) -> Result<Reply, Miss> {
        let now = Instant::now();
        let silent = self.silent.lock().is_silent(node, now);
        let until = by.at().min(now + if silent { PROBE } else { by.attempt });
        let sent = AtomicBool::new(false);
        let asked = async {
            let addr = self.address(node).await;
            let addr = addr.map_err(|text| Miss::silent(text, false))?;
            let client = self.pool.rpc(PeerId::Core(node), addr, REQUEST_LANE).await;
            let client = client.map_err(|error| Miss::silent(error.to_string(), false))?;
            sent.store(true, Ordering::Relaxed);
            let answer = client.call(payload.clone(), by.attempt).await;
            let answer = answer.map_err(|error| Miss::silent(format!("core node {node}: {error}"), true))?;
            match cluster::decode::<Answer>(&answer) {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(refusal)) => Err(Miss::Refused(refusal)),
                Err(error) => Err(Miss::silent(format!("core node {node}: {error}"), true)),
            }
        };
        match timeout_at(until, asked).await {
            Ok(result) => result,
            Err(_) => {
                let text = format!("core node {node} did not answer in time");
                Err(Miss::silent(text, sent.load(Ordering::Relaxed)))
            }
        }
    }

    fn learn(&self, shard: Option<ShardId>, node: NodeId) {
        self.silent.lock().forget(node);
        let Some(shard) = shard else { return };
        let at = Instant::now();
        let before = self.leaders.lock().insert(shard, Led { node, at });
        if before.map(|led| led.node) != Some(node) {
            self.led.send_modify(|changes| *changes += 1);
        }
    }

    fn unlearn(&self, shard: Option<ShardId>, node: NodeId) {
        if let Some(shard) = shard {
            let mut leaders = self.leaders.lock();
            if leaders.get(&shard).is_some_and(|led| led.node == node) {
                leaders.remove(&shard);
            }
        }
    }

    async fn address(&self, node: NodeId) -> Result<SocketAddr, String> {
        let of_map = self
            .current_map()
            .and_then(|map| map.node(node).map(|info| info.address.clone()));
        let of_seeds = || {
            self.seeds
                .iter()
                .find(|seed| seed.id == node)
                .map(|seed| seed.address.clone())
        };
        let Some(address) = of_map.or_else(of_seeds) else {
            return Err(format!("the address of core node {node} is not known"));
        };
        if let Ok(addr) = address.parse() {
            return Ok(addr);
        }
        let mut found = tokio::net::lookup_host(&address)
            .await
            .map_err(|error| format!("{address} cannot be resolved: {error}"))?;
        found.next().ok_or_else(|| format!("{address} has no address"))
    }
}

/// What a refusal comes to that is not asked around any more. Told as final while an earlier attempt may
/// have been carried out, it would say that nothing was done. Asked once more, there is no earlier
/// attempt, and the client knows that there was one.
fn final_refusal(refusal: Refusal, maybe_done: bool) -> Refused {
    match refusal {
        Refusal::Code { text, .. } if maybe_done => Refused::unavailable(text),
        Refusal::Code { code, text } => Refused::new(code, text),
        _ if maybe_done => Refused::unavailable("an earlier attempt may have been carried out"),
        _ => Refused::stale(),
    }
}

/// Whether carrying a request out changes something that others see. Every request is named, so that none is
/// taken for harmless because nobody thought of it.
fn changes(request: &Request) -> bool {
    match request {
        Request::Append { .. }
        | Request::Change { .. }
        | Request::Join { .. }
        | Request::JoinAll { .. }
        | Request::Leave { .. }
        | Request::Kick { .. }
        | Request::Mute { .. }
        | Request::CreateGroup { .. }
        | Request::CreateChannel { .. }
        | Request::ArchiveChannel { .. }
        | Request::PutRole { .. }
        | Request::RemoveRole { .. }
        | Request::AssignRoles { .. }
        | Request::PutApp { .. }
        | Request::AddApiKey { .. }
        | Request::RemoveApiKey { .. } => true,
        // A name gets its number once, whoever asks; leases and deliveries are between core nodes.
        Request::User { .. } | Request::LeaseNumbers { .. } | Request::Deliver { .. } => false,
        Request::Map
        | Request::App { .. }
        | Request::KnownUser { .. }
        | Request::Grant { .. }
        | Request::Channel { .. }
        | Request::Channels { .. }
        | Request::Group { .. }
        | Request::Members { .. }
        | Request::Roles { .. }
        | Request::ApiKeys { .. }
        | Request::Page { .. }
        | Request::Changes { .. }
        | Request::Expansion { .. }
        | Request::Status
        | Request::Clock => false,
    }
}

/// Some of a wait, so that callers do not come back all at once.
pub(crate) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use throng_protocol::cluster::{AppendChange, By, Change};
    use throng_protocol::ids::{AppId, ChannelNumber, ClientMessageId, GroupId, Position};

    use super::*;

    #[test]
    fn a_refused_change_behind_one_that_may_be_made_is_not_final() {
        let request = Request::Change {
            shard: ShardId(101),
            change: AppendChange {
                channel: ChannelNumber(1),
                by: By::App {
                    app: AppId::new("app").unwrap(),
                    group: GroupId::new("group").unwrap(),
                },
                client_message_id: ClientMessageId(1),
                first_attempt_ms: 0,
                target: Position::default(),
                change: Change::Recall,
            },
        };
        assert!(changes(&request) && !changes(&Request::Clock));
        let forbidden = || Refusal::Code {
            code: Code::Forbidden,
            text: "so it is".to_owned(),
        };
        assert_eq!(final_refusal(forbidden(), true).code, Code::Unavailable);
        assert_eq!(final_refusal(forbidden(), false).code, Code::Forbidden);
    }
}
