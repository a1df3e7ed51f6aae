//! The sans-IO session machines of both sides.
//!
//! A machine takes frames and the time in, and gives frames, events and its next wake-up out. It
//! owns the order of frames, the limits of a session and the bookkeeping of requests; it refuses to
//! know where frames come from, who a token belongs to, and what is in a log.

pub mod client;
pub mod server;
