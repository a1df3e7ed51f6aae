//! What a packet does at the host it arrives at.

use throng_transport::LinkClosed;

use super::packet::{End, Kind, LinkId, Packet, StreamId, Timed};
use super::side::{Phase, Side};
use super::stream::Piece;
use super::{Flow, HostId, Network, State, Us};

/// Datagrams held for an application that does not take them; the oldest go first.
const DATAGRAMS_MAX: usize = 16;
/// First packets that wait to be let in.
const KNOCKS_MAX: usize = 1_024;

impl State {
    pub(super) fn arrive(&mut self, host: HostId, timed: Timed) {
        let Timed { at, packet, .. } = timed;
        let Packet { link, from, kind, .. } = packet;
        let me = from.other();
        let Some(sides) = self.links.get(&link) else {
            return;
        };
        if sides[me as usize].is_none() {
            return match kind {
                Kind::Knock(flow, names) => self.knocked(host, link, (flow, names), at),
                Kind::Unknown => {}
                _ => self.deny(host, link, me),
            };
        }
        let Some(side) = self.side(link, me) else { return };
        if side.host != host {
            return;
        }
        if let Some(closed) = side.ended().cloned() {
            // One that has closed says so again to whoever has not heard it.
            if closed == LinkClosed::Local && kind.is_acknowledged() {
                let (code, reason) = side.said.clone();
                self.send(link, me, Kind::Close(code, reason));
            }
            return;
        }
        side.heard = at;
        if kind.is_acknowledged() && !side.ack_due {
            side.ack_due = true;
            self.acks.push((link, me));
        }
        self.take(link, me, kind, at);
    }

    /// A packet of a link that this host does not know: a host that was started anew says so where
    /// something listens.
    fn deny(&mut self, host: HostId, link: LinkId, me: End) {
        let other = self.side(link, me.other()).map(|other| other.remote);
        let listens = other.is_some_and(|addr| {
            let ports = &self.hosts[host.0].ports;
            ports.get(&addr.port()).is_some_and(|port| port.listens)
        });
        if listens {
            self.send(link, me, Kind::Unknown);
        }
    }

    fn knocked(&mut self, host: HostId, link: LinkId, (flow, names): (Flow, Vec<String>), at: Us) {
        let Some((from, to)) = self.side(link, End::Near).map(|near| (near.local, near.remote)) else {
            return;
        };
        let port = self.hosts[host.0].ports.get_mut(&to.port());
        let Some(port) = port.filter(|port| port.listens && !port.closed) else {
            return;
        };
        if port.knocks.len() >= KNOCKS_MAX {
            return;
        }
        let mut side = Side::new(End::Far, host, to, from, port.flow, at);
        side.learn(flow);
        side.names = names;
        port.knocks.push_back(link);
        port.waiting.wake(&mut self.due);
        if let Some(sides) = self.links.get_mut(&link) {
            sides[End::Far as usize] = Some(side);
        }
    }

    fn take(&mut self, link: LinkId, me: End, kind: Kind, at: Us) {
        let Self { links, due, .. } = self;
        let Some(side) = links.get_mut(&link).and_then(|sides| sides[me as usize].as_mut()) else {
            return;
        };
        match kind {
            Kind::Welcome(flow, names) if side.phase == Phase::Knocking => {
                side.learn(flow);
                side.names = names;
                side.phase = Phase::Open;
                side.waiting.wake(due);
                self.send(link, me, Kind::Done);
            }
            Kind::Refused if side.phase == Phase::Knocking => side.end(LinkClosed::Refused, at, due),
            Kind::Close(code, reason) => side.end(LinkClosed::Peer { code, reason }, at, due),
            Kind::Unknown => {
                let closed = LinkClosed::Lost("the peer has restarted".to_owned());
                side.end(closed, at, due);
            }
            Kind::Knock(..) | Kind::Welcome(..) | Kind::Refused | Kind::Ping | Kind::Ack => {}
            other => {
                // Whatever comes behind the handshake shows that the other end has finished it.
                if side.phase == Phase::Welcoming {
                    side.phase = Phase::Open;
                    side.waiting.wake(due);
                }
                self.take_of_stream(link, me, other);
            }
        }
    }

