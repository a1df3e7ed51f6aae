//! What messages and changes have in common: whether their sender may write them now, whether they
//! were written before, and the place they get.

use bytes::Bytes;
use throng_planted::planted;
use throng_protocol::cluster::{GrantClaims, Permissions};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, ClientMessageId, Seq, Ts, UserNumber};
use throng_protocol::limits::IDEMPOTENCY_WINDOW_MS;

use super::At;
use super::dedupe::{self, Known};
use super::rights::{self, Right};
use crate::effect::Effects;
use crate::limits::CLOCK_SLACK_MS;
use crate::record::{EntryRecord, LogRecord, SentRecord, TailRecord, read, read_present};
use crate::{ApplyError, Effect, Reply, View, keys};

/// Something that is to become an entry.
pub(super) struct Writing<'a> {
    pub channel: ChannelNumber,
    pub claims: &'a GrantClaims,
    pub id: ClientMessageId,
    pub first_attempt_ms: u64,
    pub proposed_ms: u64,
    /// The hash over what a retry must repeat.
    pub fields: [u8; 16],
    /// What its sender must be let do.
    pub permission: Permissions,
    /// Whether it says something to others, which a mute forbids.
    pub speaks: bool,
}

/// What is to be done with it.
pub(super) enum Admitted {
    /// It is new, and this is its place.
    New(Box<Place>),
    /// It is an entry already.
    Repeat { log: LogRecord, seq: Seq, ts: Ts },
    /// It is refused.
    Refused(Reply),
}

/// The place that an entry gets.
pub(super) struct Place {
    pub log: LogRecord,
    pub ts: Ts,
    tail: TailRecord,
    sent_key: Bytes,
}

impl Writing<'_> {
    /// Judges it.
    pub fn admit(&self, at: &At<'_>) -> Result<Admitted, ApplyError> {
        let (view, channel) = (at.view, self.channel);
        let Some(log) = read::<LogRecord>(view, &keys::log(channel))? else {
            let text = format!("there is no channel {channel} here");
            return Ok(Admitted::Refused(Reply::refused(Code::ChannelUnknown, text)));
        };
        let claims = self.claims;
        if claims.app != log.info.app || claims.group != log.info.group {
            let text = format!(
                "the grant is for group {}, the channel is of another",
                claims.group
            );
            return Ok(Admitted::Refused(Reply::refused(Code::Forbidden, text)));
        }
        let tail: TailRecord = read_present(view, &keys::tail(channel))?;
        let ts = tail.last_ts.advance(Ts::from_millis(self.proposed_ms));
        let ts = if planted!("ts_without_max") {
            Ts::from_millis(self.proposed_ms)
        } else {
            ts
        };
        if ts <= tail.last_ts && !planted!("ts_without_max") {
            let text = "the channel has no time stamps left";
            return Ok(Admitted::Refused(Reply::refused(Code::Internal, text)));
        }
        let sent_key = keys::sent(channel, claims.number, self.id);
        match dedupe::lookup(view, &sent_key, &self.fields, ts)? {
            Known::Repeat { seq, ts } => return Ok(Admitted::Repeat { log, seq, ts }),
            Known::Conflict { seq } => {
                let text = format!("the key {} was used for entry {seq}", self.id);
                return Ok(Admitted::Refused(Reply::refused(Code::IdempotencyConflict, text)));
            }
            Known::No => {}
        }
        // Behind the lookup: what was acked before a fence is answered the same behind it.
        let unentitled = self.unentitled(view, ts)?;
        if let Some(refusal) = unentitled.filter(|_| !planted!("fence_not_judged_in_apply")) {
            return Ok(Admitted::Refused(refusal));
        }
        // The app itself, which no user's number stands for, decides about its channels.
        if log.archived && claims.number != UserNumber(0) {
            let text = format!("channel {} is archived", log.info.channel);
            return Ok(Admitted::Refused(Reply::refused(Code::ChannelArchived, text)));
        }
        if let Some(refusal) = self.untimely(ts) {
            return Ok(Admitted::Refused(refusal));
        }
        Ok(Admitted::New(Box::new(Place {
            log,
            ts,
            tail,
            sent_key,
        })))
    }

    /// Why the sender may not write this now.
    fn unentitled(&self, view: &dyn View, ts: Ts) -> Result<Option<Reply>, ApplyError> {
        let claims = self.claims;
        Ok(match rights::to_act(view, claims)? {
            Right::Stale => Some(Reply::GrantStale),
            Right::Early => {
                let text = format!(
                    "fence {} of group {} has not arrived here yet",
                    claims.fenced, claims.group
                );
                Some(Reply::refused(Code::Unavailable, text))
            }
            Right::Held if !claims.permissions.has(self.permission) => {
                let text = format!("{} may not do this in {}", claims.user, claims.group);
                Some(Reply::refused(Code::Forbidden, text))
            }
            Right::Held if self.speaks && ts.millis() < claims.muted_until => {
                let text = format!(
                    "{} is muted in {} until {} (Unix milliseconds)",
                    claims.user, claims.group, claims.muted_until
                );
                Some(Reply::refused(Code::Muted, text))
            }
            Right::Held => None,
        })
    }

    /// Why something without an idempotency record cannot be taken for new. Together with
    /// [`dedupe::lookup`] this is the promise that a retry is never appended twice: an entry's first
    /// attempt is at most the slack ahead of its time stamp, and its record is valid for the window and
    /// the slack, so a retry that is not too old finds the record.
    fn untimely(&self, ts: Ts) -> Option<Reply> {
        let (first, now) = (self.first_attempt_ms, ts.millis());
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
}

impl Place {
    /// The last entry before it.
    pub fn head(&self) -> Seq {
        self.tail.head
    }

    /// The oldest entry kept.
    pub fn oldest(&self) -> Seq {
        self.tail.oldest
    }

    /// Writes the entry there, and that its key was used.
    pub fn write(
        mut self,
        at: &At<'_>,
        writing: &Writing<'_>,
        entry: &EntryRecord,
        effects: &mut Effects,
    ) -> Result<Seq, ApplyError> {
        let (channel, ts) = (writing.channel, self.ts);
        for expired in dedupe::expire(at.view, channel, &mut self.tail, ts)? {
            // An expired record of this very key is about to be overwritten, not removed.
            if expired != self.sent_key {
                effects.delete(expired);
            }
        }
        let seq = self.tail.head.next();
        if self.tail.expired == self.tail.head {
            self.tail.due = ts;
        }
        self.tail.head = seq;
        self.tail.last_ts = ts;
        effects.put(keys::entry(channel, seq), entry);
        let fields = writing.fields;
        effects.put(self.sent_key, &SentRecord { seq, ts, fields });
        effects.put(keys::tail(channel), &self.tail);
        effects.push(Effect::Advanced { channel, head: seq });
        Ok(seq)
    }
}
