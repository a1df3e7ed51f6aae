//! The typed messages of the client wire.
//!
//! [`Message`] is what both sides handle; `encode` gives a whole frame, `decode` takes one and
//! verifies it with tight limits before any field is read. Bodies are slices of the frame they came
//! in. Semantics (who may send what, when) are not here but in [`crate::session`].

mod change;
mod decode;
mod encode;
mod rights;

use bytes::Bytes;

use crate::code::{Class, Code};
use crate::ids::{
    ChannelId, ChannelNumber, ClientMessageId, DeviceId, Epoch, GroupId, Position, Seq, SessionId, Ts,
    UserId, UserNumber,
};

pub use change::{Change, Changes, Expansion, ReadExpansion};
pub use decode::DecodeError;
pub use rights::{Ended, Fenced, Kick, Mute};

/// The client protocol's ALPN.
pub const ALPN: &[u8] = b"throng/1";

/// The versions this build speaks, newest first.
pub const VERSIONS: &[u16] = &[1];

/// Frame types from here on must not be skipped by a receiver that does not know them.
pub const CRITICAL_KINDS_FROM: u8 = 128;

/// Ties an answer to its request: chosen by the client, not 0. 0 in an error means the connection.
pub type RequestId = u64;

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident = $kind:literal,)*) => {
        /// One message of the client wire.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Message { $($(#[$doc])* $name($name),)* }

        impl Message {
            /// The frame type.
            pub fn kind(&self) -> u8 {
                match self { $(Self::$name(_) => $kind,)* }
            }

            /// The name of a frame type, for logs and vectors.
            pub fn kind_name(kind: u8) -> Option<&'static str> {
                match kind { $($kind => Some(stringify!($name)),)* _ => None }
            }
        }

        $(impl From<$name> for Message {
            fn from(message: $name) -> Self {
                Self::$name(message)
            }
        })*
    };
}

messages! {
    /// Client: the versions it speaks.
    Hello = 1,
    /// Server: the version chosen.
    HelloOk = 2,
    /// Client: who it is.
    Authenticate = 3,
    /// Server: the session is open.
    Welcome = 4,
    /// Client: create a group.
    CreateGroup = 5,
    /// Client: create a channel.
    CreateChannel = 6,
    /// Client: become a member.
    Join = 7,
    /// Client: cease to be a member.
    Leave = 8,
    /// Server: a request without another answer succeeded.
    Done = 9,
    /// Client: a message for a channel.
    Send = 10,
    /// Server: the message is committed by a quorum and on disk there.
    Ack = 11,
    /// Client: deliver a channel.
    Subscribe = 12,
    /// Server: deliveries of the channel begin.
    Subscribed = 13,
    /// Client: stop delivering a channel.
    Unsubscribe = 14,
    /// Server: entries of a channel.
    Deliver = 15,
    /// Client: entries have arrived.
    ClientAck = 16,
    /// Client: entries behind a position.
    Sync = 17,
    /// Client: a page of history.
    History = 18,
    /// Server: a page.
    Page = 19,
    /// Either: are you there.
    Ping = 20,
    /// Either: yes.
    Pong = 21,
    /// Server: connect elsewhere.
    Drain = 22,
    /// Either: something went wrong.
    Error = 23,
    /// Client: subscribe to many channels behind positions held.
    Resume = 24,
    /// Client: end a membership.
    Kick = 25,
    /// Client: take the right to send away for a while.
    Mute = 26,
    /// Server: a right has been taken, and where it may still hold.
    Fenced = 27,
    /// Server: a subscription is over.
    Ended = 28,
    /// Client: change a message.
    Change = 29,
    /// Client: what has changed of a range of entries.
    Changes = 30,
    /// Client: the expansion of a message.
    ReadExpansion = 31,
    /// Server: it.
    Expansion = 32,
}

/// See [`Message::Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Versions, newest first; 1 to `HELLO_VERSIONS_MAX`.
    pub versions: Vec<u16>,
    /// Name and version of the client's software, for operators.
    pub client: String,
}

/// See [`Message::HelloOk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloOk {
    /// The version both sides use from here on.
    pub version: u16,
    /// The edge's name.
    pub edge: String,
    /// The edge's clock, Unix milliseconds.
    pub server_time_ms: u64,
}

