//! What sessions ask of a channel, and what they are handed.

use bytes::Bytes;
use smallvec::SmallVec;
use throng_protocol::ids::{Epoch, Position, Seq, Ts};
use throng_protocol::message::{RequestId, Start};

use crate::crew::Seat;
use crate::fences::Rights;

/// Where a new subscription's deliveries begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Deliveries begin behind it.
    pub position: Position,
    /// The last entry of the log, as far as the edge knows.
    pub head: Seq,
    /// Why there.
    pub start: Start,
    /// The time stamp of the entry at the position, if the ring holds it.
    pub ts: Option<Ts>,
}

/// What a session asks for, and by which right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The session, and the worker that serves it.
    pub seat: Seat,
    /// The request it asks with; its end names it.
    pub request: RequestId,
    /// The right.
    pub rights: Rights,
    /// Deliveries begin behind it; the default position stands for the head.
    pub position: Position,
    /// The position was looked up in the log: of another epoch it is looked up again.
    pub located: bool,
    /// The end of the log as a quorum knows it; needed only when asked for by
    /// [`SubscribeError::HeadNeeded`].
    pub log: Option<Position>,
}

/// Why a subscription cannot begin yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeError {
    /// The feed is not open; try again when it is.
    NotOpen,
    /// The position is ahead of everything the feed has brought: it may be behind. Read the log's
    /// head from a quorum and give it along.
    HeadNeeded,
    /// A fence has passed since the grant was made: judge again by a fresh one.
    Stale,
    /// The grant knows of a fence that the feed has not told: try again when it has.
    NotTold,
}

/// Frames in order. A session that keeps up takes one at a time, for which nothing is allocated.
pub type Frames = SmallVec<[Bytes; 1]>;

/// Frames for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// `Deliver` frames, at least one, to be written in this order.
    pub frames: Frames,
    /// Whether there is more to take.
    pub more: bool,
}

/// What a session gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// Frames; the cursor has moved behind them.
    Chunk(Chunk),
    /// The cursor is older than the ring: read the log behind `from`, then [`crate::ChannelFanout::advance`].
    Behind {
        /// Of this epoch.
        epoch: Epoch,
        /// The cursor.
        from: Seq,
    },
    /// Nothing now; the session or its worker is told when there is.
    Nothing,
    /// The last frame of a subscription that is over: nothing follows. Said until the subscription
    /// is ended by [`crate::ChannelFanout::unsubscribe`].
    Ended(Bytes),
}

/// What becomes of a page read for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// The cursor has moved: write the page's entries up to here.
    To(Seq),
    /// The subscription has moved or ended meanwhile: the page must not be written.
    Gone,
    /// The page's shard knew fences that the feed has not told: read again when it has.
    NotTold,
}
