//! Clients of an MQTT 3.1.1 broker over TLS: connect, subscribe, take and acknowledge.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use super::tls::{Stream, Tls};
use super::{TOPIC, in_turns};
use crate::fanout::meter::Meter;
use crate::fanout::scenario::Scenario;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

pub struct Publisher {
    write: WriteHalf<Stream>,
    qos: u8,
    packet: u16,
}

impl Publisher {
    pub async fn publish(&mut self, body: &[u8]) -> Result<()> {
        // 0 is no packet id.
        self.packet = self.packet.checked_add(1).unwrap_or(1);
        let packet = publish(self.qos, self.packet, body);
        self.write.write_all(&packet).await.context("publishing")?;
        self.write.flush().await.context("publishing")
    }
}

/// Connects everybody.
pub async fn connect(
    scenario: &Scenario,
    addr: SocketAddr,
    ca: &Path,
    qos: u8,
    meter: &Arc<Meter>,
) -> Result<Vec<Publisher>> {
    let tls = Tls::new(ca)?;
    in_turns(scenario.subscribers, |number| {
        let (tls, meter) = (tls.clone(), meter.clone());
        async move {
            let mut client = Broker::connect(&tls, addr, &format!("subscriber-{number}")).await?;
            client.subscribe(qos).await?;
            tokio::spawn(client.take(meter));
            Ok(())
        }
    })
    .await?;
    in_turns(scenario.publishers, |number| {
        let tls = tls.clone();
        async move {
            let client = Broker::connect(&tls, addr, &format!("publisher-{number}")).await?;
            let Broker { mut read, write, .. } = client;
            // Acks are taken off the wire; what they are for is counted where it arrives.
            tokio::spawn(async move {
                let mut sink = vec![0; 4_096];
                while read.read(&mut sink).await.is_ok_and(|count| count > 0) {}
            });
            Ok(Publisher {
                write,
                qos,
                packet: 0,
            })
        }
    })
    .await
}

struct Broker {
    read: ReadHalf<Stream>,
    write: WriteHalf<Stream>,
    buffer: BytesMut,
}

impl Broker {
    async fn connect(tls: &Tls, addr: SocketAddr, name: &str) -> Result<Self> {
        let stream = tls.over(Tls::tcp(addr).await?).await?;
        let (read, write) = tokio::io::split(stream);
        let mut broker = Self {
            read,
            write,
            buffer: BytesMut::with_capacity(4_096),
        };
        let mut body = BytesMut::new();
        put_text(&mut body, "MQTT");
        // Level 4 is 3.1.1; a clean session; no keep-alive.
        body.put_slice(&[4, 2, 0, 0]);
        put_text(&mut body, name);
        broker.say(CONNECT, &body).await?;
        let (kind, body) = broker.hear().await?;
        ensure!(
            kind == CONNACK && body.get(1) == Some(&0),
            "the broker refuses: {body:?}"
        );
        Ok(broker)
    }

    async fn subscribe(&mut self, qos: u8) -> Result<()> {
        let mut body = BytesMut::new();
        body.put_u16(1);
        put_text(&mut body, TOPIC);
        body.put_u8(qos);
        self.say(SUBSCRIBE, &body).await?;
        let (kind, body) = self.hear().await?;
        ensure!(
            kind == SUBACK && body.get(2) == Some(&qos),
            "no subscription: {body:?}"
        );
        Ok(())
    }

    async fn take(mut self, meter: Arc<Meter>) -> Result<()> {
        loop {
            let (kind, mut packet) = self.hear().await?;
            if kind & 0xf0 != PUBLISH {
                continue;
            }
            let qos = (kind >> 1) & 3;
            let topic = usize::from(packet.try_get_u16()?);
            ensure!(
                packet.len() >= topic + 2 * usize::from(qos > 0),
                "a packet is cut off"
            );
            packet.advance(topic);
            let id = (qos > 0).then(|| packet.get_u16());
            meter.received(&packet);
            if let Some(id) = id {
                self.say(PUBACK, &id.to_be_bytes()).await?;
            }
        }
    }

    async fn say(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        self.write.write_all(&packet(kind, body)).await?;
        self.write.flush().await.context("writing to the broker")
    }

    async fn hear(&mut self) -> Result<(u8, Bytes)> {
        loop {
            if let Some(found) = next(&mut self.buffer) {
                return Ok(found);
            }
            let read = self.read.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the broker has closed");
        }
    }
}

fn put_text(to: &mut BytesMut, text: &str) {
    to.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    to.put_slice(text.as_bytes());
}

fn publish(qos: u8, id: u16, body: &[u8]) -> Bytes {
    let mut packet_body = BytesMut::with_capacity(body.len() + 16);
    put_text(&mut packet_body, TOPIC);
    if qos > 0 {
        packet_body.put_u16(id);
    }
    packet_body.put_slice(body);
    packet(PUBLISH | (qos << 1), &packet_body)
}

fn packet(kind: u8, body: &[u8]) -> Bytes {
    let mut packet = BytesMut::with_capacity(body.len() + 5);
    packet.put_u8(kind);
    let mut length = body.len();
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        packet.put_u8(if length > 0 { low | 128 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.put_slice(body);
    packet.freeze()
}

/// The next packet of what was read, if it is whole.
fn next(buffer: &mut BytesMut) -> Option<(u8, Bytes)> {
    let kind = *buffer.first()?;
    let (mut length, mut place) = (0usize, 1);
    loop {
        let byte = *buffer.get(place)?;
        length |= usize::from(byte & 127) << (7 * (place - 1));
        place += 1;
        // A length has four bytes at most.
        if byte < 128 || place > 4 {
            break;
        }
    }
    if buffer.len() < place + length {
        return None;
    }
    buffer.advance(place);
    Some((kind, buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_of_any_pieces_as_they_went_in() {
        let long = publish(1, 7, &[9; 300]);
        let whole = [packet(CONNACK, &[0, 0]), long, packet(PUBACK, &[])].concat();
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for byte in whole {
            buffer.extend_from_slice(&[byte]);
            found.extend(next(&mut buffer));
        }
        assert_eq!(found.len(), 3);
        assert_eq!(
            (found[1].0, found[1].1.len()),
            (PUBLISH | 2, 2 + TOPIC.len() + 2 + 300)
        );
    }
}
