//! openraft's log on the [`Store`].
//!
//! Vote, committed, purged and the last log id are kept in memory; so is the tail of the log: what
//! is not durable yet must be, and a bounded part behind it, which serves replication and `apply`
//! without a read. Writes go to the node's one writer; the order of submission is the order on the
//! disk, so a purge never gets ahead of the state it relies on.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use throng_planted::planted;
use throng_protocol::ids::ShardId;

use crate::entry;
use crate::health::Health;
use crate::keys::{self, Meta};
use crate::record::{self, RecordError};
use crate::store::{Batch, Limit, Store, Table, submit_and_wait};
use crate::types::{Entry, LogId, TypeConfig, Vote};

/// Bytes of durable entries kept in memory per shard: some thousand messages, enough for followers
/// that are level and for `apply`, which read what was just written.
pub const TAIL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of one replication read at most (one entry is always returned). Keeps an append below the
/// transport's comfortable frame and bounds what a lagging follower makes the leader hold.
pub const READ_BYTES_MAX: usize = 1024 * 1024;

/// What an entry costs in memory besides its payload.
const ENTRY_OVERHEAD: usize = 96;

struct TailEntry {
    /// Which append it came with; durable when that append is.
    append: u64,
    entry: Entry,
}

#[derive(Default)]
struct Inner {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// The first index of the log, behind `purged`; meaningless while the log is empty.
    first: u64,
    last: Option<LogId>,
    /// The end of the log, contiguous up to `last`. Everything before it is durable.
    tail: VecDeque<TailEntry>,
    tail_bytes: usize,
    appends: u64,
    durable_append: u64,
}

impl Inner {
    /// Behind the purged part.
    fn kept_from(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    /// Behind the last index a reader may get.
    fn end(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    fn push(&mut self, append: u64, entry: Entry) {
        if self.first >= self.end() {
            self.first = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.tail_bytes += entry::weight(&entry) + ENTRY_OVERHEAD;
        self.tail.push_back(TailEntry { append, entry });
    }

    fn forget(&mut self, gone: Option<TailEntry>) {
        if let Some(gone) = gone {
            self.tail_bytes -= entry::weight(&gone.entry) + ENTRY_OVERHEAD;
        }
    }

    /// Drops durable entries above the budget, oldest first; the last one stays.
    fn evict(&mut self) {
        while self.tail_bytes > TAIL_BYTES_MAX
            && self.tail.len() > 1
            && self
                .tail
                .front()
                .is_some_and(|front| front.append <= self.durable_append)
        {
            let front = self.tail.pop_front();
            self.forget(front);
        }
    }
}

struct Shared {
    shard: ShardId,
    store: Arc<dyn Store>,
    health: Arc<Health>,
    inner: Mutex<Inner>,
}

/// The log of one shard's replica, for openraft.
pub struct LogStore {
    shared: Arc<Shared>,
}

/// Reads a shard's log; as many as needed.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStore")
            .field("shard", &self.shared.shard)
            .finish_non_exhaustive()
    }
}

impl Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("shard", &self.shared.shard)
            .finish_non_exhaustive()
    }
}

impl LogStore {
    /// Loads what the store holds of a shard's log.
    pub(crate) fn load(shard: ShardId, store: Arc<dyn Store>, health: Arc<Health>) -> io::Result<Self> {
        let read = |which| load_meta(&*store, &health, shard, which);
        let mut inner = Inner {
            vote: read(Meta::Vote)?.map(decode_meta).transpose()?,
            committed: read(Meta::Committed)?.map(decode_meta).transpose()?,
            purged: read(Meta::Purged)?.map(decode_meta).transpose()?,
            ..Inner::default()
        };
        let (from, to) = (keys::log(shard, inner.kept_from()), keys::log_end(shard));
        let last = store.scan_back(Table::Log, &from, &to, Limit::records(1))?;
        inner.last = match last.first() {
            Some((key, record)) => Some(open_entry(&*store, &health, key, record)?.log_id),
            None => inner.purged,
        };
        let first = store.scan(Table::Log, &from, &to, Limit::records(1))?;
        let first = first.first().and_then(|(key, _)| keys::log_index(key));
        inner.first = first.unwrap_or(inner.kept_from());
        Ok(Self {
            shared: Arc::new(Shared {
                shard,
                store,
                health,
                inner: Mutex::new(inner),
            }),
        })
    }

