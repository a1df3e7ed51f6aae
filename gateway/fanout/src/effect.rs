//! What the shell has to do for a channel.

use throng_protocol::ids::{Position, Seq};

use crate::crew::{Seat, WorkerNumber};

/// An effect of one channel's fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// There is something to take for sessions of a worker: it is to begin a round, see
    /// [`crate::ChannelFanout::step`]. Said once until the round is over.
    News {
        /// The worker.
        worker: WorkerNumber,
    },
    /// There is something to take for one session.
    Wake {
        /// Whose.
        seat: Seat,
    },
    /// Follow the channel from behind a position; the default position stands for the head.
    Follow {
        /// Everything up to here is held.
        position: Position,
    },
    /// Nobody has been subscribed for [`crate::LINGER_MS`]: stop following.
    Unfollow,
    /// The feed skipped entries: read the log behind `from` and give the page to `on_page`.
    Refetch {
        /// The last entry held.
        from: Seq,
    },
}
