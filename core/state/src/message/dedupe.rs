//! Idempotency: which keys of which senders are entries already.
//!
//! A record is valid for [`SENT_VALID_MS`] after its entry, by the time stamps of the log, and
//! [`lookup`] alone decides that. [`expire`] only gives the space back, a bounded number of records
//! with each append, by following the log from its oldest entry: the entry names the key, so no
//! second index by time is needed. An expired record that is still there is as good as gone: no
//! answer depends on how far expiry has come. When its key is used anew it is overwritten, and
//! expiry, coming to the old entry, sees that the record is of another entry and leaves it.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use throng_planted::planted;
use throng_protocol::cluster::{Change, EntryKind};
use throng_protocol::ids::{ChannelNumber, Position, Seq, Ts};

use crate::limits::{EXPIRED_PER_APPEND_MAX, SENT_VALID_MS};
use crate::record::{EntryRecord, SentRecord, TailRecord, read, read_present};
use crate::{ApplyError, View, keys};

/// What is known of a sender's key.
pub(super) enum Known {
    /// Nothing, or nothing any more.
    No,
    /// The same message is this entry.
    Repeat {
        /// Its position.
        seq: Seq,
        /// Its time stamp.
        ts: Ts,
    },
    /// Another message of the same key is this entry.
    Conflict {
        /// Its position.
        seq: Seq,
    },
}

/// The hash over the fields that a retry must repeat: 128 bits of SHA-256.
pub(super) fn hash(kind: EntryKind, body: &[u8]) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update([kind.number()])
        .chain_update(body)
        .finalize();
    std::array::from_fn(|place| digest[place])
}

/// The hash over a change: over its target, and over what becomes of it, each part behind its length.
pub(super) fn hash_change(target: Position, change: &Change) -> [u8; 16] {
    let mut hash = Sha256::new()
        .chain_update([change.kind().number()])
        .chain_update(target.epoch.0.to_be_bytes())
        .chain_update(target.seq.0.to_be_bytes());
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    match change {
        Change::Modify { body } => part(body),
        Change::Recall | Change::Delete => {}
        Change::Expand { set, remove } => {
            // Whoever retries may have them in another order: the same keys are the same change.
            let (mut set, mut remove) = (set.iter().collect::<Vec<_>>(), remove.iter().collect::<Vec<_>>());
            set.sort_unstable();
            remove.sort_unstable();
            for (key, value) in set {
                part(key.as_bytes());
                part(value.as_bytes());
            }
            // No key is empty: what follows is removed.
            part(&[]);
            remove.into_iter().for_each(|key| part(key.as_bytes()));
        }
    }
    let digest = hash.finalize();
    std::array::from_fn(|place| digest[place])
}

/// Looks a key up at time `now` of the log.
pub(super) fn lookup(
    view: &dyn View,
    sent_key: &[u8],
    fields: &[u8; 16],
    now: Ts,
) -> Result<Known, ApplyError> {
    Ok(match read::<SentRecord>(view, sent_key)? {
        Some(sent) if expired(sent.ts, now) => Known::No,
        Some(SentRecord {
            seq,
            ts,
            fields: known,
        }) if known == *fields || planted!("conflict_not_checked") => Known::Repeat { seq, ts },
        Some(SentRecord { seq, .. }) => Known::Conflict { seq },
        None => Known::No,
    })
}

/// Moves the expiry position of a log over entries that have expired, at most
/// [`EXPIRED_PER_APPEND_MAX`], and returns the keys of the records to remove.
pub(super) fn expire(
    view: &dyn View,
    channel: ChannelNumber,
    tail: &mut TailRecord,
    now: Ts,
) -> Result<Vec<Bytes>, ApplyError> {
    let mut gone = Vec::new();
    let mut ahead: Option<EntryRecord> = None;
    for _ in 0..EXPIRED_PER_APPEND_MAX {
        if tail.expired >= tail.head || !expired(tail.due, now) {
            break;
        }
        let seq = tail.expired.next();
        let entry = match ahead.take() {
            Some(entry) => entry,
            None => read_present(view, &keys::entry(channel, seq))?,
        };
        let key = keys::sent(channel, entry.sender_number, entry.client_message_id);
        if read::<SentRecord>(view, &key)?.is_some_and(|sent| sent.seq == seq) {
            gone.push(key);
        }
        tail.expired = seq;
        if seq < tail.head {
            let next: EntryRecord = read_present(view, &keys::entry(channel, seq.next()))?;
            tail.due = next.ts;
            ahead = Some(next);
        }
    }
    Ok(gone)
}

/// Whether the record of an entry with time stamp `ts` is void at time `now` of the log.
fn expired(ts: Ts, now: Ts) -> bool {
    let valid_ms = if planted!("dedupe_expires_early") {
        500
    } else {
        SENT_VALID_MS
    };
    ts.millis().saturating_add(valid_ms) < now.millis()
}
