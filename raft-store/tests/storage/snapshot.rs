//! Snapshots: as they travel, and what an interrupted install leaves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::support::{
    FaultyStore, HeldStore, SHARD, Seen, apply, dump, heed, model, normal, put_app, settled, shard, simulated,
};
use bytes::Bytes;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use tempfile::TempDir;
use throng_protocol::ids::ShardId;
use throng_protocol::placement::Plane;
use throng_raft_store::store::{Limit, Store};
use throng_raft_store::types::{Entry, Snapshot, log_id};
use throng_raft_store::{NodeStore, Shard, StateReader, Table};

/// Commands of a state of some megabytes: an install takes several batches.
fn large() -> Vec<Bytes> {
    (0..250).map(|n| put_app(&format!("new{n:03}"), 15_000)).collect()
}

fn old() -> Vec<Bytes> {
    (0..40).map(|n| put_app(&format!("old{n:03}"), 500)).collect()
}

async fn apply_all(shard: &mut Shard, term: u64, commands: &[Bytes]) {
    let entries: Vec<Entry> = (1..)
        .zip(commands)
        .map(|(index, command)| normal(term, index, command.clone()))
        .collect();
    apply(&mut shard.state_machine, entries).await.unwrap();
}

async fn build(shard: &mut Shard) -> Snapshot {
    let builder = shard.state_machine.try_create_snapshot_builder(true).await;
    builder.unwrap().build_snapshot().await.unwrap()
}

/// The bytes that go over the network.
async fn stream_of(snapshot: Snapshot) -> Vec<Bytes> {
    let spooled = snapshot.snapshot.spool().await.unwrap();
    let mut chunks = spooled.chunks();
    let mut stream = Vec::new();
    while let Some(chunk) = chunks.next().await.unwrap() {
        stream.push(chunk);
    }
    let total: usize = stream.iter().map(Bytes::len).sum();
    assert_eq!(total as u64, spooled.bytes());
    stream
}

async fn receive(reader: &StateReader, stream: &[Bytes]) -> std::io::Result<Snapshot> {
    let mut receiver = reader.receive_snapshot().unwrap();
    for chunk in stream {
        receiver.write(chunk.clone()).await.unwrap();
    }
    receiver.finish().await
}

/// The stream of a node that applied `large()` in term 5.
async fn large_stream() -> Vec<Bytes> {
    let dir = TempDir::new().unwrap();
    let store = heed(dir.path());
    let mut shard = shard(&store, dir.path()).await;
    apply_all(&mut shard, 5, &large()).await;
    let snapshot = build(&mut shard).await;
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(5, 250)));
    stream_of(snapshot).await
}

#[tokio::test]
async fn a_snapshot_makes_another_node_the_same_and_survives_its_restart() {
    let stream = large_stream().await;
    assert!(stream.len() > 10, "it travels in chunks");
    let dir = TempDir::new().unwrap();
    let store = heed(dir.path());
    let seen = Arc::new(Seen::default());
    let node = NodeStore::over(Arc::clone(&store), &dir.path().join("spool")).unwrap();
    let observer: Arc<Seen> = Arc::clone(&seen);
    let mut receiver = node.shard(SHARD, Plane::Meta, observer).await.unwrap();
    apply_all(&mut receiver, 1, &old()).await;
    let snapshot = receive(&receiver.reader, &stream).await.unwrap();
    let meta = snapshot.meta.clone();
    receiver
        .state_machine
        .install_snapshot(&meta, snapshot.snapshot)
        .await
        .unwrap();
    assert_eq!(*seen.installed.lock(), [250]);
    assert_eq!(dump(&receiver.reader), model(&large()));
    assert_eq!(
        receiver.state_machine.applied_state().await.unwrap().0,
        meta.last_log_id
    );
    let again = receiver
        .state_machine
        .get_current_snapshot()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.meta, meta);
    assert_eq!(
        stream_of(again).await,
        stream,
        "the same state gives the same bytes"
    );

    let more = normal(5, 251, put_app("more", 100));
    apply(&mut receiver.state_machine, vec![more]).await.unwrap();
    settled(&store).await;
    drop((receiver, node));
    let reopened = shard(&store, dir.path()).await;
    let mut commands = large();
    commands.push(put_app("more", 100));
    assert_eq!(dump(&reopened.reader), model(&commands));
    assert_eq!(reopened.reader.applied_index(), 251);
}

/// All state records of the shard, whatever their generation.
fn stored(store: &Arc<dyn Store>) -> usize {
    let all = Limit::records(usize::MAX);
    store
        .scan(Table::State, &[0; 4], &[0, 0, 0, 1], all)
        .unwrap()
        .len()
}

/// Installs on a node with `old()`, letting so many batches through; returns whether it went through.
async fn install_with(stream: &[Bytes], dir: &Path, store: &Arc<dyn Store>, batches: u64) -> bool {
    let faulty = FaultyStore::new(Arc::clone(store), batches);
    let over: Arc<dyn Store> = faulty.clone();
    let mut receiver = shard(&over, dir).await;
    let snapshot = receive(&receiver.reader, stream).await.unwrap();
    let meta = snapshot.meta.clone();
    let installed = receiver
        .state_machine
        .install_snapshot(&meta, snapshot.snapshot)
        .await;
    assert_eq!(installed.is_err(), faulty.failed(), "{installed:?}");
    settled(store).await;
    installed.is_ok()
}

