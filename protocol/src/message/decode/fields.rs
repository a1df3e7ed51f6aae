//! One frame's payload while it is read: verification, and the checks that many types share.

use bytes::Bytes;
use flatbuffers::{Follow, ForwardsUOffset, Vector, Verifiable, VerifierOptions};

use super::DecodeError;
use crate::cluster::check_expansion_key;
use crate::code::Code;
use crate::ids::{ClientMessageId, Epoch, NameError, Position, Seq, Ts, UserId, UserNumber};
use crate::limits::{
    BODY_BYTES_MAX, EXPANSION_KEYS_MAX, EXPANSION_VALUE_BYTES_MAX, FRAME_BYTES_MAX, PAGE_ENTRIES_MAX,
    VERIFIER_DEPTH_MAX, VERIFIER_TABLES_MAX,
};
use crate::message::Entry;
use crate::wire::v1;

/// The context of one frame while its fields are read.
pub(in crate::message) struct Fields<'a> {
    pub kind: u8,
    pub request: u64,
    pub payload: &'a Bytes,
}

impl Fields<'_> {
    pub fn error(&self, field: &'static str, reason: impl Into<String>) -> DecodeError {
        self.coded(field, Code::InvalidField, reason)
    }

    fn coded(&self, field: &'static str, code: Code, reason: impl Into<String>) -> DecodeError {
        DecodeError::Field {
            kind: self.kind,
            request: self.request,
            field,
            reason: reason.into(),
            code,
        }
    }

    /// Whoever asks must be able to tell the answers apart; 0 means the connection.
    pub fn request_given(&self) -> Result<(), DecodeError> {
        if self.request == 0 {
            Err(self.error("request", "0 is not a request id"))
        } else {
            Ok(())
        }
    }

    /// A place in a log is named by a position or by a time stamp.
    pub fn one_place(&self, by_position: bool, ts: u64) -> Result<Ts, DecodeError> {
        if by_position && ts != 0 {
            return Err(self.error("ts", "a position is given as well"));
        }
        Ok(Ts(ts))
    }

    pub fn name<T>(
        &self,
        field: &'static str,
        name: Option<&str>,
        new: impl Fn(&str) -> Result<T, NameError>,
    ) -> Result<T, DecodeError> {
        new(name.unwrap_or_default()).map_err(|error| self.error(field, error.to_string()))
    }

    pub fn text(&self, field: &'static str, text: Option<&str>, max: usize) -> Result<String, DecodeError> {
        let text = text.unwrap_or_default();
        if text.len() > max {
            return Err(self.error(field, format!("{} bytes are over the limit of {max}", text.len())));
        }
        Ok(text.to_owned())
    }

    pub fn body(&self, body: Option<Vector<'_, u8>>) -> Result<Bytes, DecodeError> {
        let Some(body) = body else { return Ok(Bytes::new()) };
        if body.len() > BODY_BYTES_MAX {
            let reason = format!("{} bytes are over the limit of {BODY_BYTES_MAX}", body.len());
            return Err(self.coded("body", Code::MessageTooLarge, reason));
        }
        Ok(self.payload.slice_ref(body.bytes()))
    }

    /// Keys of an expansion, each within its limits.
    pub fn keys(
        &self,
        field: &'static str,
        keys: Option<Vector<'_, ForwardsUOffset<&str>>>,
    ) -> Result<Vec<String>, DecodeError> {
        let mut out = Vec::new();
        for key in keys.iter().flatten() {
            check_expansion_key(key).map_err(|error| self.error(field, error.to_string()))?;
            if out.len() == EXPANSION_KEYS_MAX {
                return Err(self.error(field, format!("more than {EXPANSION_KEYS_MAX} keys")));
            }
            out.push(key.to_owned());
        }
        Ok(out)
    }

    /// Keys of an expansion with their values.
    pub fn pairs(
        &self,
        keys: Option<Vector<'_, ForwardsUOffset<&str>>>,
        values: Option<Vector<'_, ForwardsUOffset<&str>>>,
    ) -> Result<Vec<(String, String)>, DecodeError> {
        let keys = self.keys("keys", keys)?;
        let count = values.map_or(0, |values| values.len());
        if count != keys.len() {
            let reason = format!("{count} values for {} keys", keys.len());
            return Err(self.error("values", reason));
        }
        let mut out = Vec::with_capacity(keys.len());
        for (key, value) in keys.into_iter().zip(values.iter().flatten()) {
            if value.len() > EXPANSION_VALUE_BYTES_MAX {
                let reason = format!(
                    "{} bytes are over the limit of {EXPANSION_VALUE_BYTES_MAX}",
                    value.len()
                );
                return Err(self.error("values", reason));
            }
            out.push((key, value.to_owned()));
        }
        Ok(out)
    }

    pub fn limit(&self, limit: u32) -> Result<u32, DecodeError> {
        if limit > PAGE_ENTRIES_MAX {
            return Err(self.error(
                "limit",
                format!("{limit} is over the limit of {PAGE_ENTRIES_MAX}"),
            ));
        }
        Ok(limit)
    }

    pub fn entries(
        &self,
        entries: Option<Vector<'_, ForwardsUOffset<v1::Entry<'_>>>>,
    ) -> Result<Vec<Entry>, DecodeError> {
        let mut out =
            Vec::with_capacity(entries.map_or(0, |entries| entries.len().min(PAGE_ENTRIES_MAX as usize)));
        for entry in entries.iter().flatten() {
            out.push(Entry {
                seq: Seq(entry.seq()),
                ts: Ts(entry.ts()),
                kind: entry.kind(),
                sender: self.name("sender", entry.sender(), UserId::new)?,
                sender_number: UserNumber(entry.sender_number()),
                client_message_id: ClientMessageId(entry.client_message_id()),
                body: self.body(entry.body())?,
                target: Seq(entry.target()),
                version: Seq(entry.version()),
                hole: entry.hole(),
                expansion: self.pairs(entry.keys(), entry.values())?,
                removed: self.keys("removed", entry.removed())?,
                keys_elsewhere: entry.keys_elsewhere(),
            });
        }
        if out.windows(2).any(|pair| pair[0].seq >= pair[1].seq) {
            return Err(self.error("entries", "positions do not ascend"));
        }
        Ok(out)
    }
}

pub(in crate::message) fn table<'a, T>(kind: u8, payload: &'a [u8]) -> Result<T::Inner, DecodeError>
where
    T: Follow<'a> + Verifiable + 'a,
{
    let options = VerifierOptions {
        max_depth: VERIFIER_DEPTH_MAX,
        max_tables: VERIFIER_TABLES_MAX,
        max_apparent_size: FRAME_BYTES_MAX * 2,
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, payload).map_err(|_| DecodeError::Malformed { kind })
}

pub(in crate::message) fn position(epoch: u32, seq: u64) -> Position {
    Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    }
}
