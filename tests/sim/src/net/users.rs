//! What the tasks of a host do on the network: bind places, connect, let in, open, write, read, close.
//!
//! Handles of a host that has crashed find nothing and change nothing, so that dropping a runtime
//! says no word to anybody.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use throng_transport::{LinkClosed, ReadError, WriteError};

use super::packet::{End, Kind, LinkId, StreamId};
use super::side::{Phase, Side};
use super::stream::Piece;
use super::{Flow, HostId, Network, Port, State};

/// Bytes of a piece at most: a burst of packets that share their fate.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// The alert of TLS for a certificate that is for another name.
const BAD_CERTIFICATE: u8 = 42;

/// A port of a host, as the process there holds it.
#[derive(Debug)]
pub struct Place {
    net: Network,
    host: HostId,
    life: u64,
    port: Mutex<u16>,
}

/// Somebody who knocks.
#[derive(Debug)]
pub struct Knock {
    /// Where from.
    pub from: SocketAddr,
    link: LinkHandle,
}

/// An end of a link, held by a host. Dropping it closes the link.
#[derive(Debug)]
pub struct LinkHandle {
    net: Network,
    host: HostId,
    life: u64,
    id: LinkId,
    end: End,
}

/// A link to be shared by its streams, and the names in the other end's certificate.
pub(crate) type Opened = (Arc<LinkHandle>, Vec<String>);

fn down() -> LinkClosed {
    LinkClosed::Lost("this host is down".to_owned())
}

impl State {
    fn lives(&self, host: HostId, life: u64) -> bool {
        let host = &self.hosts[host.0];
        host.up && host.life == life
    }

    fn close(&mut self, link: LinkId, end: End, code: u32, reason: &str) {
        let now = self.now();
        let Self { links, due, .. } = self;
        let Some(side) = links
            .get_mut(&link)
            .and_then(|sides| sides[end as usize].as_mut())
        else {
            return;
        };
        if side.ended().is_some() {
            return;
        }
        side.said = (code, reason.to_owned());
        side.end(LinkClosed::Local, now, due);
        self.send(link, end, Kind::Close(code, reason.to_owned()));
    }
}

impl Place {
    /// Takes a port of a host that is up; a free one for `None`. One that does not listen only
    /// connects.
    pub fn bind(
        net: &Network,
        host: HostId,
        port: Option<u16>,
        flow: Flow,
        names: Vec<String>,
    ) -> std::io::Result<Self> {
        net.with(|state| {
            let life = state.hosts[host.0].life;
            if !state.lives(host, life) {
                return Err(std::io::ErrorKind::NetworkDown.into());
            }
            let there = &mut state.hosts[host.0];
            let number = port.unwrap_or(there.next_port);
            if there.ports.contains_key(&number) {
                return Err(std::io::ErrorKind::AddrInUse.into());
            }
            if port.is_none() {
                there.next_port += 1;
            }
            let port = Port::new(names, flow, port.is_some());
            there.ports.insert(number, port);
            Ok(Self {
                net: net.clone(),
                host,
                life,
                port: Mutex::new(number),
            })
        })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        Network::address(self.host, *self.port.lock())
    }

    /// Moves to another port of the host, and all links with it.
    pub fn move_on(&self) -> SocketAddr {
        let mut port = self.port.lock();
        let before = self.address_of(*port);
        let number = self.net.with(|state| {
            if !state.lives(self.host, self.life) {
                return *port;
            }
            let there = &mut state.hosts[self.host.0];
            let number = there.next_port;
            there.next_port += 1;
            if let Some(moved) = there.ports.remove(&*port) {
                there.ports.insert(number, moved);
            }
            for side in state.links.values_mut().flatten().flatten() {
                if side.local == before {
                    side.local = Network::address(self.host, number);
                }
            }
            number
        });
        *port = number;
        self.address_of(number)
    }

    fn address_of(&self, port: u16) -> SocketAddr {
        Network::address(self.host, port)
    }

    /// Connects, and checks that the other end has a certificate for `name`.
    pub(crate) async fn connect(&self, to: SocketAddr, name: &str) -> Result<Opened, LinkClosed> {
        let link = self.knock(to).ok_or_else(down)?;
        let names = link.settled().await?;
        if names.iter().any(|found| found == name) {
            return Ok((Arc::new(link), names));
        }
        Err(LinkClosed::Untrusted {
            alert: BAD_CERTIFICATE,
            text: format!("the certificate is for {names:?}, not for {name}"),
        })
    }

