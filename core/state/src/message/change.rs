//! Changing a message of a channel's log.
//!
//! A change is an entry of its own, at the end of the log, and in the same step the message is rewritten:
//! there is one place that says what a message is now, and one that says when it changed. The order of
//! the log decides between writers; each is told which change came before its own.

use bytes::Bytes;
use throng_planted::planted;
use throng_protocol::cluster::{Change, EntryKind, GrantClaims, Hole, Permissions};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Position, Seq};
use throng_protocol::limits::EXPANSION_KEYS_MAX;

use super::At;
use super::admit::{Admitted, Place, Writing};
use super::dedupe;
use crate::command::ChangeMessage;
use crate::effect::Effects;
use crate::record::{
    ChangedRecord, EntryRecord, ExpansionRecord, Record, Touched, corrupt, read, read_present,
};
use crate::{ApplyError, Reply, View, keys};

/// Appends a change and makes it, or answers as its first attempt was answered.
pub(super) fn change(
    at: &At<'_>,
    message: &ChangeMessage,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    if let Err(error) = message.change.check() {
        return Ok(Reply::refused(error.code(), error.to_string()));
    }
    let kind = message.change.kind();
    let writing = Writing {
        channel: message.channel,
        claims: &message.claims,
        id: message.client_message_id,
        first_attempt_ms: message.first_attempt_ms,
        proposed_ms: message.proposed_ms,
        fields: dedupe::hash_change(message.target, &message.change),
        // A recall of one's own needs none; what else is needed is judged with the message.
        permission: match kind {
            EntryKind::Modify => Permissions::SEND,
            EntryKind::Expand => Permissions::EXPAND,
            _ => Permissions::NONE,
        },
        speaks: matches!(kind, EntryKind::Modify | EntryKind::Expand),
    };
    let place = match writing.admit(at)? {
        Admitted::New(place) => place,
        Admitted::Repeat { log, seq, ts } => {
            let entry: EntryRecord = read_present(at.view, &keys::entry(message.channel, seq))?;
            return Ok(Reply::Changed {
                epoch: log.epoch,
                seq,
                ts,
                repeat: true,
                before: entry.before,
            });
        }
        Admitted::Refused(reply) => return Ok(reply),
    };
    let (channel, target) = (message.channel, message.target);
    let mut changing = match changeable(at.view, &place, channel, target)? {
        Ok(changing) => changing,
        Err(refusal) => return Ok(refusal),
    };
    if let Some(refusal) = changing.forbidden(&message.change, &message.claims) {
        return Ok(refusal);
    }
    let touched = match changing.make(&message.change, effects)? {
        Ok(touched) => touched,
        Err(refusal) => return Ok(refusal),
    };
    let (epoch, ts, before) = (place.log.epoch, place.ts, changing.changed.version);
    let entry = EntryRecord {
        ts,
        index: at.index,
        kind,
        target: target.seq,
        before,
        sender_number: message.claims.number,
        sender: message.claims.user.clone(),
        client_message_id: message.client_message_id,
        body: touched,
    };
    let seq = place.write(at, &writing, &entry, effects)?;
    if !planted!("change_without_version") {
        changing.changed.version = seq;
    }
    effects.put(keys::changed(channel, target.seq), &changing.changed);
    Ok(Reply::Changed {
        epoch,
        seq,
        ts,
        repeat: false,
        before,
    })
}

/// The message to change; or why there is none.
fn changeable<'a>(
    view: &'a dyn View,
    place: &Place,
    channel: ChannelNumber,
    target: Position,
) -> Result<Result<Changing<'a>, Reply>, ApplyError> {
    let unknown = |text: String| Ok(Err(Reply::refused(Code::TargetUnknown, text)));
    if target.epoch != place.log.epoch {
        return unknown(format!(
            "the log is of epoch {}, not {}",
            place.log.epoch, target.epoch
        ));
    }
    let seq = target.seq;
    if seq < place.oldest() || seq > place.head() {
        return unknown(format!("the log has no entry {seq}"));
    }
    let entry: EntryRecord = read_present(view, &keys::entry(channel, seq))?;
    if entry.kind != EntryKind::Message {
        return unknown(format!("entry {seq} is no message"));
    }
    let changed = read(view, &keys::changed(channel, seq))?.unwrap_or_default();
    Ok(Ok(Changing {
        view,
        channel,
        seq,
        entry,
        changed,
    }))
}

/// A message that is being changed.
struct Changing<'a> {
    view: &'a dyn View,
    channel: ChannelNumber,
    seq: Seq,
    entry: EntryRecord,
    changed: ChangedRecord,
}

