//! Clients of bare quinn: a stream of bodies each way, each behind its length.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use throng_transport::{Trust, bare};

use super::in_turns;
use super::throng::SOCKETS;
use crate::fanout::meter::Meter;
use crate::fanout::scenario::Scenario;

/// What the first byte of a client's stream says it is.
pub const PUBLISHER: u8 = b'p';
pub const SUBSCRIBER: u8 = b's';

pub struct Publisher {
    _connection: quinn::Connection,
    stream: quinn::SendStream,
}

impl Publisher {
    pub async fn publish(&mut self, body: Bytes) -> Result<()> {
        self.stream.write_chunk(framed(&body)).await.context("publishing")
    }
}

/// A body behind its length.
pub fn framed(body: &[u8]) -> Bytes {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), body].concat().into()
}

/// The next body of what was read, if it is whole.
pub fn next(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(*buffer.first_chunk()?) as usize;
    if buffer.len() < 4 + length {
        return None;
    }
    let mut frame = buffer.split_to(4 + length);
    Some(frame.split_off(4).freeze())
}

/// Connects everybody.
pub async fn connect(
    scenario: &Scenario,
    addr: SocketAddr,
    ca: &Path,
    meter: &Arc<Meter>,
) -> Result<Vec<Publisher>> {
    let trust = Trust::ca_file(ca)?;
    let endpoint = |_| bare::client(&trust).context("opening a socket");
    let endpoints: Vec<quinn::Endpoint> = (0..SOCKETS).map(endpoint).collect::<Result<_>>()?;
    in_turns(scenario.subscribers, |number| {
        let (endpoint, meter) = (endpoints[number % SOCKETS].clone(), meter.clone());
        async move {
            let (connection, hello, mut stream) = open(&endpoint, addr, SUBSCRIBER).await?;
            tokio::spawn(async move {
                let mut buffer = BytesMut::new();
                while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                    buffer.extend_from_slice(&chunk.bytes);
                    while let Some(body) = next(&mut buffer) {
                        meter.received(&body);
                    }
                }
                drop((connection, hello));
            });
            Ok(())
        }
    })
    .await?;
    in_turns(scenario.publishers, |number| {
        let endpoint = endpoints[number % SOCKETS].clone();
        async move {
            let (connection, stream, _) = open(&endpoint, addr, PUBLISHER).await?;
            Ok(Publisher {
                _connection: connection,
                stream,
            })
        }
    })
    .await
}

/// Connects and says what for; the server's first bytes say that it has heard.
async fn open(
    endpoint: &quinn::Endpoint,
    addr: SocketAddr,
    role: u8,
) -> Result<(quinn::Connection, quinn::SendStream, quinn::RecvStream)> {
    let connection = endpoint.connect(addr, "localhost")?.await.context("connecting")?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&[role]).await?;
    let mut heard = [0];
    receive
        .read_exact(&mut heard)
        .await
        .context("waiting for the server")?;
    Ok((connection, send, receive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_out_of_any_pieces_as_they_went_in() {
        let whole = [framed(b"one"), framed(b""), framed(b"three")].concat();
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for byte in whole {
            buffer.extend_from_slice(&[byte]);
            found.extend(next(&mut buffer));
        }
        assert_eq!(found, [&b"one"[..], b"", b"three"]);
    }
}
