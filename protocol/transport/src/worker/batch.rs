//! Datagrams on their way out, handed to the kernel many at a time.
//!
//! A delivery to many is one small datagram for each of them, so a call a datagram would be a third of
//! what a delivery costs the kernel. Trains to one destination go through `quinn-udp`, which lets the
//! kernel cut them. Knows the socket and refuses to know connections.

use std::io;
use std::net::{IpAddr, SocketAddr};

use quinn::udp::{EcnCodepoint, Transmit, UdpSocketState};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::unproven::Unproven;

/// Datagrams in one call: more than this gained nothing measurable.
pub(super) const BATCH: usize = 64;
/// Bytes of a datagram's buffer at first: an Ethernet frame's.
const BUFFER: usize = 1_500;

/// A socket and how datagrams leave it.
#[derive(Debug)]
pub(super) struct Outlet {
    pub io: UdpSocket,
    pub udp: UdpSocketState,
    /// Whether replies must name the address they come from: the socket has several.
    names_source: bool,
    /// Whether the socket marks datagrams as ECN-capable by itself.
    marks: bool,
}

impl Outlet {
    /// Takes a bound socket over. Must be called inside a tokio runtime.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let udp = UdpSocketState::new((&socket).into())?;
        let addr = socket.local_addr()?;
        let marks = mark(&SockRef::from(&socket), addr).is_ok();
        Ok(Self {
            io: UdpSocket::from_std(socket)?,
            udp,
            names_source: addr.ip().is_unspecified(),
            marks,
        })
    }

    fn send_one(&self, slot: &Slot) -> io::Result<()> {
        let transmit = Transmit {
            destination: slot.to.destination,
            ecn: slot.to.ecn,
            contents: &slot.buffer[..slot.to.bytes],
            segment_size: slot.to.segment,
            src_ip: slot.to.source,
        };
        self.io
            .try_io(Interest::WRITABLE, || self.udp.send((&self.io).into(), &transmit))
    }

    /// Sends a run of datagrams; tells how many the kernel took. One that it refuses for itself counts
    /// as lost on its way.
    #[cfg(target_os = "linux")]
    fn send_run(&self, slots: &[Slot]) -> io::Result<usize> {
        let source = slots.first().and_then(|slot| slot.to.source);
        let source = source.filter(|_| self.names_source);
        let sent = self
            .io
            .try_io(Interest::WRITABLE, || linux::send(&self.io, slots, source));
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a datagram was not sent");
                Ok(1)
            }
            sent => sent,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn send_run(&self, slots: &[Slot]) -> io::Result<usize> {
        slots
            .first()
            .map_or(Ok(0), |slot| self.send_one(slot).map(|()| 1))
    }
}

/// All datagrams of the socket are marked as ECN-capable, unless a call says otherwise.
fn mark(socket: &SockRef<'_>, addr: SocketAddr) -> io::Result<()> {
    let ect0 = EcnCodepoint::Ect0 as u32;
    if addr.is_ipv4() {
        return socket.set_tos_v4(ect0);
    }
    socket.set_tclass_v6(ect0)?;
    // IPv4 peers of a dual-stack socket; the system may refuse it on one that is not.
    let only_v6 = socket.only_v6()?;
    if only_v6 { Ok(()) } else { socket.set_tos_v4(ect0) }
}

#[derive(Debug, Clone, Copy)]
struct To {
    destination: SocketAddr,
    source: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    bytes: usize,
    segment: Option<usize>,
}

#[derive(Debug)]
struct Slot {
    buffer: Vec<u8>,
    to: To,
}

/// Datagrams that are to be sent, in order.
#[derive(Debug)]
pub(super) struct Batch {
    slots: Vec<Slot>,
    filled: usize,
    sent: usize,
}

