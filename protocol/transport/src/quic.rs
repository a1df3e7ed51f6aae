//! quinn behind the [`Link`] traits, and QUIC's errors and figures in our words.

mod carrier;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quinn::{ConnectionError, ConnectionStats, VarInt};

use crate::link::{
    BiStream, DatagramError, Link, LinkClosed, LinkStats, ReadError, RecvHalf, SendHalf, WriteError,
};
use crate::socket::canonical;

pub(crate) use carrier::{QuicCarrier, established};

/// TLS alert `no_application_protocol`.
const ALERT_NO_ALPN: u8 = 120;
/// QUIC maps TLS alerts to transport errors 0x100 to 0x1ff.
const CRYPTO_ERRORS: u64 = 0x100;
/// QUIC transport error `CONNECTION_REFUSED`.
const CONNECTION_REFUSED: u64 = 0x2;
/// The TLS alerts about certificates: bad, unsupported, revoked, expired, unknown; unknown CA,
/// access denied, decrypt error; certificate required.
const CERTIFICATE_ALERTS: [u8; 9] = [42, 43, 44, 45, 46, 48, 49, 51, 116];

/// A QUIC connection.
#[derive(Debug)]
pub(crate) struct QuicLink {
    connection: quinn::Connection,
}

impl QuicLink {
    pub fn new(connection: quinn::Connection) -> Self {
        Self { connection }
    }
}

impl Link for QuicLink {
    fn open_bi(&self) -> BoxFuture<'_, Result<BiStream, LinkClosed>> {
        Box::pin(async move { Ok(bi(self.connection.open_bi().await?)) })
    }

    fn accept_bi(&self) -> BoxFuture<'_, Result<BiStream, LinkClosed>> {
        Box::pin(async move { Ok(bi(self.connection.accept_bi().await?)) })
    }

    fn open_uni(&self) -> BoxFuture<'_, Result<Box<dyn SendHalf>, LinkClosed>> {
        Box::pin(async move { Ok(Box::new(self.connection.open_uni().await?) as Box<dyn SendHalf>) })
    }

    fn accept_uni(&self) -> BoxFuture<'_, Result<Box<dyn RecvHalf>, LinkClosed>> {
        Box::pin(async move { Ok(Box::new(self.connection.accept_uni().await?) as Box<dyn RecvHalf>) })
    }

    fn send_datagram(&self, data: Bytes) -> Result<(), DatagramError> {
        use quinn::SendDatagramError as E;
        self.connection.send_datagram(data).map_err(|error| match error {
            E::UnsupportedByPeer | E::Disabled => DatagramError::Unsupported,
            E::TooLarge => DatagramError::TooLarge,
            E::ConnectionLost(error) => DatagramError::Closed(error.into()),
        })
    }

    fn recv_datagram(&self) -> BoxFuture<'_, Result<Bytes, LinkClosed>> {
        Box::pin(async move { Ok(self.connection.read_datagram().await?) })
    }

    fn max_datagram_size(&self) -> Option<usize> {
        self.connection.max_datagram_size()
    }

    fn close(&self, code: u32, reason: &str) {
        self.connection.close(VarInt::from_u32(code), reason.as_bytes());
    }

    fn closed(&self) -> BoxFuture<'_, LinkClosed> {
        Box::pin(async move { self.connection.closed().await.into() })
    }

    fn ended(&self) -> Option<LinkClosed> {
        Some(self.connection.close_reason()?.into())
    }

    fn remote_address(&self) -> SocketAddr {
        canonical(self.connection.remote_address())
    }

    fn signals(&self) -> u64 {
        signals(&self.connection.stats())
    }

    fn stats(&self) -> LinkStats {
        link_stats(&self.connection.stats(), self.connection.rtt())
    }
}

/// What [`Link::signals`] counts.
pub(crate) fn signals(stats: &ConnectionStats) -> u64 {
    let frames = stats.frame_rx;
    // A challenge is what a move of the peer makes this side send, to an address that may be forged.
    stats.frame_tx.path_challenge
        + frames.ping
        + frames.reset_stream
        + frames.stop_sending
        + frames.path_challenge
        + frames.new_connection_id
        + frames.retire_connection_id
        + frames.streams_blocked_bidi
        + frames.streams_blocked_uni
}

