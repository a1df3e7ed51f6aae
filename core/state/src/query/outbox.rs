//! Reading a shard's outboxes and inboxes.

use throng_protocol::ids::{AppId, GroupId, ShardId};

use crate::limits::CHANNELS_PER_GROUP_MAX;
use crate::outbox::{Delivery, read_outbox};
use crate::record::{InboxRecord, OutboxRecord, OutgoingRecord, Record, corrupt, read};
use crate::{ApplyError, Outgoing, View, keys};

/// Records read at a time while one is looked for.
const WAITS_READ: usize = 64;

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

/// The outbox records that tell of what a group's members lost up to a version and are not acknowledged yet: the
/// last one for each shard that holds channels of the group, since those before it are taken first.
pub fn fence_waits(
    view: &dyn View,
    app: &AppId,
    group: &GroupId,
    version: u64,
) -> Result<Vec<Outgoing>, ApplyError> {
    let (from, to) = keys::group_shards(app, group);
    let mut waits = Vec::new();
    for (key, _) in view.scan(&from, &to, CHANNELS_PER_GROUP_MAX as usize)? {
        let target =
            keys::group_shard_of(&key).ok_or_else(|| corrupt(&key, "it names no shard".to_owned()))?;
        let tells = |delivery: &Delivery| match delivery {
            Delivery::Fence {
                app: of,
                group: within,
                fence,
                ..
            } => of == app && within == group && fence.version <= version,
            Delivery::Rights {
                app: of,
                group: within,
                version: since,
            }
            | Delivery::Archive {
                app: of,
                group: within,
                version: since,
                ..
            } => of == app && within == group && *since <= version,
            Delivery::OpenChannel { .. } => false,
        };
        let (mut after, mut last) = (0, None);
        loop {
            let pending = outbox_pending(view, target, after, WAITS_READ)?;
            if let Some(found) = pending.iter().rfind(|pending| tells(&pending.delivery)) {
                last = Some(found.number);
            }
            match pending.last() {
                Some(behind) => after = behind.number,
                None => break,
            }
        }
        waits.extend(last.map(|number| Outgoing { number, target }));
    }
    Ok(waits)
}

/// The last outbox number that a target has acknowledged.
pub fn outbox_acked(view: &dyn View, target: ShardId) -> Result<u64, ApplyError> {
    Ok(read_outbox(view, target)?.acked)
}

/// The last outbox number of `source` that this shard has; 0 for none.
pub fn inbox_position(view: &dyn View, source: ShardId) -> Result<u64, ApplyError> {
    Ok(read::<InboxRecord>(view, &keys::inbox(source))?.map_or(0, |inbox| inbox.last))
}
