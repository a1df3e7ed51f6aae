//! Clients of a NATS server over TLS: connect, subscribe, take.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tls::{Stream, Tls};
use super::{TOPIC, in_turns};
use crate::fanout::meter::Meter;
use crate::fanout::scenario::Scenario;

/// Bytes of the greeting that comes before TLS.
const GREETING_MAX: usize = 4_096;

pub struct Publisher(Connection);

impl Publisher {
    pub async fn publish(&mut self, body: &[u8]) -> Result<()> {
        let head = format!("PUB {TOPIC} {}\r\n", body.len());
        self.0.say(&[head.as_bytes(), body, b"\r\n"].concat()).await
    }
}

/// Connects everybody.
pub async fn connect(
    scenario: &Scenario,
    addr: SocketAddr,
    ca: &Path,
    meter: &Arc<Meter>,
) -> Result<Vec<Publisher>> {
    let tls = Tls::new(ca)?;
    in_turns(scenario.subscribers, |_| {
        let (tls, meter) = (tls.clone(), meter.clone());
        async move {
            let mut client = Connection::open(&tls, addr).await?;
            client.say(format!("SUB {TOPIC} 1\r\n").as_bytes()).await?;
            client.confirm().await?;
            tokio::spawn(client.take(meter));
            Ok(())
        }
    })
    .await?;
    in_turns(scenario.publishers, |_| {
        let tls = tls.clone();
        async move { Ok(Publisher(Connection::open(&tls, addr).await?)) }
    })
    .await
}

struct Connection {
    stream: Stream,
    buffer: BytesMut,
}

#[derive(Debug, PartialEq, Eq)]
enum Operation {
    Message(bytes::Bytes),
    Ping,
    Pong,
    Other(String),
}

impl Connection {
    async fn open(tls: &Tls, addr: SocketAddr) -> Result<Self> {
        let mut stream = Tls::tcp(addr).await?;
        // Byte by byte: what follows the line belongs to TLS.
        let mut greeting = Vec::new();
        while !greeting.ends_with(b"\r\n") {
            ensure!(greeting.len() < GREETING_MAX, "the server's greeting has no end");
            greeting.push(stream.read_u8().await?);
        }
        ensure!(
            greeting.starts_with(b"INFO "),
            "the server does not greet as NATS does"
        );
        let mut connection = Self {
            stream: tls.over(stream).await?,
            buffer: BytesMut::with_capacity(4_096),
        };
        connection
            .say(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":true}\r\n")
            .await?;
        connection.confirm().await?;
        Ok(connection)
    }

    /// Waits until the server has done all it was told.
    async fn confirm(&mut self) -> Result<()> {
        self.say(b"PING\r\n").await?;
        loop {
            match self.hear().await? {
                Operation::Pong => return Ok(()),
                Operation::Other(line) if line.starts_with("-ERR") => bail!("the server refuses: {line}"),
                _ => {}
            }
        }
    }

    async fn take(mut self, meter: Arc<Meter>) -> Result<()> {
        loop {
            match self.hear().await? {
                Operation::Message(body) => meter.received(&body),
                Operation::Ping => self.say(b"PONG\r\n").await?,
                Operation::Pong | Operation::Other(_) => {}
            }
        }
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await.context("writing to the server")
    }

    async fn hear(&mut self) -> Result<Operation> {
        loop {
            if let Some(found) = next(&mut self.buffer)? {
                return Ok(found);
            }
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server has closed");
        }
    }
}

/// The next operation of what was read, if it is whole.
fn next(buffer: &mut BytesMut) -> Result<Option<Operation>> {
    let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
    if !line.starts_with("MSG ") {
        buffer.advance(end + 2);
        return Ok(Some(match line.as_str() {
            "PING" => Operation::Ping,
            "PONG" => Operation::Pong,
            _ => Operation::Other(line),
        }));
    }
    let length = line
        .rsplit(' ')
        .next()
        .and_then(|length| length.parse::<usize>().ok());
    let length = length.with_context(|| format!("no length in `{line}`"))?;
    if buffer.len() < end + 2 + length + 2 {
        return Ok(None);
    }
    buffer.advance(end + 2);
    let body = buffer.split_to(length).freeze();
    buffer.advance(2);
    Ok(Some(Operation::Message(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_out_of_any_pieces_as_they_went_in() {
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for byte in b"PING\r\nMSG fanout 1 4\r\na\r\nb\r\n+OK\r\n" {
            buffer.extend_from_slice(&[*byte]);
            found.extend(next(&mut buffer).unwrap());
        }
        let message = Operation::Message((&b"a\r\nb"[..]).into());
        assert_eq!(
            found,
            [Operation::Ping, message, Operation::Other("+OK".to_owned())]
        );
        assert!(next(&mut BytesMut::from("MSG fanout 1 x\r\n")).is_err());
    }
}
