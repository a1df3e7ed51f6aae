//! Messages about changes to messages: making one, and learning of those that were made.

use bytes::Bytes;

use super::decode::{DecodeError, Fields, position, table};
use super::encode::{Builder, pairs, strings};
use super::{Message, RequestId};
use crate::cluster;
use crate::ids::{ChannelId, ChannelNumber, ClientMessageId, GroupId, Position, Seq};
use crate::limits::{CHANGES_RANGE_MAX, EXPANSION_KEY_BYTES_MAX};
use crate::wire::v1;

/// See [`Message::Change`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The sender's key, of the same numbers as those of messages; a retry carries the same.
    pub client_message_id: ClientMessageId,
    /// As in a send.
    pub first_attempt_ms: u64,
    /// The message.
    pub target: Position,
    /// What becomes of it.
    pub change: cluster::Change,
}

/// See [`Message::Changes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The first entry of the range.
    pub from: Position,
    /// Its last entry, of the same epoch; the range has at most `CHANGES_RANGE_MAX`.
    pub to: Seq,
    /// Changes up to this entry are known.
    pub since: Seq,
}

/// See [`Message::ReadExpansion`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadExpansion {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The message.
    pub target: Position,
    /// Keys behind this one in the order of their bytes; empty for the first.
    pub after: String,
}

/// See [`Message::Expansion`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expansion {
    /// The request it answers.
    pub request: RequestId,
    /// The channel.
    pub channel: ChannelNumber,
    /// The message.
    pub target: Position,
    /// The last change of the message; 0 for none.
    pub version: Seq,
    /// Keys and their values, ascending by the keys' bytes.
    pub expansion: Vec<(String, String)>,
    /// Whether there are more behind the last.
    pub more: bool,
}

pub(super) fn decode(kind: u8, payload: &Bytes) -> Result<Message, DecodeError> {
    let of = |request| Fields {
        kind,
        request,
        payload,
    };
    Ok(match kind {
        29 => {
            let t = table::<v1::Change<'_>>(kind, payload)?;
            let fields = of(t.request());
            fields.request_given()?;
            Change {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                channel: fields.name("channel", t.channel(), ChannelId::new)?,
                client_message_id: ClientMessageId(t.client_message_id()),
                first_attempt_ms: t.first_attempt_ms(),
                target: target(&fields, "target", position(t.epoch(), t.target()))?,
                change: change(&fields, &t)?,
            }
            .into()
        }
        30 => {
            let t = table::<v1::Changes<'_>>(kind, payload)?;
            let fields = of(t.request());
            fields.request_given()?;
            let from = target(&fields, "from", position(t.epoch(), t.from()))?;
            if t.to() < t.from() || t.to() - t.from() >= CHANGES_RANGE_MAX {
                let reason = format!("the range must have 1 to {CHANGES_RANGE_MAX} entries");
                return Err(fields.error("to", reason));
            }
            Changes {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                channel: fields.name("channel", t.channel(), ChannelId::new)?,
                from,
                to: Seq(t.to()),
                since: Seq(t.since()),
            }
            .into()
        }
        31 => {
            let t = table::<v1::ReadExpansion<'_>>(kind, payload)?;
            let fields = of(t.request());
            fields.request_given()?;
            ReadExpansion {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                channel: fields.name("channel", t.channel(), ChannelId::new)?,
                target: target(&fields, "seq", position(t.epoch(), t.seq()))?,
                after: fields.text("after", t.after(), EXPANSION_KEY_BYTES_MAX)?,
            }
            .into()
        }
        _ => {
            let t = table::<v1::Expansion<'_>>(kind, payload)?;
            Expansion {
                request: t.request(),
                channel: ChannelNumber(t.channel()),
                target: position(t.epoch(), t.seq()),
                version: Seq(t.version()),
                expansion: of(t.request()).pairs(t.keys(), t.values())?,
                more: t.more(),
            }
            .into()
        }
    })
}

/// A message is named by an epoch and a seq, of which none is 0.
fn target(fields: &Fields<'_>, field: &'static str, at: Position) -> Result<Position, DecodeError> {
    if at.epoch.0 == 0 || at.seq.0 == 0 {
        return Err(fields.error(field, "neither epoch nor seq is 0"));
    }
    Ok(at)
}

fn change(fields: &Fields<'_>, t: &v1::Change<'_>) -> Result<cluster::Change, DecodeError> {
    let change = match t.kind() {
        2 => cluster::Change::Modify {
            body: fields.body(t.body())?,
        },
        3 => cluster::Change::Recall,
        4 => cluster::Change::Delete,
        5 => {
            let set = fields.pairs(t.keys(), t.values())?;
            let remove = fields.keys("removed", t.removed())?;
            cluster::Change::Expand { set, remove }
        }
        other => return Err(fields.error("kind", format!("{other} is no change"))),
    };
    match change.check() {
        Ok(()) => Ok(change),
        Err(error) => Err(fields.error("keys", error.to_string())),
    }
}

impl Message {
    pub(super) fn build_change(&self, b: &mut Builder<'_>) {
        match self {
            Self::Change(m) => build(b, m),
            Self::Changes(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let channel = Some(b.create_string(m.channel.as_str()));
                let args = v1::ChangesArgs {
                    request: m.request,
                    group,
                    channel,
                    epoch: m.from.epoch.0,
                    from: m.from.seq.0,
                    to: m.to.0,
                    since: m.since.0,
                };
                let table = v1::Changes::create(b, &args);
                b.finish_minimal(table);
            }
            Self::ReadExpansion(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let channel = Some(b.create_string(m.channel.as_str()));
                let after = Some(b.create_string(&m.after));
                let args = v1::ReadExpansionArgs {
                    request: m.request,
                    group,
                    channel,
                    epoch: m.target.epoch.0,
                    seq: m.target.seq.0,
                    after,
                };
                let table = v1::ReadExpansion::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Expansion(m) => {
                let (keys, values) = pairs(b, &m.expansion);
                let args = v1::ExpansionArgs {
                    request: m.request,
                    channel: m.channel.0,
                    epoch: m.target.epoch.0,
                    seq: m.target.seq.0,
                    version: m.version.0,
                    keys,
                    values,
                    more: m.more,
                };
                let table = v1::Expansion::create(b, &args);
                b.finish_minimal(table);
            }
            _ => {}
        }
    }
}

fn build(b: &mut Builder<'_>, m: &Change) {
    let group = Some(b.create_string(m.group.as_str()));
    let channel = Some(b.create_string(m.channel.as_str()));
    let mut args = v1::ChangeArgs {
        request: m.request,
        group,
        channel,
        client_message_id: m.client_message_id.0,
        first_attempt_ms: m.first_attempt_ms,
        epoch: m.target.epoch.0,
        target: m.target.seq.0,
        kind: m.change.kind().number(),
        ..v1::ChangeArgs::default()
    };
    match &m.change {
        cluster::Change::Modify { body } => args.body = Some(b.create_vector(body)),
        cluster::Change::Expand { set, remove } => {
            (args.keys, args.values) = pairs(b, set);
            args.removed = strings(b, remove);
        }
        cluster::Change::Recall | cluster::Change::Delete => {}
    }
    let table = v1::Change::create(b, &args);
    b.finish_minimal(table);
}
