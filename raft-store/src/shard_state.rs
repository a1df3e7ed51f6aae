//! The records of one shard as of the last applied entry: what the store holds, overlaid with what
//! was applied and is not durable yet.
//!
//! Records live under a *generation*. Which generation counts, and up to which entry, is said by one
//! record, written in the same transaction as the state it describes. A snapshot is installed by
//! writing the next generation beside the current one and then that one record: a crash at any
//! moment leaves the whole old state or the whole new one. Leftovers of other generations are
//! deleted when the shard is opened.
//!
//! While the overlay's lock is held for reading, the merged view stands still: an entry reaches the
//! store only after it is in the overlay, and leaves the overlay only under the lock for writing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use throng_planted::planted;
use throng_protocol::ids::ShardId;
use throng_protocol::placement::Plane;
use throng_state::{View, ViewError};
use tokio::sync::watch;

use crate::health::Health;
use crate::keys::{self, Meta};
use crate::log_store::{decode_meta, load_meta};
use crate::record;
use crate::spool::Spool;
use crate::store::{Batch, Limit, Store, StoreFailure, Table, submit_and_wait};
use crate::types::{LogId, StoredMembership};

/// Bytes applied and not durable before `apply` waits for the disk. Enough for seconds of a full-speed
/// shard, so that it bounds memory (per shard), and a leader whose own disk hangs goes on as long as a
/// quorum of others syncs.
pub const UNFLUSHED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Records deleted per batch when a generation is cleared: a few milliseconds of the writer.
const CLEAR_RECORDS: usize = 4_096;
/// Bytes looked at per batch when a generation is cleared.
const CLEAR_BYTES: usize = 1024 * 1024;

/// Which state a shard has; the one record that decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// The generation that counts.
    pub generation: u32,
    /// The last applied entry.
    pub log_id: Option<LogId>,
    /// The last applied membership.
    pub membership: StoredMembership,
}

/// A record applied and not durable yet.
#[derive(Debug)]
pub(crate) struct Unflushed {
    /// The batch it goes to the disk with.
    pub batch: u64,
    /// `None` for a deleted record.
    pub value: Option<Bytes>,
}

#[derive(Debug, Default)]
pub(crate) struct Live {
    pub applied: Applied,
    pub overlay: BTreeMap<Bytes, Unflushed>,
}

/// How far the disk is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flushed {
    pub applied: Applied,
    pub waiting_bytes: usize,
    pub failure: Option<StoreFailure>,
}

/// What the handles of one shard's state share.
#[derive(Debug)]
pub(crate) struct ShardState {
    pub shard: ShardId,
    pub plane: Plane,
    pub store: Arc<dyn Store>,
    pub health: Arc<Health>,
    pub spool: Spool,
    pub live: RwLock<Live>,
    pub flushed: watch::Sender<Flushed>,
    /// Batches that are durable and whose records may leave the overlay.
    pub durable: Mutex<Vec<(u64, BTreeSet<Bytes>)>>,
}

impl ShardState {
    /// Loads the durable state of a shard. Blocks.
    pub fn load(
        shard: ShardId,
        plane: Plane,
        store: Arc<dyn Store>,
        health: Arc<Health>,
        spool: Spool,
    ) -> io::Result<Self> {
        let mut applied: Applied = match load_meta(&*store, &health, shard, Meta::Applied)? {
            Some(payload) => decode_meta(payload)?,
            None => Applied::default(),
        };
        if let (true, Some(log_id)) = (planted!("applied_twice"), &mut applied.log_id) {
            log_id.index = log_id.index.saturating_sub(16);
        }
        Ok(Self {
            shard,
            plane,
            store,
            health,
            spool,
            flushed: watch::Sender::new(Flushed {
                applied: applied.clone(),
                ..Flushed::default()
            }),
            live: RwLock::new(Live {
                applied,
                overlay: BTreeMap::new(),
            }),
            durable: Mutex::default(),
        })
    }

    /// Deletes what interrupted installs have left of other generations.
    pub async fn clear_leftovers(&self) -> io::Result<()> {
        let (shard, generation) = (self.shard, self.live.read().applied.generation);
        let before = Leftovers::new(keys::generation(shard, 0), keys::generation(shard, generation));
        let after = Leftovers::new(keys::generation_end(shard, generation), keys::state_end(shard));
        for mut leftovers in [before, after] {
            loop {
                let store = Arc::clone(&self.store);
                let next = move || Ok((leftovers.next_batch(&*store)?, leftovers));
                let (batch, left) = self.spool.run(next).await?;
                let Some(batch) = batch else {
                    break;
                };
                leftovers = left;
                submit_and_wait(&*self.store, batch).await?;
            }
        }
        Ok(())
    }

