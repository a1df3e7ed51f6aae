//! Three core nodes in one process, with real QUIC, Raft and LMDB.

mod basics;
mod faults;
mod feeds;
mod starting;
mod support;
