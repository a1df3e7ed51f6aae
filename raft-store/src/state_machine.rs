//! openraft's state machine on the [`Store`](crate::store::Store): applies in memory, writes behind.
//!
//! `apply` runs the pure function of `throng-state`, puts its records into the overlay, answers,
//! and hands the records and the applied position to the node's writer as one batch. It never waits
//! for that batch: openraft does not merge applies, so waiting would cost a sync per few entries.
//! What is lost in a crash is applied again from the log, which keeps it until it is durable.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use throng_planted::planted;
use throng_protocol::ids::{AppId, ChannelNumber, GroupId, Seq, ShardId};
use throng_state::{Effect, Outgoing};

use crate::keys::{self, Meta, STATE_KEY_BYTES_MAX};
use crate::log_store::put_meta;
use crate::record;
use crate::shard_state::{Applied, Leftovers, ShardState, UNFLUSHED_BYTES_MAX, Unflushed};
use crate::snapshot::{RecordReader, SnapshotData, SpooledSnapshot};
use crate::store::{Batch, StoreFailure, Table, submit_and_wait};
use crate::types::{Entry, LogId, ReplyBytes, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries applied before other tasks get their turn: about a millisecond.
const APPLY_TURN: usize = 64;

/// Bytes of records after which one apply hands a batch to the writer and goes on.
const APPLY_BATCH_BYTES: usize = 1024 * 1024;

/// Bytes of records per batch while a snapshot is installed: small beside a transaction, so that
/// other shards' batches ride along.
const INSTALL_BATCH_BYTES: usize = 1024 * 1024;

/// Something applied entries want done outside the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A channel's log grew.
    Advanced {
        /// The channel.
        channel: ChannelNumber,
        /// Its last entry.
        head: Seq,
    },
    /// A group has a new fence.
    Fenced {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
    },
    /// An outbox record was added.
    Outbox(Outgoing),
}

/// Is told what was applied. Called from Raft's tasks: it must be short and must not block.
pub trait Observer: Send + Sync + 'static {
    /// Entries up to `index` were applied and can be read. `notices` are theirs, in order; entries
    /// applied again after a restart are told again.
    fn applied(&self, shard: ShardId, index: u64, notices: Vec<Notice>);

    /// A snapshot replaced the whole state, which is now that of `index`.
    fn installed(&self, shard: ShardId, index: u64);
}

/// The state machine of one shard's replica, for openraft.
pub struct StateMachine {
    state: Arc<ShardState>,
    observer: Arc<dyn Observer>,
    last_batch: u64,
}

impl std::fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateMachine")
            .field("shard", &self.state.shard)
            .finish_non_exhaustive()
    }
}

/// What was applied since the last batch went to the writer.
#[derive(Default)]
struct Round {
    keys: BTreeSet<Bytes>,
    bytes: usize,
    notices: Vec<Notice>,
    entries: usize,
}

impl StateMachine {
    pub(crate) fn new(state: Arc<ShardState>, observer: Arc<dyn Observer>) -> Self {
        Self {
            state,
            observer,
            last_batch: 0,
        }
    }

    /// Applies one entry in memory.
    fn apply_one(&self, entry: &Entry, round: &mut Round) -> io::Result<ReplyBytes> {
        self.state.health.check_io()?;
        let effects = match &entry.payload {
            EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
            EntryPayload::Normal(command) => self
                .state
                .with_view(|view| throng_state::apply(self.state.plane, view, entry.log_id.index, &command.0))
                .map_err(|error| io::Error::other(self.state.health.stop(&error.to_string())))?,
        };
        let batch = self.last_batch + 1;
        let mut reply = ReplyBytes::default();
        let mut live = self.state.live.write();
        self.state.trim(&mut live);
        for effect in effects {
            match effect {
                Effect::Put { key, value } => {
                    self.check_key(&key)?;
                    round.change(&key, value.len());
                    let value = Some(value);
                    live.overlay.insert(key, Unflushed { batch, value });
                }
                Effect::Delete { key } => {
                    self.check_key(&key)?;
                    round.change(&key, 0);
                    live.overlay.insert(key, Unflushed { batch, value: None });
                }
                Effect::Reply(bytes) => reply = ReplyBytes(bytes),
                Effect::Advanced { channel, head } => round.notices.push(Notice::Advanced { channel, head }),
                Effect::Fenced { app, group } => round.notices.push(Notice::Fenced { app, group }),
                Effect::Outbox(outgoing) => round.notices.push(Notice::Outbox(outgoing)),
            }
        }
        if let EntryPayload::Membership(membership) = &entry.payload {
            live.applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
        }
        live.applied.log_id = Some(entry.log_id);
        round.entries += 1;
        Ok(reply)
    }

