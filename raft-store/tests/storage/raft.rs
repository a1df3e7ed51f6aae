//! The storage under openraft itself: three replicas in one process, talking in the wire's bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{SHARD, Seen, dump, heed, model, put_app, simulated};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, VoteRequest,
    VoteResponse,
};
use openraft::{EmptyNode, Raft};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use throng_protocol::placement::Plane;
use throng_raft_store::types::{Snapshot, Vote};
use throng_raft_store::wire::{Request, Response};
use throng_raft_store::{
    CommandBytes, NodeStore, ShardTiming, SimDisk, SnapshotData, StateMachine, StateReader, Store,
    TypeConfig, inspect, raft_config,
};
use throng_state::Reply;

type Shard = Raft<TypeConfig, StateMachine>;

/// How long one request may take.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

#[derive(Clone, Default)]
struct Network {
    replicas: Arc<Mutex<BTreeMap<u64, (Shard, StateReader)>>>,
    /// Snapshots that arrived: what was announced to openraft, and what the stream was of.
    snapshots: Arc<Mutex<Vec<(u64, u64)>>>,
}

struct Link {
    network: Network,
    target: u64,
}

fn unreachable(reason: &impl ToString) -> Unreachable<TypeConfig> {
    Unreachable::from_string(reason.to_string())
}

impl Link {
    fn target(&self) -> Result<(Shard, StateReader), Unreachable<TypeConfig>> {
        let replicas = self.network.replicas.lock();
        replicas
            .get(&self.target)
            .cloned()
            .ok_or_else(|| unreachable(&"down"))
    }

    /// [`Self::ask`] for as long as a network would wait: a node that dies answers nothing.
    async fn call(&self, request: Request) -> Result<Response, Unreachable<TypeConfig>> {
        let answer = tokio::time::timeout(CALL_TIMEOUT, self.ask(request)).await;
        answer.map_err(|error| unreachable(&error))?
    }

