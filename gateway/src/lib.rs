//! An edge of throng: what clients connect to.
//!
//! ```text
//!             ┌ worker, one per processor ─────────────────────────────┐
//!  clients ═══╪► listener ─► session: control stream, requests ────────┼─► upstream ══► core nodes
//!  throng/1   │                 ▲ lanes, bulk stream                   │       ▲
//!             └─────────────────┼──────────────────────────────────────┘       │
//!                               └──── channels: hot rings ◄───────── feeds ────┘
//! ```
//!
//! An edge verifies tokens, keeps sessions, follows each channel that somebody here is subscribed to
//! once, and hands requests to the leaders of their shards. It keeps nothing that a restart may
//! lose: positions are the clients', logs and members the core's. It refuses to know how the core
//! stores or replicates anything, and retries nothing beyond the moment an election takes: the
//! client library is the one owner of retries.

mod auth;
mod cache;
mod channels;
mod clock;
mod config;
mod directory;
mod error;
mod floods;
mod gateway;
mod generations;
mod limits;
mod listener;
mod metrics;
mod observe;
mod refused;
mod session;
mod shared;
pub mod token;
mod upstream;
mod workers;

pub use config::{
    CONNECTIONS_MAX, ClientTlsFiles, ClusterTlsFiles, CoreAddress, GatewayConfig, GatewayLimits,
    HandshakeLimits,
};
pub use error::GatewayError;
pub use gateway::{ClientSide, Gateway, GatewayParts};
