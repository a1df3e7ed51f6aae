//! The wall under sessions: what a carrier of the protocol offers, whatever it is made of.
//!
//! QUIC is the first carrier; WebTransport, WebSocket and TCP join behind the same traits. A link knows streams, droppable datagrams and how it ended; it refuses to know
//! frames and messages. Methods return boxed futures so that a link is usable as `dyn Link`: one
//! allocation per batch written or chunk read.

use std::fmt;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;

/// Both halves of a bidirectional stream.
pub type BiStream = (Box<dyn SendHalf>, Box<dyn RecvHalf>);

/// A connection to a peer, able to carry many streams. Cloning an `Arc<dyn Link>` shares it; the
/// link lives until it is closed or all shares are dropped.
pub trait Link: Send + Sync + fmt::Debug + 'static {
    /// Opens a bidirectional stream; waits while the peer allows no more. The peer notices the
    /// stream with its first bytes.
    fn open_bi(&self) -> BoxFuture<'_, Result<BiStream, LinkClosed>>;

    /// The next bidirectional stream the peer opened. Cancel-safe.
    fn accept_bi(&self) -> BoxFuture<'_, Result<BiStream, LinkClosed>>;

    /// Opens a stream to the peer; waits while the peer allows no more.
    fn open_uni(&self) -> BoxFuture<'_, Result<Box<dyn SendHalf>, LinkClosed>>;

    /// The next one-way stream the peer opened. Cancel-safe.
    fn accept_uni(&self) -> BoxFuture<'_, Result<Box<dyn RecvHalf>, LinkClosed>>;

    /// Sends a datagram that may be lost. When the buffer is full the oldest unsent datagrams go.
    fn send_datagram(&self, data: Bytes) -> Result<(), DatagramError>;

    /// The next datagram. Cancel-safe.
    fn recv_datagram(&self) -> BoxFuture<'_, Result<Bytes, LinkClosed>>;

    /// The largest datagram the peer and the path take now; `None` if the peer takes none.
    fn max_datagram_size(&self) -> Option<usize>;

    /// Closes the link at once; bytes not yet delivered are lost.
    fn close(&self, code: u32, reason: &str);

    /// Waits for the end of the link and says how it ended. Cancel-safe.
    fn closed(&self) -> BoxFuture<'_, LinkClosed>;

    /// How the link ended; `None` while it lives.
    fn ended(&self) -> Option<LinkClosed>;

    /// Where the peer is now; changes when it migrates.
    fn remote_address(&self) -> SocketAddr;

    /// Counters of the link.
    fn stats(&self) -> LinkStats;

    /// What came of the carrier's own signals, which an honest peer hardly ever sends: probes, streams
    /// given up or stopped, moves to other addresses. 0 where a carrier has none.
    fn signals(&self) -> u64 {
        0
    }
}

/// The half of a stream that is written to. Dropping it finishes the stream.
pub trait SendHalf: Send + fmt::Debug + 'static {
    /// Writes all chunks without copying them. Waits while the peer or the send window is full.
    ///
    /// Chunks are emptied as they are taken: after a cancelled call the slice holds what is left,
    /// and writing the same slice again goes on where it stopped.
    fn write_all_chunks<'a>(&'a mut self, chunks: &'a mut [Bytes]) -> BoxFuture<'a, Result<(), WriteError>>;

    /// Writes what fits without waiting; `true` when that was all. Chunks are emptied as they are
    /// taken: with `false`, [`Self::write_all_chunks`] of the same slice goes on.
    fn try_write(&mut self, chunks: &mut [Bytes]) -> Result<bool, WriteError> {
        let mut nobody = Context::from_waker(Waker::noop());
        match self.write_all_chunks(chunks).as_mut().poll(&mut nobody) {
            Poll::Ready(written) => written.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Says that nothing more comes. Bytes written before still arrive. Idempotent.
    fn finish(&mut self);

    /// Gives up the stream; bytes not yet delivered are lost. Idempotent.
    fn reset(&mut self, code: u32);

    /// Streams of a higher number are sent first; 0 at the start.
    fn set_priority(&mut self, priority: i32);

    /// Waits until the peer stopped the stream (`Some(code)`) or has all of a finished one (`None`).
    fn stopped(&self) -> BoxFuture<'static, Result<Option<u32>, LinkClosed>>;
}

/// The half of a stream that is read from. Dropping it tells the peer to stop.
pub trait RecvHalf: Send + fmt::Debug + 'static {
    /// The next bytes, at most `max`; `None` when the peer has finished. Cancel-safe.
    fn read_chunk(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>>;

    /// Appends the next bytes to `buffer`, at most `max`; `false` when the peer has finished.
    /// Cancel-safe.
    fn read<'a>(
        &'a mut self,
        buffer: &'a mut BytesMut,
        max: usize,
    ) -> BoxFuture<'a, Result<bool, ReadError>> {
        Box::pin(async move {
            let chunk = self.read_chunk(max).await?;
            if let Some(chunk) = &chunk {
                buffer.extend_from_slice(chunk);
            }
            Ok(chunk.is_some())
        })
    }

    /// Tells the peer to stop sending; what it still sends is thrown away. Idempotent.
    fn stop(&mut self, code: u32);
}

/// How a link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkClosed {
    /// This side closed it.
    #[error("closed by this side")]
    Local,
    /// The peer's application closed it.
    #[error("closed by the peer with code {code}: {reason}")]
    Peer {
        /// The code; a number of `throng_protocol::code::Code` or `CLOSE_NORMAL`.
        code: u32,
        /// The reason, for people.
        reason: String,
    },
    /// Nothing was heard for the idle timeout, or the handshake took too long.
    #[error("the peer was silent for too long")]
    TimedOut,
    /// The peer lost its state (it restarted), broke the rules of QUIC, or aborted.
    #[error("lost: {0}")]
    Lost(String),
    /// The peer takes no connections now.
    #[error("refused by the peer; try later or another address")]
    Refused,
    /// No QUIC version or ALPN in common: the peer is not of this protocol, or of another version.
    #[error("no protocol in common: {0}")]
    Mismatch(String),
    /// A certificate was not accepted, by this side or by the peer.
    #[error("certificate not accepted: {text}")]
    Untrusted {
        /// The TLS alert, which says why.
        alert: u8,
        /// The reason, for people.
        text: String,
    },
}

/// Why writing to a stream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The peer wants no more of this stream.
    #[error("the peer stopped the stream with code {0}")]
    Stopped(u32),
    /// The stream was finished or reset by this side.
    #[error("the stream is finished")]
    Finished,
    /// The link ended.
    #[error(transparent)]
    Closed(#[from] LinkClosed),
}

/// Why reading from a stream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The peer gave up the stream.
    #[error("the peer reset the stream with code {0}")]
    Reset(u32),
    /// The stream was read to its end or stopped by this side.
    #[error("the stream is finished")]
    Finished,
    /// The link ended.
    #[error(transparent)]
    Closed(#[from] LinkClosed),
}

/// Why a datagram was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The peer takes no datagrams; use a stream.
    #[error("the peer takes no datagrams")]
    Unsupported,
    /// Larger than [`Link::max_datagram_size`]; use a stream.
    #[error("the datagram is too large for the path")]
    TooLarge,
    /// The link ended.
    #[error(transparent)]
    Closed(#[from] LinkClosed),
}

/// Counters of a link since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// The smoothed round trip time.
    pub rtt: Duration,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets sent that were found lost.
    pub packets_lost: u64,
    /// Bytes of UDP payload sent.
    pub bytes_sent: u64,
    /// Bytes of UDP payload received.
    pub bytes_received: u64,
}
