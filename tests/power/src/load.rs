//! The recorded run: replicas of several shards on one real store, driven as openraft drives them.
//!
//! A replica of a real group spends years between two snapshots of another node or two cuts of its
//! log; here all that a replica may ever be asked happens within seconds, decided by a seed: appends
//! in flight, applies behind them, votes, cuts, purges, installs of snapshots, restarts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::stream;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use throng_protocol::ids::ShardId;
use throng_protocol::placement::Plane;
use throng_raft_store::types::{Entry, Vote, log_id};
use throng_raft_store::{CommandBytes, NodeStore, Notice, Observer, Shard, StoreOptions, TypeConfig};
use tokio::task::JoinSet;

use crate::mark::{Mark, Marks};
use crate::shards::{self, SHARDS};

/// The store's folder below the root; its parents are made by the store, too.
pub const STORE: &str = "node/store";

/// Times the store is closed and opened during a run.
const RESTARTS: u64 = 3;

/// Appends in flight per shard; more would only be larger commits.
const IN_FLIGHT: usize = 4;

/// The size of the map: far more than a run fills.
const MAP_BYTES: usize = 1 << 30;

/// The node of the votes.
const NODE: u64 = 1;

#[derive(Debug)]
struct Nobody;

impl Observer for Nobody {
    fn applied(&self, _: ShardId, _: u64, _: Vec<Notice>) {}
    fn installed(&self, _: ShardId, _: u64) {}
}

fn open(dir: &Path) -> Result<NodeStore> {
    let options = StoreOptions { map_bytes: MAP_BYTES };
    NodeStore::open(dir, &options).with_context(|| format!("opening {}", dir.display()))
}

/// Runs the load: `rounds` rounds of every shard on a store below `root` in the folder. Beside it lie
/// the record and, in `twin`, replicas of another node, whose snapshots are installed.
pub async fn run(dir: &Path, rounds: u64, seed: u64) -> Result<()> {
    let marks = Marks::open(&dir.join("record"))?;
    let twins = open(&dir.join("twin"))?;
    let mut lives = Vec::new();
    for (shard, plane) in SHARDS {
        let other = twins.shard(shard, plane, Arc::new(Nobody)).await?;
        lives.push(Life::new(shard, plane, other, marks.clone(), seed));
    }
    for _ in 0..=RESTARTS {
        let node = open(&dir.join("root").join(STORE))?;
        let mut running = JoinSet::new();
        for mut life in lives.drain(..) {
            let replica = node.shard(life.shard, life.plane, Arc::new(Nobody)).await?;
            running.spawn(async move {
                life.live(replica, rounds / (RESTARTS + 1)).await?;
                anyhow::Ok(life)
            });
        }
        while let Some(life) = running.join_next().await {
            lives.push(life??);
        }
    }
    Ok(())
}

/// One shard's replica over its restarts.
struct Life {
    shard: ShardId,
    plane: Plane,
    /// The replica of another node, which holds everything that was ever applied here.
    twin: Shard,
    /// Entries the twin has not applied.
    ahead: BTreeMap<u64, Entry>,
    marks: Marks,
    random: StdRng,
    term: u64,
    last: u64,
    applied: u64,
    purged: u64,
    /// The term of the last snapshot installed; entries behind it are in `ahead`.
    installed_term: u64,
}

impl Life {
    fn new(shard: ShardId, plane: Plane, twin: Shard, marks: Marks, seed: u64) -> Self {
        Self {
            shard,
            plane,
            twin,
            ahead: BTreeMap::new(),
            marks,
            random: StdRng::seed_from_u64(seed ^ u64::from(shard.0).rotate_left(32)),
            term: 1,
            last: 0,
            applied: 0,
            purged: 0,
            installed_term: 0,
        }
    }

    async fn live(&mut self, mut replica: Shard, rounds: u64) -> Result<()> {
        let end = replica.log.get_log_state().await?.last_log_id;
        ensure!(
            end.map_or(0, |end| end.index) == self.last && replica.reader.applied_index() == self.applied,
            "the store was closed in order and opened with less"
        );
        // A restarted replica raises its term before it takes part again.
        self.vote(&mut replica).await?;
        let mut flying = JoinSet::new();
        for _ in 0..rounds {
            match self.random.random_range(0..100) {
                0..60 => {
                    let entries = self.random.random_range(1..=4);
                    self.append(&mut replica, entries, &mut flying).await?;
                }
                60..85 => self.apply(&mut replica).await?,
                85..89 => self.vote(&mut replica).await?,
                89..93 => self.cut(&mut replica, &mut flying).await?,
                93..97 => self.purge(&mut replica).await?,
                _ => self.install(&mut replica).await?,
            }
            if flying.len() >= IN_FLIGHT {
                flying.join_next().await.context("one flies")???;
            }
        }
        while let Some(landed) = flying.join_next().await {
            landed??;
        }
        Ok(())
    }

    /// A new entry behind the last, marked as issued.
    fn issue(&mut self) -> Result<Entry> {
        let index = self.last + 1;
        let (salt, size) = (self.random.random(), self.random.random_range(16..400));
        let command = shards::command(self.plane, index, salt, size);
        self.marks.put(&Mark::Issue {
            shard: self.shard.0,
            term: self.term,
            index,
            command: command.to_vec(),
        })?;
        let entry = entry(self.term, index, command);
        self.last = index;
        self.ahead.insert(index, entry.clone());
        Ok(entry)
    }

