//! A connection to another node.

use std::net::SocketAddr;
use std::sync::Arc;

use throng_protocol::cluster::PeerId;

use crate::cluster::lane::{CONTROL_LANE, LaneReadError, LaneReader, LaneWriter};
use crate::link::{Link, LinkClosed, LinkStats, ReadError, WriteError};

/// A connection whose peer is known and whose version is settled. Clones share it; it is closed
/// when all clones and lanes are dropped.
#[derive(Debug, Clone)]
pub struct ClusterConnection {
    link: Arc<dyn Link>,
    peer: PeerId,
    version: u16,
}

impl ClusterConnection {
    pub(super) fn new(link: Arc<dyn Link>, peer: PeerId, version: u16) -> Self {
        Self { link, peer, version }
    }

    /// Who the peer is, from its certificate.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The version both sides speak.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Where the peer is.
    pub fn remote_address(&self) -> SocketAddr {
        self.link.remote_address()
    }

    /// Opens a lane of a kind other than [`CONTROL_LANE`]; the peer gets it from
    /// [`Self::accept_lane`].
    pub async fn open_lane(&self, kind: u8) -> Result<(LaneWriter, LaneReader), LinkClosed> {
        debug_assert_ne!(kind, CONTROL_LANE, "the control lane is the connection's own");
        let (send, recv) = self.link.open_bi().await?;
        let writer = LaneWriter::start(send, kind).await.map_err(ended)?;
        Ok((writer, LaneReader::new(recv)))
    }

    /// The next lane the peer opened, with its kind. Not cancel-safe: call it from a loop of its own.
    pub async fn accept_lane(&self) -> Result<(u8, LaneWriter, LaneReader), LinkClosed> {
        loop {
            let (send, recv) = self.link.accept_bi().await?;
            let mut reader = LaneReader::new(recv);
            match reader.kind().await {
                Ok(kind) => return Ok((kind, LaneWriter::answer(send), reader)),
                Err(LaneReadError::Stream(ReadError::Closed(closed))) => return Err(closed),
                // The peer gave the lane up before it began.
                Err(_) => {}
            }
        }
    }

    /// Closes the connection at once.
    pub fn close(&self, code: u32, reason: &str) {
        self.link.close(code, reason);
    }

    /// Waits for the end of the connection. Cancel-safe.
    pub async fn closed(&self) -> LinkClosed {
        self.link.closed().await
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.link.ended().is_some()
    }

    /// Counters of the connection.
    pub fn stats(&self) -> LinkStats {
        self.link.stats()
    }
}

/// How the connection ended under a lane that has only begun.
fn ended(error: WriteError) -> LinkClosed {
    match error {
        WriteError::Closed(closed) => closed,
        WriteError::Stopped(_) | WriteError::Finished => LinkClosed::Lost(error.to_string()),
    }
}
