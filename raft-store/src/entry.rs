//! How log entries are written, on disk and on the wire: term and index, a kind, and the payload;
//! a command is its raw bytes, never encoded a second time.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;

use crate::types::{CommandBytes, Entry, log_id};

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes before the payload.
pub(crate) const HEAD: usize = 8 + 8 + 1;

/// An entry's bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a log entry cannot be decoded: {0}")]
pub struct EntryError(pub(crate) String);

/// Encodes an entry.
pub fn encode(entry: &Entry) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD + weight(entry));
    bytes.put_u64(entry.log_id.leader_id.term);
    bytes.put_u64(entry.log_id.index);
    match &entry.payload {
        EntryPayload::Blank => bytes.put_u8(BLANK),
        EntryPayload::Normal(command) => {
            bytes.put_u8(NORMAL);
            bytes.put_slice(&command.0);
        }
        EntryPayload::Membership(membership) => {
            bytes.put_u8(MEMBERSHIP);
            let encoded = postcard::to_stdvec(membership)
                .expect("invariant: a membership holds no sequences of unknown length");
            bytes.put_slice(&encoded);
        }
    }
    bytes.freeze()
}

/// Decodes an entry; a command shares the memory of `bytes`.
pub fn decode(mut bytes: Bytes) -> Result<Entry, EntryError> {
    if bytes.len() < HEAD {
        return Err(EntryError(format!("it has only {} bytes", bytes.len())));
    }
    let (term, index, kind) = (bytes.get_u64(), bytes.get_u64(), bytes.get_u8());
    let payload = match kind {
        BLANK if bytes.is_empty() => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(CommandBytes(bytes)),
        MEMBERSHIP => {
            let (membership, rest) =
                postcard::take_from_bytes(&bytes).map_err(|error| EntryError(error.to_string()))?;
            if !rest.is_empty() {
                return Err(EntryError(format!("{} bytes are left over", rest.len())));
            }
            EntryPayload::Membership(membership)
        }
        other => return Err(EntryError(format!("its kind is {other}"))),
    };
    Ok(Entry {
        log_id: log_id(term, index),
        payload,
    })
}

/// About how many bytes of memory an entry's payload takes.
pub(crate) fn weight(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Membership(_) => 256,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openraft::Membership;

    use super::*;

    #[test]
    fn entries_of_every_kind_are_read_back_and_malformed_ones_are_refused() {
        let membership = Membership::new_with_defaults(vec![BTreeSet::from([1, 2, 3])], [4]);
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(CommandBytes(Bytes::from_static(b"command"))),
            EntryPayload::Membership(membership),
        ] {
            let entry = Entry {
                log_id: log_id(7, 9),
                payload,
            };
            let bytes = encode(&entry);
            assert_eq!(decode(bytes.clone()), Ok(entry));
            assert!(decode(bytes.slice(..HEAD - 1)).is_err());
        }
        let mut unknown = encode(&Entry {
            log_id: log_id(7, 9),
            payload: EntryPayload::Blank,
        })
        .to_vec();
        unknown.push(0);
        assert!(
            decode(Bytes::from(unknown.clone())).is_err(),
            "a blank entry has no payload"
        );
        unknown[HEAD - 1] = 9;
        assert!(decode(Bytes::from(unknown)).is_err());
    }
}
