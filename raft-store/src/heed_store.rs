//! The [`Store`] on LMDB: one environment per node, one table each for log, meta and state.
//!
//! Full sync on every commit: neither `NO_SYNC` nor `NO_META_SYNC` (which may roll the last commit
//! back), and no `WRITE_MAP`. This file holds the only `unsafe` of the workspace.

use std::fmt;
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};
use throng_planted::planted;
use tokio::sync::watch;

use crate::folder::{self, OpenError};
use crate::metrics::StoreMetrics;
use crate::store::{
    Batch, FailureKind, Limit, OnDurable, Op, Reads, Records, Store, StoreFailure, StoreFuture, Table,
};
use crate::writer::{Medium, Writer};

/// Size of the memory map. Address space, not disk: the file grows with what it holds. Large enough
/// to never be resized, which could not be done safely with readers about.
pub const MAP_BYTES: usize = 1 << 40;

/// Read transactions at the same time. LMDB's default of 126 is below the threads a runtime may
/// use for blocking reads.
pub const READERS_MAX: u32 = 1024;

type Db = Database<'static, Raw, Raw>;

#[derive(Clone, Copy)]
struct Tables {
    log: Db,
    meta: Db,
    state: Db,
}

impl Tables {
    fn of(&self, table: Table) -> &Db {
        match table {
            Table::Log => &self.log,
            Table::Meta => &self.meta,
            Table::State => &self.state,
        }
    }
}

/// The store of one node on LMDB.
pub struct HeedStore {
    // Dropped in this order: the writer writes what is queued, then the environment closes. The
    // folder is free for others when both this and the writer's medium are gone.
    writer: Writer,
    env: Env<WithoutTls>,
    tables: Tables,
    metrics: Arc<StoreMetrics>,
    _lock: Arc<folder::FolderLock>,
}

impl fmt::Debug for HeedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeedStore")
            .field("path", &self.env.path())
            .finish_non_exhaustive()
    }
}

impl HeedStore {
    /// Opens the store in a folder, creating both. `map_bytes` is [`MAP_BYTES`] except in tests.
    pub fn open(dir: &Path, map_bytes: usize) -> Result<Self, OpenError> {
        let lock = Arc::new(folder::lock_and_check(dir)?);
        let data = dir.join("data");
        let io_error = |error| OpenError::io(dir, error);
        if !data.try_exists().map_err(io_error)? {
            create(dir, &data, map_bytes)?;
        }
        let env = open_env(&data, map_bytes).map_err(|error| OpenError::heed(&data, &error))?;
        let tables = open_tables(&env).map_err(|error| OpenError::heed(&data, &error))?;
        let metrics = Arc::new(StoreMetrics::default());
        let medium = HeedMedium {
            env: env.clone(),
            tables,
            _lock: Arc::clone(&lock),
        };
        let writer = Writer::spawn(medium, Arc::clone(&metrics)).map_err(io_error)?;
        Ok(Self {
            writer,
            env,
            tables,
            metrics,
            _lock: lock,
        })
    }
}

/// Makes an empty environment aside and gives it its name when it is durable. LMDB writes the pages
/// that make a file one of its own without a sync: after a power cut between them and the first commit
/// the file may hold zeros there, and is refused for good.
fn create(dir: &Path, data: &Path, map_bytes: usize) -> Result<(), OpenError> {
    let io_error = |error| OpenError::io(dir, error);
    let fresh = dir.join("data.new");
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        _ => fs::create_dir(&fresh).map_err(io_error)?,
    }
    let heed_error = |error| OpenError::heed(&fresh, &error);
    let env = open_env(&fresh, map_bytes).map_err(heed_error)?;
    // The first commit syncs everything before it, also the pages written above.
    open_tables(&env).map_err(heed_error)?;
    env.prepare_for_closing().wait();
    // LMDB syncs its file, not the folder entries that lead to it.
    folder::sync_dir(&fresh).map_err(io_error)?;
    fs::rename(&fresh, data).map_err(io_error)?;
    folder::sync_dir(dir).map_err(io_error)
}

#[expect(
    unsafe_code,
    reason = "opening a memory map is unsafe in heed; nothing else in the workspace is"
)]
fn open_env(data: &Path, map_bytes: usize) -> heed::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes).max_readers(READERS_MAX).max_dbs(3);
    if planted!("no_sync") {
        // SAFETY: the flag is not memory-unsafe; it gives up durability, which is the planted mistake.
        unsafe {
            options.flags(heed::EnvFlags::NO_SYNC);
        }
    }
    // SAFETY: a memory map is undefined behaviour when another process changes the file under it in
    // ways LMDB does not know. The folder is ours alone: `lock_and_check` holds an exclusive lock on
    // it for as long as the environment lives, and heed refuses to open it twice in a process. No
    // network file system is supported (docs say so). No other flag than the planted one is set.
    unsafe { options.open(data) }
}

