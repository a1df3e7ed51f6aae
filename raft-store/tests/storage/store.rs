//! The store on LMDB: the folder, the group commit, and what happens when a commit fails.

use std::fs;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{MAP, SHARD, Seen, append, apply, blank, normal, put_app};
use bytes::Bytes;
use tempfile::TempDir;
use throng_protocol::ids::ShardId;
use throng_protocol::placement::Plane;
use throng_raft_store::store::Op;
use throng_raft_store::types::Vote;
use throng_raft_store::writer::{Medium, QUEUE_BYTES_MAX, TXN_BYTES_MAX, Writer};
use throng_raft_store::{
    Batch, FailureKind, HeedStore, NodeStore, OpenError, Store, StoreFailure, StoreMetrics, StoreOptions,
    Table,
};

#[test]
fn what_was_durable_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    for round in 0..3_u8 {
        let store = HeedStore::open(dir.path(), MAP).unwrap();
        let found = store.get(Table::State, b"round").unwrap();
        assert_eq!(found.map_or(0, |value| value[0]), round);
        let mut batch = Batch::new();
        batch.put(
            Table::State,
            Bytes::from_static(b"round"),
            Bytes::from(vec![round + 1]),
        );
        // Dropping the store writes what is queued.
        store.submit(batch, Box::new(|result| assert_eq!(result, Ok(()))));
    }
}

#[test]
fn a_store_whose_creation_was_interrupted_is_created_again() {
    let dir = TempDir::new().unwrap();
    // What a power cut leaves of the first pages: their length, and zeros.
    let aside = dir.path().join("store/data.new");
    fs::create_dir_all(&aside).unwrap();
    fs::write(aside.join("data.mdb"), [0; 8192]).unwrap();
    let dir = dir.path().join("store");
    drop(HeedStore::open(&dir, MAP).unwrap());
    assert!(!aside.exists() && dir.join("data").exists());
    HeedStore::open(&dir, MAP).unwrap();
}

#[test]
fn a_folder_in_use_is_refused_and_free_again_when_the_store_is_gone() {
    let dir = TempDir::new().unwrap();
    let node = NodeStore::open(dir.path(), &StoreOptions { map_bytes: MAP }).unwrap();
    let refused = NodeStore::open(dir.path(), &StoreOptions { map_bytes: MAP });
    assert!(matches!(refused, Err(OpenError::Locked { .. })), "{refused:?}");
    drop(node);
    NodeStore::open(dir.path(), &StoreOptions { map_bytes: MAP }).unwrap();
}

#[test]
fn a_newer_format_and_a_foreign_file_are_refused_by_name() {
    let dir = TempDir::new().unwrap();
    drop(HeedStore::open(dir.path(), MAP).unwrap());
    let format = dir.path().join("FORMAT");
    assert_eq!(fs::read_to_string(&format).unwrap(), "throng-store 1\n");
    fs::write(&format, "throng-store 2\n").unwrap();
    let refused = HeedStore::open(dir.path(), MAP).unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{refused}"
    );
    for foreign in ["", "throng-store", "throng-store 0\n", "something else"] {
        fs::write(&format, foreign).unwrap();
        let refused = HeedStore::open(dir.path(), MAP).unwrap_err();
        assert!(
            matches!(refused, OpenError::NotAStore { .. }),
            "{foreign:?}: {refused}"
        );
    }
}

/// A medium that commits when it is let, and says how.
struct Gate {
    begun: Sender<usize>,
    go: Receiver<Result<(), StoreFailure>>,
}

impl Medium for Gate {
    fn commit(&mut self, ops: &mut dyn Iterator<Item = &Op>) -> Result<(), StoreFailure> {
        self.begun.send(ops.count()).unwrap();
        self.go.recv().unwrap()
    }
}

struct Gated {
    writer: Writer,
    metrics: Arc<StoreMetrics>,
    begun: Receiver<usize>,
    go: Sender<Result<(), StoreFailure>>,
    results: Arc<Mutex<Vec<(usize, bool)>>>,
}

fn gated() -> Gated {
    let (begun, has_begun) = channel();
    let (let_go, go) = channel();
    let metrics = Arc::new(StoreMetrics::default());
    Gated {
        writer: Writer::spawn(Gate { begun, go }, Arc::clone(&metrics)).unwrap(),
        metrics,
        begun: has_begun,
        go: let_go,
        results: Arc::default(),
    }
}

impl Gated {
    fn submit(&self, number: usize, bytes: usize) {
        let mut batch = Batch::new();
        batch.put(Table::Log, Bytes::from_static(b"k"), Bytes::from(vec![0; bytes]));
        let results = Arc::clone(&self.results);
        self.writer.submit(
            batch,
            Box::new(move |result| results.lock().unwrap().push((number, result.is_ok()))),
        );
    }
}

#[test]
fn batches_that_arrive_during_a_commit_share_the_next_one() {
    let gated = gated();
    gated.submit(0, 1);
    assert_eq!(gated.begun.recv(), Ok(1));
    for number in 1..=100 {
        gated.submit(number, 1);
    }
    gated.go.send(Ok(())).unwrap();
    assert_eq!(gated.begun.recv(), Ok(100), "all hundred in one transaction");
    assert_eq!(
        *gated.results.lock().unwrap(),
        [(0, true)],
        "none before its commit"
    );
    gated.go.send(Ok(())).unwrap();
    let metrics = Arc::clone(&gated.metrics);
    let results = Arc::clone(&gated.results);
    drop(gated);
    assert_eq!(
        (metrics.commits.load(Relaxed), metrics.batches.load(Relaxed)),
        (2, 101)
    );
    let expected: Vec<_> = (0..=100).map(|number| (number, true)).collect();
    assert_eq!(*results.lock().unwrap(), expected);
}

