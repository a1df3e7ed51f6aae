//! Clients of a Centrifugo server: its protobuf protocol over a WebSocket over TLS, as its own SDKs
//! speak it, down to what a subscriber needs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tls::{Stream, Tls};
use super::{TOPIC, in_turns};
use crate::fanout::meter::Meter;
use crate::fanout::scenario::Scenario;

/// Bytes of the answer to an upgrade at most.
const UPGRADED_MAX: usize = 4_096;

/// Of WebSocket: a whole binary message, and a ping with its answer.
const BINARY: u8 = 2;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Of the protocol: field numbers of `Command` and `Reply`.
const ID: u32 = 1;
const ERROR: u32 = 2;
const PUSH: u32 = 4;
const CONNECT: u32 = 4;
const SUBSCRIBE: u32 = 5;
const PUBLISH: u32 = 7;
/// Of `Push` and of its `Publication`.
const PUBLICATION: u32 = 4;
const DATA: u32 = 4;

pub struct Publisher(Connection);

impl Publisher {
    pub async fn publish(&mut self, body: &[u8]) -> Result<()> {
        let mut request = BytesMut::new();
        put_bytes(&mut request, 1, TOPIC.as_bytes());
        put_bytes(&mut request, 2, body);
        self.0.answer_what_came().await?;
        self.0.command(PUBLISH, &request).await
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
            let mut request = BytesMut::new();
            put_bytes(&mut request, 1, TOPIC.as_bytes());
            client.ask(SUBSCRIBE, &request).await?;
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
    commands: u64,
}

impl Connection {
    async fn open(tls: &Tls, addr: SocketAddr) -> Result<Self> {
        let mut stream = tls.over(Tls::tcp(addr).await?).await?;
        let upgrade = format!(
            "GET /connection/websocket?format=protobuf HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            ensure!(answer.len() < UPGRADED_MAX, "the server's answer has no end");
            answer.push(stream.read_u8().await?);
        }
        ensure!(
            answer.starts_with(b"HTTP/1.1 101"),
            "the server does not upgrade: {}",
            String::from_utf8_lossy(&answer)
        );
        let mut connection = Self {
            stream,
            buffer: BytesMut::with_capacity(4_096),
            commands: 0,
        };
        connection.ask(CONNECT, &[]).await?;
        Ok(connection)
    }

