//! The bounds of the Server API, with their reasons.

use std::time::Duration;

/// Largest body of a request: a text of 128 KiB, each byte of which JSON may write with six.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes a connection may hold unread, the head of a request included: what comes before a key was looked at.
pub const BUFFER_BYTES: usize = 32 * 1024;

/// Connections at once; the next one waits in the socket's queue. Back ends are few and keep theirs.
pub const CONNECTIONS_MAX: usize = 1_024;

/// How long a handshake of TLS may take: two round trips, and some more. Whoever connects and is silent holds a
/// place for no longer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may wait for a client to read.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the head of a request may take to come, the silence between two requests included.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a request may take from its head to its answer: a cluster that looks for leaders answers
/// within 10 s that it cannot.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests under way may go on when the node stops: it drains meanwhile, within three seconds.
pub const GOODBYE: Duration = Duration::from_secs(2);

/// Users of one request whose numbers are looked up at once.
pub const LOOKUPS_AT_ONCE: usize = 32;

/// Life of a token unless the back end says another: an hour.
pub const TOKEN_SECONDS: u64 = 3_600;

/// Longest life of a token that edges take: a day (SPEC.md, 3).
pub const TOKEN_SECONDS_MAX: u64 = 24 * 3_600;

/// Longest mute: ten years, so that a mistaken unit is noticed.
pub const MUTE_SECONDS_MAX: u64 = 10 * 365 * 24 * 3_600;

/// Seconds after which a request that was refused for now is asked again.
pub const RETRY_AFTER_S: u64 = 1;
