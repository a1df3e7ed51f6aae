//! What comes out of a server session.

use crate::code::Code;
use crate::ids::DeviceId;
use crate::message::{
    Change, Changes, ClientAck, CreateChannel, CreateGroup, History, Join, Kick, Leave, Message, Mute,
    ReadExpansion, RequestId, Resume, Send, Subscribe, Sync, Unsubscribe,
};

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// Verify a token; answer with `authenticated` or `refuse`.
    Authenticate {
        /// The token.
        token: String,
        /// The device.
        device: DeviceId,
    },
    /// Carry out a request; answer with `respond` or `error`.
    Request(ServerRequest),
    /// Entries have arrived at the client.
    ClientAck(ClientAck),
    /// Write what `poll_transmit` still has, then close the connection with the code's number.
    Close {
        /// The code.
        code: Code,
        /// Why, for people.
        reason: String,
    },
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A request of a client, checked against every limit of the protocol.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ServerRequest { $($(#[$doc])* $name($name),)* }

        impl ServerRequest {
            /// The request's id.
            pub fn request(&self) -> RequestId {
                match self { $(Self::$name(request) => request.request,)* }
            }

            /// The request's name, for logs and metrics.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            pub(super) fn from_message(message: Message) -> Option<Self> {
                match message {
                    $(Message::$name(request) => Some(Self::$name(request)),)*
                    _ => None,
                }
            }
        }
    };
}

requests! {
    /// Create a group; `Done`.
    CreateGroup,
    /// Create a channel; `Done`.
    CreateChannel,
    /// Become a member; `Done`.
    Join,
    /// Cease to be a member; `Done`.
    Leave,
    /// Append a message; `Ack`.
    Send,
    /// Deliver a channel; `Subscribed`.
    Subscribe,
    /// Stop delivering a channel; `Done`.
    Unsubscribe,
    /// Entries behind a position; `Page`.
    Sync,
    /// A page of history; `Page`.
    History,
    /// Deliver many channels; a `Subscribed` or an error for each, then `Done`.
    Resume,
    /// End a membership; `Fenced`.
    Kick,
    /// Take the right to send away; `Fenced`.
    Mute,
    /// Change a message; `Ack`.
    Change,
    /// What has changed of a range of entries; `Page`.
    Changes,
    /// The expansion of a message; `Expansion`.
    ReadExpansion,
}

/// Why a session wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The client has not authenticated in time.
    Authenticate,
    /// A frame that has begun was not finished in time.
    Frame,
    /// The client was silent for too long.
    Idle,
    /// The token expires.
    TokenExpiry,
    /// The drain deadline is reached.
    Drain,
}
