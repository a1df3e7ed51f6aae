//! What the tests share: shards on real stores, commands that leave records, and a store that can
//! stop accepting batches, as a crash or a full disk would make it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use throng_protocol::cluster::{AppKey, TokenAlgorithm};
use throng_protocol::ids::{AppId, ShardId};
use throng_protocol::placement::Plane;
use throng_raft_store::store::{Batch, FailureKind, OnDurable, Reads, Store, StoreFailure, StoreFuture};
use throng_raft_store::types::{Entry, log_id};
use throng_raft_store::{
    CommandBytes, HeedStore, LogStore, NodeStore, Notice, Observer, Shard, StateMachine, StateReader,
    StoreMetrics, TypeConfig,
};
use throng_state::command::MetaCommand;
use throng_state::testing::MapView;
use throng_state::{Command, View};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub const SHARD: ShardId = ShardId(0);

/// A map that is large enough for a test.
pub const MAP: usize = 1 << 30;

/// A command that writes one record of about `size` bytes.
pub fn put_app(name: &str, size: usize) -> Bytes {
    let keys = (0..size.div_ceil(1_000))
        .map(|number| AppKey {
            kid: format!("k{number}"),
            algorithm: TokenAlgorithm::Hs256,
            material: Bytes::from(vec![name.len() as u8; size.clamp(32, 1_000)]),
        })
        .collect();
    Command::Meta(MetaCommand::PutApp {
        app: AppId::new(name).unwrap(),
        keys,
    })
    .encode()
}

pub fn normal(term: u64, index: u64, command: Bytes) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(CommandBytes(command)),
    }
}

pub fn blank(term: u64, index: u64) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Blank,
    }
}

/// Remembers what it is told.
#[derive(Debug, Default)]
pub struct Seen {
    pub applied: Mutex<Vec<(u64, Vec<Notice>)>>,
    pub installed: Mutex<Vec<u64>>,
}

impl Observer for Seen {
    fn applied(&self, _: ShardId, index: u64, notices: Vec<Notice>) {
        self.applied.lock().push((index, notices));
    }

    fn installed(&self, _: ShardId, index: u64) {
        self.installed.lock().push(index);
    }
}

pub fn heed(dir: &Path) -> Arc<dyn Store> {
    Arc::new(HeedStore::open(dir, MAP).unwrap())
}

/// A runtime as a simulated host has it: one thread, and a clock that jumps to the next timer.
pub fn simulated() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// The meta shard on a store, without a folder.
pub async fn shard_in_memory(store: &Arc<dyn Store>) -> Shard {
    let node = NodeStore::in_memory(Arc::clone(store));
    let opened = node.shard(SHARD, Plane::Meta, Arc::new(Seen::default()));
    opened.await.unwrap()
}

/// The meta shard on a store.
pub async fn shard(store: &Arc<dyn Store>, dir: &Path) -> Shard {
    let node = NodeStore::over(Arc::clone(store), &dir.join("spool")).unwrap();
    let opened = node.shard(SHARD, Plane::Meta, Arc::new(Seen::default()));
    opened.await.unwrap()
}

/// Appends and waits until openraft would be told that it is durable.
pub async fn append(log: &mut LogStore, entries: Vec<Entry>) -> io::Result<()> {
    let (done, durable) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(done)).await?;
    durable.await.unwrap()
}

/// Applies without anybody waiting for replies.
pub async fn apply(machine: &mut StateMachine, entries: Vec<Entry>) -> io::Result<()> {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    machine.apply(stream::iter(entries)).await
}

/// Everything a replica has applied.
pub fn dump(reader: &StateReader) -> BTreeMap<Bytes, Bytes> {
    reader
        .scan(&[], &[0xff; 8], usize::MAX)
        .unwrap()
        .into_iter()
        .collect()
}

/// What a shard holds after some commands, by the state machine's own model.
pub fn model(commands: &[Bytes]) -> BTreeMap<Bytes, Bytes> {
    let mut view = MapView::new(Plane::Meta);
    for command in commands {
        view.apply(command).unwrap();
    }
    view.records
}

/// Waits until everything submitted so far is durable or has failed.
pub async fn settled(store: &Arc<dyn Store>) {
    let _ = throng_raft_store::store::submit_and_wait(&**store, Batch::new()).await;
}

/// Passes a number of batches on and then fails, as the writer does after a failed commit.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    left: AtomicU64,
    failure: watch::Sender<Option<StoreFailure>>,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn Store>, batches: u64) -> Arc<Self> {
        Arc::new(Self {
            inner,
            left: AtomicU64::new(batches),
            failure: watch::Sender::new(None),
        })
    }

    pub fn failed(&self) -> bool {
        self.failure.borrow().is_some()
    }
}

impl Store for FaultyStore {
    fn read(&self, work: &mut dyn FnMut(&dyn Reads) -> Result<(), StoreFailure>) -> Result<(), StoreFailure> {
        self.inner.read(work)
    }

    fn submit(&self, batch: Batch, on_durable: OnDurable) {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() {
            return self.inner.submit(batch, on_durable);
        }
        let failure = StoreFailure::new(FailureKind::Io, "injected");
        self.failure.send_replace(Some(failure.clone()));
        // Behind everything passed on before, as from one FIFO.
        self.inner
            .submit(Batch::new(), Box::new(move |_| on_durable(Err(failure))));
    }

    fn room(&self) -> StoreFuture<'_> {
        self.inner.room()
    }

    fn failure(&self) -> watch::Receiver<Option<StoreFailure>> {
        self.failure.subscribe()
    }

    fn metrics(&self) -> &StoreMetrics {
        self.inner.metrics()
    }
}

/// Holds batches back until they are let go, as a disk does whose syncs hang.
#[derive(Debug)]
pub struct HeldStore {
    inner: Arc<dyn Store>,
    held: Mutex<Option<Held>>,
}

#[derive(Default)]
struct Held(Vec<(Batch, OnDurable)>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} batches", self.0.len())
    }
}

impl HeldStore {
    pub fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            held: Mutex::new(Some(Held::default())),
        })
    }

    pub fn release(&self) {
        let mut held = self.held.lock();
        for (batch, on_durable) in held.take().unwrap().0 {
            self.inner.submit(batch, on_durable);
        }
    }
}

impl Store for HeldStore {
    fn read(&self, work: &mut dyn FnMut(&dyn Reads) -> Result<(), StoreFailure>) -> Result<(), StoreFailure> {
        self.inner.read(work)
    }

    fn submit(&self, batch: Batch, on_durable: OnDurable) {
        match &mut *self.held.lock() {
            Some(held) => held.0.push((batch, on_durable)),
            None => self.inner.submit(batch, on_durable),
        }
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
