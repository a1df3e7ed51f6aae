//! Messages about rights that end: taking one away, and telling a client that its subscription is over.

use bytes::Bytes;

use super::decode::{Fields, table};
use super::encode::Builder;
use super::{DecodeError, Message, RequestId};
use crate::cluster::PENDING_CHANNELS_MAX;
use crate::code::Code;
use crate::ids::{ChannelId, ChannelNumber, GroupId, Position, UserId};
use crate::limits::TEXT_BYTES_MAX;
use crate::wire::v1;

/// See [`Message::Kick`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kick {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// Whose membership ends.
    pub user: UserId,
}

/// See [`Message::Mute`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mute {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// Who may not send.
    pub user: UserId,
    /// Until when, server time, Unix milliseconds; 0 gives the right back.
    pub until_ms: u64,
}

/// See [`Message::Fenced`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fenced {
    /// The kick or mute it answers.
    pub request: RequestId,
    /// The version of the group that the change made.
    pub version: u64,
    /// Channels in which it does not hold yet; empty when it holds everywhere.
    pub pending: Vec<ChannelId>,
    /// Further such channels that are not named.
    pub more: u32,
}

/// See [`Message::Ended`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The subscribe or resume that began the subscription: an end that is late is none of a later one.
    pub request: RequestId,
    /// The channel.
    pub channel: ChannelNumber,
    /// Nothing behind it comes; what lies up to it may still be on its way on another stream.
    pub position: Position,
    /// Why: a code's number, as in an error.
    pub code: u16,
    /// Why, for people.
    pub message: String,
}

impl Ended {
    /// The code, if this build knows it.
    pub fn known_code(&self) -> Option<Code> {
        Code::from_number(self.code)
    }
}

pub(super) fn decode(kind: u8, payload: &Bytes) -> Result<Message, DecodeError> {
    let of = |request| Fields {
        kind,
        request,
        payload,
    };
    Ok(match kind {
        25 => {
            let t = table::<v1::Kick<'_>>(kind, payload)?;
            let fields = of(t.request());
            fields.request_given()?;
            Kick {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                user: fields.name("user", t.user(), UserId::new)?,
            }
            .into()
        }
        26 => {
            let t = table::<v1::Mute<'_>>(kind, payload)?;
            let fields = of(t.request());
            fields.request_given()?;
            Mute {
                request: t.request(),
                group: fields.name("group", t.group(), GroupId::new)?,
                user: fields.name("user", t.user(), UserId::new)?,
                until_ms: t.until_ms(),
            }
            .into()
        }
        27 => {
            let t = table::<v1::Fenced<'_>>(kind, payload)?;
            let fields = of(t.request());
            let count = t.pending().map_or(0, |pending| pending.len());
            if count > PENDING_CHANNELS_MAX {
                let reason = format!("{count} channels are over the limit of {PENDING_CHANNELS_MAX}");
                return Err(fields.error("pending", reason));
            }
            let mut pending = Vec::with_capacity(count);
            for channel in t.pending().iter().flatten() {
                pending.push(fields.name("pending", Some(channel), ChannelId::new)?);
            }
            Fenced {
                request: t.request(),
                version: t.version(),
                pending,
                more: t.more(),
            }
            .into()
        }
        _ => {
            let t = table::<v1::Ended<'_>>(kind, payload)?;
            Ended {
                request: t.request(),
                channel: ChannelNumber(t.channel()),
                position: super::decode::position(t.epoch(), t.seq()),
                code: t.code(),
                message: of(0).text("message", t.message(), TEXT_BYTES_MAX)?,
            }
            .into()
        }
    })
}

impl Message {
    pub(super) fn build_rights(&self, b: &mut Builder<'_>) {
        match self {
            Self::Kick(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let user = Some(b.create_string(m.user.as_str()));
                let request = m.request;
                let table = v1::Kick::create(b, &v1::KickArgs { request, group, user });
                b.finish_minimal(table);
            }
            Self::Mute(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let user = Some(b.create_string(m.user.as_str()));
                let args = v1::MuteArgs {
                    request: m.request,
                    group,
                    user,
                    until_ms: m.until_ms,
                };
                let table = v1::Mute::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Fenced(m) => {
                let pending: Vec<_> = m
                    .pending
                    .iter()
                    .map(|name| b.create_string(name.as_str()))
                    .collect();
                let pending = Some(b.create_vector(&pending));
                let args = v1::FencedArgs {
                    request: m.request,
                    version: m.version,
                    pending,
                    more: m.more,
                };
                let table = v1::Fenced::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Ended(m) => {
                let message = Some(b.create_string(&m.message));
                let args = v1::EndedArgs {
                    request: m.request,
                    channel: m.channel.0,
                    epoch: m.position.epoch.0,
                    seq: m.position.seq.0,
                    code: m.code,
                    message,
                };
                let table = v1::Ended::create(b, &args);
                b.finish_minimal(table);
            }
            _ => {}
        }
    }
}