impl Batch {
    pub fn new() -> Self {
        let slot = || Slot {
            buffer: Vec::with_capacity(BUFFER),
            to: To {
                destination: crate::socket::unspecified(),
                source: None,
                ecn: None,
                bytes: 0,
                segment: None,
            },
        };
        Self {
            slots: std::iter::repeat_with(slot).take(BATCH).collect(),
            filled: 0,
            sent: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    pub fn is_full(&self) -> bool {
        self.filled == self.slots.len()
    }

    /// Lets `make` write what is next into a buffer, unless the batch is full; tells whether it did.
    pub fn fill(
        &mut self,
        unproven: &Unproven,
        make: impl FnOnce(&mut Vec<u8>) -> Option<quinn_proto::Transmit>,
    ) -> bool {
        let Some(slot) = self.slots.get_mut(self.filled) else {
            return false;
        };
        slot.buffer.clear();
        let Some(made) = make(&mut slot.buffer) else {
            return false;
        };
        let segment = made.segment_size.unwrap_or(made.size);
        let bytes = unproven.send(made.destination, made.size, segment);
        if bytes > 0 {
            slot.to = To {
                destination: made.destination,
                source: made.src_ip,
                ecn: made.ecn.map(ecn),
                bytes,
                segment: made.segment_size,
            };
            self.filled += 1;
        }
        true
    }

    /// Hands everything to the kernel. With [`io::ErrorKind::WouldBlock`] the rest is for another time.
    pub fn flush(&mut self, outlet: &Outlet) -> io::Result<()> {
        while self.sent < self.filled {
            let rest = &self.slots[self.sent..self.filled];
            let run = if outlet.marks { run(rest) } else { 0 };
            self.sent += if run > 1 {
                outlet.send_run(&rest[..run])?
            } else {
                outlet.send_one(&rest[0]).map(|()| 1)?
            };
        }
        (self.filled, self.sent) = (0, 0);
        Ok(())
    }
}

/// How many slots one call can take: datagrams that differ in destination and content only.
fn run(slots: &[Slot]) -> usize {
    let source = slots.first().and_then(|slot| slot.to.source);
    let alike = |slot: &&Slot| {
        slot.to.segment.is_none() && slot.to.ecn == Some(EcnCodepoint::Ect0) && slot.to.source == source
    };
    slots.iter().take_while(alike).count()
}

fn ecn(ecn: quinn_proto::EcnCodepoint) -> EcnCodepoint {
    match ecn {
        quinn_proto::EcnCodepoint::Ect0 => EcnCodepoint::Ect0,
        quinn_proto::EcnCodepoint::Ect1 => EcnCodepoint::Ect1,
        quinn_proto::EcnCodepoint::Ce => EcnCodepoint::Ce,
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, IoSlice};
    use std::net::IpAddr;
    use std::os::fd::AsRawFd as _;

    use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
    use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
    use tokio::net::UdpSocket;

    use super::Slot;

    /// One `sendmmsg`; tells how many datagrams the kernel took.
    pub(super) fn send(socket: &UdpSocket, slots: &[Slot], source: Option<IpAddr>) -> io::Result<usize> {
        let contents: Vec<[IoSlice<'_>; 1]> = slots
            .iter()
            .map(|slot| [IoSlice::new(&slot.buffer[..slot.to.bytes])])
            .collect();
        let addresses: Vec<Option<SockaddrStorage>> = slots
            .iter()
            .map(|slot| Some(SockaddrStorage::from(slot.to.destination)))
            .collect();
        let (v4, v6) = (source.and_then(v4), source.and_then(v6));
        let control: Vec<ControlMessage<'_>> = v4
            .iter()
            .map(ControlMessage::Ipv4PacketInfo)
            .chain(v6.iter().map(ControlMessage::Ipv6PacketInfo))
            .collect();
        let space = (!control.is_empty()).then(|| nix::cmsg_space!(in6_pktinfo));
        let mut headers = MultiHeaders::preallocate(slots.len(), space);
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &contents,
            &addresses,
            &control,
            flags,
        )?;
        Ok(sent.count())
    }

    fn v4(source: IpAddr) -> Option<in_pktinfo> {
        let IpAddr::V4(source) = source else { return None };
        Some(in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: in_addr {
                s_addr: u32::from_ne_bytes(source.octets()),
            },
            ipi_addr: in_addr { s_addr: 0 },
        })
    }

    fn v6(source: IpAddr) -> Option<in6_pktinfo> {
        let IpAddr::V6(source) = source else { return None };
        Some(in6_pktinfo {
            ipi6_addr: in6_addr {
                s6_addr: source.octets(),
            },
            ipi6_ifindex: 0,
        })
    }
}
