//! What a state machine may read: the records of its own shard, and nothing else.

use bytes::Bytes;

/// A record could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the shard's store cannot be read: {0}")]
pub struct ViewError(pub String);

/// Read access to the records of one shard, as of the last applied command. Keys and values are
/// without the store's own framing (shard prefix, checksum).
pub trait View {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError>;

    /// At most `limit` records with `from <= key < to`, ascending.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError>;

    /// At most `limit` records with `from <= key < to`, descending.
    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError>;
}
