//! The recorded run: a seeded script of what Raft does with a replica's storage, on two replicas
//! that share a disk, with a note of every change and the batch it went to the disk with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Seen, apply, normal, put_app};
use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use throng_protocol::ids::ShardId;
use throng_protocol::placement::Plane;
use throng_raft_store::store::{Batch, OnDurable, Reads, Store, StoreFailure, StoreFuture};
use throng_raft_store::types::{Entry, LogId, Snapshot, Vote, log_id};
use throng_raft_store::{NodeStore, Shard, SimDisk, StoreMetrics, TypeConfig};
use throng_state::testing::MapView;
use tokio::sync::watch;

pub const SEEDS: u64 = 3;
const STEPS: usize = 900;

/// Fewer batches than this are too few crash points to prove anything.
pub const BATCHES_MIN: u64 = 1_000;

/// A change of a replica's log.
pub enum Change {
    Vote(Vote),
    Committed(LogId),
    Append(Vec<Entry>),
    /// Behind an index.
    Truncate(u64),
    Purge(LogId),
}

/// What happened to one replica.
pub struct Side {
    pub id: ShardId,
    /// Changes and the batches they are in.
    pub changes: Vec<(u64, Change)>,
    /// The state after each committed entry; before the first there is none.
    pub states: Vec<BTreeMap<Bytes, Bytes>>,
}

pub struct Recorded {
    pub sides: Vec<Side>,
    /// The commits as batches.
    pub journal: Vec<Vec<Batch>>,
    /// Batches that were called durable, and how many syncs had been completed by then.
    pub acks: Vec<(u64, u64)>,
}

/// Numbers the batches and writes down when each is called durable.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn Store>,
    disk: SimDisk,
    submitted: Arc<AtomicU64>,
    acks: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Store for Counting {
    fn read(&self, work: &mut dyn FnMut(&dyn Reads) -> Result<(), StoreFailure>) -> Result<(), StoreFailure> {
        self.inner.read(work)
    }

    fn submit(&self, batch: Batch, on_durable: OnDurable) {
        let number = self.submitted.fetch_add(1, Ordering::Relaxed) + 1;
        let (acks, disk) = (Arc::clone(&self.acks), self.disk.clone());
        self.inner.submit(
            batch,
            Box::new(move |result| {
                assert_eq!(result, Ok(()));
                acks.lock().push((number, disk.commits()));
                on_durable(result);
            }),
        );
    }

    fn room(&self) -> StoreFuture<'_> {
        self.inner.room()
    }

    fn failure(&self) -> watch::Receiver<Option<StoreFailure>> {
        self.inner.failure()
    }

    fn metrics(&self) -> &StoreMetrics {
        self.inner.metrics()
    }
}

/// A replica at work.
struct Actor {
    shard: Shard,
    side: Side,
    submitted: Arc<AtomicU64>,
    term: u64,
    /// The log behind what was purged.
    log: Vec<Entry>,
    purged: u64,
    /// All committed entries, from the first.
    committed: Vec<Entry>,
    applied: u64,
    view: MapView,
    appending: Vec<OneshotReceiverOf<TypeConfig, std::io::Result<()>>>,
}

/// Plays the script of a seed.
pub async fn record(seed: u64) -> Recorded {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = SimDisk::new(seed);
    disk.keep_journal();
    let (submitted, acks) = (Arc::<AtomicU64>::default(), Arc::default());
    let store: Arc<dyn Store> = Arc::new(Counting {
        inner: disk.store(),
        disk: disk.clone(),
        submitted: Arc::clone(&submitted),
        acks: Arc::clone(&acks),
    });
    let node = NodeStore::in_memory(store);
    let mut actors = Vec::new();
    for id in [ShardId(1), ShardId(2)] {
        let mut actor = Actor::open(&node, id, &submitted).await;
        actor.vote().await;
        actors.push(actor);
    }
    for _ in 0..STEPS {
        let place = random.random_range(0..actors.len());
        actors[place].step(&mut random).await;
    }
    drop(node);
    let sides = actors.into_iter().map(|actor| actor.side).collect();
    disk.closed().await;
    let acks = acks.lock().clone();
    Recorded {
        sides,
        journal: disk.journal(),
        acks,
    }
}

impl Actor {
    async fn open(node: &NodeStore, id: ShardId, submitted: &Arc<AtomicU64>) -> Self {
        let opened = node.shard(id, Plane::Meta, Arc::new(Seen::default()));
        Self {
            shard: opened.await.unwrap(),
            side: Side {
                id,
                changes: Vec::new(),
                states: vec![BTreeMap::new()],
            },
            submitted: Arc::clone(submitted),
            term: 0,
            log: Vec::new(),
            purged: 0,
            committed: Vec::new(),
            applied: 0,
            view: MapView::new(Plane::Meta),
            appending: Vec::new(),
        }
    }

    async fn step(&mut self, random: &mut StdRng) {
        match random.random_range(0..100) {
            0..45 => {
                let entries = self.fresh(random, 4);
                self.append(entries).await;
            }
            45..50 => self.vote().await,
            50..57 => self.truncate(random).await,
            57..80 => self.commit(random).await,
            80..90 => self.purge(random).await,
            90..93 => self.install(random).await,
            _ => {
                // Time passes until what was appended is durable.
                for appended in self.appending.drain(..) {
                    appended.await.unwrap().unwrap();
                }
            }
        }
    }

    /// The change that was submitted last.
    fn note(&mut self, change: Change) {
        self.side
            .changes
            .push((self.submitted.load(Ordering::Relaxed), change));
    }

