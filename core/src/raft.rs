//! The one module that names openraft: shards as Raft groups, and a facade without its types.
//!
//! ```text
//!  ShardHandle ──► Raft ──► Network ──► append · heartbeat · vote · snapshot lanes ──► peer
//!                   ▲                                                                   │
//!                   └── RaftServer ◄─────────────────────────────────────────────────── ┘
//! ```
//!
//! Each class of message has a lane of its own between two nodes, so that a heartbeat never waits
//! behind entries or a snapshot. All shards share the lanes: what several of them send at one moment
//! leaves in one packet. Heartbeats are not held back to gather more of them, because the probes of
//! linearizable reads travel as heartbeats. Nothing here knows what a command means.

mod handle;
mod network;
mod server;
mod ticks;
mod wire;

pub(crate) use handle::{ProposeError, ShardHandle};
pub(crate) use network::NetworkFactory;
pub(crate) use server::RaftServer;
pub(crate) use wire::{BEAT_LANE, is_raft_lane};

/// A shard's Raft group.
pub(crate) type Raft = openraft::Raft<throng_raft_store::TypeConfig, throng_raft_store::StateMachine>;
