//! Leases of user numbers: each management shard issues numbers from ranges of its own, so that
//! meta is asked once in many users. Numbers start at 1 and are leased once: a range that is lost
//! on its way is wasted, never leased again.

use throng_protocol::code::Code;
use throng_protocol::ids::ShardId;

use crate::effect::Effects;
use crate::limits::LEASE_NUMBERS_MAX;
use crate::record::{LeaseHeadRecord, LeaseRecord, NumberRange, read};
use crate::{ApplyError, Reply, View, keys};

/// The first user number; 0 is nobody's.
const FIRST_NUMBER: u64 = 1;

/// Leases the next `count` numbers to a management shard, or repeats the lease of this request.
pub(super) fn lease_numbers(
    view: &dyn View,
    shard: ShardId,
    count: u32,
    request: u64,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    if let Some(last) = read::<LeaseRecord>(view, &keys::lease(shard))? {
        if request == last.request {
            return Ok(Reply::Leased {
                start: last.range.start,
                end: last.range.end,
            });
        }
        if request < last.request {
            let text = format!(
                "request {request} of shard {shard} is older than its last, {}",
                last.request
            );
            return Ok(Reply::refused(Code::Unavailable, text));
        }
    }
    if count == 0 || count > LEASE_NUMBERS_MAX {
        let text = format!("a lease has 1 to {LEASE_NUMBERS_MAX} numbers, not {count}");
        return Ok(Reply::refused(Code::InvalidField, text));
    }
    let start = read::<LeaseHeadRecord>(view, &keys::lease_head())?.map_or(FIRST_NUMBER, |head| head.next);
    let Some(end) = start.checked_add(u64::from(count)) else {
        return Ok(Reply::refused(Code::Internal, "all user numbers are leased"));
    };
    effects.put(keys::lease_head(), &LeaseHeadRecord { next: end });
    effects.put(
        keys::lease(shard),
        &LeaseRecord {
            request,
            range: NumberRange { start, end },
        },
    );
    Ok(Reply::Leased { start, end })
}