    /// Appends entries; that they are durable is marked whenever it is reported.
    async fn append(
        &mut self,
        replica: &mut Shard,
        count: usize,
        flying: &mut JoinSet<Result<()>>,
    ) -> Result<()> {
        let first = self.last + 1;
        let entries = (0..count).map(|_| self.issue()).collect::<Result<Vec<Entry>>>()?;
        let (done, durable) = TypeConfig::oneshot();
        replica.log.append(entries, IOFlushed::signal(done)).await?;
        let (marks, mark) = (
            self.marks.clone(),
            Mark::Durable {
                shard: self.shard.0,
                term: self.term,
                first,
                last: self.last,
            },
        );
        flying.spawn(async move {
            durable.await.context("the store was closed")??;
            Ok(marks.put(&mark)?)
        });
        Ok(())
    }

    /// Applies some of the log. Openraft saves what is committed first, and waits for neither.
    async fn apply(&mut self, replica: &mut Shard) -> Result<()> {
        if self.applied == self.last {
            return Ok(());
        }
        let upto = self.random.random_range(self.applied + 1..=self.last);
        let entries: Vec<Entry> = self
            .ahead
            .range(self.applied + 1..=upto)
            .map(|(_, entry)| entry.clone())
            .collect();
        let last = entries.last().context("entries")?.log_id;
        self.marks.put(&Mark::Applying {
            shard: self.shard.0,
            upto,
        })?;
        replica.log.save_committed(Some(last)).await?;
        let entries = entries.into_iter().map(|entry| Ok((entry, None)));
        replica.state_machine.apply(stream::iter(entries)).await?;
        self.applied = upto;
        Ok(())
    }

    async fn vote(&mut self, replica: &mut Shard) -> Result<()> {
        self.term += 1;
        for committed in [false, true] {
            self.marks.put(&Mark::Voting {
                shard: self.shard.0,
                term: self.term,
                committed,
            })?;
            let vote = if committed {
                Vote::new_committed(self.term, NODE)
            } else {
                Vote::new(self.term, NODE)
            };
            replica.log.save_vote(&vote).await?;
            self.marks.put(&Mark::Voted { shard: self.shard.0 })?;
        }
        Ok(())
    }

    /// Another leader's log is taken over: the end of this one goes.
    async fn cut(&mut self, replica: &mut Shard, flying: &mut JoinSet<Result<()>>) -> Result<()> {
        if self.applied == self.last {
            return Ok(());
        }
        let from = self.random.random_range(self.applied + 1..=self.last);
        self.vote(replica).await?;
        self.marks.put(&Mark::Cut {
            shard: self.shard.0,
            from,
        })?;
        let before = (from > 1).then(|| log_id(self.term_of(from - 1), from - 1));
        replica.log.truncate_after(before).await?;
        self.ahead.split_off(&from);
        self.last = from - 1;
        self.append(replica, 1, flying).await
    }

    /// The term of an entry at or behind the last snapshot installed.
    fn term_of(&self, index: u64) -> u64 {
        self.ahead
            .get(&index)
            .map_or(self.installed_term, |entry| entry.log_id.leader_id.term)
    }

    /// A snapshot is built, which waits until the state is durable, and the log behind it goes.
    async fn purge(&mut self, replica: &mut Shard) -> Result<()> {
        let keep = self.random.random_range(0..8);
        let upto = self.applied.saturating_sub(keep);
        if upto <= self.purged {
            return Ok(());
        }
        let mut builder = replica.state_machine.get_snapshot_builder().await;
        builder.build_snapshot().await?;
        let upto = log_id(self.term_of(upto), upto);
        replica.log.purge(upto).await?;
        self.purged = upto.index;
        Ok(())
    }

    /// The replica has fallen behind: entries it never had in its log arrive as a snapshot.
    async fn install(&mut self, replica: &mut Shard) -> Result<()> {
        for _ in 0..self.random.random_range(1..=6) {
            self.issue()?;
        }
        let index = self.last;
        let ahead = std::mem::take(&mut self.ahead);
        let known = self.twin.reader.applied_index();
        let entries = ahead
            .into_values()
            .filter(|entry| entry.log_id.index > known)
            .map(|entry| Ok((entry, None)));
        self.twin.state_machine.apply(stream::iter(entries)).await?;
        let mut builder = self.twin.state_machine.get_snapshot_builder().await;
        let spooled = builder.build_snapshot().await?.snapshot.spool().await?;
        let mut receiver = replica.reader.receive_snapshot()?;
        let mut chunks = spooled.chunks();
        while let Some(chunk) = chunks.next().await? {
            receiver.write(chunk).await?;
        }
        let snapshot = receiver.finish().await?;
        self.marks.put(&Mark::Installing {
            shard: self.shard.0,
            index,
        })?;
        let meta = snapshot.meta.clone();
        replica
            .state_machine
            .install_snapshot(&meta, snapshot.snapshot)
            .await?;
        self.marks.put(&Mark::Installed { shard: self.shard.0 })?;
        replica.log.purge(log_id(self.term, index)).await?;
        self.applied = index;
        self.purged = index;
        self.installed_term = self.term;
        Ok(())
    }
}

fn entry(term: u64, index: u64, command: Bytes) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(CommandBytes(command)),
    }
}
