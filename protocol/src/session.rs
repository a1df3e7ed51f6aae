//! The sans-IO session machines of both sides.
//!
//! A machine takes frames and the time in, and gives frames, events and its next wake-up out. It
//! owns the order of frames, the limits of a session and the bookkeeping of requests; it refuses to
//! know where frames come from, who a token belongs to, and what is in a log.

pub mod client;
pub mod server;

/// First byte of a stream a server opens for live deliveries; frames follow. There are at most
/// `LIVE_LANES` of them, and a channel's live deliveries all come on one.
pub const STREAM_LIVE: u8 = 1;

/// First byte of the one stream a server opens for catch-up; frames follow. It has a lower priority
/// than the live lanes.
pub const STREAM_BULK: u8 = 2;
