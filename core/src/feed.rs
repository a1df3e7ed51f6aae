//! Feeds: what a node's replicas append, told to edges as it is applied.
//!
//! A feed is a position in a channel's log and nothing more. When the log has grown, the feed reads
//! the next page from the replica's applied state and writes it to its lane; a slow edge holds up
//! its own lane by the stream's flow control, and no entry waits in memory. Only applied entries
//! are read, and only committed ones are applied: a feed never shows what a crash could take back.

mod lane;
mod registry;

pub(crate) use lane::serve;
pub(crate) use registry::FeedRegistry;
