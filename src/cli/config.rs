//! Configuration of single nodes: a commented example, flags over environment over file, and
//! refusals that name the line and the nearest key.
//!
//! The examples are the one list of keys: every key, set or commented out, is in them, and what is
//! not in them is refused.

mod example;
mod file;
mod overlay;

pub use example::{CORE_EXAMPLE, GATEWAY_EXAMPLE};
pub use file::{CoreFile, EdgeEntry, GatewayFile, LogBounds, NodeEntry, ShardCounts, TlsFiles};
pub use overlay::{Overlay, load};
