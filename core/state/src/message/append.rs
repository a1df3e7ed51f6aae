//! Appending a message to a channel's log.

use throng_protocol::cluster::{EntryKind, Permissions};
use throng_protocol::code::Code;
use throng_protocol::ids::Seq;
use throng_protocol::limits::BODY_BYTES_MAX;

use super::At;
use super::admit::{Admitted, Writing};
use super::dedupe;
use crate::command::AppendMessage;
use crate::effect::Effects;
use crate::record::EntryRecord;
use crate::{ApplyError, Reply};

/// Appends a message, or answers as its first attempt was answered.
pub(super) fn append(
    at: &At<'_>,
    message: &AppendMessage,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let bytes = message.body.len();
    if bytes > BODY_BYTES_MAX {
        let text = format!("the body has {bytes} bytes, {BODY_BYTES_MAX} are allowed");
        return Ok(Reply::refused(Code::MessageTooLarge, text));
    }
    let kind = EntryKind::Message;
    let writing = Writing {
        channel: message.channel,
        claims: &message.claims,
        id: message.client_message_id,
        first_attempt_ms: message.first_attempt_ms,
        proposed_ms: message.proposed_ms,
        fields: dedupe::hash(kind, &message.body),
        permission: Permissions::SEND,
        speaks: true,
    };
    let place = match writing.admit(at)? {
        Admitted::New(place) => place,
        Admitted::Repeat { log, seq, ts } => {
            return Ok(Reply::Appended {
                epoch: log.epoch,
                seq,
                ts,
                repeat: true,
            });
        }
        Admitted::Refused(reply) => return Ok(reply),
    };
    let (epoch, ts) = (place.log.epoch, place.ts);
    let entry = EntryRecord {
        ts,
        index: at.index,
        kind,
        target: Seq(0),
        before: Seq(0),
        sender_number: message.claims.number,
        sender: message.claims.user.clone(),
        client_message_id: message.client_message_id,
        body: message.body.clone(),
    };
    let seq = place.write(at, &writing, &entry, effects)?;
    Ok(Reply::Appended {
        epoch,
        seq,
        ts,
        repeat: false,
    })
}
