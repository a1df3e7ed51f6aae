//! Snapshots: the records of a shard as of one applied entry, as a stream of bytes with a checksum.
//!
//! The state is on disk anyway, so building a snapshot only waits until it is durable. The records
//! are spooled (into an unlinked temporary file) when one must travel: in one consistent view, in one
//! blocking call, so that no read transaction is held across an await or for the length of a
//! network transfer. The stream says itself what it is of, which may be newer than what openraft
//! asked for: the receiver takes the meta from the stream.
//!
//! Layout: `"TRSN" · version u8 · shard u32 · meta length u32 · meta · (key length u32 · value
//! length u32 · key · value)* · u32::MAX · records u64 · crc32 of everything before u32`.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use throng_planted::planted;
use throng_protocol::ids::ShardId;

use crate::keys::{self, Meta, STATE_KEY_BYTES_MAX};
use crate::log_store::decode_meta;
use crate::record;
use crate::shard_state::{Applied, ShardState};
use crate::spool::{Cursor, Spool, SpoolFile};
use crate::store::{Limit, Reads, StoreFailure, Table};
use crate::types::{Snapshot, SnapshotMeta};

/// Bytes of one chunk on the network.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// The longest value accepted from another node: far above any record, far below what would hurt.
const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;
const META_BYTES_MAX: usize = 1024 * 1024;

const MAGIC: &[u8; 4] = b"TRSN";
const VERSION: u8 = 1;
const END: u32 = u32::MAX;
const PAGE: Limit = Limit {
    records: usize::MAX,
    bytes: 1024 * 1024,
};

/// What openraft carries for a snapshot.
#[derive(Debug)]
pub struct SnapshotData(Source);

#[derive(Debug)]
enum Source {
    /// The durable state of a shard, whenever it is asked for.
    Live(Arc<ShardState>),
    /// A stream that was checked.
    Spooled(SpooledSnapshot),
}

impl SnapshotData {
    pub(crate) fn live(state: Arc<ShardState>) -> Self {
        Self(Source::Live(state))
    }

    /// The snapshot as a stream.
    pub async fn spool(self) -> io::Result<SpooledSnapshot> {
        match self.0 {
            Source::Spooled(spooled) => Ok(spooled),
            Source::Live(state) => {
                let place = state.spool.clone();
                place.run(move || spool(&state)).await
            }
        }
    }
}

/// A snapshot in a temporary file, complete and checked.
#[derive(Debug)]
pub struct SpooledSnapshot {
    meta: SnapshotMeta,
    file: SpoolFile,
    bytes: u64,
}

impl SpooledSnapshot {
    /// What the snapshot is of.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Bytes of the stream.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The stream, from its beginning.
    pub fn chunks(&self) -> SnapshotChunks {
        SnapshotChunks {
            file: self.file.clone(),
            at: 0,
            bytes: self.bytes,
        }
    }

    /// The records behind the checked head.
    pub(crate) fn records(&self) -> io::Result<RecordReader> {
        let (reader, _, _) = RecordReader::open(&self.file)?;
        Ok(reader)
    }

    /// Runs work that reads the stream.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.file.run(work).await
    }
}

/// Chunks of a snapshot's stream, for the network.
#[derive(Debug)]
pub struct SnapshotChunks {
    file: SpoolFile,
    at: u64,
    bytes: u64,
}

impl SnapshotChunks {
    /// The next chunk, at most [`CHUNK_BYTES`]; `None` behind the last.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let left = usize::try_from(self.bytes - self.at).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        let (file, at) = (self.file.clone(), self.at);
        let chunk = self
            .file
            .run(move || file.read_exact_at(left.min(CHUNK_BYTES), at))
            .await?;
        self.at += chunk.len() as u64;
        Ok(Some(chunk))
    }
}

/// Takes a snapshot's stream from another node.
#[derive(Debug)]
pub struct SnapshotReceiver {
    shard: ShardId,
    file: SpoolFile,
    at: u64,
}

impl SnapshotReceiver {
    pub(crate) fn new(shard: ShardId, spool: &Spool) -> io::Result<Self> {
        Ok(Self {
            shard,
            file: spool.create(shard)?,
            at: 0,
        })
    }

    /// Takes the next chunk.
    pub async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        let (file, at, len) = (self.file.clone(), self.at, chunk.len() as u64);
        self.file.run(move || file.write_all_at(&chunk, at)).await?;
        self.at += len;
        Ok(())
    }

    /// Checks the whole stream. What comes out is whole, of this shard, and as it was sent.
    pub async fn finish(self) -> io::Result<Snapshot> {
        let (shard, file, bytes) = (self.shard, self.file.clone(), self.at);
        let check = move || {
            let (mut records, meta, found) = RecordReader::open(&file)?;
            if found != shard {
                return Err(invalid(format!("it is of shard {found}")));
            }
            while records.next()?.is_some() {}
            records.expect_end()?;
            Ok(Snapshot {
                meta: meta.clone(),
                snapshot: SnapshotData(Source::Spooled(SpooledSnapshot { meta, file, bytes })),
            })
        };
        self.file.run(check).await
    }
}

/// Reads the records of a stream, checking it on the way.
#[derive(Debug)]
pub(crate) struct RecordReader {
    from: BufReader<Cursor>,
    crc: crc32fast::Hasher,
    records: u64,
    ended: bool,
}

