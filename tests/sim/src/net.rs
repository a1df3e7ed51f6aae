//! The simulated network: hosts, links of many streams between them, and packets that are late, lost,
//! doubled and overtaken.
//!
//! ```text
//!  host's tasks ──► carrier ──► pieces, credits, closes ──► air ──step──► inbox ──arrive──► other host
//! ```
//!
//! Time is cut into windows that are no wider than the shortest delay: what a host sends in a window
//! arrives at no other before the next, so that hosts run one after the other and still see each
//! other's packets in the order of time. What is sent waits in the air until `Network::step` judges
//! all of a window together; what is lost is sent again as QUIC would. The rules of a link are those
//! of QUIC as far as its users can tell: streams in order each by itself, bounded windows, ends that
//! are told or noticed by silence, and a stateless reset by a host that was started anew. Congestion
//! and bandwidth do not exist here.

mod arrive;
mod conditions;
mod packet;
mod side;
mod stream;
mod users;
mod wakers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use throng_transport::LinkClosed;
use tokio::time::Instant;

pub use conditions::Conditions;
pub(crate) use packet::StreamId;
pub use users::{Knock, LinkHandle, Place};

use conditions::Fate;
use packet::{End, Kind, LinkId, Packet, Timed};
use side::{Phase, Side};
use wakers::Wakers;

use crate::rng;

/// Microseconds of simulated time.
pub type Us = u64;

/// Before the first packet of a handshake is sent again, as QUIC does without a known round trip.
const HANDSHAKE_RESEND: Us = 1_000_000;
/// How long an ended link answers what still comes for it.
const REMEMBERED: Us = 3_000_000;
/// How often silence is looked for.
const SWEEP: Us = 20_000;
/// The first port given to whoever asks for none.
const FREE_PORTS: u16 = 40_000;

/// A host of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// What an end of a link allows the other, and how it deals with silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Streams of two directions the other end may have open.
    pub two_way_max: u64,
    /// Streams of one direction the other end may have open.
    pub one_way_max: u64,
    /// Unread bytes of a stream.
    pub stream_window: u64,
    /// Unread bytes of all streams.
    pub link_window: u64,
    /// Silence after which the link has ended.
    pub idle: Us,
    /// Silence after which the other end is asked for a sign; none without it.
    pub keep_alive: Option<Us>,
}

/// What the network has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets sent, repeated ones included.
    pub sent: u64,
    /// Packets lost on the way.
    pub lost: u64,
}

/// The network. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Network(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: StdRng,
    conditions: Conditions,
    now: Now,
    hosts: Vec<Host>,
    links: BTreeMap<LinkId, [Option<Side>; 2]>,
    next_link: u64,
    next_order: u64,
    air: BinaryHeap<Reverse<Timed>>,
    /// Ends that owe an acknowledgement.
    acks: Vec<(LinkId, End)>,
    swept: Us,
    traffic: Traffic,
    /// Woken when the lock is free.
    due: Vec<Waker>,
}

/// How the time is known.
#[derive(Debug, Clone, Copy)]
enum Now {
    /// Between two windows.
    At(Us),
    /// In a window, by the clock of the host that runs.
    In {
        start: Us,
        width: Us,
        began: Instant,
        /// Parts in a million by which the host's clock is fast.
        fast_ppm: i64,
    },
}

#[derive(Debug)]
struct Host {
    up: bool,
    /// Counts starts: what a former life of the host holds is void.
    life: u64,
    next_port: u16,
    ports: BTreeMap<u16, Port>,
    inbox: BinaryHeap<Reverse<Timed>>,
}

#[derive(Debug)]
struct Port {
    names: Vec<String>,
    flow: Flow,
    /// Takes links; others only connect.
    listens: bool,
    closed: bool,
    knocks: VecDeque<LinkId>,
    waiting: Wakers,
}