    /// Submits without waiting: a later write of this shard that is awaited or acknowledged comes
    /// behind it, and if it fails the store has failed.
    fn submit(&self, batch: Batch) {
        self.shared.store.submit(batch, Box::new(|_| {}));
    }

    fn meta_batch(&self, which: Meta, value: &impl Serialize) -> Batch {
        let mut batch = Batch::new();
        put_meta(&mut batch, self.shared.shard, which, value);
        batch
    }
}

/// Adds a small record to a batch.
pub(crate) fn put_meta(batch: &mut Batch, shard: ShardId, which: Meta, value: &impl Serialize) {
    let key = keys::meta(shard, which);
    let payload =
        postcard::to_stdvec(value).expect("invariant: these types hold no sequences of unknown length");
    let record = record::seal(&key, &payload);
    batch.put(Table::Meta, key, record);
}

/// A small record's payload.
pub(crate) fn load_meta(
    store: &dyn Store,
    health: &Health,
    shard: ShardId,
    which: Meta,
) -> io::Result<Option<bytes::Bytes>> {
    let key = keys::meta(shard, which);
    let Some(record) = store.get(Table::Meta, &key)? else {
        return Ok(None);
    };
    record::open(Table::Meta, &key, &record)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, health.damaged(store, &error)))
}

/// Decodes a small record's payload.
pub(crate) fn decode_meta<T: DeserializeOwned>(payload: bytes::Bytes) -> io::Result<T> {
    postcard::from_bytes(&payload)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

fn open_entry(store: &dyn Store, health: &Health, key: &[u8], record: &bytes::Bytes) -> io::Result<Entry> {
    let damaged =
        |error: RecordError| io::Error::new(io::ErrorKind::InvalidData, health.damaged(store, &error));
    let payload = record::open(Table::Log, key, record).map_err(damaged)?;
    let entry =
        entry::decode(payload).map_err(|error| damaged(RecordError::new(Table::Log, key, error.0)))?;
    if keys::log_index(key) != Some(entry.log_id.index) {
        let reason = format!("it holds the entry of index {}", entry.log_id.index);
        return Err(damaged(RecordError::new(Table::Log, key, reason)));
    }
    Ok(entry)
}

impl LogReader {
    /// Entries `start..end` as far as the log holds them, at most `bytes` of payload but at least one.
    fn entries(&self, start: u64, end: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let shared = &*self.shared;
        shared.health.check_io()?;
        let (start, end, mut recent) = {
            let inner = shared.inner.lock();
            let (start, end) = (start.max(inner.first), end.min(inner.end()));
            if start >= end {
                return Ok(Vec::new());
            }
            let tail_from = inner
                .tail
                .front()
                .map_or(inner.end(), |front| front.entry.log_id.index);
            let recent: Vec<Entry> = inner
                .tail
                .range(
                    usize::try_from(start.saturating_sub(tail_from))
                        .unwrap_or(usize::MAX)
                        .min(inner.tail.len())
                        ..usize::try_from(end.saturating_sub(tail_from))
                            .unwrap_or(usize::MAX)
                            .min(inner.tail.len()),
                )
                .map(|tail| tail.entry.clone())
                .collect();
            (start, end, recent)
        };
        let stored_end = recent.first().map_or(end, |first| first.log_id.index);
        let mut entries = Vec::new();
        if start < stored_end {
            let limit = Limit {
                records: usize::MAX,
                bytes,
            };
            let (from, to) = (
                keys::log(shared.shard, start),
                keys::log(shared.shard, stored_end),
            );
            for (key, record) in shared.store.scan(Table::Log, &from, &to, limit)? {
                entries.push(open_entry(&*shared.store, &shared.health, &key, &record)?);
            }
        }
        let complete = entries.len() as u64 == stored_end - start;
        if complete {
            entries.append(&mut recent);
        } else if bytes == usize::MAX || entries.is_empty() {
            self.explain_missing(start, entries.first())?;
        }
        cut(&mut entries, bytes);
        contiguous(&entries)
            .map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, shared.health.stop(&reason)))?;
        Ok(entries)
    }

    /// Entries that were missing in the store: fine if they were purged while this read ran.
    fn explain_missing(&self, start: u64, found: Option<&Entry>) -> io::Result<()> {
        let first = self.shared.inner.lock().first;
        if first > start && found.is_none_or(|entry| entry.log_id.index <= first) {
            return Ok(());
        }
        let reason = format!(
            "shard {}: log entries from {start} are missing",
            self.shared.shard
        );
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            self.shared.health.stop(&reason),
        ))
    }
}