    /// Sends a command and waits for its answer.
    async fn ask(&mut self, kind: u32, request: &[u8]) -> Result<()> {
        self.command(kind, request).await?;
        let number = self.commands;
        loop {
            for reply in self.hear().await? {
                match reply {
                    Reply::Refused(id, text) if id == number => bail!("the server refuses: {text}"),
                    Reply::Done(id) if id == number => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    async fn command(&mut self, kind: u32, request: &[u8]) -> Result<()> {
        self.commands += 1;
        let mut command = BytesMut::new();
        put_number(&mut command, u64::from(ID << 3));
        put_number(&mut command, self.commands);
        put_bytes(&mut command, kind, request);
        let mut delimited = BytesMut::new();
        put_number(&mut delimited, command.len() as u64);
        delimited.extend_from_slice(&command);
        self.say(BINARY, &delimited).await
    }

    /// Answers the pings that have come, without waiting for more; a refusal of what was published fails.
    async fn answer_what_came(&mut self) -> Result<()> {
        loop {
            let read = tokio::time::timeout(Duration::ZERO, self.stream.read_buf(&mut self.buffer)).await;
            while let Some(frame) = frame(&mut self.buffer) {
                for reply in self.replies_of(frame).await? {
                    if let Reply::Refused(_, text) = reply {
                        bail!("the server refuses: {text}");
                    }
                }
            }
            match read {
                Err(_) => return Ok(()),
                Ok(read) => ensure!(read? > 0, "the server has closed"),
            }
        }
    }

    /// Reads publications until the connection ends.
    async fn take(mut self, meter: Arc<Meter>) -> Result<()> {
        loop {
            for reply in self.hear().await? {
                if let Reply::Publication(body) = reply {
                    meter.received(&body);
                }
            }
        }
    }

    /// A frame, masked as those of clients are.
    async fn say(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        self.stream.write_all(&framed(kind, payload)).await?;
        self.stream.flush().await.context("writing to the server")
    }

    /// What the next frame brings.
    async fn hear(&mut self) -> Result<Vec<Reply>> {
        loop {
            if let Some(frame) = frame(&mut self.buffer) {
                return self.replies_of(frame).await;
            }
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server has closed");
        }
    }

    /// What a frame brings; pings of both layers are answered.
    async fn replies_of(&mut self, (kind, payload): (u8, Bytes)) -> Result<Vec<Reply>> {
        match kind {
            BINARY => {
                let found = replies(&payload)?;
                if found.contains(&Reply::Ping) {
                    self.say(BINARY, &[0]).await?;
                }
                Ok(found)
            }
            PING => {
                self.say(PONG, &payload).await?;
                Ok(Vec::new())
            }
            PONG => Ok(Vec::new()),
            other => bail!("the server sends a frame of kind {other}"),
        }
    }
}

fn framed(kind: u8, payload: &[u8]) -> BytesMut {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut frame = BytesMut::with_capacity(payload.len() + 8);
    frame.put_u8(0x80 | kind);
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => frame.put_u8(0x80 | short),
        _ => match u16::try_from(payload.len()) {
            Ok(length) => {
                frame.put_u8(0x80 | 126);
                frame.put_u16(length);
            }
            Err(_) => {
                frame.put_u8(0x80 | 127);
                frame.put_u64(payload.len() as u64);
            }
        },
    }
    frame.put_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// The next whole frame of a server: those are not masked, and not in pieces with this server.
fn frame(buffer: &mut BytesMut) -> Option<(u8, Bytes)> {
    let (&first, &second) = (buffer.first()?, buffer.get(1)?);
    let (length, head) = match second {
        126 => (u64::from(u16::from_be_bytes(*buffer.get(2..)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*buffer.get(2..)?.first_chunk()?), 10),
        short => (u64::from(short), 2),
    };
    let length = usize::try_from(length).ok()?;
    if buffer.len() - head < length {
        return None;
    }
    buffer.advance(head);
    Some((first & 0x0f, buffer.split_to(length).freeze()))
}

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Done(u64),
    Refused(u64, String),
    Publication(Bytes),
    Ping,
}

/// The replies of a message, each with its length before it.
fn replies(message: &Bytes) -> Result<Vec<Reply>> {
    let (mut rest, mut found) = (message.clone(), Vec::new());
    while !rest.is_empty() {
        let length = usize::try_from(number(&mut rest)?)?;
        ensure!(length <= rest.len(), "a reply is cut off");
        found.extend(reply(rest.split_to(length))?);
    }
    Ok(found)
}

fn reply(mut fields: Bytes) -> Result<Option<Reply>> {
    if fields.is_empty() {
        return Ok(Some(Reply::Ping));
    }
    let mut id = 0;
    let mut refused = None;
    while !fields.is_empty() {
        match field(&mut fields)? {
            (ID, Value::Number(number)) => id = number,
            (ERROR, Value::Bytes(error)) => refused = Some(String::from_utf8_lossy(&error).into_owned()),
            (PUSH, Value::Bytes(push)) => {
                let body = inner(push, PUBLICATION)?.map(|publication| inner(publication, DATA));
                return Ok(body.transpose()?.flatten().map(Reply::Publication));
            }
            _ => {}
        }
    }
    Ok(Some(match refused {
        Some(text) => Reply::Refused(id, text),
        None => Reply::Done(id),
    }))
}

/// The bytes of one field of a message.
fn inner(mut fields: Bytes, wanted: u32) -> Result<Option<Bytes>> {
    while !fields.is_empty() {
        if let (found, Value::Bytes(bytes)) = field(&mut fields)?
            && found == wanted
        {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

enum Value {
    Number(u64),
    Bytes(Bytes),
}

fn field(fields: &mut Bytes) -> Result<(u32, Value)> {
    let tag = number(fields)?;
    let name = u32::try_from(tag >> 3)?;
    let value = match tag & 7 {
        0 => Value::Number(number(fields)?),
        2 => {
            let length = usize::try_from(number(fields)?)?;
            ensure!(length <= fields.len(), "a field is cut off");
            Value::Bytes(fields.split_to(length))
        }
        other => bail!("a field has the wire type {other}"),
    };
    Ok((name, value))
}

fn number(bytes: &mut Bytes) -> Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        ensure!(!bytes.is_empty(), "a number is cut off");
        let byte = bytes.get_u8();
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    bail!("a number has no end")
}

fn put_number(bytes: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        bytes.put_u8(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    bytes.put_u8(number as u8);
}

fn put_bytes(bytes: &mut BytesMut, name: u32, value: &[u8]) {
    put_number(bytes, u64::from(name << 3 | 2));
    put_number(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delimited(reply: &[u8]) -> BytesMut {
        let mut message = BytesMut::new();
        put_number(&mut message, reply.len() as u64);
        message.extend_from_slice(reply);
        message
    }

    #[test]
    fn replies_of_one_message_are_told_apart() {
        let (mut done, mut publication, mut push, mut pushed) =
            (BytesMut::new(), BytesMut::new(), BytesMut::new(), BytesMut::new());
        put_number(&mut done, u64::from(ID << 3));
        put_number(&mut done, 300);
        put_bytes(&mut publication, DATA, b"body");
        put_bytes(&mut push, 2, b"fanout");
        put_bytes(&mut push, PUBLICATION, &publication);
        put_bytes(&mut pushed, PUSH, &push);
        let message = [delimited(&done), delimited(&[]), delimited(&pushed)].concat();
        assert_eq!(
            replies(&message.into()).unwrap(),
            [
                Reply::Done(300),
                Reply::Ping,
                Reply::Publication(Bytes::from_static(b"body"))
            ]
        );
        assert!(replies(&Bytes::from_static(&[5, 1])).is_err());
    }

    #[test]
    fn frames_come_out_of_any_pieces() {
        let mut frames = vec![0x82, 3, b'a', b'b', b'c', 0x82, 126, 1, 0];
        frames.extend([7; 256]);
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for byte in frames {
            buffer.put_u8(byte);
            found.extend(frame(&mut buffer));
        }
        assert_eq!(found[0], (BINARY, Bytes::from_static(b"abc")));
        assert_eq!(found[1].1.len(), 256);
        assert_eq!(framed(BINARY, b"a")[..], [0x82, 0x81, 1, 2, 3, 4, b'a' ^ 1]);
        assert_eq!(framed(BINARY, &[0; 256])[..4], [0x82, 0x80 | 126, 1, 0]);
        assert_eq!(framed(BINARY, &[0; 65_536])[..4], [0x82, 0x80 | 127, 0, 0]);
    }
}
