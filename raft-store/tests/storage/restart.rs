//! What a replica finds when its process comes back, and what it refuses.

use std::path::Path;

use crate::support::{SHARD, Seen, append, apply, blank, dump, heed, model, normal, put_app, settled, shard};
use bytes::Bytes;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use tempfile::TempDir;
use throng_protocol::placement::Plane;
use throng_raft_store::types::{Entry, Vote, log_id};
use throng_raft_store::{Batch, NodeStore, OpenError, Shard, TAIL_BYTES_MAX, Table};
use throng_state::View;

fn commands(count: usize) -> Vec<Bytes> {
    (0..count)
        .map(|n| put_app(&format!("app{}", n % 7), 100 + n))
        .collect()
}

fn entries(term: u64, from: u64, commands: &[Bytes]) -> Vec<Entry> {
    (from..)
        .zip(commands)
        .map(|(index, command)| normal(term, index, command.clone()))
        .collect()
}

async fn read_all(shard: &mut Shard) -> Vec<Entry> {
    let mut reader = shard.log.get_log_reader().await;
    reader.try_get_log_entries(..).await.unwrap()
}

#[tokio::test]
async fn a_store_that_nobody_uses_any_more_is_free_at_once_with_all_that_lingered() {
    let dir = TempDir::new().unwrap();
    let log = entries(3, 1, &commands(5));
    {
        let store = heed(dir.path());
        let mut shard = shard(&store, dir.path()).await;
        append(&mut shard.log, log.clone()).await.unwrap();
        apply(&mut shard.state_machine, log).await.unwrap();
    }
    let store = heed(dir.path());
    let shard = shard(&store, dir.path()).await;
    assert_eq!(shard.reader.applied_index(), 5);
}

#[tokio::test]
async fn vote_log_and_applied_state_are_found_again() {
    let dir = TempDir::new().unwrap();
    let commands = commands(20);
    let log = entries(3, 1, &commands);
    {
        let store = heed(dir.path());
        let mut shard = shard(&store, dir.path()).await;
        shard.log.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
        append(&mut shard.log, log.clone()).await.unwrap();
        shard.log.save_committed(Some(log_id(3, 12))).await.unwrap();
        apply(&mut shard.state_machine, log[..12].to_vec()).await.unwrap();
        settled(&store).await;
    }
    let store = heed(dir.path());
    let mut shard = shard(&store, dir.path()).await;
    let mut reader = shard.log.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), Some(Vote::new_committed(3, 2)));
    assert_eq!(shard.log.read_committed().await.unwrap(), Some(log_id(3, 12)));
    assert_eq!(read_all(&mut shard).await, log);
    let (applied, _) = shard.state_machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(3, 12)));
    assert_eq!(shard.reader.applied_index(), 12);
    assert_eq!(dump(&shard.reader), model(&commands[..12]));

    apply(&mut shard.state_machine, log[12..].to_vec()).await.unwrap();
    assert_eq!(dump(&shard.reader), model(&commands));
}

#[tokio::test]
async fn what_was_truncated_and_purged_does_not_come_back() {
    let dir = TempDir::new().unwrap();
    let commands = commands(20);
    let kept = {
        let mut shard = shard(&heed(dir.path()), dir.path()).await;
        append(&mut shard.log, entries(1, 1, &commands)).await.unwrap();
        shard.log.truncate_after(Some(log_id(1, 14))).await.unwrap();
        append(&mut shard.log, entries(2, 15, &commands[..3]))
            .await
            .unwrap();
        shard.log.purge(log_id(1, 10)).await.unwrap();
        // Past the end: nothing moves.
        shard.log.truncate_after(Some(log_id(9, 99))).await.unwrap();
        let kept = read_all(&mut shard).await;
        let ids: Vec<_> = kept.iter().map(|entry| entry.log_id).collect();
        let expected = [(1, 11), (1, 12), (1, 13), (1, 14), (2, 15), (2, 16), (2, 17)];
        assert_eq!(ids, expected.map(|(term, index)| log_id(term, index)));
        kept
    };
    let mut shard = shard(&heed(dir.path()), dir.path()).await;
    assert_eq!(read_all(&mut shard).await, kept);
    let state = shard.log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 10)));
    assert_eq!(state.last_log_id, Some(log_id(2, 17)));
}

#[tokio::test]
async fn a_log_larger_than_the_tail_in_memory_is_read_whole_and_in_bounded_parts() {
    let dir = TempDir::new().unwrap();
    let mut shard = shard(&heed(dir.path()), dir.path()).await;
    let count = 3 * TAIL_BYTES_MAX / 100_000;
    let log: Vec<Entry> = (1..=count as u64)
        .map(|index| normal(1, index, Bytes::from(vec![index as u8; 100_000])))
        .collect();
    for entry in &log {
        append(&mut shard.log, vec![entry.clone()]).await.unwrap();
    }
    assert_eq!(read_all(&mut shard).await, log);
    let mut reader = shard.log.get_log_reader().await;
    let mut next = 1;
    while next <= log.len() as u64 {
        let part = reader
            .limited_get_log_entries(next, log.len() as u64 + 1)
            .await
            .unwrap();
        assert!((1..=12).contains(&part.len()), "{} entries of 100 kB", part.len());
        for entry in part {
            assert_eq!(entry.log_id.index, next);
            next += 1;
        }
    }
}