#[tokio::test]
async fn an_install_cut_off_after_any_batch_leaves_the_old_state_or_the_new_one() {
    let stream = large_stream().await;
    let (before, after) = (model(&old()), model(&large()));
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    for batches in 0.. {
        let dir = TempDir::new().unwrap();
        let store = heed(dir.path());
        {
            let mut prepared = shard(&store, dir.path()).await;
            apply_all(&mut prepared, 1, &old()).await;
            settled(&store).await;
        }
        let through = install_with(&stream, dir.path(), &store, batches).await;

        let mut reopened = shard(&store, dir.path()).await;
        let (applied, _) = reopened.state_machine.applied_state().await.unwrap();
        let records = dump(&reopened.reader);
        let outcome = if applied == Some(log_id(1, 40)) {
            assert!(
                records == before,
                "after {batches} batches the old state is not whole"
            );
            "old"
        } else {
            assert_eq!(applied, Some(log_id(5, 250)));
            assert!(
                records == after,
                "after {batches} batches the new state is not whole"
            );
            "new"
        };
        assert_eq!(stored(&store), records.len(), "leftovers are gone");
        *outcomes.entry(outcome).or_default() += 1;
        if through {
            break;
        }
        // And the interrupted node can be given the snapshot again.
        drop(reopened);
        assert!(install_with(&stream, dir.path(), &store, u64::MAX).await);
        assert!(dump(&shard(&store, dir.path()).await.reader) == after);
    }
    assert!(outcomes["old"] >= 4 && outcomes["new"] >= 2, "{outcomes:?}");
}

#[tokio::test]
async fn a_damaged_cut_or_foreign_stream_is_refused_before_it_is_installed() {
    let dir = TempDir::new().unwrap();
    let store = heed(dir.path());
    let mut shard = shard(&store, dir.path()).await;
    apply_all(&mut shard, 1, &old()[..2]).await;
    let snapshot = build(&mut shard).await;
    let stream = stream_of(snapshot).await.concat();
    receive(&shard.reader, &[Bytes::from(stream.clone())])
        .await
        .unwrap();
    for place in 0..stream.len() {
        let mut damaged = stream.clone();
        damaged[place] ^= 1 << (place % 8);
        let refused = receive(&shard.reader, &[Bytes::from(damaged)]).await;
        assert!(refused.is_err(), "byte {place}");
    }
    for len in (0..stream.len()).step_by(97) {
        let cut = Bytes::copy_from_slice(&stream[..len]);
        assert!(receive(&shard.reader, &[cut]).await.is_err(), "cut to {len}");
    }
    let longer = Bytes::from([&stream[..], &[0]].concat());
    assert!(receive(&shard.reader, &[longer]).await.is_err());

    let node = NodeStore::over(Arc::clone(&store), &dir.path().join("spool")).unwrap();
    let other = node
        .shard(ShardId(1), Plane::Meta, Arc::new(Seen::default()))
        .await
        .unwrap();
    let refused = receive(&other.reader, &[Bytes::from(stream)]).await.unwrap_err();
    assert!(refused.to_string().contains("of shard 0"), "{refused}");
}

#[tokio::test]
async fn a_snapshot_is_not_installed_under_another_position() {
    let dir = TempDir::new().unwrap();
    let store = heed(dir.path());
    let mut shard = shard(&store, dir.path()).await;
    apply_all(&mut shard, 1, &old()[..2]).await;
    let snapshot = build(&mut shard).await;
    let mut meta = snapshot.meta.clone();
    meta.last_log_id = Some(log_id(1, 1));
    let refused = shard
        .state_machine
        .install_snapshot(&meta, snapshot.snapshot)
        .await;
    assert!(refused.is_err());
    assert_eq!(dump(&shard.reader), model(&old()[..2]));
}

/// While somebody reads, what becomes durable stays in memory as well, until the next write.
#[tokio::test]
async fn what_a_reader_kept_in_memory_does_not_cover_an_installed_snapshot() {
    let stream = large_stream().await;
    let dir = TempDir::new().unwrap();
    let inner = heed(dir.path());
    let held = HeldStore::new(Arc::clone(&inner));
    let store: Arc<dyn Store> = held.clone();
    let mut receiver = shard(&store, dir.path()).await;
    apply_all(&mut receiver, 1, &old()).await;
    receiver.reader.read(|_, _| {
        held.release();
        std::thread::scope(|scope| {
            let settle = || simulated().block_on(settled(&inner));
            scope.spawn(settle).join().unwrap();
        });
    });
    let snapshot = receive(&receiver.reader, &stream).await.unwrap();
    let meta = snapshot.meta.clone();
    receiver
        .state_machine
        .install_snapshot(&meta, snapshot.snapshot)
        .await
        .unwrap();
    assert!(dump(&receiver.reader) == model(&large()));
}

#[tokio::test]
async fn a_snapshot_is_never_of_more_than_is_durable() {
    let dir = TempDir::new().unwrap();
    let store = heed(dir.path());
    let faulty = FaultyStore::new(Arc::clone(&store), 1);
    let over: Arc<dyn Store> = faulty;
    let mut shard = shard(&over, dir.path()).await;
    apply(&mut shard.state_machine, vec![normal(1, 1, put_app("kept", 100))])
        .await
        .unwrap();
    let kept = build(&mut shard).await;
    assert_eq!(kept.meta.last_log_id, Some(log_id(1, 1)));
    // The write-behind of this one fails; apply itself may or may not have heard of it yet.
    let _ = apply(&mut shard.state_machine, vec![normal(1, 2, put_app("lost", 100))]).await;
    let builder = shard.state_machine.try_create_snapshot_builder(true).await;
    let refused = builder.unwrap().build_snapshot().await;
    assert!(refused.is_err(), "entry 2 never became durable");
    let current = shard.state_machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(1, 1)));
}