/// Cuts a list of entries to a number of bytes, leaving at least one.
fn cut(entries: &mut Vec<Entry>, bytes: usize) {
    let mut sum = 0_usize;
    let keep = entries
        .iter()
        .take_while(|entry| {
            let before = sum;
            sum = sum.saturating_add(entry::weight(entry) + ENTRY_OVERHEAD);
            before < bytes
        })
        .count();
    entries.truncate(keep.max(1));
}

fn contiguous(entries: &[Entry]) -> Result<(), String> {
    for pair in entries.windows(2) {
        if pair[0].log_id.index + 1 != pair[1].log_id.index {
            return Err(format!(
                "log entries between {} and {} are missing",
                pair[0].log_id.index, pair[1].log_id.index
            ));
        }
    }
    Ok(())
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.entries(start, end, READ_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.inner.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let inner = self.shared.inner.lock();
        Ok(LogState {
            last_purged_log_id: inner.purged,
            last_log_id: inner.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader {
            shared: Arc::clone(&self.shared),
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.shared.health.check_io()?;
        if !planted!("vote_not_saved") {
            submit_and_wait(&*self.shared.store, self.meta_batch(Meta::Vote, vote)).await?;
        }
        self.shared.inner.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // Not awaited: it only makes a restart apply up to a fresh point.
        if let Some(committed) = committed {
            self.submit(self.meta_batch(Meta::Committed, &committed).lingering());
        }
        self.shared.inner.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.inner.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.shared.health.check_io()?;
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.shared.store.room().await;
        let mut batch = Batch::new();
        let append = {
            let mut inner = self.shared.inner.lock();
            inner.appends += 1;
            let append = inner.appends;
            for entry in entries {
                if let Some(tail) = inner.tail.back()
                    && tail.entry.log_id.index + 1 != entry.log_id.index
                {
                    let reason = format!(
                        "entry {} was appended behind {}",
                        entry.log_id.index, tail.entry.log_id.index
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
                }
                let key = keys::log(self.shared.shard, entry.log_id.index);
                let record = record::seal(&key, &entry::encode(&entry));
                batch.put(Table::Log, key, record);
                inner.push(append, entry);
            }
            append
        };
        let shared = Arc::clone(&self.shared);
        let durable = move |result: Result<(), crate::store::StoreFailure>| {
            if result.is_ok() {
                let mut inner = shared.inner.lock();
                inner.durable_append = append;
                inner.evict();
            }
            callback.io_completed(result.map_err(io::Error::from));
        };
        if planted!("ack_before_sync") {
            self.shared.store.submit(batch, Box::new(|_| {}));
            durable(Ok(()));
            return Ok(());
        }
        self.shared.store.submit(batch, Box::new(durable));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let keep_end = last_log_id.map_or(0, |last| last.index + 1);
        {
            let mut inner = self.shared.inner.lock();
            if keep_end >= inner.end() {
                // Past the end: nothing to remove, and the last log id is not what was asked.
                return Ok(());
            }
            while inner
                .tail
                .back()
                .is_some_and(|tail| tail.entry.log_id.index >= keep_end)
            {
                let back = inner.tail.pop_back();
                inner.forget(back);
            }
            inner.last = last_log_id.max(inner.purged);
            inner.first = inner.first.min(inner.end());
        }
        let mut batch = Batch::new();
        let shard = self.shared.shard;
        batch.delete_range(Table::Log, keys::log(shard, keep_end), keys::log_end(shard));
        self.submit(batch);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut inner = self.shared.inner.lock();
            if inner.purged >= Some(log_id) {
                return Ok(());
            }
            inner.purged = Some(log_id);
            inner.first = inner.first.max(log_id.index + 1);
            // Behind the end: a snapshot was installed that is ahead of the log.
            inner.last = inner.last.max(Some(log_id));
            while inner
                .tail
                .front()
                .is_some_and(|tail| tail.entry.log_id.index <= log_id.index)
            {
                let front = inner.tail.pop_front();
                inner.forget(front);
            }
        }
        let mut batch = self.meta_batch(Meta::Purged, &log_id);
        let shard = self.shared.shard;
        batch.delete_range(
            Table::Log,
            keys::log(shard, 0),
            keys::log(shard, log_id.index + 1),
        );
        self.submit(batch);
        Ok(())
    }
}
