//! Every crash point of a recorded run: two replicas on one simulated disk append, vote, truncate,
//! commit, apply, purge and install snapshots; then the disk is taken as it was after each batch,
//! opened, and compared with what was written up to there. A sync boundary is one of these points,
//! and the points between are what the contract of `Store` allows beside them.
//!
//! Nothing acknowledged may be missing, nothing later may show, durable state is that of an entry
//! whose log is durable, and the replica recovers to all it knew to be committed.

mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::{Seen, apply, dump};
use bytes::Bytes;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use throng_protocol::placement::Plane;
use throng_raft_store::sim_disk::Image;
use throng_raft_store::types::{Entry, LogId, Vote};
use throng_raft_store::{NodeStore, SimDisk, Table, inspect};

use run::{Change, Recorded, Side};

/// What is durable of a replica's log after some batches.
#[derive(Default)]
struct Model {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    log: Vec<Entry>,
    changes: usize,
}

impl Model {
    /// Follows a replica up to a batch.
    fn advance(&mut self, side: &Side, batch: u64) {
        while let Some((_, change)) = side.changes.get(self.changes).filter(|(at, _)| *at <= batch) {
            self.changes += 1;
            match change {
                Change::Vote(vote) => self.vote = Some(*vote),
                Change::Committed(committed) => self.committed = Some(*committed),
                Change::Append(entries) => self.log.extend(entries.iter().cloned()),
                Change::Truncate(keep) => self.log.retain(|entry| entry.log_id.index <= *keep),
                Change::Purge(upto) => {
                    self.log.retain(|entry| entry.log_id.index > upto.index);
                    self.purged = Some(*upto);
                }
            }
        }
    }

    fn last(&self) -> Option<LogId> {
        self.log.last().map(|entry| entry.log_id).or(self.purged)
    }
}

#[test]
fn after_every_batch_a_replica_finds_exactly_what_was_durable() {
    for seed in 0..run::SEEDS {
        println!("seed {seed}");
        let host = crate::support::simulated();
        let recorded = host.block_on(run::record(seed));
        check_acks(&recorded);
        let points = host.block_on(check_points(&recorded));
        assert!(points > run::BATCHES_MIN, "only {points} points");
    }
}

/// Whoever was told that a batch is durable was told so after the sync that made it durable, and
/// in the order of the batches.
fn check_acks(recorded: &Recorded) {
    let mut durable = vec![0];
    for commit in &recorded.journal {
        durable.push(durable[durable.len() - 1] + commit.len() as u64);
    }
    assert!(recorded.acks.is_sorted());
    assert_eq!(recorded.acks.len() as u64, durable[durable.len() - 1]);
    for (batch, commits) in &recorded.acks {
        let upto = durable[usize::try_from(*commits).unwrap()];
        assert!(*batch <= upto, "batch {batch} was acked when {upto} were durable");
    }
}

async fn check_points(recorded: &Recorded) -> u64 {
    let mut image = Image::default();
    let mut models: Vec<Model> = recorded.sides.iter().map(|_| Model::default()).collect();
    let mut batches = recorded.journal.iter().flatten();
    let mut point = 0;
    loop {
        for (side, model) in recorded.sides.iter().zip(&mut models) {
            model.advance(side, point);
            check_dump(&image, side, model, point);
        }
        reopen(&image, &recorded.sides, &models, point).await;
        let Some(batch) = batches.next() else {
            return point;
        };
        image.apply(batch);
        point += 1;
    }
}

/// What is on the disk, read by itself.
fn check_dump(image: &Image, side: &Side, model: &Model, point: u64) {
    let found = inspect::shard(image, side.id).unwrap();
    assert_eq!(found.check(), Ok(()), "after batch {point}");
    let found_ids = found.log.iter().map(|entry| (entry.at.term, entry.at.index));
    let ids = model
        .log
        .iter()
        .map(|entry| (entry.log_id.leader_id.term, entry.log_id.index));
    assert!(found_ids.eq(ids), "after batch {point}");
    assert_eq!(found.purged.map(|at| at.index), model.purged.map(|id| id.index));
    let applied = usize::try_from(found.applied.map_or(0, |at| at.index)).unwrap();
    let state: BTreeMap<Bytes, Bytes> = found.state.into_iter().collect();
    assert!(
        state == side.states[applied],
        "the state is not that of {applied} after batch {point}"
    );
}

/// A new process opens both replicas, finds the model, and catches up with it.
async fn reopen(image: &Image, sides: &[Side], models: &[Model], point: u64) {
    let disk = SimDisk::with_image(point, image.clone());
    let node = NodeStore::in_memory(disk.store());
    for (side, model) in sides.iter().zip(models) {
        let opened = node.shard(side.id, Plane::Meta, Arc::new(Seen::default()));
        let mut shard = opened.await.unwrap();
        let state = shard.log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, model.purged, "after batch {point}");
        assert_eq!(state.last_log_id, model.last(), "after batch {point}");
        assert_eq!(shard.log.read_committed().await.unwrap(), model.committed);
        let mut reader = shard.log.get_log_reader().await;
        assert_eq!(
            reader.read_vote().await.unwrap(),
            model.vote,
            "after batch {point}"
        );
        let log = reader.try_get_log_entries(..).await.unwrap();
        assert!(log == model.log, "another log after batch {point}");
        let applied = shard.state_machine.applied_state().await.unwrap().0;
        assert!(
            model.purged <= applied,
            "purged beyond the state after batch {point}"
        );
        let behind: Vec<Entry> = log
            .into_iter()
            .filter(|entry| Some(entry.log_id) > applied && Some(entry.log_id) <= model.committed)
            .collect();
        apply(&mut shard.state_machine, behind).await.unwrap();
        let reached = applied.max(model.committed).map_or(0, |id| id.index);
        assert_eq!(shard.reader.applied_index(), reached, "after batch {point}");
        let reached = usize::try_from(reached).unwrap();
        assert!(dump(&shard.reader) == side.states[reached], "after batch {point}");
    }
    drop(node);
    disk.closed().await;
    check_generations(&disk.durable(), sides, point);
}

/// Nothing is left of an install that was cut off.
fn check_generations(image: &Image, sides: &[Side], point: u64) {
    for side in sides {
        let generation = inspect::shard(image, side.id).unwrap().generation;
        let stale = image
            .records(Table::State)
            .filter(|(key, _)| key[..4] == side.id.0.to_be_bytes() && key[4..8] != generation.to_be_bytes());
        assert_eq!(stale.count(), 0, "after batch {point}");
    }
}
