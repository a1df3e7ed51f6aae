//! Numbered error codes: what went wrong, and what to do next.
//!
//! Numbers are part of the wire and are never reused; SPEC.md §8 has the same table, and tests pin
//! both. 1xx: framing and order, 2xx: authentication, 3xx: addressing and rights, 4xx: sends,
//! 5xx: the cluster.

use serde::{Deserialize, Serialize};

/// What the receiver of an error can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// The same request may succeed later, after `retry_after_ms` if given.
    Retryable,
    /// Another edge may serve it.
    Redirect,
    /// The same request will never succeed.
    Fatal,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $class:ident, $closes:literal;)*) => {
        /// An error code of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            pub fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// The code of a number, `None` for one this version does not know.
            pub fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The stable name, as SPEC.md writes it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What the receiver can do.
            pub fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            /// Whether the side that reports it closes the connection.
            pub fn closes(self) -> bool {
                match self { $(Self::$name => $closes,)* }
            }
        }
    };
}

codes! {
    /// A frame's length prefix is malformed, or its payload does not verify.
    MalformedFrame = 100, "malformed_frame", Fatal, true;
    /// A frame's payload is over the limit.
    FrameTooLarge = 101, "frame_too_large", Fatal, true;
    /// A frame of a known type came where its order forbids it.
    OutOfOrder = 102, "out_of_order", Fatal, true;
    /// A frame type that must not be skipped is unknown.
    UnknownCriticalFrame = 103, "unknown_critical_frame", Fatal, true;
    /// No version in common.
    VersionUnsupported = 104, "version_unsupported", Fatal, true;
    /// A field is outside its range; the message says which.
    InvalidField = 105, "invalid_field", Fatal, false;
    /// More requests in flight than allowed.
    TooManyRequests = 106, "too_many_requests", Retryable, false;
    /// The client was silent for longer than the idle timeout, slow to authenticate, or slow to finish
    /// a frame.
    Timeout = 107, "timeout", Retryable, true;
    /// The client floods the edge with signals of the carrier.
    Flooding = 108, "flooding", Fatal, true;
    /// The token is not a token, or its signature is wrong.
    TokenInvalid = 200, "token_invalid", Fatal, true;
    /// The token has expired.
    TokenExpired = 201, "token_expired", Fatal, true;
    /// The token is of an app this cluster does not know.
    AppUnknown = 202, "app_unknown", Fatal, true;
    /// The group does not exist.
    GroupUnknown = 300, "group_unknown", Fatal, false;
    /// The channel does not exist.
    ChannelUnknown = 301, "channel_unknown", Fatal, false;
    /// The user is not a member of the group.
    NotMember = 302, "not_member", Fatal, false;
    /// The user may not do this.
    Forbidden = 303, "forbidden", Fatal, false;
    /// A group or channel of this name exists already.
    AlreadyExists = 304, "already_exists", Fatal, false;
    /// The session is subscribed to as many channels as allowed.
    TooManySubscriptions = 305, "too_many_subscriptions", Fatal, false;
    /// The session is not subscribed to that channel.
    NotSubscribed = 306, "not_subscribed", Fatal, false;
    /// The user may not send in the group until a moment, which the message names.
    Muted = 307, "muted", Fatal, false;
    /// The group has no such role.
    RoleUnknown = 308, "role_unknown", Fatal, false;
    /// The channel is archived: it is read, and nothing is written to it.
    ChannelArchived = 309, "channel_archived", Fatal, false;
    /// The body is over 128 KiB.
    MessageTooLarge = 400, "message_too_large", Fatal, false;
    /// The same key was used for another message.
    IdempotencyConflict = 401, "idempotency_conflict", Fatal, false;
    /// The first attempt is older than the idempotency window.
    RetryTooOld = 402, "retry_too_old", Fatal, false;
    /// The entry to change does not exist, is of another epoch, or is no message.
    TargetUnknown = 403, "target_unknown", Fatal, false;
    /// The message to change was recalled or deleted.
    TargetGone = 404, "target_gone", Fatal, false;
    /// The message's expansion would have more keys than allowed.
    ExpansionFull = 405, "expansion_full", Fatal, false;
    /// No leader could be reached; retry.
    Unavailable = 500, "unavailable", Retryable, false;
    /// The shard has stopped: its disk is full or its store fails its checks.
    StoreFailed = 501, "store_failed", Retryable, false;
    /// The edge is draining; connect to another.
    Draining = 502, "draining", Redirect, true;
    /// The edge or node is over a limit; retry after the time given.
    Overloaded = 503, "overloaded", Retryable, false;
    /// Something of ours failed.
    Internal = 504, "internal", Retryable, false;
}

/// Application code with which a connection is closed for no error.
pub const CLOSE_NORMAL: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_read_back() {
        for (place, code) in Code::ALL.iter().enumerate() {
            assert_eq!(Code::from_number(code.number()), Some(*code));
            for other in &Code::ALL[place + 1..] {
                assert!(code.number() < other.number());
                assert_ne!(code.name(), other.name());
            }
        }
        assert_eq!(Code::from_number(99), None);
    }
}