impl Network {
    /// A calm network without hosts.
    pub fn new(seed: u64, delay_min: Us) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: rng::stream(seed, "net"),
            conditions: Conditions::calm(delay_min),
            now: Now::At(0),
            hosts: Vec::new(),
            links: BTreeMap::new(),
            next_link: 0,
            next_order: 0,
            air: BinaryHeap::new(),
            acks: Vec::new(),
            swept: 0,
            traffic: Traffic::default(),
            due: Vec::new(),
        })))
    }

    /// A new host, which is not up yet.
    pub fn add_host(&self) -> HostId {
        self.with(|state| {
            state.hosts.push(Host {
                up: false,
                life: 0,
                next_port: FREE_PORTS,
                ports: BTreeMap::new(),
                inbox: BinaryHeap::new(),
            });
            HostId(state.hosts.len() - 1)
        })
    }

    /// The address of a port of a host.
    pub fn address(host: HostId, port: u16) -> SocketAddr {
        let [_, _, high, low] = u32::try_from(host.0 + 1).unwrap_or(u32::MAX).to_be_bytes();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), port)
    }

    /// A host begins to hear and to speak.
    pub fn start(&self, host: HostId) {
        self.with(|state| {
            let host = &mut state.hosts[host.0];
            (host.up, host.life) = (true, host.life + 1);
        });
    }

    /// A host falls silent at once, and forgets everything. Whoever held a link to it is not told.
    pub fn crash(&self, host: HostId) {
        self.with(|state| state.crash(host));
    }

    /// Changes what the network is like.
    pub fn set(&self, change: impl FnOnce(&mut Conditions)) {
        self.with(|state| change(&mut state.conditions));
    }

    /// What the network has done so far.
    pub fn traffic(&self) -> Traffic {
        self.with(|state| state.traffic)
    }

    /// The time: exact while a host runs, the border of the windows otherwise.
    pub fn now(&self) -> Us {
        self.with(|state| state.now())
    }

    /// A host runs from now on, from the start of a window, which is `began` by its own clock.
    pub(crate) fn enter(&self, start: Us, width: Us, began: Instant, fast_ppm: i64) {
        self.with(|state| {
            state.now = Now::In {
                start,
                width,
                began,
                fast_ppm,
            };
        });
    }

    /// When the next packet arrives at a host, if that is before `end`.
    pub(crate) fn next_arrival(&self, host: HostId, end: Us) -> Option<Us> {
        self.with(|state| {
            let Reverse(next) = state.hosts[host.0].inbox.peek()?;
            (next.at < end).then_some(next.at)
        })
    }

    /// Lets the next packet arrive at a host.
    pub(crate) fn arrive(&self, host: HostId) {
        self.with(|state| {
            if let Some(Reverse(next)) = state.hosts[host.0].inbox.pop() {
                state.arrive(host, next);
            }
        });
    }

    /// Judges everything that was sent before `end`, where a window ends.
    pub(crate) fn step(&self, end: Us) {
        self.with(|state| {
            state.now = Now::At(end);
            state.acknowledge(end);
            while state.air.peek().is_some_and(|Reverse(next)| next.at < end) {
                if let Some(Reverse(next)) = state.air.pop() {
                    state.transmit(next);
                }
            }
            if end >= state.swept + SWEEP {
                state.swept = end;
                state.sweep(end);
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let (done, due) = {
            let mut state = self.0.lock();
            let done = work(&mut state);
            (done, std::mem::take(&mut state.due))
        };
        for waker in due {
            waker.wake();
        }
        done
    }
}

impl State {
    fn now(&self) -> Us {
        match self.now {
            Now::At(at) => at,
            Now::In {
                start,
                width,
                began,
                fast_ppm,
            } => {
                let passed = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                let rate = 1_000_000_u64.saturating_add_signed(fast_ppm);
                start + (passed.saturating_mul(1_000_000) / rate).min(width - 1)
            }
        }
    }

    /// Puts a packet into the air.
    fn send(&mut self, link: LinkId, from: End, kind: Kind) {
        let at = self.now();
        let packet = Packet {
            link,
            from,
            kind,
            tries: 0,
        };
        if let Some(side) = self.side(link, from) {
            side.spoke = at;
        }
        self.launch(at, packet);
    }

    fn launch(&mut self, at: Us, packet: Packet) {
        let order = self.order();
        self.air.push(Reverse(Timed { at, order, packet }));
    }

    fn order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    fn side(&mut self, link: LinkId, end: End) -> Option<&mut Side> {
        self.links.get_mut(&link)?[end as usize].as_mut()
    }

    /// Sends a packet now: it is lost, or on its way into an inbox.
    fn transmit(&mut self, timed: Timed) {
        let Timed { at, packet, .. } = timed;
        let Some((from, to)) = self.route(&packet) else {
            return;
        };
        self.traffic.sent += 1;
        let fate = match self.hosts.get(to.0) {
            Some(host) if host.up => self.conditions.fate(&mut self.random, from, to),
            _ => Fate::Lost,
        };
        match fate {
            Fate::Lost => {
                self.traffic.lost += 1;
                if packet.kind.is_reliable() {
                    let wait = if packet.kind.is_handshake() {
                        HANDSHAKE_RESEND << packet.tries.min(4)
                    } else {
                        self.conditions.resend_after(packet.tries)
                    };
                    let tries = packet.tries + 1;
                    self.launch(at + wait, Packet { tries, ..packet });
                }
            }
            Fate::Arrives(after, again) => {
                for after in again.into_iter().chain([after]) {
                    let order = self.order();
                    let packet = packet.clone();
                    let at = at + after;
                    self.hosts[to.0].inbox.push(Reverse(Timed { at, order, packet }));
                }
            }
        }
    }

    /// From where to where a packet goes; `None` if nobody wants it sent any more.
    fn route(&self, packet: &Packet) -> Option<(HostId, HostId)> {
        let sides = self.links.get(&packet.link)?;
        let side = sides[packet.from as usize].as_ref();
        let other = sides[packet.from.other() as usize].as_ref();
        let to = match (side, other) {
            (_, Some(other)) => other.host,
            (Some(side), None) => host_of(side.remote),
            (None, None) => return None,
        };
        let Some(side) = side else {
            // The one thing that is said without knowing the link.
            let known = other.map(|other| host_of(other.remote));
            return matches!(packet.kind, Kind::Unknown)
                .then_some(())
                .and(known)
                .map(|from| (from, to));
        };
        let lives = side.ended().is_none() || !packet.kind.is_reliable();
        let wanted = match &packet.kind {
            Kind::Piece(stream, ..) => side.sends.get(stream).is_some_and(|sending| sending.wanted()),
            _ => true,
        };
        (lives && wanted).then_some((side.host, to))
    }

    fn acknowledge(&mut self, end: Us) {
        for (link, from) in std::mem::take(&mut self.acks) {
            let Some(side) = self.side(link, from) else {
                continue;
            };
            side.ack_due = false;
            let packet = Packet {
                link,
                from,
                kind: Kind::Ack,
                tries: 0,
            };
            self.launch(end - 1, packet);
        }
    }

    /// Looks for silence: asks for signs, ends what was silent too long, forgets what has ended.
    fn sweep(&mut self, now: Us) {
        let mut pings = Vec::new();
        for (id, sides) in &mut self.links {
            for slot in sides.iter_mut() {
                let Some(side) = slot else { continue };
                if side.ended().is_some() {
                    if side.ended_at + REMEMBERED < now {
                        *slot = None;
                    }
                    continue;
                }
                if side.heard + side.flow.idle < now {
                    side.end(LinkClosed::TimedOut, now, &mut self.due);
                    continue;
                }
                let quiet = side.heard.max(side.spoke);
                let asks = side.flow.keep_alive.is_some_and(|after| quiet + after < now);
                if asks && side.phase == Phase::Open {
                    side.spoke = now;
                    pings.push((*id, side.end));
                }
            }
        }
        self.links.retain(|_, sides| sides.iter().any(Option::is_some));
        for (link, from) in pings {
            let packet = Packet {
                link,
                from,
                kind: Kind::Ping,
                tries: 0,
            };
            self.launch(now, packet);
        }
    }

    fn crash(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        host.up = false;
        // Nobody is woken: their runtime goes as well.
        host.ports.clear();
        host.inbox.clear();
        for sides in self.links.values_mut() {
            for slot in sides.iter_mut() {
                if slot.as_ref().is_some_and(|side| side.host == id) {
                    *slot = None;
                }
            }
        }
        self.links.retain(|_, sides| sides.iter().any(Option::is_some));
    }
}

impl Port {
    fn new(names: Vec<String>, flow: Flow, listens: bool) -> Self {
        Self {
            names,
            flow,
            listens,
            closed: false,
            knocks: VecDeque::new(),
            waiting: Wakers::default(),
        }
    }
}

/// The host of an address of this network.
fn host_of(addr: SocketAddr) -> HostId {
    let IpAddr::V4(ip) = addr.ip() else {
        return HostId(usize::MAX);
    };
    let number = u32::from(ip) & 0xffff;
    HostId(usize::try_from(number).unwrap_or(usize::MAX).wrapping_sub(1))
}

#[cfg(test)]
mod tests;
