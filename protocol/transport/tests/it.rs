//! The transport over real sockets of this machine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

#[path = "it/amplification.rs"]
mod amplification;
#[path = "it/cluster.rs"]
mod cluster;
#[path = "it/handshake_load.rs"]
mod handshake_load;
#[path = "it/hostile.rs"]
mod hostile;
#[path = "it/link.rs"]
mod link;
#[path = "it/pool.rs"]
mod pool;
#[path = "it/port.rs"]
mod port;
#[path = "it/rpc.rs"]
mod rpc;
#[path = "it/support.rs"]
mod support;
