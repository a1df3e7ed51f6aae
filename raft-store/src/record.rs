//! How every record is framed on disk: `[version u8][crc32 u32][payload]`.
//!
//! The checksum covers version, key and payload, so that a flipped bit, a torn value and a value
//! under a wrong key are all noticed. A record that does not check is never handed out.

use bytes::{BufMut, Bytes, BytesMut};

use crate::store::Table;

/// The version of the framing.
pub const RECORD_VERSION: u8 = 1;

/// Bytes before the payload.
pub const RECORD_HEAD: usize = 5;

/// A record on disk is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {key} of table {table} is damaged: {reason}")]
pub struct RecordError {
    /// The table.
    pub table: Table,
    /// The key, in hexadecimal.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl RecordError {
    /// An error of a record.
    pub fn new(table: Table, key: &[u8], reason: impl Into<String>) -> Self {
        Self {
            table,
            key: hex(key),
            reason: reason.into(),
        }
    }
}

/// Frames a payload.
pub fn seal(key: &[u8], payload: &[u8]) -> Bytes {
    let mut record = BytesMut::with_capacity(RECORD_HEAD + payload.len());
    record.put_u8(RECORD_VERSION);
    record.put_u32(checksum(key, payload));
    record.put_slice(payload);
    record.freeze()
}

/// Checks a record and returns its payload, sharing its memory.
pub fn open(table: Table, key: &[u8], record: &Bytes) -> Result<Bytes, RecordError> {
    let [version, a, b, c, d, payload @ ..] = &record[..] else {
        return Err(RecordError::new(
            table,
            key,
            format!("it has only {} bytes", record.len()),
        ));
    };
    if *version != RECORD_VERSION {
        let reason = format!("its version is {version}, this build reads {RECORD_VERSION}");
        return Err(RecordError::new(table, key, reason));
    }
    if u32::from_be_bytes([*a, *b, *c, *d]) != checksum(key, payload) {
        return Err(RecordError::new(table, key, "its checksum does not match"));
    }
    Ok(record.slice(RECORD_HEAD..))
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[RECORD_VERSION]);
    crc.update(key);
    crc.update(payload);
    crc.finalize()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_under_its_own_key_only() {
        let record = seal(b"key", b"payload");
        assert_eq!(
            open(Table::State, b"key", &record),
            Ok(Bytes::from_static(b"payload"))
        );
        assert!(open(Table::State, b"kez", &record).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed_and_named() {
        let record = seal(b"key", b"payload");
        for bit in 0..record.len() * 8 {
            let mut damaged = record.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = open(Table::Log, b"key", &Bytes::from(damaged)).unwrap_err();
            assert_eq!((error.table, error.key.as_str()), (Table::Log, "6b6579"));
        }
        for len in 0..record.len() {
            assert!(open(Table::Log, b"key", &record.slice(..len)).is_err());
        }
    }
}
