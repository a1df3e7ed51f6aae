//! What travels.

use std::cmp::Ordering;

use bytes::Bytes;

use super::stream::Piece;
use super::{Flow, Us};

/// A link, unique in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkId(pub u64);

/// The end of a link that connected, or the one that was connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum End {
    Near = 0,
    Far = 1,
}

impl End {
    pub fn other(self) -> Self {
        match self {
            Self::Near => Self::Far,
            Self::Far => Self::Near,
        }
    }
}

/// A stream of a link: numbered by who opened it, and by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId {
    pub opener: End,
    pub one_way: bool,
    pub number: u64,
}

/// What a packet says.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// The first flight of a handshake, with the names in the certificate.
    Knock(Flow, Vec<String>),
    /// Its answer, with the names in the certificate.
    Welcome(Flow, Vec<String>),
    /// The last flight of a handshake.
    Done,
    /// The answer to a knock that is not let in.
    Refused,
    Piece(StreamId, u64, Piece),
    /// The stream is given up; so many bytes of it were sent.
    Reset(StreamId, u32, u64),
    Stop(StreamId, u32),
    /// All of a finished stream is here.
    Complete(StreamId),
    /// Bytes allowed on a stream and on the link, from the beginning.
    Allow(Option<(StreamId, u64)>, u64),
    Datagram(Bytes),
    Ping,
    Ack,
    Close(u32, String),
    /// The answer to a packet of a link that is not known.
    Unknown,
}

impl Kind {
    /// Whether it is sent again until it has arrived.
    pub fn is_reliable(&self) -> bool {
        !matches!(
            self,
            Self::Refused | Self::Datagram(_) | Self::Ping | Self::Ack | Self::Close(..) | Self::Unknown
        )
    }

    /// Whether it is of a handshake, whose first packets are repeated slowly.
    pub fn is_handshake(&self) -> bool {
        matches!(self, Self::Knock(..) | Self::Welcome(..) | Self::Done)
    }

    /// Whether the receiver acknowledges it.
    pub fn is_acknowledged(&self) -> bool {
        !matches!(self, Self::Ack | Self::Close(..) | Self::Unknown | Self::Refused)
    }
}

/// A packet of a link.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub link: LinkId,
    pub from: End,
    pub kind: Kind,
    pub tries: u32,
}

/// A packet and a time: when it is sent, or when it arrives. The order breaks ties.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    pub at: Us,
    pub order: u64,
    pub packet: Packet,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
