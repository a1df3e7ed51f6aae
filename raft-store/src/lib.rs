//! Raft's log and state on disk.
//!
//! ```text
//! openraft ── LogStore ──────┐                       ┌─ apply: throng-state, pure
//!          └─ StateMachine ──┤── Store (one writer) ─┤
//! core ────── StateReader ───┘        │              └─ snapshot streams
//!                        HeedStore, or SimDisk
//! ```
//!
//! A node opens one [`NodeStore`] and on it one [`Shard`] per replica:
//!
//! ```no_run
//! # use std::{path::Path, sync::Arc};
//! # use throng_protocol::{ids::ShardId, placement::Plane};
//! # use throng_raft_store::{NodeStore, Notice, Observer, ShardTiming, StoreOptions, raft_config};
//! # struct Feeds;
//! # impl Observer for Feeds {
//! #     fn applied(&self, _: ShardId, _: u64, _: Vec<Notice>) {}
//! #     fn installed(&self, _: ShardId, _: u64) {}
//! # }
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let node = NodeStore::open(Path::new("node-1/store"), &StoreOptions::default())?;
//! let shard = node.shard(ShardId(101), Plane::Message, Arc::new(Feeds)).await?;
//! let config = raft_config(ShardTiming::default())?;
//! // Raft::new(id, config, network, shard.log, shard.state_machine).await?;
//! // Reads: shard.reader (a throng_state::View). RPCs: the `wire` module.
//! # Ok(()) }
//! ```
//!
//! Invariants:
//! * A callback says durable only after a full sync; after one failed commit nothing ever does.
//! * Batches of a node reach the disk in the order they were submitted, each as a whole. So durable
//!   state is never ahead of the durable log, and a purge is never ahead of durable state.
//! * A record that fails its checksum stops the replica; its bytes are handed to nobody.
//! * A shard's state on disk is the whole state of one applied entry, also in the middle of an
//!   install.
//!
//! This crate refuses to know commands, networks and who leads.

pub mod config;
pub mod entry;
pub mod folder;
mod health;
pub mod heed_store;
pub mod inspect;
mod keys;
mod log_store;
pub mod metrics;
pub mod node;
mod random;
pub mod reader;
pub mod record;
pub mod runtime;
mod shard_state;
pub mod sim_disk;
pub mod snapshot;
mod spool;
pub mod state_machine;
pub mod store;
pub mod types;
pub mod wire;
pub mod writer;

pub use config::{ShardTiming, raft_config};
pub use folder::OpenError;
pub use heed_store::HeedStore;
pub use keys::STATE_KEY_BYTES_MAX;
pub use log_store::{LogReader, LogStore, READ_BYTES_MAX, TAIL_BYTES_MAX};
pub use metrics::StoreMetrics;
pub use node::{NodeStore, Shard, StoreOptions};
pub use reader::StateReader;
pub use runtime::align_ticks;
pub use shard_state::UNFLUSHED_BYTES_MAX;
pub use sim_disk::SimDisk;
pub use snapshot::{SnapshotChunks, SnapshotData, SnapshotReceiver, SpooledSnapshot};
pub use state_machine::{Notice, Observer, StateMachine};
pub use store::{Batch, FailureKind, Store, StoreFailure, Table};
pub use types::{CommandBytes, ReplyBytes, TypeConfig};
