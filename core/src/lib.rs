//! A core node of throng: replicas of shards as Raft groups, requests, outboxes, feeds.
//!
//! ```text
//!  edges, operators ──► Listener ──► dispatch ──► Replica ──► ShardHandle ──► raft ◄──► other nodes
//!                          │                        │  ▲                       │
//!                          └──► feed ◄── Observer ◄─┘  └── outbox ──► calls ───┘
//! ```
//!
//! [`CoreNode`] is all of the interface: started from a [`CoreConfig`], drained, waited for; it gives
//! [`BackEnds`] to whoever serves those of apps. What a
//! command does is decided in `throng-state`; how it reaches the disk in `throng-raft-store`. This
//! crate brings them together over the network, and refuses to know clients and sessions.

mod beats;
mod bootstrap;
mod calls;
mod clock;
mod clocks;
mod cluster_state;
mod config;
mod core;
mod dispatch;
mod error;
mod feed;
mod grant;
mod limits;
mod listen;
mod metrics;
mod node;
mod observe;
mod observer;
mod outbox;
mod peers;
mod raft;
mod replica;

pub use clock::{Clock, SharedClock, SystemClock};
pub use config::{CoreConfig, InitialShards, PeerConfig, Storage, Timings, TlsFiles};
pub use error::CoreError;
pub use node::{BackEnds, CoreNode, CoreParts};
pub use replica::Progress;