impl Changing<'_> {
    /// Why this may not be done to the message, or not by this sender.
    fn forbidden(&self, change: &Change, claims: &GrantClaims) -> Option<Reply> {
        // What was recalled may still be deleted, which takes the hole's reason away as well.
        let gone = match (self.changed.hole, change) {
            (Hole::None, _) | (Hole::Recalled, Change::Delete) => None,
            (hole, _) => Some(hole),
        };
        let own = self.entry.sender_number == claims.number;
        let may = match change {
            Change::Modify { .. } => own || claims.permissions.has(Permissions::MODIFY_OTHERS),
            Change::Recall => own || claims.permissions.has(Permissions::RECALL_OTHERS),
            Change::Delete => claims.permissions.has(Permissions::DELETE),
            Change::Expand { .. } => true,
        };
        if !may && !planted!("change_of_others") {
            let text = format!("{} may not {} this message", claims.user, change.kind().name());
            return Some(Reply::refused(Code::Forbidden, text));
        }
        gone.map(|hole| Reply::refused(Code::TargetGone, format!("the message was {}", hole.name())))
    }

    /// Makes the change to the message; the body of the change's own entry, or why the message cannot take it.
    fn make(&mut self, change: &Change, effects: &mut Effects) -> Result<Result<Bytes, Reply>, ApplyError> {
        match change {
            Change::Modify { body } => self.put_body(body.clone(), effects),
            Change::Recall => self.empty(Hole::Recalled, effects)?,
            Change::Delete => self.empty(Hole::Deleted, effects)?,
            Change::Expand { set, remove } => {
                if let Some(refusal) = self.expand(set, remove, effects)? {
                    return Ok(Err(refusal));
                }
                let keys = set.iter().map(|(key, _)| key).chain(remove).cloned().collect();
                return Ok(Ok(Touched { keys }.encode()));
            }
        }
        Ok(Ok(Bytes::new()))
    }

    fn put_body(&mut self, body: Bytes, effects: &mut Effects) {
        self.entry.body = body;
        effects.put(keys::entry(self.channel, self.seq), &self.entry);
    }

    /// Takes everything out of the message.
    fn empty(&mut self, hole: Hole, effects: &mut Effects) -> Result<(), ApplyError> {
        self.changed.hole = hole;
        if planted!("recall_keeps_body") {
            return Ok(());
        }
        self.put_body(Bytes::new(), effects);
        if self.changed.keys > 0 {
            let (from, to) = keys::expansion_after(self.channel, self.seq, "");
            for (key, _) in self.view.scan(&from, &to, EXPANSION_KEYS_MAX)? {
                effects.delete(key);
            }
        }
        (self.changed.keys, self.changed.keys_bytes) = (0, 0);
        Ok(())
    }

    fn value(&self, key: &str) -> Result<Option<String>, ApplyError> {
        let record = keys::expansion(self.channel, self.seq, key);
        Ok(read::<ExpansionRecord>(self.view, &record)?.map(|record| record.value))
    }

    /// Sets and removes keys. Nothing is done if the message would have too many.
    fn expand(
        &mut self,
        set: &[(String, String)],
        remove: &[String],
        effects: &mut Effects,
    ) -> Result<Option<Reply>, ApplyError> {
        let (mut count, mut bytes) = (usize::from(self.changed.keys), u64::from(self.changed.keys_bytes));
        let size = |key: &str, value: &str| (key.len() + value.len()) as u64;
        let mut gone = Vec::new();
        for key in remove {
            if let Some(value) = self.value(key)? {
                (count, bytes) = (count.saturating_sub(1), bytes.saturating_sub(size(key, &value)));
                gone.push(keys::expansion(self.channel, self.seq, key));
            }
        }
        for (key, value) in set {
            match self.value(key)? {
                Some(before) => bytes = bytes.saturating_sub(size(key, &before)),
                None => count += 1,
            }
            bytes += size(key, value);
        }
        if count > EXPANSION_KEYS_MAX {
            let text = format!("the message would have {count} keys, {EXPANSION_KEYS_MAX} are allowed");
            return Ok(Some(Reply::refused(Code::ExpansionFull, text)));
        }
        gone.into_iter().for_each(|key| effects.delete(key));
        for (key, value) in set {
            let record = ExpansionRecord { value: value.clone() };
            effects.put(keys::expansion(self.channel, self.seq, key), &record);
        }
        let key = keys::changed(self.channel, self.seq);
        let damaged = || corrupt(&key, "its expansion is too large".to_owned());
        self.changed.keys = u16::try_from(count).map_err(|_| damaged())?;
        self.changed.keys_bytes = u32::try_from(bytes).map_err(|_| damaged())?;
        Ok(None)
    }
}
