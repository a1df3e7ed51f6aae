//! The dump of a store's shards: of a folder and of a simulated disk alike, and what it objects to.

use std::sync::Arc;

use crate::support::{SHARD, append, apply, blank, heed, model, normal, put_app, shard, shard_in_memory};
use openraft::storage::{RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use tempfile::TempDir;
use throng_protocol::ids::ShardId;
use throng_raft_store::inspect::{self, At, EntryKind, LogEntry, Replica, Voted};
use throng_raft_store::store::{Batch, Store, submit_and_wait};
use throng_raft_store::types::{Vote, log_id};
use throng_raft_store::{Shard, SimDisk};

/// Entries 1 to 6 of terms 2 and 3, of which 5 are applied and 2 are purged.
async fn fill(shard: &mut Shard, store: &Arc<dyn Store>) {
    shard.log.save_vote(&Vote::new(2, 1)).await.unwrap();
    let mut log = vec![blank(2, 1)];
    log.extend((2..=4).map(|index| normal(2, index, put_app(&format!("app{index}"), 200))));
    append(&mut shard.log, log.clone()).await.unwrap();
    shard.log.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    let later = vec![blank(3, 5), normal(3, 6, put_app("app6", 200))];
    append(&mut shard.log, later.clone()).await.unwrap();
    log.extend(later);
    shard.log.save_committed(Some(log_id(3, 5))).await.unwrap();
    apply(&mut shard.state_machine, log[..5].to_vec()).await.unwrap();
    let builder = shard.state_machine.try_create_snapshot_builder(true).await;
    builder.unwrap().build_snapshot().await.unwrap();
    shard.log.purge(log_id(2, 2)).await.unwrap();
    submit_and_wait(&**store, Batch::new()).await.unwrap();
}

fn filled() -> Replica {
    let entry = |term, index, kind, payload| LogEntry {
        at: At { term, index },
        kind,
        payload,
    };
    let command = |index| put_app(&format!("app{index}"), 200);
    Replica {
        shard: SHARD,
        vote: Some(Voted {
            term: 3,
            node: 2,
            committed: true,
        }),
        committed: Some(At { term: 3, index: 5 }),
        purged: Some(At { term: 2, index: 2 }),
        applied: Some(At { term: 3, index: 5 }),
        generation: 0,
        log: vec![
            entry(2, 3, EntryKind::Command, command(3)),
            entry(2, 4, EntryKind::Command, command(4)),
            entry(3, 5, EntryKind::Blank, bytes::Bytes::new()),
            entry(3, 6, EntryKind::Command, command(6)),
        ],
        state: model(&[command(2), command(3), command(4)]).into_iter().collect(),
    }
}

#[tokio::test]
async fn a_folder_and_a_simulated_disk_are_dumped_alike() {
    let dir = TempDir::new().unwrap();
    let store = heed(dir.path());
    fill(&mut shard(&store, dir.path()).await, &store).await;
    drop(store);
    assert_eq!(inspect::replicas(&*heed(dir.path())), Ok(vec![filled()]));

    let disk = SimDisk::new(1);
    let store = disk.store();
    fill(&mut shard_in_memory(&store).await, &store).await;
    assert_eq!(inspect::replicas(&*store), Ok(vec![filled()]));
    assert_eq!(inspect::shards(&*disk.durable()), Ok(vec![SHARD]));
    let unknown = inspect::shard(&*disk.durable(), ShardId(7)).unwrap();
    assert_eq!((unknown.last(), unknown.check()), (None, Ok(())));
}

#[test]
fn a_replica_that_cannot_be_is_named() {
    assert_eq!(filled().check(), Ok(()));
    let broken = |change: fn(&mut Replica)| {
        let mut replica = filled();
        change(&mut replica);
        replica.check().unwrap_err()
    };
    assert!(broken(|replica| drop(replica.log.remove(1))).contains("stands behind"));
    assert!(broken(|replica| drop(replica.log.remove(0))).contains("stands behind"));
    assert!(broken(|replica| replica.log[3].at.term = 1).contains("term falls"));
    assert!(broken(|replica| replica.applied = Some(At { term: 3, index: 7 })).contains("log ends"));
    assert!(broken(|replica| replica.applied = Some(At { term: 2, index: 1 })).contains("purged"));
    assert!(broken(|replica| replica.vote = None).contains("the vote"));
}
