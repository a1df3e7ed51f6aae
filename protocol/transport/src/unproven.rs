//! The socket under a server: sends less than three times what came to an address nobody has proved.
//!
//! quinn keeps a bound of its own, but sends a whole datagram while a byte of its budget is left:
//! up to four times what came. Whoever forges addresses is owed nothing, so the bound is kept here,
//! where every byte passes. A datagram above it counts as lost on its way; what an honest client
//! lacks comes when it has answered.
//!
//! Only addresses with a handshake that began without a proof are watched: few, and for seconds.
//! While there are none, a packet costs one atomic load.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// Bytes sent for each byte that came stay below this.
pub const AMPLIFICATION_MAX: u64 = 3;
/// What has come at least when a handshake begins: QUIC takes no smaller first packet.
const FIRST_PACKET_BYTES: u64 = 1_200;
/// How long an address is watched after its handshake was given up: QUIC still answers its packets
/// for three probe timeouts, about three seconds.
const LINGER: Duration = Duration::from_secs(10);

/// What came from addresses without a proof, and what was sent to them.
#[derive(Debug, Default)]
pub(crate) struct Unproven {
    watched: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    budgets: HashMap<SocketAddr, Budget>,
    /// Addresses whose handshakes were given up, with the moment they go. As bounded as the
    /// handshakes that begin without a proof within [`LINGER`].
    leaving: VecDeque<(Instant, SocketAddr)>,
}

#[derive(Debug, Default)]
struct Budget {
    handshakes: usize,
    received: u64,
    sent: u64,
}

impl Unproven {
    /// Watches an address from whose first packet a handshake begins.
    pub fn watch(self: &Arc<Self>, addr: SocketAddr) -> Watch {
        let mut state = self.state.lock();
        state.forget(Instant::now());
        let budget = state.budgets.entry(addr).or_default();
        budget.handshakes += 1;
        budget.received += FIRST_PACKET_BYTES;
        self.watched.store(state.budgets.len(), Ordering::Release);
        drop(state);
        Watch {
            unproven: Arc::clone(self),
            addr,
        }
    }

    /// So much came from an address.
    pub fn received(&self, addr: SocketAddr, bytes: usize) {
        if self.watched.load(Ordering::Acquire) > 0
            && let Some(budget) = self.state.lock().budgets.get_mut(&addr)
        {
            budget.received += bytes as u64;
        }
    }

    /// How many of `bytes` may be sent, in whole datagrams of `segment`; they count as sent.
    pub fn send(&self, addr: SocketAddr, bytes: usize, segment: usize) -> usize {
        if self.watched.load(Ordering::Acquire) == 0 {
            return bytes;
        }
        let mut state = self.state.lock();
        let Some(budget) = state.budgets.get_mut(&addr) else {
            return bytes;
        };
        let below = AMPLIFICATION_MAX * budget.received;
        let left = below.saturating_sub(budget.sent).saturating_sub(1);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let allowed = if bytes <= left {
            bytes
        } else {
            left - left % segment.max(1)
        };
        budget.sent += allowed as u64;
        allowed
    }

    /// The socket did not take what was counted.
    fn unsent(&self, addr: SocketAddr, bytes: usize) {
        if self.watched.load(Ordering::Acquire) > 0
            && let Some(budget) = self.state.lock().budgets.get_mut(&addr)
        {
            budget.sent = budget.sent.saturating_sub(bytes as u64);
        }
    }

    fn proved(&self, addr: SocketAddr) {
        let mut state = self.state.lock();
        state.budgets.remove(&addr);
        self.watched.store(state.budgets.len(), Ordering::Release);
    }

    fn gave_up(&self, addr: SocketAddr) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if let Some(budget) = state.budgets.get_mut(&addr) {
            budget.handshakes = budget.handshakes.saturating_sub(1);
            state.leaving.push_back((now + LINGER, addr));
        }
        state.forget(now);
        self.watched.store(state.budgets.len(), Ordering::Release);
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        while let Some((_, addr)) = self.leaving.pop_front_if(|(at, _)| *at <= now) {
            if self
                .budgets
                .get(&addr)
                .is_some_and(|budget| budget.handshakes == 0)
            {
                self.budgets.remove(&addr);
            }
        }
    }
}

/// Watches an address until its handshake is done or given up.
#[derive(Debug)]
pub(crate) struct Watch {
    unproven: Arc<Unproven>,
    addr: SocketAddr,
}

impl Watch {
    /// The handshake is done: whoever finished it receives at the address.
    pub fn proved(self) {
        self.unproven.proved(self.addr);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Does nothing for an address that was proved.
        self.unproven.gave_up(self.addr);
    }
}

/// A UDP socket that keeps the bound.
pub(crate) struct BoundedSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    unproven: Arc<Unproven>,
}

impl BoundedSocket {
    pub fn new(socket: Arc<dyn AsyncUdpSocket>, unproven: Arc<Unproven>) -> Self {
        Self { socket, unproven }
    }
}

impl fmt::Debug for BoundedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSocket").finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for BoundedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let bytes = transmit.contents.len();
        let segment = transmit.segment_size.unwrap_or(bytes);
        let allowed = self.unproven.send(transmit.destination, bytes, segment);
        if allowed == 0 && bytes > 0 {
            return Ok(());
        }
        let sent = self.socket.try_send(&Transmit {
            contents: &transmit.contents[..allowed],
            ..*transmit
        });
        if sent.is_err() {
            self.unproven.unsent(transmit.destination, allowed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(self.socket.poll_recv(cx, bufs, meta))?;
        for meta in meta.iter().take(read) {
            self.unproven.received(meta.addr, meta.len);
        }
        Poll::Ready(Ok(read))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn less_than_three_times_what_came_is_sent_in_whole_datagrams() {
        let unproven = Arc::new(Unproven::default());
        let watch = unproven.watch(addr(1));
        assert_eq!(unproven.send(addr(1), 3_000, 1_200), 3_000);
        assert_eq!(unproven.send(addr(1), 600, 1_200), 0);
        assert_eq!(unproven.send(addr(1), 599, 1_200), 599);
        assert_eq!(unproven.send(addr(1), 1, 1), 0);
        unproven.received(addr(1), 1_000);
        assert_eq!(unproven.send(addr(1), 3_600, 1_200), 2_400);
        drop(watch);
        assert_eq!(unproven.send(addr(1), 1_200, 1_200), 0, "watched for a while");
    }

    #[test]
    fn addresses_that_were_proved_or_never_watched_are_free() {
        let unproven = Arc::new(Unproven::default());
        assert_eq!(unproven.send(addr(1), 100_000, 1_200), 100_000);
        let watch = unproven.watch(addr(1));
        assert_eq!(unproven.send(addr(2), 100_000, 1_200), 100_000);
        assert_eq!(unproven.send(addr(1), 100_000, 1_200), 2_400);
        watch.proved();
        assert_eq!(unproven.send(addr(1), 100_000, 1_200), 100_000);
        assert_eq!(unproven.watched.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_second_handshake_from_the_same_address_shares_the_budget() {
        let unproven = Arc::new(Unproven::default());
        let first = unproven.watch(addr(1));
        let _second = unproven.watch(addr(1));
        assert_eq!(unproven.send(addr(1), 7_199, 1_200), 7_199);
        drop(first);
        let mut state = unproven.state.lock();
        state.forget(Instant::now() + LINGER);
        assert_eq!(state.budgets.len(), 1, "the second one is still open");
        assert!(state.leaving.is_empty());
    }
}