fn open_tables(env: &Env<WithoutTls>) -> heed::Result<Tables> {
    let txn = env.write_txn()?;
    let (log, meta, state) = env
        .create_databases_and_commit(txn, |opener, txn| {
            let log = opener.create_database::<Raw, Raw>(txn, Some("log"))?;
            let meta = opener.create_database::<Raw, Raw>(txn, Some("meta"))?;
            let state = opener.create_database::<Raw, Raw>(txn, Some("state"))?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((log, meta, state)))
        })?
        .unwrap_commit();
    Ok(Tables { log, meta, state })
}

struct HeedMedium {
    env: Env<WithoutTls>,
    tables: Tables,
    _lock: Arc<folder::FolderLock>,
}

impl HeedMedium {
    fn change(&self, txn: &mut RwTxn<'_>, op: &Op) -> heed::Result<()> {
        match op {
            Op::Put { table, key, value } => self.tables.of(*table).put(txn, key, value),
            Op::Delete { table, key } => self.tables.of(*table).delete(txn, key).map(drop),
            Op::DeleteRange { table, from, to } => {
                let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
                self.tables.of(*table).delete_range(txn, &range).map(drop)
            }
        }
    }
}

impl Medium for HeedMedium {
    fn commit(&mut self, ops: &mut dyn Iterator<Item = &Op>) -> Result<(), StoreFailure> {
        let mut txn = self.env.write_txn().map_err(|error| failure(&error))?;
        for op in ops {
            self.change(&mut txn, op).map_err(|error| failure(&error))?;
        }
        txn.commit().map_err(|error| failure(&error))
    }
}

/// A store failure from LMDB's.
fn failure(error: &heed::Error) -> StoreFailure {
    let full = match error {
        heed::Error::Mdb(heed::MdbError::MapFull) => true,
        heed::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ),
        _ => false,
    };
    let kind = if full { FailureKind::Full } else { FailureKind::Io };
    StoreFailure::new(kind, error.to_string())
}

struct HeedReads<'a> {
    txn: RoTxn<'a, WithoutTls>,
    tables: Tables,
}

impl Reads for HeedReads<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreFailure> {
        let value = self
            .tables
            .of(table)
            .get(&self.txn, key)
            .map_err(|error| failure(&error))?;
        Ok(value.map(Bytes::copy_from_slice))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: Limit) -> Result<Records, StoreFailure> {
        if from >= to {
            return Ok(Records::new());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let records = self
            .tables
            .of(table)
            .range(&self.txn, &range)
            .map_err(|error| failure(&error))?;
        collect(records, limit)
    }

    fn scan_back(&self, table: Table, from: &[u8], to: &[u8], limit: Limit) -> Result<Records, StoreFailure> {
        if from >= to {
            return Ok(Records::new());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let records = self
            .tables
            .of(table)
            .rev_range(&self.txn, &range)
            .map_err(|error| failure(&error))?;
        collect(records, limit)
    }
}

fn collect<'a>(
    records: impl Iterator<Item = heed::Result<(&'a [u8], &'a [u8])>>,
    limit: Limit,
) -> Result<Records, StoreFailure> {
    let mut found = Records::new();
    let mut bytes = 0;
    for record in records {
        if found.len() >= limit.records || (bytes >= limit.bytes && !found.is_empty()) {
            break;
        }
        let (key, value) = record.map_err(|error| failure(&error))?;
        bytes += key.len() + value.len();
        found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }
    Ok(found)
}

impl Store for HeedStore {
    fn read(&self, work: &mut dyn FnMut(&dyn Reads) -> Result<(), StoreFailure>) -> Result<(), StoreFailure> {
        let reads = HeedReads {
            txn: self.env.read_txn().map_err(|error| failure(&error))?,
            tables: self.tables,
        };
        work(&reads)
    }

    fn submit(&self, batch: Batch, on_durable: OnDurable) {
        self.writer.submit(batch, on_durable);
    }

    fn room(&self) -> StoreFuture<'_> {
        Box::pin(self.writer.room())
    }

    fn failure(&self) -> watch::Receiver<Option<StoreFailure>> {
        self.writer.failure()
    }

    fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }
}
