//! Who takes what a channel has.

use std::fmt;
use std::sync::Arc;

use throng_fanout::Take;

use super::Channel;

/// A session, as a channel and its worker's rounds know it.
pub(crate) trait Receiver: fmt::Debug + Send + Sync {
    /// The channel has something for sessions of this session's worker. Called while the channel is
    /// locked: the worker's round comes later.
    fn news(&self, channel: &Arc<Channel>);
    /// The channel has something for this session. Called while the channel is locked: it looks later.
    fn note(&self, channel: &Arc<Channel>);
    /// Whether it can be handed something of the channel now; if not, it comes for it when it can.
    fn is_ready(&self, channel: &Arc<Channel>) -> bool;
    /// Takes what the channel had for it.
    fn hand(&self, channel: &Arc<Channel>, take: Take);
}
