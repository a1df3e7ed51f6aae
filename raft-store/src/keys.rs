//! Keys of the three tables. All begin with the shard, big-endian, so that a shard is one range.
//!
//! | table | key |
//! |---|---|
//! | log   | shard u32, index u64 |
//! | meta  | shard u32, tag u8 |
//! | state | shard u32, generation u32, the state machine's key |

use bytes::{BufMut, Bytes, BytesMut};
use throng_protocol::ids::ShardId;

use crate::store::KEY_BYTES_MAX;

const STATE_PREFIX: usize = 8;

/// The longest key a state machine may use.
pub const STATE_KEY_BYTES_MAX: usize = KEY_BYTES_MAX - STATE_PREFIX;

/// Which of the small records of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Meta {
    Vote = 1,
    Committed = 2,
    Purged = 3,
    Applied = 4,
}

pub(crate) fn meta(shard: ShardId, which: Meta) -> Bytes {
    let mut key = BytesMut::with_capacity(5);
    key.put_u32(shard.0);
    key.put_u8(which as u8);
    key.freeze()
}

pub(crate) fn log(shard: ShardId, index: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(12);
    key.put_u32(shard.0);
    key.put_u64(index);
    key.freeze()
}

/// Behind the last possible log key of a shard.
pub(crate) fn log_end(shard: ShardId) -> Bytes {
    let mut key = BytesMut::with_capacity(13);
    key.put_u32(shard.0);
    key.put_u64(u64::MAX);
    key.put_u8(0);
    key.freeze()
}

/// The index of a log key.
pub(crate) fn log_index(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(4..)?.try_into().ok()?))
}

pub(crate) fn state(shard: ShardId, generation: u32, key: &[u8]) -> Bytes {
    let mut full = BytesMut::with_capacity(STATE_PREFIX + key.len());
    full.put_u32(shard.0);
    full.put_u32(generation);
    full.put_slice(key);
    full.freeze()
}

/// The state machine's key inside a state key.
pub(crate) fn state_inner(key: &Bytes) -> Bytes {
    key.slice(STATE_PREFIX.min(key.len())..)
}

/// The first key of a generation.
pub(crate) fn generation(shard: ShardId, generation: u32) -> Bytes {
    state(shard, generation, &[])
}

/// Behind the last key of a generation.
pub(crate) fn generation_end(shard: ShardId, generation: u32) -> Bytes {
    after_prefix(&state(shard, generation, &[]))
}

/// Behind the last state key of a shard.
pub(crate) fn state_end(shard: ShardId) -> Bytes {
    after_prefix(&shard.0.to_be_bytes())
}

/// The smallest key behind all keys with a prefix.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    // The prefix is all 0xff: no key of the allowed length is behind this one.
    Bytes::from(vec![u8::MAX; KEY_BYTES_MAX])
}

/// The smallest key behind a key.
pub(crate) fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_generations_and_indexes_do_not_overlap() {
        let shard = ShardId(7);
        assert!(log(shard, u64::MAX) < log_end(shard));
        assert!(log_end(shard) < log(ShardId(8), 0));
        assert_eq!(log_index(&log(shard, 99)), Some(99));
        assert!(state(shard, 1, &[0xff; 300]) < generation_end(shard, 1));
        assert_eq!(generation_end(shard, 1), generation(shard, 2));
        assert!(state(shard, u32::MAX, &[0xff; 300]) < state_end(shard));
        assert!(state(ShardId(u32::MAX), u32::MAX, &[0xff; 100]) < state_end(ShardId(u32::MAX)));
        assert_eq!(state_inner(&state(shard, 3, b"abc")), Bytes::from_static(b"abc"));
    }
}
