//! The simulated disk's own faults: what a crash keeps, how it fails, and that a seed says it all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{SHARD, Seen, append, apply, normal, put_app, shard_in_memory, simulated};
use bytes::Bytes;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use throng_protocol::placement::Plane;
use throng_raft_store::sim_disk::Crashed;
use throng_raft_store::store::{Batch, FailureKind, Store, StoreFailure, submit_and_wait};
use throng_raft_store::writer::LINGER;
use throng_raft_store::{NodeStore, SimDisk, Table, inspect};
use throng_state::View;
use tokio::time::Instant;

fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    let key = Bytes::copy_from_slice(&number.to_be_bytes());
    // Two records of a batch live or die together.
    batch.put(Table::State, key.clone(), Bytes::from(number.to_string()));
    batch.put(Table::Log, key, Bytes::from(number.to_string()));
    batch
}

/// The numbers of the batches that are durable.
fn durable(disk: &SimDisk) -> Vec<u64> {
    let image = disk.durable();
    let keys = |table| -> Vec<u64> {
        let keys = image.records(table).map(|(key, _)| key[..].try_into().unwrap());
        keys.map(u64::from_be_bytes).collect()
    };
    assert_eq!(keys(Table::State), keys(Table::Log), "a batch is whole");
    keys(Table::State)
}

type Told = Arc<Mutex<Vec<(u64, Result<(), StoreFailure>)>>>;

fn submit(store: &Arc<dyn Store>, number: u64, told: &Told) {
    let told = Arc::clone(told);
    store.submit(
        batch(number),
        Box::new(move |result| told.lock().push((number, result))),
    );
}

#[tokio::test(start_paused = true)]
async fn what_lingers_rides_with_what_is_waited_for_and_is_written_alone_soon() {
    let disk = SimDisk::new(3);
    let store = disk.store();
    let commits = || store.metrics().commits.load(std::sync::atomic::Ordering::Relaxed);
    submit_and_wait(&*store, batch(0)).await.unwrap();

    store.submit(batch(1).lingering(), Box::new(|_| {}));
    tokio::time::sleep(LINGER / 2).await;
    assert_eq!((durable(&disk), commits()), (vec![0], 1), "it waits for company");
    submit_and_wait(&*store, batch(2)).await.unwrap();
    assert_eq!(
        (durable(&disk), commits()),
        (vec![0, 1, 2], 2),
        "one sync for both"
    );

    for quiet in [Duration::ZERO, 10 * LINGER] {
        // Also after a silence, in which the writer waits without an end.
        tokio::time::sleep(quiet).await;
        let asked = Instant::now();
        submit_and_wait(&*store, batch(3).lingering()).await.unwrap();
        assert!(
            asked.elapsed() < 2 * LINGER,
            "{:?} after {quiet:?}",
            asked.elapsed()
        );
    }
    drop(store);
    disk.closed().await;
    let store = disk.store();
    store.submit(batch(4).lingering(), Box::new(|_| {}));
    let asked = Instant::now();
    drop(store);
    disk.closed().await;
    assert_eq!(
        durable(&disk),
        [0, 1, 2, 3, 4],
        "a store that closes leaves nothing behind"
    );
    assert!(asked.elapsed() < LINGER / 2, "and waits for nobody");
}

/// A disk with batch 0 durable and batches 1 to 4 in the sync that is under way.
async fn syncing(seed: u64) -> (SimDisk, Arc<dyn Store>, Told) {
    let disk = SimDisk::new(seed);
    let (store, told) = (disk.store(), Told::default());
    submit_and_wait(&*store, batch(0)).await.unwrap();
    for number in 1..=4 {
        submit(&store, number, &told);
    }
    // The writer takes its round and begins to sync.
    tokio::task::yield_now().await;
    (disk, store, told)
}

#[tokio::test(start_paused = true)]
async fn a_crash_during_a_sync_keeps_whole_batches_from_its_beginning() {
    for kept in 0..=4 {
        let (disk, store, told) = syncing(7).await;
        assert_eq!(durable(&disk), [0], "nothing is durable before its sync");
        assert_eq!(disk.crash_keeping(kept), Crashed { unsynced: 4, kept });
        assert_eq!(durable(&disk), (0..=kept as u64).collect::<Vec<_>>());
        let reopened = disk.store();
        submit_and_wait(&*reopened, batch(9)).await.unwrap();
        assert!(
            told.lock().iter().all(|(_, result)| result.is_err()),
            "nobody hears of it"
        );
        assert_eq!(
            store.get(Table::State, &[0]).unwrap_err().kind,
            FailureKind::Closed
        );
        let refused = submit_and_wait(&*store, batch(5)).await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::Closed);
        assert!(
            !durable(&disk).contains(&5),
            "the old process writes nothing any more"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_keeps_is_the_seeds_choice_and_every_choice_is_made() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let (disk, _store, _told) = syncing(seed).await;
        let crashed = disk.crash();
        assert_eq!(crashed.unsynced, 4);
        let (again, _store, _told) = syncing(seed).await;
        assert_eq!(again.crash(), crashed, "seed {seed}");
        seen.insert(crashed.kept);
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 3, 4]));
}