    /// A key the store would refuse would fail the whole node; it stops this shard instead.
    fn check_key(&self, key: &Bytes) -> io::Result<()> {
        if key.len() > STATE_KEY_BYTES_MAX {
            let reason = format!(
                "a state key has {} bytes, at most {STATE_KEY_BYTES_MAX} fit",
                key.len()
            );
            return Err(io::Error::other(self.state.health.stop(&reason)));
        }
        Ok(())
    }

    /// Hands what was applied to the writer, and tells the observer.
    async fn flush(&mut self, round: &mut Round) -> io::Result<()> {
        let round = std::mem::take(round);
        if round.entries == 0 {
            return Ok(());
        }
        self.state.store.room().await;
        if let Some(failure) = self.state.store.failure().borrow().clone() {
            // What cannot be stored any more is not applied any further, and the replica stops.
            return Err(failure.into());
        }
        self.last_batch += 1;
        let number = self.last_batch;
        let (batch, applied) = self.batch_of(&round.keys);
        let bytes = batch.bytes();
        self.state
            .flushed
            .send_modify(|flushed| flushed.waiting_bytes += bytes);
        // What lingers must not keep a store open that nobody else uses: whoever opens it next would
        // find it in use.
        let state = Arc::downgrade(&self.state);
        let index = applied.log_id.map_or(0, |log_id| log_id.index);
        let durable = move |result| {
            if let Some(state) = state.upgrade() {
                on_durable(&state, number, round.keys, bytes, applied, result);
            }
        };
        self.state.store.submit(batch, Box::new(durable));
        self.observer.applied(self.state.shard, index, round.notices);
        self.state
            .wait_flushed(|flushed| flushed.waiting_bytes < UNFLUSHED_BYTES_MAX)
            .await
            .map(drop)
    }

    fn batch_of(&self, changed: &BTreeSet<Bytes>) -> (Batch, Applied) {
        let live = self.state.live.read();
        let mut batch = Batch::new();
        for key in changed {
            let full = keys::state(self.state.shard, live.applied.generation, key);
            match live
                .overlay
                .get(key)
                .and_then(|unflushed| unflushed.value.as_ref())
            {
                Some(value) => {
                    let record = record::seal(&full, value);
                    batch.put(Table::State, full, record);
                }
                None => batch.delete(Table::State, full),
            }
        }
        put_meta(&mut batch, self.state.shard, Meta::Applied, &live.applied);
        (batch.lingering(), live.applied.clone())
    }

    /// Writes a snapshot's records under a generation that does not count yet.
    async fn stage(&self, spooled: &SpooledSnapshot, generation: u32) -> io::Result<()> {
        let mut records = spooled.records()?;
        loop {
            self.state.store.room().await;
            let shard = self.state.shard;
            let next = move || {
                let batch = next_batch(&mut records, shard, generation)?;
                Ok((batch, records))
            };
            let (batch, left) = spooled.run(next).await?;
            if batch.is_empty() {
                return Ok(());
            }
            records = left;
            // Not awaited: the record that makes this generation count comes behind it.
            self.state.store.submit(batch, Box::new(|_| {}));
        }
    }

    async fn clear(&self, generation: u32) -> io::Result<()> {
        let shard = self.state.shard;
        let mut leftovers = Leftovers::new(
            keys::generation(shard, generation),
            keys::generation_end(shard, generation),
        );
        while let Some(batch) = leftovers.next_batch(&*self.state.store)? {
            submit_and_wait(&*self.state.store, batch).await?;
        }
        Ok(())
    }
}