    fn knock(&self, to: SocketAddr) -> Option<LinkHandle> {
        let local = self.address();
        self.net.with(|state| {
            if !state.lives(self.host, self.life) {
                return None;
            }
            let now = state.now();
            let port = state.hosts[self.host.0].ports.get(&local.port())?;
            let (flow, names) = (port.flow, port.names.clone());
            state.next_link += 1;
            let id = LinkId(state.next_link);
            let side = Side::new(End::Near, self.host, local, to, flow, now);
            state.links.insert(id, [Some(side), None]);
            state.send(id, End::Near, Kind::Knock(flow, names));
            Some(self.handle(id, End::Near))
        })
    }

    fn handle(&self, id: LinkId, end: End) -> LinkHandle {
        LinkHandle {
            net: self.net.clone(),
            host: self.host,
            life: self.life,
            id,
            end,
        }
    }

    /// The next who knocks; `None` when the place is closed.
    pub(crate) async fn accept(&self) -> Option<Knock> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&self, context: &Context<'_>) -> Poll<Option<Knock>> {
        let number = *self.port.lock();
        self.net.with(|state| {
            if !state.lives(self.host, self.life) {
                return Poll::Ready(None);
            }
            loop {
                let port = state.hosts[self.host.0].ports.get_mut(&number);
                let Some(port) = port.filter(|port| !port.closed) else {
                    return Poll::Ready(None);
                };
                let Some(id) = port.knocks.pop_front() else {
                    port.waiting.add(context);
                    return Poll::Pending;
                };
                // One that has gone in the meantime is passed over.
                if let Some(side) = state.side(id, End::Far).filter(|side| side.ended().is_none()) {
                    let from = side.remote;
                    let link = self.handle(id, End::Far);
                    return Poll::Ready(Some(Knock { from, link }));
                }
            }
        })
    }

    /// Links of this place that have not ended.
    pub(crate) fn open_links(&self) -> usize {
        let local = self.address();
        self.net.with(|state| {
            let sides = state.links.values().flatten().flatten();
            sides
                .filter(|side| side.local == local && side.ended().is_none())
                .count()
        })
    }

    /// Closes all links, and lets nobody in any more.
    pub(crate) fn close(&self, code: u32, reason: &str) {
        let local = self.address();
        self.net.with(|state| {
            if !state.lives(self.host, self.life) {
                return;
            }
            if let Some(port) = state.hosts[self.host.0].ports.get_mut(&local.port()) {
                port.closed = true;
                port.waiting.wake(&mut state.due);
            }
            let ours = |side: &&Side| side.local == local;
            let ends = state.links.iter().flat_map(|(id, sides)| {
                let sides = sides.iter().flatten().filter(ours);
                sides.map(|side| (*id, side.end))
            });
            for (id, end) in ends.collect::<Vec<_>>() {
                state.close(id, end, code, reason);
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.close(0, "");
        let number = *self.port.lock();
        self.net.with(|state| {
            if state.lives(self.host, self.life) {
                state.hosts[self.host.0].ports.remove(&number);
            }
        });
    }
}

impl Knock {
    /// Lets it in.
    pub(crate) async fn welcome(self) -> Result<Opened, LinkClosed> {
        let Self { link, .. } = self;
        link.change(|state| {
            let host = state.side(link.id, link.end)?.local.port();
            let port = state.hosts[link.host.0].ports.get(&host)?;
            let welcome = Kind::Welcome(port.flow, port.names.clone());
            let side = state.side(link.id, link.end)?;
            side.phase = Phase::Welcoming;
            state.send(link.id, link.end, welcome);
            Some(())
        });
        let names = link.settled().await?;
        Ok((Arc::new(link), names))
    }

    /// Sends it away.
    pub(crate) fn refuse(self) {
        let link = &self.link;
        link.change(|state| {
            state.send(link.id, link.end, Kind::Refused);
            let now = state.now();
            let State { links, due, .. } = state;
            let side = links.get_mut(&link.id)?[link.end as usize].as_mut()?;
            side.end(LinkClosed::Refused, now, due);
            Some(())
        });
    }
}

impl LinkHandle {
    fn change<T>(&self, work: impl FnOnce(&mut State) -> Option<T>) -> Option<T> {
        self.net.with(|state| {
            if !state.lives(self.host, self.life) {
                return None;
            }
            work(state)
        })
    }

    /// Looks for something at this end; waits for the link while it is not there.
    fn look<T>(
        &self,
        context: &Context<'_>,
        look: impl FnOnce(&mut Side) -> Option<T>,
    ) -> Poll<Result<T, LinkClosed>> {
        let looked = self.change(|state| {
            let side = state.side(self.id, self.end)?;
            Some(match (side.ended().cloned(), look(side)) {
                (Some(closed), _) => Poll::Ready(Err(closed)),
                (None, Some(found)) => Poll::Ready(Ok(found)),
                (None, None) => {
                    side.waiting.add(context);
                    Poll::Pending
                }
            })
        });
        looked.unwrap_or_else(|| Poll::Ready(Err(down())))
    }

    /// Waits for the end of the handshake; returns the names in the other end's certificate.
    async fn settled(&self) -> Result<Vec<String>, LinkClosed> {
        let open = |side: &mut Side| (side.phase == Phase::Open).then(|| side.names.clone());
        poll_fn(|context| self.look(context, open)).await
    }

    pub(crate) async fn open(&self, one_way: bool) -> Result<StreamId, LinkClosed> {
        poll_fn(|context| self.look(context, |side| side.open(one_way))).await
    }

    pub(crate) async fn accept(&self, one_way: bool) -> Result<StreamId, LinkClosed> {
        let next = |side: &mut Side| {
            if one_way {
                side.one_way.pop_front()
            } else {
                side.two_way.pop_front()
            }
        };
        poll_fn(|context| self.look(context, next)).await
    }

    pub(crate) async fn datagram(&self) -> Result<Bytes, LinkClosed> {
        poll_fn(|context| self.look(context, |side| side.datagrams.pop_front())).await
    }

    pub(crate) async fn closed(&self) -> LinkClosed {
        let never = |_: &mut Side| None::<LinkClosed>;
        match poll_fn(|context| self.look(context, never)).await {
            Ok(closed) | Err(closed) => closed,
        }
    }

    pub(crate) fn ended(&self) -> Option<LinkClosed> {
        let ended = self.change(|state| {
            let side = state.side(self.id, self.end)?;
            Some(side.ended().cloned())
        });
        ended.unwrap_or_else(|| Some(down()))
    }

    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.change(|state| Some(state.side(self.id, self.end)?.remote))
    }

    pub(crate) fn close(&self, code: u32, reason: &str) {
        self.change(|state| {
            state.close(self.id, self.end, code, reason);
            Some(())
        });
    }

    pub(crate) fn send_datagram(&self, bytes: Bytes) {
        self.change(|state| {
            state.send(self.id, self.end, Kind::Datagram(bytes));
            Some(())
        });
    }

    /// Writes what the windows allow of `chunks`, taking it off them; waits if that is nothing.
    pub(crate) fn poll_write(
        &self,
        context: &Context<'_>,
        stream: StreamId,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), WriteError>> {
        let written = self.change(|state| {
            for chunk in chunks.iter_mut() {
                while !chunk.is_empty() {
                    let side = state.side(self.id, self.end)?;
                    if let Some(closed) = side.ended() {
                        return Some(Poll::Ready(Err(closed.clone().into())));
                    }
                    let link_room = side.allowed.saturating_sub(side.sent);
                    let sending = side.sends.get_mut(&stream)?;
                    if let Some(code) = sending.stopped {
                        return Some(Poll::Ready(Err(WriteError::Stopped(code))));
                    }
                    if sending.finished || sending.reset {
                        return Some(Poll::Ready(Err(WriteError::Finished)));
                    }
                    let room = link_room.min(sending.allowed.saturating_sub(sending.sent));
                    let len = usize::try_from(room).unwrap_or(usize::MAX);
                    let len = len.min(PIECE_BYTES_MAX).min(chunk.len());
                    if len == 0 {
                        sending.writers.add(context);
                        return Some(Poll::Pending);
                    }
                    let bytes = chunk.split_to(len);
                    sending.sent += len as u64;
                    side.sent += len as u64;
                    send_piece(state, self, stream, bytes, false);
                }
            }
            Some(Poll::Ready(Ok(())))
        });
        written.unwrap_or_else(|| Poll::Ready(Err(down().into())))
    }

    pub(crate) fn finish(&self, stream: StreamId) {
        self.change(|state| {
            let side = state.side(self.id, self.end)?;
            if side.ended().is_some() {
                return None;
            }
            let sending = side.sends.get_mut(&stream)?;
            if sending.finished || sending.is_over() {
                return None;
            }
            sending.finished = true;
            send_piece(state, self, stream, Bytes::new(), true);
            Some(())
        });
    }

    pub(crate) fn reset(&self, stream: StreamId, code: u32) {
        self.change(|state| {
            let State { links, due, .. } = state;
            let side = links.get_mut(&self.id)?[self.end as usize].as_mut()?;
            let sending = side.sends.get_mut(&stream)?;
            if sending.is_over() {
                return None;
            }
            sending.reset = true;
            sending.writers.wake(due);
            sending.watchers.wake(due);
            let sent = sending.sent;
            state.send(self.id, self.end, Kind::Reset(stream, code, sent));
            Some(())
        });
    }

    /// Waits until the stream was stopped, or is there as a whole.
    pub(crate) fn poll_stopped(
        &self,
        context: &Context<'_>,
        stream: StreamId,
    ) -> Poll<Result<Option<u32>, LinkClosed>> {
        let over = self.change(|state| {
            let side = state.side(self.id, self.end)?;
            let ended = side.ended().cloned();
            let sending = side.sends.get_mut(&stream)?;
            Some(
                if sending.stopped.is_some() || sending.complete || sending.reset {
                    Poll::Ready(Ok(sending.stopped))
                } else if let Some(closed) = ended {
                    Poll::Ready(Err(closed))
                } else {
                    sending.watchers.add(context);
                    Poll::Pending
                },
            )
        });
        over.unwrap_or_else(|| Poll::Ready(Err(down())))
    }

    pub(crate) fn poll_read(
        &self,
        context: &Context<'_>,
        stream: StreamId,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        let read = self.change(|state| {
            let side = state.side(self.id, self.end)?;
            let ended = side.ended().cloned();
            let receiving = side.recvs.get_mut(&stream)?;
            if receiving.stopped {
                return Some(Poll::Ready(Err(ReadError::Finished)));
            }
            if let Some(bytes) = receiving.take(max) {
                side.taken += bytes.len() as u64;
                state.allow(self.id, self.end, Some(stream));
                return Some(Poll::Ready(Ok(Some(bytes))));
            }
            Some(match (receiving.reset, receiving.finished, ended) {
                (Some(code), ..) => Poll::Ready(Err(ReadError::Reset(code))),
                (_, true, _) => Poll::Ready(Ok(None)),
                (.., Some(closed)) => Poll::Ready(Err(closed.into())),
                _ => {
                    receiving.readers.add(context);
                    Poll::Pending
                }
            })
        });
        read.unwrap_or_else(|| Poll::Ready(Err(down().into())))
    }

    pub(crate) fn stop(&self, stream: StreamId, code: u32) {
        self.change(|state| {
            let side = state.side(self.id, self.end)?;
            let receiving = side.recvs.get_mut(&stream)?;
            if receiving.is_over() {
                return None;
            }
            receiving.stopped = true;
            side.taken += receiving.discard();
            if side.ended().is_none() {
                state.send(self.id, self.end, Kind::Stop(stream, code));
                state.allow(self.id, self.end, None);
            }
            Some(())
        });
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.close(0, "");
    }
}

fn send_piece(state: &mut State, link: &LinkHandle, stream: StreamId, bytes: Bytes, last: bool) {
    let Some(sending) = state
        .side(link.id, link.end)
        .and_then(|side| side.sends.get_mut(&stream))
    else {
        return;
    };
    let number = sending.pieces;
    sending.pieces += 1;
    state.send(
        link.id,
        link.end,
        Kind::Piece(stream, number, Piece { bytes, last }),
    );
}