    /// Runs `work` over a view that stands still.
    pub fn with_view<R>(&self, work: impl FnOnce(&LiveView<'_>) -> R) -> R {
        let live = self.live.read();
        work(&LiveView {
            state: self,
            live: &live,
        })
    }

    /// Drops what is durable from the overlay.
    pub fn trim(&self, live: &mut Live) {
        let durable = std::mem::take(&mut *self.durable.lock());
        for (number, keys) in durable {
            for key in keys {
                // A later batch may have changed the record again; that one is not durable yet.
                if live
                    .overlay
                    .get(&key)
                    .is_some_and(|unflushed| unflushed.batch == number)
                {
                    live.overlay.remove(&key);
                }
            }
        }
    }

    /// Waits until the disk is as far as `reached` wants.
    pub async fn wait_flushed(&self, mut reached: impl FnMut(&Flushed) -> bool) -> io::Result<Flushed> {
        let mut flushed = self.flushed.subscribe();
        let now = flushed
            .wait_for(|flushed| flushed.failure.is_some() || reached(flushed))
            .await
            .map_err(|_| io::Error::from(crate::store::closed()))?
            .clone();
        match now.failure {
            Some(failure) => Err(failure.into()),
            None => Ok(now),
        }
    }
}

/// Deletes a range of state records in bounded batches.
pub(crate) struct Leftovers {
    from: Bytes,
    to: Bytes,
}

impl Leftovers {
    pub fn new(from: Bytes, to: Bytes) -> Self {
        Self { from, to }
    }

    /// The next batch; `None` when nothing is left. Earlier batches need not be durable yet.
    pub fn next_batch(&mut self, store: &dyn Store) -> Result<Option<Batch>, StoreFailure> {
        let limit = Limit {
            records: CLEAR_RECORDS,
            bytes: CLEAR_BYTES,
        };
        let records = store.scan(Table::State, &self.from, &self.to, limit)?;
        let Some((last, _)) = records.last() else {
            return Ok(None);
        };
        let next = keys::successor(last);
        let mut batch = Batch::new();
        batch.delete_range(
            Table::State,
            std::mem::replace(&mut self.from, next.clone()),
            next,
        );
        Ok(Some(batch))
    }
}

/// A shard's records while the overlay's lock is held.
#[derive(Debug)]
pub(crate) struct LiveView<'a> {
    pub state: &'a ShardState,
    pub live: &'a Live,
}

impl LiveView<'_> {
    fn check(&self) -> Result<(), ViewError> {
        self.state.health.check().map_err(ViewError)
    }

    fn unflushed(&self, from: &[u8], to: &[u8]) -> Vec<(&Bytes, &Unflushed)> {
        if from >= to {
            return Vec::new();
        }
        self.live
            .overlay
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
            .collect()
    }

    fn open(&self, key: &Bytes, record: &Bytes) -> Result<Bytes, ViewError> {
        record::open(Table::State, key, record)
            .map_err(|error| ViewError(self.state.health.damaged(&*self.state.store, &error)))
    }

    /// Stored records of a range, as the state machine sees them.
    fn stored(
        &self,
        from: &[u8],
        to: &[u8],
        records: usize,
        back: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        let (shard, generation) = (self.state.shard, self.live.applied.generation);
        let (from, to) = (
            keys::state(shard, generation, from),
            keys::state(shard, generation, to),
        );
        let limit = Limit::records(records);
        let found = if back {
            self.state.store.scan_back(Table::State, &from, &to, limit)
        } else {
            self.state.store.scan(Table::State, &from, &to, limit)
        };
        let found = found.map_err(|failure| ViewError(failure.to_string()))?;
        found
            .iter()
            .map(|(key, record)| Ok((keys::state_inner(key), self.open(key, record)?)))
            .collect()
    }

    /// Merges stored and unflushed records; `back` goes from the end.
    fn merge(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
        back: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        self.check()?;
        let mut unflushed = self.unflushed(from, to);
        if !back {
            // Taken from the end, the next one first.
            unflushed.reverse();
        }
        let (mut from, mut to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        let mut found = Vec::new();
        let mut stored = std::collections::VecDeque::new();
        let mut more = true;
        while found.len() < limit {
            if stored.is_empty() && more && from < to {
                let wanted = limit - found.len();
                let page = self.stored(&from, &to, wanted, back)?;
                more = page.len() == wanted;
                if let Some((last, _)) = page.last() {
                    if back {
                        to = last.clone();
                    } else {
                        from = keys::successor(last);
                    }
                }
                stored.extend(page);
            }
            let order = match (stored.front(), unflushed.last()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((key, _)), Some((newer, _))) if back => newer.as_ref().cmp(key.as_ref()),
                (Some((key, _)), Some((newer, _))) => key.as_ref().cmp(newer.as_ref()),
            };
            if order.is_lt() {
                found.extend(stored.pop_front());
                continue;
            }
            if order.is_eq() {
                stored.pop_front();
            }
            if let Some((
                key,
                Unflushed {
                    value: Some(value), ..
                },
            )) = unflushed.pop()
            {
                found.push((key.clone(), value.clone()));
            }
        }
        Ok(found)
    }
}

impl View for LiveView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.check()?;
        if let Some(unflushed) = self.live.overlay.get(key) {
            return Ok(unflushed.value.clone());
        }
        let key = keys::state(self.state.shard, self.live.applied.generation, key);
        let found = self.state.store.get(Table::State, &key);
        match found.map_err(|failure| ViewError(failure.to_string()))? {
            Some(record) => self.open(&key, &record).map(Some),
            None => Ok(None),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        self.merge(from, to, limit, false)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        self.merge(from, to, limit, true)
    }
}
