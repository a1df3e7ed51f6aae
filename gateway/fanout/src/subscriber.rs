//! What a channel keeps per subscription: a cursor, an ack and a flag.

use throng_protocol::ids::Seq;

/// Kept as small as this because a popular channel has very many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    /// The last entry handed out; the next one is the first behind it.
    pub cursor: Seq,
    /// The last entry the client said has arrived.
    pub acked: Seq,
    /// Woken, and not yet told `Take::Nothing`.
    pub dirty: bool,
}

/// How far subscriptions of a channel are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Entries the slowest subscription has not been handed.
    pub unsent_max: u64,
    /// Entries the slowest client has not acknowledged.
    pub unacked_max: u64,
}

impl Lag {
    pub(crate) fn include(&mut self, head: Seq, subscriber: &Subscriber) {
        self.unsent_max = self.unsent_max.max(head.0.saturating_sub(subscriber.cursor.0));
        self.unacked_max = self.unacked_max.max(head.0.saturating_sub(subscriber.acked.0));
    }
}
