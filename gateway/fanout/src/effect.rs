//! What the shell has to do for a channel.

use throng_protocol::ids::{Position, Seq, SessionId};

/// An effect of one channel's fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// There is something to take for a session; said once until a take has emptied it.
    Wake {
        /// The session.
        session: SessionId,
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