impl Round {
    fn change(&mut self, key: &Bytes, value: usize) {
        self.bytes += key.len() + value;
        self.keys.insert(key.clone());
    }
}

fn next_batch(records: &mut RecordReader, shard: ShardId, generation: u32) -> io::Result<Batch> {
    let mut batch = Batch::new();
    while batch.bytes() < INSTALL_BATCH_BYTES {
        let Some((key, value)) = records.next()? else {
            break;
        };
        let key = keys::state(shard, generation, &key);
        let record = record::seal(&key, &value);
        batch.put(Table::State, key, record);
    }
    Ok(batch)
}

/// A batch of applied records is durable, or will never be. Runs on the node's writer, which must
/// not wait for a reader of one shard.
fn on_durable(
    state: &ShardState,
    number: u64,
    keys: BTreeSet<Bytes>,
    bytes: usize,
    applied: Applied,
    result: Result<(), StoreFailure>,
) {
    if result.is_ok() {
        state.durable.lock().push((number, keys));
        if let Some(mut live) = state.live.try_write() {
            state.trim(&mut live);
        }
    }
    state.flushed.send_modify(|flushed| {
        flushed.waiting_bytes -= bytes;
        match result {
            Ok(()) => flushed.applied = applied,
            Err(failure) => flushed.failure = Some(failure),
        }
    });
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let live = self.state.live.read();
        Ok((live.applied.log_id, live.applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut round = Round::default();
        while let Some(next) = entries.next().await {
            let applied = next.and_then(|(entry, responder)| {
                let reply = self.apply_one(&entry, &mut round)?;
                if let Some(responder) = responder {
                    responder.send(reply);
                }
                Ok(())
            });
            if applied.is_err() || round.bytes >= APPLY_BATCH_BYTES {
                // What was answered before an error is written all the same.
                self.flush(&mut round).await?;
            }
            applied?;
            if round.entries.is_multiple_of(APPLY_TURN) {
                // A replica that catches up has thousands of entries ready at once; the heartbeats of
                // all shards share these threads.
                tokio::task::yield_now().await;
            }
        }
        self.flush(&mut round).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            upto: self.state.live.read().applied.log_id,
            state: Arc::clone(&self.state),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        self.state.health.check_io()?;
        let spooled = snapshot.spool().await?;
        if spooled.meta() != meta {
            // Records newer than what openraft believes would be applied twice.
            let reason = format!("a snapshot of {} was announced as {meta}", spooled.meta());
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let old = self.state.live.read().applied.generation;
        let applied = Applied {
            generation: old.wrapping_add(1),
            log_id: meta.last_log_id,
            membership: meta.last_membership.clone(),
        };
        // An earlier install may have failed half-way without a restart.
        self.clear(applied.generation).await?;
        self.stage(&spooled, applied.generation).await?;
        let mut decide = Batch::new();
        put_meta(&mut decide, self.state.shard, Meta::Applied, &applied);
        submit_and_wait(&*self.state.store, decide).await?;
        {
            let mut live = self.state.live.write();
            live.applied = applied.clone();
            if !planted!("install_keeps_overlay") {
                live.overlay.clear();
            }
        }
        self.state
            .flushed
            .send_modify(|flushed| flushed.applied = applied);
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        self.observer.installed(self.state.shard, index);
        self.clear(old).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let applied = self.state.flushed.borrow().applied.clone();
        Ok(applied.log_id.map(|_| snapshot_of(&self.state, applied)))
    }
}

fn snapshot_of(state: &Arc<ShardState>, applied: Applied) -> Snapshot {
    Snapshot {
        meta: SnapshotMeta {
            last_log_id: applied.log_id,
            last_membership: applied.membership,
        },
        snapshot: SnapshotData::live(Arc::clone(state)),
    }
}

/// Waits until what was applied is durable; that is the snapshot.
#[derive(Debug)]
pub struct SnapshotBuilder {
    state: Arc<ShardState>,
    upto: Option<LogId>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let flushed = self
            .state
            .wait_flushed(|flushed| flushed.applied.log_id >= self.upto)
            .await?;
        Ok(snapshot_of(&self.state, flushed.applied))
    }
}