#[test]
fn a_runtime_that_goes_takes_what_was_not_synced_along() {
    let mut kept = BTreeSet::new();
    for seed in 0..100 {
        let host = simulated();
        let (disk, store, told) = host.block_on(syncing(seed));
        for number in 5..8 {
            submit(&store, number, &told);
        }
        drop(host);
        drop(store);
        assert!(told.lock().iter().all(|(_, result)| result.is_err()));
        assert_eq!(durable(&disk), [0]);
        let host = simulated();
        host.block_on(async {
            disk.closed().await;
            let store = disk.store();
            let found = durable(&disk);
            assert!(
                found.len() <= 5,
                "what was only queued never reached the disk: {found:?}"
            );
            submit_and_wait(&*store, batch(9)).await.unwrap();
            kept.insert(found.len());
        });
    }
    assert_eq!(kept, BTreeSet::from([1, 2, 3, 4, 5]));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_leaves_nothing_and_fails_for_good_until_it_is_opened_anew() {
    let disk = SimDisk::new(1);
    let store = disk.store();
    submit_and_wait(&*store, batch(0)).await.unwrap();
    disk.set_full(true);
    submit_and_wait(&*store, Batch::new()).await.unwrap();
    let failure = submit_and_wait(&*store, batch(1)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Full);
    disk.set_full(false);
    assert_eq!(submit_and_wait(&*store, batch(2)).await, Err(failure.clone()));
    assert_eq!(*store.failure().borrow(), Some(failure));
    assert!(matches!(
        store.get(Table::State, &0_u64.to_be_bytes()),
        Ok(Some(_))
    ));
    let store = disk.store();
    assert_eq!(durable(&disk), [0]);
    submit_and_wait(&*store, batch(3)).await.unwrap();
    assert_eq!(durable(&disk), [0, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_is_never_durable_for_its_process_and_may_be_found_by_the_next() {
    let mut found = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let store = disk.store();
        submit_and_wait(&*store, batch(0)).await.unwrap();
        disk.set_failing(true);
        let failure = submit_and_wait(&*store, batch(1)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Io);
        disk.set_failing(false);
        assert_eq!(submit_and_wait(&*store, batch(2)).await, Err(failure));
        assert_eq!(store.get(Table::State, &1_u64.to_be_bytes()), Ok(None));
        drop(store);
        disk.closed().await;
        disk.store();
        found.insert(durable(&disk));
    }
    assert_eq!(found, BTreeSet::from([vec![0], vec![0, 1]]));
}

#[tokio::test(start_paused = true)]
async fn a_slow_disk_syncs_late_and_at_once_when_it_is_fast_again() {
    let disk = SimDisk::new(1);
    let (store, told) = (disk.store(), Told::default());
    disk.set_slow(Duration::from_secs(5));
    let begun = Instant::now();
    submit_and_wait(&*store, batch(0)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(5));
    disk.set_slow(Duration::from_secs(3_600));
    let begun = Instant::now();
    submit(&store, 1, &told);
    tokio::task::yield_now().await;
    assert_eq!(durable(&disk), [0]);
    disk.set_slow(Duration::ZERO);
    submit_and_wait(&*store, Batch::new()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(*told.lock(), [(1, Ok(()))]);
}

/// The times and sizes of all commits of a run that is the seed's own.
async fn commits_of(seed: u64) -> Vec<(Duration, usize)> {
    let disk = SimDisk::new(seed);
    disk.keep_journal();
    let (store, told) = (disk.store(), Told::default());
    let begun = Instant::now();
    let mut commits = Vec::new();
    for number in 0..300 {
        submit(&store, number, &told);
        if number % 3 == 0 {
            submit_and_wait(&*store, batch(1_000 + number)).await.unwrap();
            let journal = disk.journal();
            commits.push((begun.elapsed(), journal.last().unwrap().len()));
            assert_eq!(journal.len() as u64, disk.commits());
        }
    }
    commits
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run_and_another_another() {
    assert_eq!(commits_of(5).await, commits_of(5).await);
    assert_ne!(commits_of(5).await, commits_of(6).await);
}

#[tokio::test(start_paused = true)]
async fn a_torn_record_at_the_end_of_the_log_is_noticed_and_handed_to_nobody() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let mut shard = shard_in_memory(&disk.store()).await;
        let entry = |index| normal(1, index, put_app("torn", 300));
        append(&mut shard.log, vec![entry(1)]).await.unwrap();
        let appending = append(&mut shard.log, vec![entry(2), entry(3)]);
        tokio::pin!(appending);
        assert!(futures_util::poll!(&mut appending).is_pending());
        tokio::task::yield_now().await;
        let (table, _) = disk.crash_torn().unwrap();
        assert_eq!(table, Table::Log);
        let damaged = inspect::shard(&*disk.durable(), SHARD).unwrap_err();
        assert!(damaged.to_string().contains("table log"), "{damaged}");
        let node = NodeStore::in_memory(disk.store());
        let opened = node.shard(SHARD, Plane::Meta, Arc::new(Seen::default())).await;
        let refused = opened.unwrap_err().to_string();
        assert!(refused.contains("table log"), "seed {seed}: {refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotten_bit_is_noticed_wherever_it_is() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let store = disk.store();
        {
            let mut shard = shard_in_memory(&store).await;
            let entries: Vec<_> = (1..=3)
                .map(|index| normal(1, index, put_app("rot", 300)))
                .collect();
            append(&mut shard.log, entries.clone()).await.unwrap();
            apply(&mut shard.state_machine, entries).await.unwrap();
            submit_and_wait(&*store, Batch::new()).await.unwrap();
        }
        let table = [Table::Log, Table::Meta, Table::State][seed as usize % 3];
        disk.flip_bit(table).unwrap();
        assert!(inspect::shard(&*disk.durable(), SHARD).is_err(), "seed {seed}");
        let node = NodeStore::in_memory(disk.store());
        let Ok(mut shard) = node.shard(SHARD, Plane::Meta, Arc::new(Seen::default())).await else {
            continue;
        };
        let mut reader = shard.log.get_log_reader().await;
        let read = reader.try_get_log_entries(..).await;
        let scanned = shard.reader.scan(&[], &[0xff], 100);
        assert!(read.is_err() || scanned.is_err(), "seed {seed}, table {table}");
        assert!(shard.reader.stopped().is_some());
    }
}
