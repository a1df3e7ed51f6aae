//! What comes out of a client machine, and how commands fail.

use crate::cluster::ChangeError;
use crate::code::Code;
use crate::ids::{ChannelId, ChannelNumber, Epoch, GroupId, Position, Seq, Ts};
use crate::message::{self, Ack, Entry, Expansion, Fenced, Page, Start, Welcome};

/// A command given to the machine; answered by exactly one [`ClientEvent::Answered`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// What the shell has to do or to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// Call `authenticate` with a fresh token.
    TokenNeeded {
        /// The edge's name.
        edge: String,
    },
    /// The session is open; subscriptions and sends without an answer go out by themselves.
    Welcomed(Welcome),
    /// A send goes out for the first time; a local store keeps the time for a retry after a restart.
    Attempted {
        /// The send.
        op: OpId,
        /// Server time, Unix milliseconds.
        first_attempt_ms: u64,
    },
    /// A command's one answer.
    Answered {
        /// The command.
        op: OpId,
        /// What came of it.
        outcome: Result<Answer, RequestError>,
    },
    /// Entries of a subscription: in order, without a gap, each once.
    Entries(Entries),
    /// The log was rebuilt, or the position was not of it: entries continue behind another position.
    Reset {
        /// The group.
        group: GroupId,
        /// The channel.
        channel: ChannelId,
        /// The position held until now.
        from: Position,
        /// Entries continue behind it.
        to: Position,
    },
    /// A subscription is over: the membership has ended, or the channel is gone. Every entry it was
    /// entitled to has been told, unless one had to be dropped for want of room.
    SubscriptionEnded {
        /// The group.
        group: GroupId,
        /// The channel.
        channel: ChannelId,
        /// What the cluster said.
        error: message::Error,
    },
    /// The edge asks its clients to leave; a [`ClientEvent::Disconnect`] follows once answers are in.
    Drain {
        /// Why, for people.
        reason: String,
        /// Other edges, `host:port`; may be empty.
        edges: Vec<String>,
    },
    /// Write what `poll_transmit` still has, close the connection, call `handle_disconnected`.
    Disconnect(DisconnectReason),
}

/// Entries of one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The channel's number.
    pub number: ChannelNumber,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The position before the first entry.
    pub prev: Seq,
    /// At least one, ascending.
    pub entries: Vec<Entry>,
}

/// How a command was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It succeeded.
    Done,
    /// The message or the change is stored.
    Sent(Ack),
    /// Deliveries begin.
    Subscribed(SubscribedAt),
    /// A page.
    Page(Page),
    /// A right was taken away.
    Fenced(Fenced),
    /// Keys of an expansion.
    Expansion(Expansion),
}

/// Where an application wants a subscription to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeFrom {
    /// Behind the last entry: what comes from now on.
    Head,
    /// Before the first entry: everything.
    Start,
    /// Behind a position held from earlier.
    Position(Position),
    /// Behind the last entry with this time stamp or an earlier one.
    Ts(Ts),
}

/// What a client holds of a log when it asks for what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncFrom {
    /// Everything up to a position.
    Position(Position),
    /// Everything up to a time stamp.
    Ts(Ts),
}

impl From<Position> for SyncFrom {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}

impl From<Ts> for SyncFrom {
    fn from(ts: Ts) -> Self {
        Self::Ts(ts)
    }
}

/// Where a new subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribedAt {
    /// The channel's number.
    pub number: ChannelNumber,
    /// Every entry behind it will come.
    pub position: Position,
    /// The last entry of the log then.
    pub head: Seq,
    /// Why there.
    pub start: Start,
    /// The time stamp of the entry at the position; 0 if there is none or the edge does not hold it.
    pub ts: Ts,
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The cluster refused it for good.
    #[error("{} ({})", .0.message, .0.code)]
    Refused(message::Error),
    /// The cluster refused it for good, but only when it was tried again: an earlier attempt whose
    /// answer was lost, or that was refused for the moment, may have been carried out.
    #[error("{} ({}); an earlier attempt may have been carried out", .0.message, .0.code)]
    RefusedLater(message::Error),
    /// No answer within the deadline. A send that was attempted may have been stored.
    #[error("no answer within the deadline{}", if *.attempted { "; it may have been carried out" } else { "" })]
    Deadline {
        /// Whether it was ever sent.
        attempted: bool,
        /// The last retryable refusal.
        last: Option<message::Error>,
    },
    /// The subscription was given up before it began.
    #[error("the subscription was given up before it began")]
    Cancelled,
    /// The client closed.
    #[error("the client is closed: {0}")]
    Closed(String),
}

/// Why a command was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// As many commands as allowed wait for an answer.
    #[error("{0} commands wait for an answer already")]
    QueueFull(usize),
    /// The body is over the limit.
    #[error("a body of {0} bytes is over the limit of 131072")]
    BodyTooLarge(usize),
    /// The change is outside the limits.
    #[error(transparent)]
    Change(ChangeError),
    /// The channel is subscribed to already.
    #[error("the channel is subscribed to already")]
    AlreadySubscribed,
    /// The channel is not subscribed to.
    #[error("the channel is not subscribed to")]
    NotSubscribed,
}

/// Why the shell is told to close a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DisconnectReason {
    /// The cluster refused the session; another connection will not help.
    #[error("refused: {} ({})", .0.message, .0.code)]
    Refused(message::Error),
    /// The cluster ended this connection; another may work.
    #[error("ended by the edge: {} ({})", .0.message, .0.code)]
    Server(message::Error),
    /// The other side broke the protocol.
    #[error("protocol error: {text}")]
    Protocol {
        /// What it was told.
        code: Code,
        /// What happened.
        text: String,
    },
    /// Nothing came for too long.
    #[error("the edge is silent")]
    Silent,
    /// No welcome in time.
    #[error("no welcome in time")]
    Handshake,
    /// The edge drains, and every answer it owed is in.
    #[error("the edge drains")]
    Drained,
}

/// What a wake-up is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The handshake takes too long.
    Handshake,
    /// A drained connection has had its time.
    Leave,
    /// A command has waited for too long.
    Deadline,
    /// Something is tried again.
    Retry,
    /// A gap is asked for.
    Gap,
    /// Entries are acked.
    Ack,
    /// A resume makes no progress.
    Resume,
    /// A ping is due.
    Ping,
    /// The connection may be dead.
    Silence,
}
