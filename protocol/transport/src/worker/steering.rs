//! Which worker of a port a datagram is for.
//!
//! The system spreads the datagrams of a port over its workers' sockets by their addresses, so a client
//! stays with the worker that took it in, until it moves: then its datagrams may come to any worker. The
//! ids of connections say whose they are, to whoever has the port's key and to nobody else, and whoever
//! gets a datagram of another worker's hands it over. Only packets behind the handshake are looked at:
//! a client does not move before. A stateless reset of a client looks like such a packet with any id and
//! may come to the wrong worker: then the connection ends by its idle time. Knows ids and queues, and
//! refuses to know connections.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use quinn::udp::RecvMeta;
use quinn::{ConnectionId, ConnectionIdGenerator};

use super::ready::Ready;
use crate::socket::{CID_BYTES, random_id};

/// Datagrams that wait for their worker; the next one is lost, as in a socket that is full. What a worker
/// takes in before connections have their turns, some times over.
const HANDED_MAX: usize = 1_024;
/// Set in the first byte of packets of the handshake.
const LONG_HEADER: u8 = 0x80;

/// A datagram that came to another worker's socket.
#[derive(Debug)]
pub(super) struct Handed {
    pub meta: RecvMeta,
    pub data: BytesMut,
}

/// The datagrams handed to a worker, and how it is told.
#[derive(Debug, Default)]
struct Inbox {
    handed: Mutex<VecDeque<Handed>>,
    ready: Arc<Ready>,
    /// Its worker has ended.
    gone: AtomicBool,
}

/// The workers of a port.
#[derive(Debug)]
struct Port {
    /// Turns an id into a worker. Ids without it say nothing, so nobody can tell from two of them that a
    /// client has moved.
    key: RandomState,
    inboxes: Box<[Inbox]>,
    handed: AtomicU64,
    lost: AtomicU64,
}

/// Datagrams that came to another worker's socket than their client's, since the port was bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandedCounts {
    /// Handed over.
    pub handed: u64,
    /// Dropped, because too many waited for their worker.
    pub lost: u64,
}

/// A worker's seat at its port.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    port: Arc<Port>,
    me: usize,
}