    /// The request as bytes, answered by the other node, as bytes.
    async fn ask(&self, request: Request) -> Result<Response, Unreachable<TypeConfig>> {
        let bytes = request.encode();
        let (raft, _) = self.target()?;
        let response = match Request::decode(&bytes).unwrap() {
            Request::Vote(request) => Response::Vote(raft.vote(request).await.map_err(|e| unreachable(&e))?),
            Request::PreVote(request) => {
                Response::Vote(raft.pre_vote(request).await.map_err(|e| unreachable(&e))?)
            }
            Request::Append(request) => {
                let answers = raft.stream_append(stream::iter([request]));
                let answer = Box::pin(answers)
                    .next()
                    .await
                    .ok_or_else(|| unreachable(&"gone"))?;
                Response::Append(answer.map_err(|e| unreachable(&e))?)
            }
            other => panic!("{other:?} is not sent here"),
        };
        Ok(Response::decode(&response.encode()).unwrap())
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Link {
        Link {
            network: self.clone(),
            target,
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let Response::Append(answer) = self.call(Request::Append(rpc)).await? else {
            panic!("an append is answered as one");
        };
        Ok(match answer {
            Ok(matched) if matched >= last => AppendEntriesResponse::Success,
            Ok(matched) => AppendEntriesResponse::PartialSuccess(matched),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let Response::Vote(answer) = self.call(Request::Vote(rpc)).await? else {
            panic!("a vote is answered as one");
        };
        Ok(answer)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let Response::Vote(answer) = self.call(Request::PreVote(rpc)).await? else {
            panic!("a vote is answered as one");
        };
        Ok(answer)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let announced = snapshot.meta.last_log_id.unwrap().index;
        let (raft, reader) = self.target()?;
        let Request::Snapshot(vote) = Request::decode(&Request::Snapshot(vote).encode()).unwrap() else {
            panic!("a snapshot is announced as one");
        };
        let spooled = snapshot.snapshot.spool().await.map_err(|e| unreachable(&e))?;
        let mut chunks = spooled.chunks();
        let mut receiver = reader.receive_snapshot().unwrap();
        while let Some(chunk) = chunks.next().await.unwrap() {
            receiver.write(chunk).await.unwrap();
        }
        let received = receiver.finish().await.unwrap();
        let arrived = received.meta.last_log_id.unwrap().index;
        self.network.snapshots.lock().push((announced, arrived));
        let answer = raft.install_full_snapshot(vote, received).await;
        Ok(answer.map_err(|e| unreachable(&e))?)
    }
}

struct Node {
    _dir: TempDir,
    dir: std::path::PathBuf,
    store: Arc<dyn Store>,
}

impl Node {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self {
            store: heed(dir.path()),
            dir: dir.path().to_owned(),
            _dir: dir,
        }
    }

    async fn start(&self, id: u64, network: &Network) -> (Shard, StateReader) {
        let node = NodeStore::over(Arc::clone(&self.store), &self.dir.join("spool")).unwrap();
        start(&node, id, network).await
    }
}

async fn start(node: &NodeStore, id: u64, network: &Network) -> (Shard, StateReader) {
    let timing = ShardTiming {
        snapshot_every: 100,
        log_keep: 10,
        ..ShardTiming::default()
    };
    let shard = node
        .shard(SHARD, Plane::Meta, Arc::new(Seen::default()))
        .await
        .unwrap();
    let config = raft_config(timing).unwrap();
    let raft = Raft::new(id, config, network.clone(), shard.log, shard.state_machine)
        .await
        .unwrap();
    network
        .replicas
        .lock()
        .insert(id, (raft.clone(), shard.reader.clone()));
    (raft, shard.reader)
}

/// Writes through whoever leads; returns the command and its index. The commands here may be applied twice: they set a record.
async fn write(network: &Network, name: &str, size: usize) -> (Bytes, u64) {
    let command = put_app(name, size);
    let patience = tokio::time::Instant::now() + PATIENCE.unwrap();
    let mut ask = 1;
    loop {
        let raft = network.replicas.lock()[&ask].0.clone();
        match raft.client_write(CommandBytes(command.clone())).await {
            Ok(answer) => {
                assert_eq!(Reply::decode(&answer.data.0), Ok(Reply::Done));
                return (command, answer.log_id.index);
            }
            Err(error) => {
                assert!(tokio::time::Instant::now() < patience, "{error}");
                let forward = error.forward_to_leader().unwrap();
                match forward.leader_id {
                    Some(leader) => ask = leader,
                    // A new leader without a lease, or an election: neither is an event to wait for.
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_learner_gets_a_snapshot_while_writes_go_on_and_ends_level() {
    let network = Network::default();
    let nodes: Vec<Node> = (0..3).map(|_| Node::new()).collect();
    let (first, first_reader) = nodes[0].start(1, &network).await;
    let (second, second_reader) = nodes[1].start(2, &network).await;
    first.initialize(BTreeSet::from([1, 2])).await.unwrap();
    let mut commands = Vec::new();
    for n in 0..350 {
        commands.push(write(&network, &format!("app{}", n % 90), 2_000 + n).await.0);
    }
    let purged = first
        .wait(PATIENCE)
        .metrics(|metrics| metrics.purged.is_some(), "the log was purged")
        .await
        .unwrap();
    assert!(purged.snapshot.is_some());

    let (third, third_reader) = nodes[2].start(3, &network).await;
    let leader = purged.current_leader.unwrap();
    let leader = network.replicas.lock()[&leader].0.clone();
    let adding = tokio::spawn({
        let leader = leader.clone();
        async move { leader.add_learner(3, EmptyNode {}, true).await }
    });
    for n in 0..300 {
        commands.push(write(&network, &format!("app{}", n % 110), 3_000).await.0);
    }
    adding.await.unwrap().unwrap();
    leader
        .change_membership(BTreeSet::from([1, 2, 3]), false)
        .await
        .unwrap();
    let (last, end) = write(&network, "last", 100).await;
    commands.push(last);
    for (raft, reader) in [
        (&first, &first_reader),
        (&second, &second_reader),
        (&third, &third_reader),
    ] {
        raft.wait(PATIENCE)
            .applied_index_at_least(Some(end), "level")
            .await
            .unwrap();
        let (found, expected) = (dump(reader), model(&commands));
        let keys: Vec<_> = expected
            .iter()
            .filter(|(key, value)| found.get(*key) != Some(*value))
            .map(|(key, _)| key)
            .collect();
        assert!(found == expected, "{keys:?} differ at {}", reader.applied_index());
    }
    let snapshots = network.snapshots.lock().clone();
    assert!(!snapshots.is_empty(), "the log it needed was purged");
    for (announced, arrived) in snapshots {
        assert!(arrived >= announced, "{arrived} is older than {announced}");
    }
    for raft in [first, second, third] {
        raft.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_alone_restarts_after_snapshots_and_purges_and_loses_nothing() {
    let network = Network::default();
    let node = Node::new();
    let mut commands = Vec::new();
    for round in 0..4 {
        let (raft, reader) = node.start(1, &network).await;
        if round == 0 {
            raft.initialize(BTreeSet::from([1])).await.unwrap();
        }
        raft.wait(PATIENCE)
            .metrics(|metrics| metrics.current_leader == Some(1), "it leads")
            .await
            .unwrap();
        for n in 0..130 {
            commands.push(write(&network, &format!("app{n}"), 200 + round * 10).await.0);
        }
        assert!(dump(&reader) == model(&commands), "round {round}");
        raft.shutdown().await.unwrap();
        network.replicas.lock().clear();
    }
}

/// Three replicas on simulated disks.
struct Cluster {
    network: Network,
    disks: BTreeMap<u64, SimDisk>,
}

impl Cluster {
    async fn start(&self, id: u64) -> Shard {
        let node = NodeStore::in_memory(self.disks[&id].store());
        start(&node, id, &self.network).await.0
    }

    /// The power of a node goes in the middle of whatever it does, and comes back.
    async fn crash(&self, id: u64) {
        let (raft, _) = self.network.replicas.lock().remove(&id).unwrap();
        self.disks[&id].crash();
        let left = inspect::shard(&*self.disks[&id].durable(), SHARD).unwrap();
        assert_eq!(left.check(), Ok(()));
        // The process is gone as soon as its disk is: what its tasks still do reaches nobody.
        raft.shutdown().await.unwrap();
        self.start(id).await;
    }
}

/// Writes until some node has acknowledged it. Each command sets a record, so that one that was
/// written by a leader who could not say so any more is written again without harm.
async fn write_through_crashes(network: &Network, command: Bytes) {
    let patience = tokio::time::Instant::now() + PATIENCE.unwrap();
    for id in (1..=3).cycle() {
        let raft = network.replicas.lock().get(&id).map(|(raft, _)| raft.clone());
        if let Some(raft) = raft
            && raft.client_write(CommandBytes(command.clone())).await.is_ok()
        {
            return;
        }
        assert!(tokio::time::Instant::now() < patience, "nobody leads");
        if id == 3 {
            // An election or a start, which are no events to wait for from here.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn crash_and_write(seed: u64) {
    const CRASHES: usize = 12;
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster {
        network: Network::default(),
        disks: (1..=3).map(|id| (id, SimDisk::new(seed * 3 + id))).collect(),
    };
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let first = cluster.network.replicas.lock()[&1].0.clone();
    first.initialize(BTreeSet::from([1, 2, 3])).await.unwrap();
    // A group that only one disk knows of is formed anew after a crash, which is its node's task.
    write_through_crashes(&cluster.network, put_app("first", 100)).await;
    let commands: Vec<Bytes> = (0..CRASHES * 25)
        .map(|number| put_app(&format!("app{}", number % 40), 100 + number))
        .collect();
    for commands in commands.chunks(25) {
        let network = cluster.network.clone();
        let writing = commands.to_vec();
        let writing = tokio::spawn(async move {
            for command in writing {
                write_through_crashes(&network, command).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        cluster.crash(random.random_range(1..=3)).await;
        writing.await.unwrap();
    }
    write_through_crashes(&cluster.network, put_app("last", 100)).await;
    let expected = model(&[vec![put_app("first", 100)], commands, vec![put_app("last", 100)]].concat());
    let replicas = cluster.network.replicas.lock().clone();
    let end = replicas.values().map(|(_, reader)| reader.applied_index()).max();
    for (id, (raft, reader)) in &replicas {
        raft.wait(PATIENCE)
            .applied_index_at_least(end, "level")
            .await
            .unwrap();
        assert!(dump(reader) == expected, "node {id} differs, seed {seed}");
    }
    // Only now: whoever is still behind needs the others.
    for (raft, _) in replicas.into_values() {
        raft.shutdown().await.unwrap();
    }
}

#[test]
fn replicas_whose_disks_crash_lose_nothing_that_was_acked() {
    for seed in 0..20 {
        println!("seed {seed}");
        simulated().block_on(crash_and_write(seed));
    }
}
