//! Who may begin a handshake with a server: the bounds of the whole server, then those of the
//! client's network.
//!
//! A handshake costs half a millisecond of a core, a first packet costs its sender nothing. What is
//! decided here is decided from the first packet alone and keeps nothing about those it turns away:
//!
//! * *prove*: a Retry, made of the packet and a key; the client's next packet carries it back. One
//!   round trip for an honest client, and no way on for a forged address.
//! * *refuse*: one packet of some fifty bytes that says so, far smaller than the 1,200 bytes it
//!   answers. An honest client tries elsewhere at once instead of after ten seconds of silence.
//! * *ignore*: nothing, for a network that was refused too often to be worth an answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use throng_protocol::rate::{Bucket, Rate};
use tokio::time::Instant;

use crate::networks::{Networks, Place, Verdict};
use crate::settings::Limits;

/// What became of first packets since the server was started, and what is open now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandshakeCounts {
    /// Handshakes open now.
    pub open: usize,
    /// Networks held now.
    pub networks: usize,
    /// Handshakes begun.
    pub begun: u64,
    /// First packets that were asked for a proof of their address.
    pub retried: u64,
    /// First packets refused because of a bound of the whole server, or because it stops.
    pub refused: u64,
    /// First packets refused because of their network.
    pub refused_network: u64,
    /// First packets left without an answer because of their network.
    pub ignored_network: u64,
}

/// What to do with a first packet.
#[derive(Debug)]
pub(crate) enum Decision {
    Begin(OpenHandshake),
    Prove,
    Refuse,
    Ignore,
}

/// Decides, and counts.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    started: Instant,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    open: AtomicUsize,
    judged: Mutex<Judged>,
    begun: AtomicU64,
    retried: AtomicU64,
    refused: AtomicU64,
    refused_network: AtomicU64,
    ignored_network: AtomicU64,
}

#[derive(Debug)]
struct Judged {
    networks: Networks,
    unproven: Bucket,
}

impl Admission {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            started: Instant::now(),
            state: Arc::new(State {
                open: AtomicUsize::new(0),
                judged: Mutex::new(Judged {
                    networks: Networks::new(limits.network),
                    unproven: Bucket::default(),
                }),
                begun: AtomicU64::new(0),
                retried: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                refused_network: AtomicU64::new(0),
                ignored_network: AtomicU64::new(0),
            }),
        }
    }

    /// Decides about a first packet. `full` says that no connection is taken from anybody now.
    pub fn decide(&self, address: IpAddr, proven: bool, full: bool) -> Decision {
        let state = &self.state;
        let open = state.open.load(Ordering::Relaxed);
        if full || open >= self.limits.handshakes_max {
            count(&state.refused);
            return Decision::Refuse;
        }
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.judge(now_ms, open, address, proven) {
            Verdict::Admit(place) => {
                count(&state.begun);
                state.open.fetch_add(1, Ordering::Relaxed);
                Decision::Begin(OpenHandshake {
                    state: Arc::clone(state),
                    place,
                })
            }
            Verdict::Prove => {
                count(&state.retried);
                Decision::Prove
            }
            Verdict::Refuse => {
                count(&state.refused_network);
                Decision::Refuse
            }
            Verdict::Ignore => {
                count(&state.ignored_network);
                Decision::Ignore
            }
        }
    }

    fn judge(&self, now_ms: u64, open: usize, address: IpAddr, proven: bool) -> Verdict {
        let mut judged = self.state.judged.lock();
        if !proven {
            let rate = Rate {
                per_second: self.limits.unproven_per_second,
                burst: self.limits.unproven_per_second,
            };
            // A forged handshake that its sender ends at once is never among the open ones, and
            // has cost as much: hence the rate beside the number.
            if open >= self.limits.retry_above || !judged.unproven.take(rate, now_ms) {
                return Verdict::Prove;
            }
        }
        judged.networks.judge(now_ms, address, proven)
    }

    pub fn counts(&self) -> HandshakeCounts {
        let state = &self.state;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        HandshakeCounts {
            open: state.open.load(Ordering::Relaxed),
            networks: state.judged.lock().networks.len(),
            begun: read(&state.begun),
            retried: read(&state.retried),
            refused: read(&state.refused),
            refused_network: read(&state.refused_network),
            ignored_network: read(&state.ignored_network),
        }
    }
}

fn count(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Counts as an open handshake while it lives.
#[derive(Debug)]
pub(crate) struct OpenHandshake {
    state: Arc<State>,
    place: Place,
}

impl Drop for OpenHandshake {
    fn drop(&mut self) {
        self.state.open.fetch_sub(1, Ordering::Relaxed);
        self.state.judged.lock().networks.ended(self.place);
    }
}
