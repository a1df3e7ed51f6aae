//! Three core nodes in one process, with real QUIC, Raft and LMDB.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod basics;
mod faults;
mod feeds;
mod fences;
mod starting;
mod support;
