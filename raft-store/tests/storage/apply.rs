//! What `apply` and `append` say while the disk is slow, and what the observer hears.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::support::{HeldStore, Seen, append, apply, dump, heed, model, normal, put_app, settled, shard};
use bytes::Bytes;
use openraft::storage::{RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use tempfile::TempDir;
use throng_protocol::ids::{AppId, ChannelId, GroupId, ShardId, UserId, UserNumber};
use throng_protocol::placement::Plane;
use throng_raft_store::types::{Vote, log_id};
use throng_raft_store::{NodeStore, Notice, Observer, StateReader, Store, UNFLUSHED_BYTES_MAX};
use throng_state::command::ManagementCommand;
use throng_state::{Command, Outgoing, View};

/// Long enough that something which does not wait has happened, on a busy machine too.
const A_WHILE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn while_the_disk_hangs_entries_apply_but_nothing_is_called_durable() {
    let dir = TempDir::new().unwrap();
    let inner = heed(dir.path());
    let held = HeldStore::new(Arc::clone(&inner));
    let store: Arc<dyn Store> = held.clone();
    {
        let mut shard = shard(&store, dir.path()).await;
        let entry = normal(1, 1, put_app("a", 100));
        apply(&mut shard.state_machine, vec![entry.clone()])
            .await
            .unwrap();
        assert_eq!(dump(&shard.reader), model(&[put_app("a", 100)]));
        assert_eq!(
            shard
                .state_machine
                .get_current_snapshot()
                .await
                .unwrap()
                .map(|_| ()),
            None
        );

        let vote = Vote::new(1, 1);
        let mut builder = shard
            .state_machine
            .try_create_snapshot_builder(true)
            .await
            .unwrap();
        let (appended, voted, built) = {
            let log = &mut shard.log;
            let writes = async {
                let appended = append(log, vec![entry]).await;
                (appended, log.save_vote(&vote).await)
            };
            let both = async { tokio::join!(writes, builder.build_snapshot()) };
            tokio::pin!(both);
            let waited = tokio::time::timeout(A_WHILE, &mut both).await;
            assert!(waited.is_err(), "nothing is durable");
            held.release();
            let ((appended, voted), built) = both.await;
            (appended, voted, built)
        };
        appended.unwrap();
        voted.unwrap();
        assert_eq!(built.unwrap().meta.last_log_id, Some(log_id(1, 1)));
    }
    settled(&inner).await;
    let mut shard = shard(&inner, dir.path()).await;
    assert_eq!(dump(&shard.reader), model(&[put_app("a", 100)]));
    assert_eq!(
        shard.log.get_log_state().await.unwrap().last_log_id,
        Some(log_id(1, 1))
    );
}

#[tokio::test]
async fn apply_waits_for_a_disk_that_is_too_far_behind() {
    let dir = TempDir::new().unwrap();
    let held = HeldStore::new(heed(dir.path()));
    let store: Arc<dyn Store> = held.clone();
    let mut shard = shard(&store, dir.path()).await;
    let commands: Vec<Bytes> = (0..2 * UNFLUSHED_BYTES_MAX / 15_000)
        .map(|n| put_app(&format!("app{n}"), 15_000))
        .collect();
    let reader = shard.reader.clone();
    {
        let entries = (1..)
            .zip(&commands)
            .map(|(index, command)| normal(1, index, command.clone()));
        let applying = apply(&mut shard.state_machine, entries.collect());
        tokio::pin!(applying);
        assert!(tokio::time::timeout(A_WHILE, &mut applying).await.is_err());
        let ahead = reader.applied_index();
        assert!(
            ahead > 0 && ahead < commands.len() as u64,
            "it stopped at {ahead}"
        );
        held.release();
        applying.await.unwrap();
    }
    assert!(dump(&reader) == model(&commands));
}

/// Reads what it is told of.
#[derive(Default)]
struct Reading {
    reader: OnceLock<StateReader>,
    heard: Mutex<Vec<(u64, Vec<Notice>)>>,
}

impl Observer for Reading {
    fn applied(&self, _: ShardId, index: u64, notices: Vec<Notice>) {
        let reader = self.reader.get().unwrap();
        assert_eq!(reader.applied_index(), index, "it can be read when it is told");
        self.heard.lock().push((index, notices));
    }

    fn installed(&self, _: ShardId, _: u64) {}
}

#[tokio::test]
async fn the_observer_hears_of_entries_in_order_when_they_can_be_read() {
    let dir = TempDir::new().unwrap();
    let node = NodeStore::over(heed(dir.path()), &dir.path().join("spool")).unwrap();
    let observer = Arc::new(Reading::default());
    let told: Arc<Reading> = Arc::clone(&observer);
    let mut shard = node.shard(ShardId(1), Plane::Management, told).await.unwrap();
    assert!(observer.reader.set(shard.reader.clone()).is_ok());

    let (app, group) = (AppId::new("app").unwrap(), GroupId::new("group").unwrap());
    let number = UserNumber(7);
    let create_channel = |name| ManagementCommand::CreateChannel {
        app: app.clone(),
        group: group.clone(),
        channel: ChannelId::new(name).unwrap(),
        by: Some(number),
        issuer: ShardId(1),
        target: ShardId(101),
    };
    let commands = [
        ManagementCommand::CreateGroup {
            app: app.clone(),
            group: group.clone(),
            user: UserId::new("user").unwrap(),
            number,
        },
        create_channel("one"),
        create_channel("two"),
    ];
    let commands: Vec<Bytes> = commands
        .map(|command| Command::Management(command).encode())
        .to_vec();
    let entry = |index: u64| normal(1, index, commands[index as usize - 1].clone());
    apply(&mut shard.state_machine, vec![entry(1)]).await.unwrap();
    apply(&mut shard.state_machine, vec![entry(2), entry(3)])
        .await
        .unwrap();
    let outbox = |number| {
        Notice::Outbox(Outgoing {
            number,
            target: ShardId(101),
        })
    };
    assert_eq!(
        *observer.heard.lock(),
        [(1, vec![]), (3, vec![outbox(1), outbox(2)])]
    );
    assert!(!shard.reader.scan(&[], &[0xff], 100).unwrap().is_empty());
}

#[tokio::test]
async fn a_command_this_build_does_not_know_stops_the_replica_and_says_why() {
    let dir = TempDir::new().unwrap();
    let store = heed(dir.path());
    let mut shard = shard(&store, dir.path()).await;
    let good = normal(1, 1, put_app("a", 100));
    let unknown = normal(1, 2, Bytes::from_static(&[99, 1, 2, 3]));
    let refused = apply(&mut shard.state_machine, vec![good, unknown]).await;
    assert!(refused.unwrap_err().to_string().contains("index 2"));
    assert!(shard.reader.stopped().unwrap().contains("index 2"));
    assert!(
        shard.reader.get(b"a").is_err(),
        "a stopped replica serves nothing"
    );
    settled(&store).await;
    drop(shard);
    let reopened = NodeStore::over(store, &dir.path().join("spool")).unwrap();
    let reopened = reopened
        .shard(crate::support::SHARD, Plane::Meta, Arc::new(Seen::default()))
        .await
        .unwrap();
    assert_eq!(reopened.reader.applied_index(), 1, "what came before it is kept");
}
