//! Pings, and when a connection counts as dead.
//!
//! A ping goes out every interval the welcome names, and when a request has waited a while without
//! any frame coming. Whatever comes after it shows life; silence for [`PONG_WAIT_MS`] does not. A
//! wake-up that is itself late (a frozen process, a sleeping machine) says nothing about the other
//! side: the connection is probed again first.

use super::{ClientMachine, DisconnectReason, HANDSHAKE_TIMEOUT_MS, Phase, Reason};
use crate::message::Ping;

/// Milliseconds after a ping without any frame until a connection is dead: Centrifugo's 8 s.
pub const PONG_WAIT_MS: u64 = 8_000;

/// Milliseconds a request waits in silence before a ping asks whether anybody is there; above the
/// 1.5 s within which an edge answers.
pub const PROBE_AFTER_MS: u64 = 2_000;

/// A wake-up later than this is the fault of this process.
const LATE_MS: u64 = 1_000;

#[derive(Debug, Default)]
pub(super) struct KeepAlive {
    interval_ms: u64,
    ping_at_ms: u64,
    last_frame_ms: u64,
    dead_at_ms: Option<u64>,
    nonce: u64,
}

impl KeepAlive {
    pub(super) fn open(&mut self, now_ms: u64, interval_ms: u64) {
        self.interval_ms = interval_ms.max(1_000);
        self.ping_at_ms = now_ms + self.interval_ms;
        self.last_frame_ms = now_ms;
        self.dead_at_ms = None;
    }

    pub(super) fn frame_came(&mut self, now_ms: u64) {
        self.last_frame_ms = now_ms;
        self.dead_at_ms = None;
    }
}

impl ClientMachine {
    fn probe_at_ms(&self) -> Option<u64> {
        if self.keepalive.dead_at_ms.is_some() {
            return None;
        }
        let oldest = self.in_flight.first_key_value()?.1.since_ms;
        Some(oldest.max(self.keepalive.last_frame_ms) + PROBE_AFTER_MS)
    }

    pub(super) fn keepalive_due(&self) -> Option<(u64, Reason)> {
        if !matches!(self.phase, Phase::Open | Phase::Leaving { .. }) {
            return None;
        }
        let ping = Some((self.keepalive.ping_at_ms, Reason::Ping));
        let probe = self.probe_at_ms().map(|at_ms| (at_ms, Reason::Ping));
        let dead = self.keepalive.dead_at_ms.map(|at_ms| (at_ms, Reason::Silence));
        [ping, probe, dead].into_iter().flatten().min_by_key(|due| due.0)
    }

    pub(super) fn keep_alive(&mut self, now_ms: u64) {
        match self.phase {
            Phase::Hello | Phase::Token | Phase::Authenticating => {
                if now_ms >= self.phase_since_ms + HANDSHAKE_TIMEOUT_MS {
                    self.die(DisconnectReason::Handshake);
                }
                return;
            }
            Phase::Open | Phase::Leaving { .. } => {}
            Phase::Disconnected | Phase::Dead => return,
        }
        if let Some(dead_at_ms) = self.keepalive.dead_at_ms
            && now_ms >= dead_at_ms
        {
            if now_ms < dead_at_ms + LATE_MS {
                return self.die(DisconnectReason::Silent);
            }
            self.keepalive.dead_at_ms = None;
            return self.ping(now_ms);
        }
        let probe = self.probe_at_ms().is_some_and(|at_ms| now_ms >= at_ms);
        if probe || now_ms >= self.keepalive.ping_at_ms {
            self.ping(now_ms);
        }
    }

    fn ping(&mut self, now_ms: u64) {
        self.keepalive.ping_at_ms = now_ms + self.keepalive.interval_ms;
        self.keepalive.dead_at_ms.get_or_insert(now_ms + PONG_WAIT_MS);
        self.keepalive.nonce += 1;
        let nonce = self.keepalive.nonce;
        self.transmit(Ping { nonce });
    }
}