/// See [`Message::Authenticate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticate {
    /// A JWT of the app.
    pub token: String,
    /// The device.
    pub device: DeviceId,
}

/// See [`Message::Welcome`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The session at this edge.
    pub session: SessionId,
    /// The user the token is for.
    pub user: UserId,
    /// The user's number.
    pub user_number: UserNumber,
    /// The edge's clock, Unix milliseconds.
    pub server_time_ms: u64,
    /// When the token expires and the connection with it, Unix milliseconds.
    pub token_expires_ms: u64,
    /// Milliseconds within which a retried send is recognised.
    pub idempotency_window_ms: u64,
    /// Milliseconds between pings the server expects.
    pub ping_interval_ms: u32,
    /// Largest body in bytes.
    pub body_bytes_max: u32,
    /// Most requests in flight.
    pub requests_in_flight_max: u32,
    /// Most subscriptions of a session.
    pub subscriptions_max: u32,
}

/// See [`Message::CreateGroup`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateGroup {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
}

/// See [`Message::CreateChannel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateChannel {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
}

/// See [`Message::Join`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
}

/// See [`Message::Leave`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leave {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
}

/// See [`Message::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The request it answers.
    pub request: RequestId,
}

/// See [`Message::Send`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The sender's key; a retry carries the same.
    pub client_message_id: ClientMessageId,
    /// When it was first tried, server time as the client knows it, Unix milliseconds.
    pub first_attempt_ms: u64,
    /// The body, opaque.
    pub body: Bytes,
}

/// See [`Message::Ack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The send it answers.
    pub request: RequestId,
    /// The channel.
    pub channel: ChannelNumber,
    /// Its epoch.
    pub epoch: Epoch,
    /// The message's position.
    pub seq: Seq,
    /// Its time stamp.
    pub ts: Ts,
    /// Whether an earlier attempt had stored it.
    pub repeat: bool,
    /// Of a change: the last change of its target before it; 0 for none.
    pub before: Seq,
}

/// See [`Message::Subscribe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The position held; epoch 0 starts behind the head.
    pub position: Position,
    /// Not 0: begins behind the last entry whose time stamp is not later, whatever the position.
    pub ts: Ts,
}

/// Where deliveries of a subscription begin, and why there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind the position asked for.
    Resumed,
    /// Behind the head; no position was given.
    Head,
    /// Behind the head; the position was of another epoch.
    FullEpoch,
    /// Behind the head; the position was beyond it.
    FullAhead,
    /// Behind the head; the user was out of the group since.
    FullFence,
}

/// See [`Message::Subscribed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// The subscribe or resume it answers.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// The channel's name.
    pub channel_name: ChannelId,
    /// The channel's number, used by deliveries.
    pub channel: ChannelNumber,
    /// Deliveries begin behind it.
    pub position: Position,
    /// The last entry of the log now.
    pub head: Seq,
    /// Why deliveries begin there.
    pub start: Start,
    /// The time stamp of the entry at the position; 0 if there is none or the edge does not hold it.
    pub ts: Ts,
}

/// See [`Message::Unsubscribe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Answered with it.
    pub request: RequestId,
    /// The channel.
    pub channel: ChannelNumber,
}

/// One entry of a channel's log, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position.
    pub seq: Seq,
    /// Time stamp.
    pub ts: Ts,
    /// What it is, see [`EntryKind::number`]; 1 is a message. A client shows unknown kinds as "unsupported" and keeps the position.
    pub kind: u8,
    /// Who sent it.
    pub sender: UserId,
    /// Who sent it, by number.
    pub sender_number: UserNumber,
    /// The sender's key.
    pub client_message_id: ClientMessageId,
    /// The body. Of a change: its target's, as it is now.
    pub body: Bytes,
    /// Of a change: the message it changes; 0 for a message.
    pub target: Seq,
    /// Of a message: the last change that is in what is shown here; of a change: the last one of its target
    /// before it. 0 for none.
    pub version: Seq,
    /// Why there is no content; 0 if there is, see [`Hole::number`]. Of a change: its target's. A client shows
    /// a number it does not know as a message that is gone.
    pub hole: u8,
    /// Of a message its expansion; of a change to one, what it set, as it is now.
    pub expansion: Vec<(String, String)>,
    /// Of a change to an expansion: the keys it touched that are not there any more.
    pub removed: Vec<String>,
    /// Of a message: its expansion is not here; [`ReadExpansion`] brings it.
    pub keys_elsewhere: bool,
}