#[tokio::test]
async fn unflushed_and_stored_records_merge_into_one_view() {
    let dir = TempDir::new().unwrap();
    let store = heed(dir.path());
    let mut shard = shard(&store, dir.path()).await;
    let commands = commands(60);
    for (place, entry) in entries(1, 1, &commands).into_iter().enumerate() {
        apply(&mut shard.state_machine, vec![entry]).await.unwrap();
        if place % 13 == 0 {
            settled(&store).await;
        }
        let expected = model(&commands[..=place]);
        assert_eq!(dump(&shard.reader), expected);
        let ascending: Vec<_> = expected.clone().into_iter().collect();
        for limit in [0, 1, 2, 5, 100] {
            let found = shard.reader.scan(&[], &[0xff], limit).unwrap();
            assert_eq!(found, ascending[..limit.min(ascending.len())]);
            let mut back = shard.reader.scan_back(&[], &[0xff], limit).unwrap();
            back.reverse();
            assert_eq!(back, ascending[ascending.len() - limit.min(ascending.len())..]);
        }
        for (key, value) in &expected {
            assert_eq!(shard.reader.get(key).unwrap().as_ref(), Some(value));
        }
    }
}

/// Flips one bit of every record of a table, one at a time, and asks what notices.
async fn flip_each(dir: &Path, table: Table, notices: impl AsyncFn(Result<Shard, OpenError>) -> bool) {
    let records = {
        let store = heed(dir);
        store
            .scan(
                table,
                &[0],
                &[0xff; 16],
                throng_raft_store::store::Limit::records(1_000),
            )
            .unwrap()
    };
    assert!(!records.is_empty());
    for (key, value) in records {
        for bit in [0, value.len() * 4, value.len() * 8 - 1] {
            let mut damaged = value.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            write(dir, table, &key, Bytes::from(damaged)).await;
            let store = heed(dir);
            let node = NodeStore::over(store, &dir.join("spool")).unwrap();
            let opened = node.shard(SHARD, Plane::Meta, std::sync::Arc::new(Seen::default()));
            assert!(notices(opened.await).await, "bit {bit} of {key:?} in {table}");
            drop(node);
            write(dir, table, &key, value.clone()).await;
        }
    }
}

async fn write(dir: &Path, table: Table, key: &Bytes, value: Bytes) {
    let store = heed(dir);
    let mut batch = Batch::new();
    batch.put(table, key.clone(), value);
    throng_raft_store::store::submit_and_wait(&*store, batch)
        .await
        .unwrap();
}

async fn filled() -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = heed(dir.path());
    let mut shard = shard(&store, dir.path()).await;
    let log = entries(1, 1, &commands(3));
    shard.log.save_vote(&Vote::new(1, 1)).await.unwrap();
    append(&mut shard.log, log.clone()).await.unwrap();
    shard.log.save_committed(Some(log_id(1, 2))).await.unwrap();
    apply(&mut shard.state_machine, log).await.unwrap();
    settled(&store).await;
    dir
}

#[tokio::test]
async fn a_flipped_bit_in_the_small_records_keeps_the_shard_from_opening() {
    let dir = filled().await;
    flip_each(dir.path(), Table::Meta, async |opened| {
        matches!(opened, Err(OpenError::Shard { reason, .. }) if reason.contains("table meta"))
    })
    .await;
}

#[tokio::test]
async fn a_flipped_bit_in_the_log_is_never_served() {
    let dir = filled().await;
    flip_each(dir.path(), Table::Log, async |opened| {
        let Ok(mut shard) = opened else {
            return true;
        };
        let mut reader = shard.log.get_log_reader().await;
        let error = reader.try_get_log_entries(..).await.unwrap_err();
        error.to_string().contains("table log") && shard.reader.stopped().is_some()
    })
    .await;
}

#[tokio::test]
async fn a_flipped_bit_in_the_state_stops_the_replica() {
    let dir = filled().await;
    flip_each(dir.path(), Table::State, async |opened| {
        let mut shard = opened.unwrap();
        let error = shard.reader.scan(&[], &[0xff], 100).unwrap_err();
        let refused = apply(&mut shard.state_machine, vec![blank(1, 4)]).await;
        let append_refused = append(&mut shard.log, vec![blank(1, 4)]).await;
        error.to_string().contains("table state")
            && shard.reader.stopped().is_some()
            && refused.is_err()
            && append_refused.is_err()
    })
    .await;
}
