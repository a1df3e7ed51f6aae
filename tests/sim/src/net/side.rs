//! One end of a link, as the host that it is on knows it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::task::Waker;

use bytes::Bytes;
use throng_transport::LinkClosed;

use super::packet::{End, StreamId};
use super::stream::{Receiving, Sending};
use super::wakers::Wakers;
use super::{Flow, HostId, Us};

/// How far an end is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Has knocked, and waits.
    Knocking,
    /// Was knocked at; the endpoint has not let anybody in yet.
    Knocked,
    /// Has let the other in, and waits for the end of the handshake.
    Welcoming,
    Open,
    Ended(LinkClosed),
}

/// One end of a link.
#[derive(Debug)]
pub(super) struct Side {
    pub end: End,
    pub host: HostId,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub phase: Phase,
    /// What this end allows the other.
    pub flow: Flow,
    /// What the other end allows this one.
    pub theirs: Flow,
    /// The names in the other's certificate.
    pub names: Vec<String>,
    pub heard: Us,
    pub spoke: Us,
    pub ended_at: Us,
    /// With what it was closed here, for whoever has not heard it.
    pub said: (u32, String),
    pub ack_due: bool,
    pub sends: BTreeMap<StreamId, Sending>,
    pub recvs: BTreeMap<StreamId, Receiving>,
    /// Streams this end has opened, by kind.
    opened: [u64; 2],
    /// Streams the other end has opened, by kind.
    known: [u64; 2],
    pub two_way: VecDeque<StreamId>,
    pub one_way: VecDeque<StreamId>,
    pub datagrams: VecDeque<Bytes>,
    /// Bytes sent on all streams, and how many are allowed.
    pub sent: u64,
    pub allowed: u64,
    /// Bytes taken off all streams, and how many the other was told are allowed.
    pub taken: u64,
    pub announced: u64,
    /// Who waits for anything of the link.
    pub waiting: Wakers,
}

impl Side {
    pub fn new(end: End, host: HostId, local: SocketAddr, remote: SocketAddr, flow: Flow, now: Us) -> Self {
        Self {
            end,
            host,
            local,
            remote,
            phase: if end == End::Near {
                Phase::Knocking
            } else {
                Phase::Knocked
            },
            flow,
            theirs: flow,
            names: Vec::new(),
            heard: now,
            spoke: now,
            ended_at: 0,
            said: (0, String::new()),
            ack_due: false,
            sends: BTreeMap::new(),
            recvs: BTreeMap::new(),
            opened: [0; 2],
            known: [0; 2],
            two_way: VecDeque::new(),
            one_way: VecDeque::new(),
            datagrams: VecDeque::new(),
            sent: 0,
            allowed: 0,
            taken: 0,
            announced: flow.link_window,
            waiting: Wakers::default(),
        }
    }

    /// What the other end allows, learnt in the handshake.
    pub fn learn(&mut self, theirs: Flow) {
        self.theirs = theirs;
        self.allowed = theirs.link_window;
    }

    pub fn ended(&self) -> Option<&LinkClosed> {
        match &self.phase {
            Phase::Ended(closed) => Some(closed),
            _ => None,
        }
    }

    /// Ends this end, and wakes everybody who waits for anything of it.
    pub fn end(&mut self, closed: LinkClosed, now: Us, due: &mut Vec<Waker>) {
        if self.ended().is_some() {
            return;
        }
        self.phase = Phase::Ended(closed);
        self.ended_at = now;
        self.waiting.wake(due);
        for sending in self.sends.values_mut() {
            sending.writers.wake(due);
            sending.watchers.wake(due);
        }
        for receiving in self.recvs.values_mut() {
            receiving.readers.wake(due);
        }
    }

    /// Opens a stream if the other end allows one more.
    pub fn open(&mut self, one_way: bool) -> Option<StreamId> {
        let under_way = |id: &&StreamId| id.opener == self.end && id.one_way == one_way;
        let sends = self.sends.iter().filter(|(_, sending)| !sending.is_over());
        let recvs = self.recvs.iter().filter(|(_, receiving)| !receiving.is_over());
        let mut open: Vec<StreamId> = sends.map(|(id, _)| *id).filter(|id| under_way(&id)).collect();
        open.extend(recvs.map(|(id, _)| *id).filter(|id| under_way(&id)));
        open.sort_unstable();
        open.dedup();
        let allowed = if one_way {
            self.theirs.one_way_max
        } else {
            self.theirs.two_way_max
        };
        if open.len() as u64 >= allowed {
            return None;
        }
        let number = &mut self.opened[usize::from(one_way)];
        let id = StreamId {
            opener: self.end,
            one_way,
            number: *number,
        };
        *number += 1;
        self.sends.insert(id, Sending::new(self.theirs.stream_window));
        if !one_way {
            self.recvs.insert(id, Receiving::new(self.flow.stream_window));
        }
        Some(id)
    }

    /// Makes a stream of the other end known, and those it must have opened before.
    pub fn meet(&mut self, id: StreamId) {
        let known = self.known[usize::from(id.one_way)];
        if id.opener == self.end || id.number < known {
            return;
        }
        self.known[usize::from(id.one_way)] = id.number + 1;
        for number in known..=id.number {
            let id = StreamId { number, ..id };
            self.recvs.insert(id, Receiving::new(self.flow.stream_window));
            if id.one_way {
                self.one_way.push_back(id);
            } else {
                self.sends.insert(id, Sending::new(self.theirs.stream_window));
                self.two_way.push_back(id);
            }
        }
    }
}
