//! What a channel keeps per subscription: a cursor, an ack and two flags.

use throng_protocol::ids::{Seq, UserNumber};
use throng_protocol::message::RequestId;

use crate::fences::Rights;

/// Kept as small as this because a popular channel has very many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    /// The last entry handed out; the next one is the first behind it.
    pub cursor: Seq,
    /// The last entry the client said has arrived.
    pub acked: Seq,
    /// The last entry that is this subscription's; the highest number while no fence has passed.
    pub cap: Seq,
    /// Whose it is.
    pub number: UserNumber,
    /// The version of the grant it was admitted by.
    pub version: u64,
    /// The request that began it.
    pub request: RequestId,
    /// Capped because the edge has lost track of fences, not because one has passed.
    pub lapsed: bool,
    /// The client knows of the subscription: it may be handed something.
    pub attached: bool,
}

impl Subscriber {
    pub fn new(cursor: Seq, rights: Rights, request: RequestId) -> Self {
        Self {
            cursor,
            acked: cursor,
            cap: NO_CAP,
            number: rights.number,
            version: rights.version,
            request,
            lapsed: false,
            attached: false,
        }
    }

    /// Whether there is something to take while the log ends at `head`: entries, or the end.
    pub fn is_due(&self, head: Seq) -> bool {
        self.is_over() || self.cursor < head.min(self.cap)
    }

    pub fn is_capped(&self) -> bool {
        self.cap != NO_CAP
    }

    /// Whether everything that is this subscription's was handed out, and more is not to come.
    pub fn is_over(&self) -> bool {
        self.is_capped() && self.cursor >= self.cap
    }
}

/// No entry has this position.
const NO_CAP: Seq = Seq(u64::MAX);

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