#[test]
fn a_thread_writes_alone_what_nobody_joins() {
    let dir = TempDir::new().unwrap();
    let store = HeedStore::open(dir.path(), MAP).unwrap();
    let (durable, is_durable) = channel();
    for _ in 0..2 {
        let durable = durable.clone();
        let mut batch = Batch::new();
        batch.put(Table::State, Bytes::from_static(b"k"), Bytes::from_static(b"v"));
        store.submit(
            batch.lingering(),
            Box::new(move |result| durable.send(result).unwrap()),
        );
        assert_eq!(is_durable.recv(), Ok(Ok(())));
    }
}

#[test]
fn a_transaction_is_bounded_in_bytes_but_never_splits_a_batch() {
    let gated = gated();
    gated.submit(0, 1);
    assert_eq!(gated.begun.recv(), Ok(1));
    gated.submit(1, TXN_BYTES_MAX / 2);
    gated.submit(2, TXN_BYTES_MAX / 2 - 2);
    gated.submit(3, 2 * TXN_BYTES_MAX);
    gated.submit(4, 1);
    for ops in [2, 1, 1] {
        gated.go.send(Ok(())).unwrap();
        assert_eq!(gated.begun.recv(), Ok(ops));
    }
    gated.go.send(Ok(())).unwrap();
}

#[tokio::test]
async fn a_full_queue_makes_producers_wait_until_a_commit() {
    let gated = gated();
    gated.writer.room().await;
    gated.submit(0, QUEUE_BYTES_MAX);
    let room = gated.writer.room();
    tokio::pin!(room);
    let waited = tokio::time::timeout(Duration::from_millis(50), &mut room).await;
    assert!(waited.is_err(), "the queue is full");
    gated.go.send(Ok(())).unwrap();
    room.await;
}

#[test]
fn after_a_failed_commit_nothing_is_reported_durable_and_nothing_is_tried_again() {
    let gated = gated();
    gated.submit(0, 1);
    assert_eq!(gated.begun.recv(), Ok(1));
    gated.submit(1, 1);
    gated.submit(2, 1);
    gated.go.send(Ok(())).unwrap();
    assert_eq!(gated.begun.recv(), Ok(2));
    let failure = StoreFailure::new(FailureKind::Full, "no space");
    gated.go.send(Err(failure.clone())).unwrap();
    gated.submit(3, 1);
    let told = gated.writer.failure();
    let (begun, results) = (gated.begun, gated.results);
    drop(gated.writer);
    assert_eq!(*told.borrow(), Some(failure));
    assert!(begun.try_recv().is_err(), "the medium is not touched again");
    let expected = [(0, true), (1, false), (2, false), (3, false)];
    assert_eq!(*results.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_full_disk_fails_the_store_for_good_and_no_shard_hears_durable_again() {
    let dir = TempDir::new().unwrap();
    let options = StoreOptions { map_bytes: 4 << 20 };
    let node = NodeStore::open(dir.path(), &options).unwrap();
    let mut first = node
        .shard(SHARD, Plane::Meta, Arc::new(Seen::default()))
        .await
        .unwrap();
    let mut other = node
        .shard(ShardId(1), Plane::Management, Arc::new(Seen::default()))
        .await
        .unwrap();
    append(&mut other.log, vec![blank(1, 1)]).await.unwrap();
    let mut acked = 0;
    let error = loop {
        let entry = normal(1, acked + 1, Bytes::from(vec![1; 200_000]));
        match append(&mut first.log, vec![entry]).await {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
        assert!(acked < 100, "4 MiB cannot hold this");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    assert_eq!(node.failure().unwrap().kind, FailureKind::Full);
    assert!(first.reader.stopped().is_some());
    append(&mut other.log, vec![blank(1, 2)]).await.unwrap_err();
    use openraft::storage::RaftLogStorage;
    other.log.save_vote(&Vote::new(2, 1)).await.unwrap_err();
    apply(&mut other.state_machine, vec![blank(1, 1)])
        .await
        .unwrap_err();
    drop((first, other, node));

    let node = NodeStore::open(dir.path(), &StoreOptions { map_bytes: MAP }).unwrap();
    let mut first = node
        .shard(SHARD, Plane::Meta, Arc::new(Seen::default()))
        .await
        .unwrap();
    let last = first.log.get_log_state().await.unwrap().last_log_id.unwrap();
    assert_eq!(last.index, acked, "exactly what was acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_of_many_shards_share_syncs() {
    const SHARDS: u32 = 16;
    const APPENDS: u64 = 30;
    let dir = TempDir::new().unwrap();
    let node = NodeStore::open(dir.path(), &StoreOptions { map_bytes: MAP }).unwrap();
    let tasks: Vec<_> = (0..SHARDS)
        .map(|number| {
            let node = node.clone();
            tokio::spawn(async move {
                let shard = node.shard(ShardId(number), Plane::Meta, Arc::new(Seen::default()));
                let mut shard = shard.await.unwrap();
                for index in 1..=APPENDS {
                    append(&mut shard.log, vec![normal(1, index, put_app("a", 300))])
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (commits, batches) = (
        node.metrics().commits.load(Relaxed),
        node.metrics().batches.load(Relaxed),
    );
    assert_eq!(batches, u64::from(SHARDS) * APPENDS);
    assert!(commits * 2 < batches, "{batches} appends took {commits} commits");
}