    fn take_of_stream(&mut self, link: LinkId, me: End, kind: Kind) {
        let Self { links, due, .. } = self;
        let Some(side) = links.get_mut(&link).and_then(|sides| sides[me as usize].as_mut()) else {
            return;
        };
        match kind {
            Kind::Piece(stream, number, piece) => self.take_piece(link, me, stream, number, piece),
            Kind::Reset(stream, code, sent) => {
                meet(side, stream, due);
                if let Some(receiving) = side.recvs.get_mut(&stream)
                    && receiving.reset.is_none()
                    && !receiving.finished
                {
                    receiving.reset = Some(code);
                    receiving.discard();
                    receiving.readers.wake(due);
                    side.taken += sent.saturating_sub(receiving.taken);
                    receiving.taken = sent;
                    self.allow(link, me, None);
                }
            }
            Kind::Stop(stream, code) => {
                meet(side, stream, due);
                if let Some(sending) = side.sends.get_mut(&stream)
                    && !sending.is_over()
                {
                    sending.stopped = Some(code);
                    sending.writers.wake(due);
                    sending.watchers.wake(due);
                    let sent = sending.sent;
                    self.send(link, me, Kind::Reset(stream, code, sent));
                }
            }
            Kind::Complete(stream) => {
                if let Some(sending) = side.sends.get_mut(&stream) {
                    sending.complete = true;
                    sending.watchers.wake(due);
                }
            }
            Kind::Allow(stream, on_link) => {
                side.allowed = side.allowed.max(on_link);
                if let Some((stream, bytes)) = stream
                    && let Some(sending) = side.sends.get_mut(&stream)
                {
                    sending.allowed = sending.allowed.max(bytes);
                }
                for sending in side.sends.values_mut() {
                    sending.writers.wake(due);
                }
            }
            Kind::Datagram(bytes) => {
                if side.datagrams.len() >= DATAGRAMS_MAX {
                    side.datagrams.pop_front();
                }
                side.datagrams.push_back(bytes);
                side.waiting.wake(due);
            }
            _ => {}
        }
    }

    fn take_piece(&mut self, link: LinkId, me: End, stream: StreamId, number: u64, piece: Piece) {
        let Self { links, due, .. } = self;
        let Some(side) = links.get_mut(&link).and_then(|sides| sides[me as usize].as_mut()) else {
            return;
        };
        meet(side, stream, due);
        let Some(receiving) = side.recvs.get_mut(&stream) else {
            return;
        };
        let whole = receiving.arrive(number, piece);
        receiving.readers.wake(due);
        let thrown = if receiving.stopped { receiving.discard() } else { 0 };
        side.taken += thrown;
        if whole {
            self.send(link, me, Kind::Complete(stream));
        }
        if thrown > 0 {
            self.allow(link, me, None);
        }
    }

    /// Tells the other end what it may send, once that has moved by an eighth of a window.
    pub(super) fn allow(&mut self, link: LinkId, me: End, stream: Option<StreamId>) {
        let Some(side) = self.side(link, me) else { return };
        let (window, stream_window) = (side.flow.link_window, side.flow.stream_window);
        let on_link = side.taken + window;
        let on_stream = stream.and_then(|stream| {
            let receiving = side.recvs.get_mut(&stream)?;
            let now = receiving.taken + stream_window;
            let moved = now - receiving.announced >= stream_window / 8;
            moved.then(|| {
                receiving.announced = now;
                (stream, now)
            })
        });
        if on_stream.is_some() || on_link - side.announced >= window / 8 {
            side.announced = on_link;
            self.send(link, me, Kind::Allow(on_stream, on_link));
        }
    }
}

/// Makes a stream known to its end, and tells who waits for one.
fn meet(side: &mut Side, stream: StreamId, due: &mut Vec<std::task::Waker>) {
    side.meet(stream);
    side.waiting.wake(due);
}

impl Network {
    /// Whether a host is up.
    pub fn is_up(&self, host: HostId) -> bool {
        self.with(|state| state.hosts[host.0].up)
    }
}
