//! The throng protocol: what goes over the wire, and the rules both sides keep.
//!
//! This crate is pure. It holds ids, limits, error codes, frames, the typed messages over the
//! FlatBuffers schema, and the sans-IO session machines of client and server. It refuses to know
//! sockets, clocks, randomness, threads and files: time comes in as an argument, bytes go out as
//! values. `SPEC.md` beside this crate is normative for everything a client sees; [`cluster`] is
//! the wire between our own nodes.

pub mod cluster;
pub mod code;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod message;
pub mod placement;
pub mod rate;
pub mod session;
pub mod timeline;
mod wire;