/// See [`Message::Deliver`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliver {
    /// The channel.
    pub channel: ChannelNumber,
    /// Its epoch.
    pub epoch: Epoch,
    /// The entry before the first, for this subscription.
    pub prev: Seq,
    /// The entries, ascending; at least one.
    pub entries: Vec<Entry>,
}

/// See [`Message::ClientAck`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAck {
    /// The channel.
    pub channel: ChannelNumber,
    /// Everything up to here has arrived.
    pub position: Position,
}

/// See [`Message::Sync`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The position held.
    pub position: Position,
    /// Most entries; 0 leaves it to the server.
    pub limit: u32,
    /// Not 0: the entries with a later time stamp, whatever the position.
    pub ts: Ts,
}

pub use crate::cluster::{Anchor, Direction, EntryKind, Hole};

impl From<Seq> for Anchor {
    fn from(seq: Seq) -> Self {
        Self::Seq(seq)
    }
}

impl From<Ts> for Anchor {
    fn from(ts: Ts) -> Self {
        Self::Ts(ts)
    }
}

/// See [`Message::History`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Answered with it.
    pub request: RequestId,
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The entry to start from, itself not part of the page. With `Before`, 0 means behind the head.
    pub anchor: Seq,
    /// Which way.
    pub direction: Direction,
    /// Most entries; 0 leaves it to the server.
    pub limit: u32,
    /// Not 0: the entries with an earlier or a later time stamp, whatever the anchor.
    pub ts: Ts,
}

/// See [`Message::Page`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The sync or history it answers.
    pub request: RequestId,
    /// The channel.
    pub channel: ChannelNumber,
    /// Its epoch.
    pub epoch: Epoch,
    /// The entry before the first of the page.
    pub prev: Seq,
    /// The last entry of the log.
    pub head: Seq,
    /// The entries, ascending.
    pub entries: Vec<Entry>,
}

/// See [`Message::Ping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in the pong.
    pub nonce: u64,
}

/// See [`Message::Pong`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// Of the ping.
    pub nonce: u64,
    /// The answering side's clock, Unix milliseconds.
    pub time_ms: u64,
}

/// See [`Message::Drain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Milliseconds until the edge closes the connection.
    pub deadline_ms: u32,
    /// Why, for people.
    pub reason: String,
    /// Other edges, `host:port`; may be empty.
    pub edges: Vec<String>,
}

/// See [`Message::Error`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The request it answers; 0 for the connection.
    pub request: RequestId,
    /// The code's number; one this build does not know is still carried.
    pub code: u16,
    /// What to do about it.
    pub class: Class,
    /// What happened, for people.
    pub message: String,
    /// Milliseconds to wait before a retry; 0 leaves it to the client.
    pub retry_after_ms: u32,
}

impl Error {
    /// An error of a known code.
    pub fn new(request: RequestId, code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > crate::limits::TEXT_BYTES_MAX {
            let cut = (0..=crate::limits::TEXT_BYTES_MAX)
                .rev()
                .find(|at| message.is_char_boundary(*at));
            message.truncate(cut.unwrap_or(0));
        }
        Self {
            request,
            code: code.number(),
            class: code.class(),
            message,
            retry_after_ms: 0,
        }
    }

    /// The code, if this build knows it.
    pub fn known_code(&self) -> Option<Code> {
        Code::from_number(self.code)
    }
}

/// One channel of a [`Resume`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The group.
    pub group: GroupId,
    /// The channel.
    pub channel: ChannelId,
    /// The position held; epoch 0 starts behind the head.
    pub position: Position,
    /// As in [`Subscribe`].
    pub ts: Ts,
}

/// See [`Message::Resume`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Answered with it, once per place and with a final `Done`.
    pub request: RequestId,
    /// The channels; 1 to `RESUME_POSITIONS_MAX`.
    pub places: Vec<Place>,
}

#[cfg(test)]
mod tests;