pub(crate) fn link_stats(stats: &ConnectionStats, rtt: Duration) -> LinkStats {
    LinkStats {
        rtt,
        packets_sent: stats.path.sent_packets,
        packets_lost: stats.path.lost_packets,
        bytes_sent: stats.udp_tx.bytes,
        bytes_received: stats.udp_rx.bytes,
    }
}

impl SendHalf for quinn::SendStream {
    fn write_all_chunks<'a>(&'a mut self, chunks: &'a mut [Bytes]) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move { Ok(Self::write_all_chunks(self, chunks).await?) })
    }

    fn finish(&mut self) {
        // Fails only for a stream that is finished or reset already.
        let _ = Self::finish(self);
    }

    fn reset(&mut self, code: u32) {
        // Fails only for a stream that is reset or fully acknowledged already.
        let _ = Self::reset(self, VarInt::from_u32(code));
    }

    fn set_priority(&mut self, priority: i32) {
        // Fails only for a stream that is closed, whose priority no longer matters.
        let _ = Self::set_priority(self, priority);
    }

    fn stopped(&self) -> BoxFuture<'static, Result<Option<u32>, LinkClosed>> {
        let stopped = Self::stopped(self);
        Box::pin(async move {
            match stopped.await {
                Ok(code) => Ok(code.map(code_of)),
                Err(quinn::StoppedError::ConnectionLost(error)) => Err(error.into()),
                Err(quinn::StoppedError::ZeroRttRejected) => Err(early_data()),
            }
        })
    }
}

impl RecvHalf for quinn::RecvStream {
    fn read_chunk(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(async move { Ok(Self::read_chunk(self, max, true).await?.map(|chunk| chunk.bytes)) })
    }

    fn stop(&mut self, code: u32) {
        // Fails only for a stream that is stopped or read to its end already.
        let _ = Self::stop(self, VarInt::from_u32(code));
    }
}

impl From<ConnectionError> for LinkClosed {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::LocallyClosed => Self::Local,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::ApplicationClosed(close) => Self::Peer {
                code: code_of(close.error_code),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::TransportError(error) => transport_error(error.code.into(), error.to_string()),
            ConnectionError::ConnectionClosed(close) => {
                transport_error(close.error_code.into(), close.to_string())
            }
            ConnectionError::VersionMismatch => Self::Mismatch(error.to_string()),
            ConnectionError::Reset => Self::Lost("the peer has restarted".to_owned()),
            ConnectionError::CidsExhausted => Self::Lost(error.to_string()),
        }
    }
}

fn transport_error(code: u64, text: String) -> LinkClosed {
    match (
        code,
        code.checked_sub(CRYPTO_ERRORS)
            .and_then(|alert| u8::try_from(alert).ok()),
    ) {
        (CONNECTION_REFUSED, _) => LinkClosed::Refused,
        (_, Some(ALERT_NO_ALPN)) => LinkClosed::Mismatch(text),
        (_, Some(alert)) if CERTIFICATE_ALERTS.contains(&alert) => LinkClosed::Untrusted { alert, text },
        _ => LinkClosed::Lost(text),
    }
}

impl From<quinn::WriteError> for WriteError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => Self::Stopped(code_of(code)),
            quinn::WriteError::ConnectionLost(error) => Self::Closed(error.into()),
            quinn::WriteError::ClosedStream => Self::Finished,
            quinn::WriteError::ZeroRttRejected => Self::Closed(early_data()),
        }
    }
}

impl From<quinn::ReadError> for ReadError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::Reset(code_of(code)),
            quinn::ReadError::ConnectionLost(error) => Self::Closed(error.into()),
            quinn::ReadError::ClosedStream | quinn::ReadError::IllegalOrderedRead => Self::Finished,
            quinn::ReadError::ZeroRttRejected => Self::Closed(early_data()),
        }
    }
}

/// Early data is never sent; should it be refused all the same, the link is of no use.
fn early_data() -> LinkClosed {
    LinkClosed::Lost("early data rejected".to_owned())
}

/// Our codes have 32 bits; a larger one of a foreign peer is reported as the largest.
fn code_of(code: VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap_or(u32::MAX)
}

fn bi((send, recv): (quinn::SendStream, quinn::RecvStream)) -> BiStream {
    (Box::new(send), Box::new(recv))
}