impl RecordReader {
    fn open(file: &SpoolFile) -> io::Result<(Self, SnapshotMeta, ShardId)> {
        let mut reader = Self {
            from: BufReader::with_capacity(64 * 1024, file.cursor()),
            crc: crc32fast::Hasher::new(),
            records: 0,
            ended: false,
        };
        let head = reader.take(5)?;
        if head[..4] != MAGIC[..] || head[4] != VERSION {
            return Err(invalid(
                "it does not begin like one, or is of another version".to_owned(),
            ));
        }
        let shard = ShardId(reader.number()?);
        let len = bounded(reader.number()?, META_BYTES_MAX)?;
        let meta = reader.take(len)?;
        let meta = postcard::from_bytes(&meta).map_err(|error| invalid(error.to_string()))?;
        Ok((reader, meta, shard))
    }

    /// The next record; `None` behind the last, after the checksum was right.
    pub fn next(&mut self) -> io::Result<Option<(Bytes, Bytes)>> {
        if self.ended {
            return Ok(None);
        }
        let key = self.number()?;
        if key == END {
            let records = self.take(8)?;
            let crc = self.crc.clone().finalize();
            let mut written = [0; 4];
            self.from.read_exact(&mut written)?;
            if u32::from_be_bytes(written) != crc || records[..] != self.records.to_be_bytes() {
                return Err(invalid("its checksum does not match".to_owned()));
            }
            self.ended = true;
            return Ok(None);
        }
        let key = bounded(key, STATE_KEY_BYTES_MAX)?;
        let value = bounded(self.number()?, VALUE_BYTES_MAX)?;
        self.records += 1;
        Ok(Some((self.take(key)?, self.take(value)?)))
    }

    fn expect_end(&mut self) -> io::Result<()> {
        match self.from.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(invalid("bytes are left over".to_owned())),
        }
    }

    fn take(&mut self, len: usize) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(len);
        self.from.read_exact(&mut bytes)?;
        self.crc.update(&bytes);
        Ok(bytes.freeze())
    }

    fn number(&mut self) -> io::Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

fn bounded(len: u32, max: usize) -> io::Result<usize> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > max {
        return Err(invalid(format!(
            "a part of it has {len} bytes, at most {max} are allowed"
        )));
    }
    Ok(len)
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a snapshot is damaged: {reason}"),
    )
}

/// Writes the durable state of a shard into a spooled file.
fn spool(state: &ShardState) -> io::Result<SpooledSnapshot> {
    state.health.check_io()?;
    let file = state.spool.create(state.shard)?;
    let mut to = Checked {
        to: BufWriter::with_capacity(CHUNK_BYTES, file.cursor()),
        crc: crc32fast::Hasher::new(),
        bytes: 0,
    };
    let mut written: io::Result<SnapshotMeta> = Err(invalid("nothing was read".to_owned()));
    state.store.read(&mut |reads| {
        // Errors of the spool file leave through `written`, they are no failure of the store.
        written = write_state(state, reads, &mut to)?;
        Ok(())
    })?;
    let meta = written?;
    let bytes = to.bytes;
    to.to.flush()?;
    Ok(SpooledSnapshot { meta, file, bytes })
}

type Spooling<T> = Result<io::Result<T>, StoreFailure>;

fn write_state(state: &ShardState, reads: &dyn Reads, to: &mut Checked) -> Spooling<SnapshotMeta> {
    let key = keys::meta(state.shard, Meta::Applied);
    let applied = match reads.get(Table::Meta, &key)? {
        Some(record) => match open(state, Table::Meta, &key, &record).and_then(decode_meta) {
            Ok(applied) => applied,
            Err(error) => return Ok(Err(error)),
        },
        None => Applied::default(),
    };
    let meta = SnapshotMeta {
        last_log_id: applied.log_id,
        last_membership: applied.membership,
    };
    if let Err(error) = to.head(state.shard, &meta) {
        return Ok(Err(error));
    }
    let mut from = keys::generation(state.shard, applied.generation);
    let end = keys::generation_end(state.shard, applied.generation);
    let mut count = 0_u64;
    loop {
        let page = reads.scan(Table::State, &from, &end, PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(to.tail(count).map(|()| meta));
        };
        from = keys::successor(last);
        for (key, record) in &page {
            // The tables of idempotency records and of fences, by their tags.
            let left_out = match keys::state_inner(key).first() {
                Some(0x43) => planted!("snapshot_without_dedupe"),
                Some(0x44..=0x46) => planted!("snapshot_without_fences"),
                _ => false,
            };
            if left_out {
                continue;
            }
            let put = open(state, Table::State, key, record)
                .and_then(|value| to.record(&keys::state_inner(key), &value));
            if let Err(error) = put {
                return Ok(Err(error));
            }
            count += 1;
        }
    }
}

fn open(state: &ShardState, table: Table, key: &[u8], record: &Bytes) -> io::Result<Bytes> {
    record::open(table, key, record).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            state.health.damaged(&*state.store, &error),
        )
    })
}

/// Writes a stream and its checksum.
struct Checked {
    to: BufWriter<Cursor>,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl Checked {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    fn head(&mut self, shard: ShardId, meta: &SnapshotMeta) -> io::Result<()> {
        let meta = postcard::to_stdvec(meta).map_err(|error| invalid(error.to_string()))?;
        self.put(MAGIC)?;
        self.put(&[VERSION])?;
        self.put(&shard.0.to_be_bytes())?;
        self.put(&length(&meta).to_be_bytes())?;
        self.put(&meta)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.put(&length(key).to_be_bytes())?;
        self.put(&length(value).to_be_bytes())?;
        self.put(key)?;
        self.put(value)
    }

    fn tail(&mut self, records: u64) -> io::Result<()> {
        self.put(&END.to_be_bytes())?;
        self.put(&records.to_be_bytes())?;
        let crc = self.crc.clone().finalize();
        self.put(&crc.to_be_bytes())
    }
}

/// A length as the stream holds it; LMDB's values are below 4 GiB.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