    fn last(&self) -> u64 {
        self.log.last().map_or(self.purged, |entry| entry.log_id.index)
    }

    fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// Entries behind the log, of this term.
    fn fresh(&self, random: &mut StdRng, most: u64) -> Vec<Entry> {
        let count = random.random_range(1..=most);
        (self.last() + 1..=self.last() + count)
            .map(|index| {
                let name = format!("app{}", random.random_range(0..20));
                normal(self.term, index, put_app(&name, random.random_range(50..1_500)))
            })
            .collect()
    }

    async fn vote(&mut self) {
        self.term += 1;
        for vote in [Vote::new(self.term, 1), Vote::new_committed(self.term, 1)] {
            self.shard.log.save_vote(&vote).await.unwrap();
            self.note(Change::Vote(vote));
        }
    }

    async fn append(&mut self, entries: Vec<Entry>) {
        let (done, durable) = TypeConfig::oneshot();
        let flushed = IOFlushed::signal(done);
        self.shard.log.append(entries.clone(), flushed).await.unwrap();
        self.appending.push(durable);
        self.log.extend(entries.iter().cloned());
        self.note(Change::Append(entries));
    }

    /// Another leader has another log behind what is committed.
    async fn truncate(&mut self, random: &mut StdRng) {
        if self.last() == self.committed() {
            return;
        }
        self.vote().await;
        let keep = random.random_range(self.committed()..self.last());
        self.truncate_behind(keep).await;
        let entries = self.fresh(random, 2);
        self.append(entries).await;
    }

    async fn truncate_behind(&mut self, keep: u64) {
        self.log.retain(|entry| entry.log_id.index <= keep);
        let kept = self.log.last().map(|entry| entry.log_id);
        let kept = kept.or_else(|| keep.checked_sub(1).map(|at| self.committed[at as usize].log_id));
        self.shard.log.truncate_after(kept).await.unwrap();
        self.note(Change::Truncate(keep));
    }

    /// More is committed, durable here or not, and some of it is applied.
    async fn commit(&mut self, random: &mut StdRng) {
        if self.last() > self.committed() {
            let upto = random.random_range(self.committed() + 1..=self.last());
            let behind = self.committed();
            let more: Vec<Entry> = self
                .log
                .iter()
                .filter(|entry| entry.log_id.index > behind && entry.log_id.index <= upto)
                .cloned()
                .collect();
            self.count_as_committed(&more);
            let committed = more[more.len() - 1].log_id;
            self.shard.log.save_committed(Some(committed)).await.unwrap();
            self.note(Change::Committed(committed));
        }
        if self.committed() > self.applied {
            let upto = random.random_range(self.applied + 1..=self.committed());
            let entries = &self.committed[self.applied as usize..upto as usize];
            apply(&mut self.shard.state_machine, entries.to_vec())
                .await
                .unwrap();
            self.applied = upto;
        }
    }

    fn count_as_committed(&mut self, entries: &[Entry]) {
        for entry in entries {
            let openraft::EntryPayload::Normal(command) = &entry.payload else {
                panic!("the script appends commands alone");
            };
            self.view.apply(&command.0).unwrap();
            self.side.states.push(self.view.records.clone());
            self.committed.push(entry.clone());
        }
    }

    /// A snapshot is built, and the log before some entry of it is purged.
    async fn purge(&mut self, random: &mut StdRng) {
        if self.applied <= self.purged {
            return;
        }
        let snapshot = build(&mut self.shard).await;
        let built = snapshot.meta.last_log_id.unwrap().index;
        assert_eq!(built, self.applied, "a snapshot waits until the state is durable");
        let upto = random.random_range(self.purged + 1..=built);
        self.purge_to(self.committed[upto as usize - 1].log_id).await;
    }

    async fn purge_to(&mut self, upto: LogId) {
        self.shard.log.purge(upto).await.unwrap();
        self.note(Change::Purge(upto));
        self.log.retain(|entry| entry.log_id.index > upto.index);
        self.purged = upto.index;
    }

    /// A leader of a later term sends a snapshot of more than this replica has.
    async fn install(&mut self, random: &mut StdRng) {
        self.vote().await;
        if self.last() > self.committed() {
            self.truncate_behind(self.committed()).await;
        }
        let more = self.fresh(random, 30);
        self.count_as_committed(&more);
        let disk = SimDisk::new(random.random());
        let donor = NodeStore::in_memory(disk.store());
        let opened = donor.shard(self.side.id, Plane::Meta, Arc::new(Seen::default()));
        let mut donor = opened.await.unwrap();
        apply(&mut donor.state_machine, self.committed.clone())
            .await
            .unwrap();
        let spooled = build(&mut donor).await.snapshot.spool().await.unwrap();
        let (mut chunks, mut receiver) = (spooled.chunks(), self.shard.reader.receive_snapshot().unwrap());
        while let Some(chunk) = chunks.next().await.unwrap() {
            receiver.write(chunk).await.unwrap();
        }
        let Snapshot { meta, snapshot } = receiver.finish().await.unwrap();
        let machine = &mut self.shard.state_machine;
        machine.install_snapshot(&meta, snapshot).await.unwrap();
        self.applied = self.committed();
        self.purge_to(log_id(self.term, self.applied)).await;
    }
}

async fn build(shard: &mut Shard) -> Snapshot {
    let builder = shard.state_machine.try_create_snapshot_builder(true).await;
    builder.unwrap().build_snapshot().await.unwrap()
}
