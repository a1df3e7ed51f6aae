//! Reading a shard's outboxes and inboxes.

use throng_protocol::ids::ShardId;

use crate::outbox::{Delivery, read_outbox};
use crate::record::{InboxRecord, OutboxRecord, OutgoingRecord, Record, corrupt, read};
use crate::{ApplyError, View, keys};

/// The outbox towards one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxStatus {
    /// The shard.
    pub target: ShardId,
    /// The last number issued.
    pub last: u64,
    /// The last number acknowledged; `acked + 1 ..= last` are to be sent.
    pub acked: u64,
}

/// An outbox record that was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its number in the outbox towards its target.
    pub number: u64,
    /// What it says.
    pub delivery: Delivery,
}

/// All outboxes of this shard, at most `limit`, ascending by target; what a new leader starts from.
pub fn outboxes(view: &dyn View, limit: usize) -> Result<Vec<OutboxStatus>, ApplyError> {
    let (from, to) = keys::outboxes();
    let found = view.scan(&from, &to, limit)?;
    let status = |(key, value): &(bytes::Bytes, bytes::Bytes)| {
        let target = keys::outbox_target(key).ok_or_else(|| corrupt(key, "it names no target".to_owned()))?;
        let OutboxRecord { last, acked } = OutboxRecord::decode(key, value)?;
        Ok(OutboxStatus { target, last, acked })
    };
    found.iter().map(status).collect()
}

/// Records for `target` behind number `after` that were not acknowledged, at most `limit`, in order.
pub fn outbox_pending(
    view: &dyn View,
    target: ShardId,
    after: u64,
    limit: usize,
) -> Result<Vec<Pending>, ApplyError> {
    let outbox = read_outbox(view, target)?;
    let from = after.max(outbox.acked).saturating_add(1);
    let (low, high) = (
        keys::outgoing(target, from),
        keys::outgoing(target, outbox.last.saturating_add(1)),
    );
    if low >= high {
        return Ok(Vec::new());
    }
    let found = view.scan(&low, &high, limit)?;
    let pending = |(key, value): &(bytes::Bytes, bytes::Bytes)| {
        let number = keys::outgoing_number(key).ok_or_else(|| corrupt(key, "it has no number".to_owned()))?;
        Ok(Pending {
            number,
            delivery: OutgoingRecord::decode(key, value)?.delivery,
        })
    };
    found.iter().map(pending).collect()
}

/// The last outbox number of `source` that this shard has; 0 for none.
pub fn inbox_position(view: &dyn View, source: ShardId) -> Result<u64, ApplyError> {
    Ok(read::<InboxRecord>(view, &keys::inbox(source))?.map_or(0, |inbox| inbox.last))
}
