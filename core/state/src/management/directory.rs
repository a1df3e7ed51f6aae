//! The user directory: a number for each user of an app, issued once and never again.

use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, UserId, UserNumber};

use crate::effect::Effects;
use crate::limits::NUMBER_RANGES_MAX;
use crate::record::{NumberRange, NumberStockRecord, UserRecord, one_more, read};
use crate::{ApplyError, Reply, View, keys};

/// Gives a user the next number in stock, or the one the user has.
pub(super) fn register_user(
    view: &dyn View,
    app: &AppId,
    user: &UserId,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let (key, stock_key) = (keys::user(app, user), keys::number_stock());
    if let Some(known) = read::<UserRecord>(view, &key)? {
        return Ok(Reply::User(known.number));
    }
    let Some(mut stock) = read::<NumberStockRecord>(view, &stock_key)? else {
        return Ok(Reply::NumbersExhausted);
    };
    let Some(range) = stock.ranges.first_mut() else {
        return Ok(Reply::NumbersExhausted);
    };
    let number = UserNumber(range.start);
    range.start = one_more(&stock_key, range.start)?;
    if range.start >= range.end {
        stock.ranges.remove(0);
    }
    effects.put(stock_key, &stock);
    effects.put(key, &UserRecord { number });
    Ok(Reply::User(number))
}

/// Adds a leased range to the stock. Meta leases upwards, so a range that does not lie behind all
/// earlier ones has been added before, by this leader or its predecessor: adding it again would
/// issue its numbers twice.
pub(super) fn add_number_range(
    view: &dyn View,
    start: u64,
    end: u64,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    if start == 0 || start >= end {
        return Ok(Reply::refused(
            Code::InvalidField,
            format!("{start}..{end} is not a range of user numbers"),
        ));
    }
    let stock_key = keys::number_stock();
    let mut stock = read::<NumberStockRecord>(view, &stock_key)?.unwrap_or_else(|| NumberStockRecord {
        ranges: Vec::new(),
        end: 0,
        added: 0,
    });
    if end <= stock.end {
        return Ok(Reply::Done);
    }
    if start < stock.end {
        let text = format!(
            "{start}..{end} overlaps ranges that were added up to {}",
            stock.end
        );
        return Ok(Reply::refused(Code::Internal, text));
    }
    if stock.ranges.len() >= NUMBER_RANGES_MAX {
        let text = format!("{NUMBER_RANGES_MAX} ranges of user numbers are in stock");
        return Ok(Reply::refused(Code::Overloaded, text));
    }
    stock.ranges.push(NumberRange { start, end });
    stock.end = end;
    stock.added = one_more(&stock_key, stock.added)?;
    effects.put(stock_key, &stock);
    Ok(Reply::Done)
}
