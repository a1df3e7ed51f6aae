//! Clients that do not keep the rules, over raw UDP sockets of this machine.
//!
//! All of 127.0.0.0/8 is this machine, so that attackers and honest clients can live in networks of
//! their own.

use std::net::{Ipv4Addr, SocketAddr};

use throng_transport::{ClientEndpoint, Trust};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::support::PATIENCE;

/// Above every packet on the loopback.
const PACKET_BYTES_MAX: usize = 65_536;
/// The smallest datagram that a first packet may come in.
pub const FIRST_PACKET_BYTES: usize = 1_200;

/// A raw socket at an address of this machine that counts what goes over it.
#[derive(Debug)]
pub struct Raw {
    pub socket: UdpSocket,
    pub sent: usize,
    pub received: usize,
    /// The sizes of what came.
    pub answers: Vec<usize>,
}

impl Raw {
    pub async fn at(address: [u8; 4], server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::from(address), 0)).await.unwrap();
        socket.connect(server).await.unwrap();
        Self {
            socket,
            sent: 0,
            received: 0,
            answers: Vec::new(),
        }
    }

    pub async fn send(&mut self, packet: &[u8]) {
        self.socket.send(packet).await.unwrap();
        self.sent += packet.len();
    }

    pub async fn receive(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let read = timeout(PATIENCE, self.socket.recv(&mut buffer));
        let length = read.await.expect("an answer in time").unwrap();
        self.count(length);
        buffer.truncate(length);
        buffer
    }

    /// Takes what lies in the socket, and waits for nothing.
    pub fn drain(&mut self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while let Ok(length) = self.socket.try_recv(&mut buffer) {
            self.count(length);
        }
    }

    fn count(&mut self, length: usize) {
        self.received += length;
        self.answers.push(length);
    }

    /// Bytes that came for each byte sent.
    pub fn amplification(&self) -> f64 {
        self.received as f64 / self.sent as f64
    }

    /// Waits until the server has dealt with everything sent so far to its socket, by asking for the
    /// versions it speaks: it answers packets in their order. Returns what came before the answer.
    pub async fn settle(&mut self) -> Vec<Vec<u8>> {
        self.send(&unknown_version(FIRST_PACKET_BYTES)).await;
        let mut before = Vec::new();
        loop {
            let packet = self.receive().await;
            if is_version_negotiation(&packet) {
                return before;
            }
            before.push(packet);
        }
    }
}

/// A datagram in a version of QUIC that nobody speaks.
pub fn unknown_version(bytes: usize) -> Vec<u8> {
    let mut packet = vec![0; bytes];
    packet[..7].copy_from_slice(&[0xc0, 0xba, 0xba, 0xba, 0xba, 8, 0]);
    packet
}

pub fn is_version_negotiation(packet: &[u8]) -> bool {
    packet.len() > 5 && packet[0] & 0x80 != 0 && packet[1..5] == [0; 4]
}

pub fn is_retry(packet: &[u8]) -> bool {
    packet.len() > 5 && packet[0] & 0xf0 == 0xf0 && packet[1..5] == [0, 0, 0, 1]
}

/// The first packets of `count` real clients, caught on their way.
pub async fn first_packets(trust: &Trust, count: usize) -> Vec<Vec<u8>> {
    let client = ClientEndpoint::new(trust).unwrap();
    let mut packets = Vec::new();
    for _ in 0..count {
        let net = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let length = tokio::select! {
            connected = client.connect(net.local_addr().unwrap(), "localhost") => panic!("{connected:?}"),
            caught = net.recv(&mut packet) => caught.unwrap(),
        };
        packet.truncate(length);
        packets.push(packet);
    }
    packets
}

/// Carries packets between one client and a server, from an address of its own. What the server
/// sends comes through only if `passes` says so.
pub struct Relay {
    pub addr: SocketAddr,
    front: UdpSocket,
    back: UdpSocket,
}

impl Relay {
    pub async fn at(address: [u8; 4], server: SocketAddr) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let back = UdpSocket::bind((Ipv4Addr::from(address), 0)).await.unwrap();
        back.connect(server).await.unwrap();
        Self {
            addr: front.local_addr().unwrap(),
            front,
            back,
        }
    }

    pub async fn run(self, mut passes: impl FnMut(&[u8]) -> bool) {
        let (mut up, mut down) = (vec![0; PACKET_BYTES_MAX], vec![0; PACKET_BYTES_MAX]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((length, from)) = self.front.recv_from(&mut up) => {
                    client = Some(from);
                    let _ = self.back.send(&up[..length]).await;
                }
                Ok(length) = self.back.recv(&mut down) => {
                    if let Some(client) = client.filter(|_| passes(&down[..length])) {
                        let _ = self.front.send_to(&down[..length], client).await;
                    }
                }
            }
        }
    }
}