impl Seat {
    /// The seats of a port's workers.
    pub fn all(workers: usize) -> impl Iterator<Item = Self> {
        let port = Arc::new(Port {
            key: RandomState::new(),
            inboxes: std::iter::repeat_with(Inbox::default).take(workers).collect(),
            handed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        (0..workers).map(move |me| Self {
            port: Arc::clone(&port),
            me,
        })
    }

    /// How whoever has something for this worker tells it.
    pub(super) fn ready(&self) -> Arc<Ready> {
        self.port
            .inboxes
            .get(self.me)
            .map_or_else(Arc::default, |inbox| Arc::clone(&inbox.ready))
    }

    pub(super) fn is_alone(&self) -> bool {
        self.workers() == 1
    }

    /// The worker that made an id.
    fn owner(&self, id: &[u8]) -> usize {
        let workers = self.port.inboxes.len() as u64;
        usize::try_from(self.port.key.hash_one(id) % workers).unwrap_or(self.me)
    }

    /// Whose a datagram is; `None` if it is this worker's, or nobody's in particular.
    pub(super) fn other(&self, datagram: &[u8]) -> Option<usize> {
        let (first, rest) = datagram.split_first()?;
        if self.is_alone() || first & LONG_HEADER != 0 {
            return None;
        }
        let owner = self.owner(rest.get(..CID_BYTES)?);
        // Anybody can tell the clients of one that is gone that it is.
        let gone = |inbox: &Inbox| inbox.gone.load(Ordering::Relaxed);
        let there = owner != self.me && !self.port.inboxes.get(owner).is_none_or(gone);
        there.then_some(owner)
    }

    /// Hands a datagram to its worker; `false` if that has too many already.
    pub(super) fn hand(&self, worker: usize, meta: RecvMeta, datagram: &[u8]) -> bool {
        let Some(inbox) = self.port.inboxes.get(worker) else {
            return false;
        };
        let mut handed = inbox.handed.lock();
        if handed.len() >= HANDED_MAX {
            self.port.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.port.handed.fetch_add(1, Ordering::Relaxed);
        let first = handed.is_empty();
        let data = BytesMut::from(datagram);
        handed.push_back(Handed { meta, data });
        drop(handed);
        if first {
            inbox.ready.call();
        }
        true
    }

    /// This worker has ended; what was handed to it is lost.
    pub(super) fn leave(&self) {
        if let Some(inbox) = self.port.inboxes.get(self.me) {
            inbox.gone.store(true, Ordering::Relaxed);
            inbox.handed.lock().clear();
        }
    }

    /// How many workers the port has.
    pub fn workers(&self) -> usize {
        self.port.inboxes.len()
    }

    /// Takes what was handed to this worker.
    pub(super) fn take(&self) -> VecDeque<Handed> {
        let inbox = self.port.inboxes.get(self.me);
        inbox.map_or_else(VecDeque::new, |inbox| std::mem::take(&mut *inbox.handed.lock()))
    }

    /// What was handed over at the port.
    pub fn counts(&self) -> HandedCounts {
        HandedCounts {
            handed: self.port.handed.load(Ordering::Relaxed),
            lost: self.port.lost.load(Ordering::Relaxed),
        }
    }

    /// Makes ids that are this worker's.
    pub fn ids(&self) -> Box<dyn ConnectionIdGenerator> {
        Box::new(Ids(self.clone()))
    }
}

struct Ids(Seat);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        // As many tries as there are workers, on average.
        loop {
            let id = random_id();
            if self.0.owner(&id) == self.0.me {
                return id;
            }
        }
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(id: &ConnectionId) -> Vec<u8> {
        [&[0x40], &id[..], b"payload"].concat()
    }

    #[test]
    fn a_packet_belongs_to_the_worker_that_made_its_id() {
        let seats: Vec<Seat> = Seat::all(3).collect();
        for seat in &seats {
            for _ in 0..50 {
                let packet = short(&seat.ids().generate_cid());
                for other in &seats {
                    let expected = (other.me != seat.me).then_some(seat.me);
                    assert_eq!(other.other(&packet), expected);
                }
            }
        }
    }

    #[test]
    fn packets_of_the_handshake_and_scraps_stay_where_they_came() {
        let seats: Vec<Seat> = Seat::all(2).collect();
        let mut packet = short(&seats[0].ids().generate_cid());
        assert_eq!(seats[1].other(&packet), Some(0));
        packet[0] |= LONG_HEADER;
        for scrap in [&packet[..], &packet[..CID_BYTES], &[0x40], &[]] {
            assert_eq!(seats[1].other(scrap), None);
        }
        let alone = Seat::all(1).next().unwrap();
        assert_eq!(alone.other(&short(&seats[0].ids().generate_cid())), None);
    }

    #[test]
    fn ids_of_one_worker_have_nothing_in_common_without_the_key() {
        let seat = Seat::all(2).next().unwrap();
        let strangers = Seat::all(2).next().unwrap();
        let of_stranger = (0..400)
            .filter(|_| strangers.owner(&seat.ids().generate_cid()) == 0)
            .count();
        assert!((100..300).contains(&of_stranger), "{of_stranger} of 400");
    }

    #[test]
    fn nothing_is_handed_to_a_worker_that_is_gone() {
        let seats: Vec<Seat> = Seat::all(2).collect();
        let packet = short(&seats[1].ids().generate_cid());
        assert_eq!(seats[0].other(&packet), Some(1));
        assert!(seats[0].hand(1, RecvMeta::default(), &packet));
        seats[1].leave();
        assert_eq!(seats[0].other(&packet), None);
        assert!(seats[1].take().is_empty());
    }

    #[test]
    fn what_is_handed_over_is_bounded_and_taken_in_order() {
        let seats: Vec<Seat> = Seat::all(2).collect();
        for number in 0..HANDED_MAX {
            assert!(seats[0].hand(1, RecvMeta::default(), &number.to_be_bytes()));
        }
        assert!(!seats[0].hand(1, RecvMeta::default(), b"one too many"));
        assert!(!seats[0].hand(2, RecvMeta::default(), b"nobody is there"));
        let taken = seats[1].take();
        assert!(
            taken.iter().map(|handed| &handed.data[..]).eq((0..HANDED_MAX)
                .map(usize::to_be_bytes)
                .collect::<Vec<_>>()
                .iter()
                .map(|bytes| &bytes[..]))
        );
        assert!(seats[0].take().is_empty() && seats[1].take().is_empty());
        let (handed, lost) = (HANDED_MAX as u64, 1);
        assert_eq!(seats[1].counts(), HandedCounts { handed, lost });
        assert!(seats[0].hand(1, RecvMeta::default(), b"room again"));
    }
}
