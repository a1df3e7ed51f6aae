//! Every bound of the protocol, with the reason or the source of its value.
//!
//! SPEC.md §9 lists the same figures; a test holds the two together.

/// Longest name (app, user, group, channel, device) in bytes. RongCloud and Matrix use 64 to 255;
/// 64 keeps a grant and a log entry small.
pub const NAME_BYTES_MAX: usize = 64;

/// Largest body of a message in bytes: 128 KiB, RongCloud's documented limit.
pub const BODY_BYTES_MAX: usize = 128 * 1024;

/// Largest frame payload in bytes that either side accepts: one largest body and its envelope, or a
/// page of many small entries.
pub const FRAME_BYTES_MAX: usize = 192 * 1024;

/// Bytes of entries after which a page or a deliver frame is closed; leaves room for one largest
/// body plus envelopes below [`FRAME_BYTES_MAX`].
pub const PAGE_BYTES_TARGET: usize = 32 * 1024;

/// Most entries in a page: Centrifugo's recovery limit and Telegram's hard difference limit are 300.
pub const PAGE_ENTRIES_MAX: u32 = 300;

/// Entries in a page when the client names no limit: Telegram's channel difference default.
pub const PAGE_ENTRIES_DEFAULT: u32 = 100;

/// Most positions in one resume frame; a client with more sends several.
pub const RESUME_POSITIONS_MAX: usize = 500;

/// Most versions a hello may offer.
pub const HELLO_VERSIONS_MAX: usize = 16;

/// Longest token in bytes; a JWT with our claims has about 250.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// Longest human-readable text in an error or a drain notice, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Most channels one session may be subscribed to at once. Bounds the memory of a session at an
/// edge to about 100 KiB; a phone shows far fewer.
pub const SUBSCRIPTIONS_MAX: usize = 1_000;

/// Most requests of one session that may wait for an answer at once; the next one is refused with
/// `too_many_requests`. Bounds the memory one client can pin to this many bodies.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 64;

/// Milliseconds within which a retry of a send is recognised: 48 h, twice Matrix's transaction
/// window. Named in `welcome`.
pub const IDEMPOTENCY_WINDOW_MS: u64 = 48 * 3_600 * 1_000;

/// Milliseconds between a client's pings: Centrifugo's 25 s, below common NAT timeouts of 30 s.
pub const PING_INTERVAL_MS: u32 = 25_000;

/// Milliseconds of silence after which a connection is given up: two pings and some slack.
pub const IDLE_TIMEOUT_MS: u32 = 60_000;

/// Milliseconds a client has from the handshake to its `authenticate`; slow-loris guard.
pub const AUTHENTICATE_TIMEOUT_MS: u64 = 5_000;

/// Milliseconds from the first byte of a frame on the control stream to its last: 80 kbit/s for the
/// largest one. A frame that trickles for ever would hold its session open without a word.
pub const FRAME_TIMEOUT_MS: u64 = 20_000;

/// Live lanes a server opens; a channel hashes to one of them, so that one lost packet does not
/// stall all channels. Four keeps quinn's per-stream memory small.
pub const LIVE_LANES: u8 = 4;

/// Out-of-order entries a client buffers per channel before it syncs instead.
pub const REORDER_ENTRIES_MAX: usize = 512;

/// Most keys that one change may set and remove of an expansion: RongCloud's limit.
pub const EXPANSION_KEYS_PER_CHANGE_MAX: usize = 20;

/// Most keys of a message's expansion: RongCloud's limit.
pub const EXPANSION_KEYS_MAX: usize = 300;

/// Longest key of an expansion in bytes: RongCloud's limit.
pub const EXPANSION_KEY_BYTES_MAX: usize = 32;

/// Longest value of an expansion in bytes: RongCloud's limit.
pub const EXPANSION_VALUE_BYTES_MAX: usize = 4_096;

/// Most bytes of keys and values with which a message's expansion is a part of its entry; a larger one is
/// read by itself. Half of what a page aims at, so that every entry of a page fits into a frame.
pub const EXPANSION_INLINE_BYTES_MAX: usize = 16 * 1024;

/// Most entries of a range whose changes are asked for at once: a page.
pub const CHANGES_RANGE_MAX: u64 = 300;

/// FlatBuffers verifier: nesting of tables. The schema's deepest is 3.
pub const VERIFIER_DEPTH_MAX: usize = 8;

/// FlatBuffers verifier: tables in one payload: a page's entries, the resume positions, and slack.
pub const VERIFIER_TABLES_MAX: usize = 1_024;
