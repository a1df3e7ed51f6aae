//! Who is told that a channel has something to take.

use std::fmt;
use std::sync::Arc;

use super::Channel;

/// A session, as a channel knows it. Called while the channel is locked: it notes what to look at, and
/// looks at it later.
pub(crate) trait Receiver: fmt::Debug + Send + Sync {
    /// The channel has something for this session.
    fn note(&self, channel: &Arc<Channel>);
}
