//! Appending a message to a channel's log.

use throng_planted::planted;
use throng_protocol::cluster::EntryKind;
use throng_protocol::code::Code;
use throng_protocol::ids::Ts;
use throng_protocol::limits::{BODY_BYTES_MAX, IDEMPOTENCY_WINDOW_MS};

use super::At;
use super::dedupe::{self, Known};
use super::rights::{self, Right};
use crate::command::AppendMessage;
use crate::effect::Effects;
use crate::limits::CLOCK_SLACK_MS;
use crate::record::{EntryRecord, LogRecord, SentRecord, TailRecord, read, read_present};
use crate::{ApplyError, Effect, Reply, View, keys};

/// Appends a message, or answers as its first attempt was answered.
pub(super) fn append(
    at: &At<'_>,
    message: &AppendMessage,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let view = at.view;
    let channel = message.channel;
    let Some(log) = read::<LogRecord>(view, &keys::log(channel))? else {
        return Ok(Reply::refused(
            Code::ChannelUnknown,
            format!("there is no channel {channel} here"),
        ));
    };
    if let Some(refusal) = inadmissible(message, &log) {
        return Ok(refusal);
    }
    let mut tail: TailRecord = read_present(view, &keys::tail(channel))?;
    let ts = tail.last_ts.advance(Ts::from_millis(message.proposed_ms));
    let ts = if planted!("ts_without_max") {
        Ts::from_millis(message.proposed_ms)
    } else {
        ts
    };
    if ts <= tail.last_ts && !planted!("ts_without_max") {
        return Ok(Reply::refused(
            Code::Internal,
            "the channel has no time stamps left",
        ));
    }

    let kind = EntryKind::Message;
    let fields = dedupe::hash(kind, &message.body);
    let sent_key = keys::sent(channel, message.claims.number, message.client_message_id);
    let known = dedupe::lookup(view, &sent_key, &fields, ts)?;
    if let Some(answer) = answered_before(known, message, &log) {
        return Ok(answer);
    }
    // Behind the lookup: what was acked before a fence is answered the same behind it.
    let unentitled = unentitled(view, message, ts)?;
    if let Some(refusal) = unentitled.filter(|_| !planted!("fence_not_judged_in_apply")) {
        return Ok(refusal);
    }
    if let Some(refusal) = untimely(message, ts) {
        return Ok(refusal);
    }

    for expired in dedupe::expire(view, channel, &mut tail, ts)? {
        // An expired record of this very key is about to be overwritten, not removed.
        if expired != sent_key {
            effects.delete(expired);
        }
    }
    let seq = tail.head.next();
    if tail.expired == tail.head {
        tail.due = ts;
    }
    tail.head = seq;
    tail.last_ts = ts;
    let entry = EntryRecord {
        ts,
        index: at.index,
        kind,
        sender_number: message.claims.number,
        sender: message.claims.user.clone(),
        client_message_id: message.client_message_id,
        body: message.body.clone(),
    };
    effects.put(keys::entry(channel, seq), &entry);
    effects.put(sent_key, &SentRecord { seq, ts, fields });
    effects.put(keys::tail(channel), &tail);
    effects.push(Effect::Advanced { channel, head: seq });
    Ok(Reply::Appended {
        epoch: log.epoch,
        seq,
        ts,
        repeat: false,
    })
}

/// Why a message can never be an entry of this log.
fn inadmissible(message: &AppendMessage, log: &LogRecord) -> Option<Reply> {
    let claims = &message.claims;
    if claims.app != log.info.app || claims.group != log.info.group {
        let text = format!(
            "the grant is for group {}, the channel is of another",
            claims.group
        );
        return Some(Reply::refused(Code::Forbidden, text));
    }
    if message.body.len() > BODY_BYTES_MAX {
        let text = format!(
            "the body has {} bytes, {BODY_BYTES_MAX} are allowed",
            message.body.len()
        );
        return Some(Reply::refused(Code::MessageTooLarge, text));
    }
    None
}

/// The answer to a message whose key was used before.
fn answered_before(known: Known, message: &AppendMessage, log: &LogRecord) -> Option<Reply> {
    match known {
        Known::Repeat { seq, ts } => Some(Reply::Appended {
            epoch: log.epoch,
            seq,
            ts,
            repeat: true,
        }),
        Known::Conflict { seq } => {
            let text = format!("the key {} was used for entry {seq}", message.client_message_id);
            Some(Reply::refused(Code::IdempotencyConflict, text))
        }
        Known::No => None,
    }
}

/// Why the sender may not send this now.
fn unentitled(view: &dyn View, message: &AppendMessage, ts: Ts) -> Result<Option<Reply>, ApplyError> {
    let claims = &message.claims;
    Ok(match rights::to_send(view, claims)? {
        Right::Stale => Some(Reply::GrantStale),
        Right::Early => {
            let text = format!(
                "fence {} of group {} has not arrived here yet",
                claims.fenced, claims.group
            );
            Some(Reply::refused(Code::Unavailable, text))
        }
        Right::Held if ts.millis() < claims.muted_until => {
            let text = format!(
                "{} is muted in {} until {} (Unix milliseconds)",
                claims.user, claims.group, claims.muted_until
            );
            Some(Reply::refused(Code::Muted, text))
        }
        Right::Held => None,
    })
}

/// Why a message without an idempotency record cannot be taken for a new one. Together with
/// [`dedupe::lookup`] this is the promise that a retry is never appended twice: an entry's first
/// attempt is at most the slack ahead of its time stamp, and its record is valid for the window and
/// the slack, so a retry that is not too old finds the record.
fn untimely(message: &AppendMessage, ts: Ts) -> Option<Reply> {
    let (first, now) = (message.first_attempt_ms, ts.millis());
    if first.saturating_add(IDEMPOTENCY_WINDOW_MS) < now {
        let text = format!(
            "the first attempt was {} ms ago, a retry is known for {IDEMPOTENCY_WINDOW_MS} ms",
            now - first
        );
        return Some(Reply::refused(Code::RetryTooOld, text));
    }
    if first > now.saturating_add(CLOCK_SLACK_MS) {
        let text = format!("the first attempt lies {} ms in the future", first - now);
        return Some(Reply::refused(Code::InvalidField, text));
    }
    None
}
