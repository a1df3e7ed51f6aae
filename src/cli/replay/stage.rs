//! What the parts of a replay share: the clients, what is in flight, and how far it has come.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use throng_client::{ChannelId, Client, GroupId};
use tokio::sync::{SetOnce, watch};
use tokio::time::Instant;

use super::audit::Acked;
use super::changes::Changes;
use super::gate::Gate;
use super::members::Member;
use super::trace::Trace;
use crate::cli::admin::Admin;

/// What a stage is set with.
#[derive(Debug)]
pub struct Setting {
    /// See [`Stage`].
    pub dir: PathBuf,
    /// See [`Stage`].
    pub admin: Admin,
    /// See [`Stage`].
    pub app: String,
    /// See [`Stage`].
    pub trace: Trace,
    /// See [`Stage`].
    pub group: GroupId,
    /// See [`Stage`].
    pub patience: Duration,
    /// See [`Stage`].
    pub senders: BTreeMap<String, Client>,
    /// See [`Stage`].
    pub members: BTreeMap<String, Arc<Member>>,
    /// See [`Stage`].
    pub founder: Client,
    /// See [`Stage`].
    pub changes: Changes,
}

/// The shared state of one replay.
#[derive(Debug)]
pub struct Stage {
    /// Folder of the cluster.
    pub dir: PathBuf,
    /// Operator's access.
    pub admin: Admin,
    /// The trace.
    pub trace: Trace,
    /// The group it is played into.
    pub group: GroupId,
    /// How long anything may take before it is given up.
    pub patience: Duration,
    /// The app of the cluster.
    pub app: String,
    /// How far senders may go before the next fault.
    pub gate: Gate,
    /// How far they may go before the next kick.
    pub kick_gate: Gate,
    /// A client for every user of the trace who is not among the members.
    pub senders: BTreeMap<String, Client>,
    /// The members who are kicked, by user.
    pub members: BTreeMap<String, Arc<Member>>,
    /// Who has made the group, and may do everything in it.
    pub founder: Client,
    /// Changes to messages.
    pub changes: Changes,
    /// When the replay began to send; times below count from it.
    pub began: Instant,
    /// Per message: its ack, `None` inside for one that was given up.
    acks: Vec<SetOnce<Option<Acked>>>,
    /// Per message: microseconds from `began` to its ack; 0 before.
    acked_us: Vec<AtomicU64>,
    /// Per message: microseconds from `began` to its first attempt, plus one; 0 before.
    started_us: Vec<AtomicU64>,
    inflight: Mutex<BTreeSet<usize>>,
    answered: watch::Sender<usize>,
    /// Last position of every channel, once everything is acked.
    finish: watch::Sender<Option<Arc<BTreeMap<ChannelId, u64>>>>,
}

impl Stage {
    /// A stage before the first message.
    pub fn new(setting: Setting, gate: Gate, kick_gate: Gate) -> Self {
        let Setting {
            dir,
            admin,
            app,
            trace,
            group,
            patience,
            senders,
            members,
            founder,
            changes,
        } = setting;
        let count = trace.lines.len();
        Self {
            dir,
            admin,
            app,
            trace,
            group,
            patience,
            gate,
            kick_gate,
            senders,
            members,
            founder,
            changes,
            began: Instant::now(),
            acks: (0..count).map(|_| SetOnce::new()).collect(),
            acked_us: (0..count).map(|_| AtomicU64::new(0)).collect(),
            started_us: (0..count).map(|_| AtomicU64::new(0)).collect(),
            inflight: Mutex::default(),
            answered: watch::Sender::new(0),
            finish: watch::Sender::new(None),
        }
    }

    /// The message at a place is sent now.
    pub fn start(&self, place: usize) {
        self.started_us[place].store(self.began.elapsed().as_micros() as u64 + 1, Ordering::Relaxed);
        self.inflight.lock().insert(place);
    }

    /// The message at a place was answered, or given up; gives the microseconds it took.
    pub fn answer(&self, place: usize, ack: Option<Acked>) -> u64 {
        self.inflight.lock().remove(&place);
        if ack.is_some() {
            self.acked_us[place].store(self.now_us(), Ordering::Relaxed);
        }
        let _ = self.acks[place].set(ack);
        self.answered.send_modify(|answered| *answered += 1);
        self.elapsed_us(place).unwrap_or_default()
    }

    /// Microseconds since the first attempt of the message at a place.
    pub fn elapsed_us(&self, place: usize) -> Option<u64> {
        let started = self.started_us[place].load(Ordering::Relaxed).checked_sub(1)?;
        (self.began.elapsed().as_micros() as u64).checked_sub(started)
    }

    /// Microseconds since the replay began to send.
    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// When the ack of the message at a place came.
    pub fn acked_us(&self, place: usize) -> u64 {
        self.acked_us[place].load(Ordering::Relaxed)
    }

    /// Waits for the answer of the message at a place.
    pub async fn acked(&self, place: usize) -> Option<Acked> {
        *self.acks[place].wait().await
    }

    /// The ack of the message at a place, if there is one.
    pub fn ack(&self, place: usize) -> Option<Acked> {
        self.acks[place].get().copied().flatten()
    }

    /// How many messages were answered.
    pub fn answered(&self) -> watch::Receiver<usize> {
        self.answered.subscribe()
    }

    /// Waits until that many messages were answered; `false` when the replay ends before.
    pub async fn acked_at_least(&self, count: usize) -> bool {
        let mut answered = self.answered();
        let count = count.min(self.trace.lines.len());
        answered.wait_for(|answered| *answered >= count).await.is_ok()
    }

    /// The places of the messages in flight.
    pub fn inflight(&self) -> Vec<usize> {
        self.inflight.lock().iter().copied().collect()
    }

    /// The places of one user's messages in flight.
    pub fn inflight_of(&self, user: &str) -> Vec<usize> {
        let inflight = self.inflight.lock();
        let of = |place: &&usize| self.trace.lines[**place].u == user;
        inflight.iter().filter(of).copied().collect()
    }

    /// The last position acked in every channel.
    pub fn heads(&self) -> BTreeMap<ChannelId, u64> {
        let mut heads = self.changes.heads();
        for (place, line) in self.trace.lines.iter().enumerate() {
            if let Some(ack) = self.ack(place) {
                let head = heads.entry(line.ch.clone()).or_default();
                *head = ack.seq.max(*head);
            }
        }
        heads
    }

    /// All clients that send.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        let members = self.members.values().flat_map(|member| &member.devices);
        self.senders.values().chain(members)
    }

    /// Who sends the message at a place, and the member if it is one.
    pub fn sender(&self, place: usize) -> Option<(&Client, Option<&Arc<Member>>)> {
        let line = &self.trace.lines[place];
        match self.members.get(&line.u) {
            Some(member) => Some((member.device(line.n), Some(member))),
            None => Some((self.senders.get(&line.u)?, None)),
        }
    }

    /// Waits until all these messages are answered.
    pub async fn all_acked(&self, places: &[usize]) {
        for place in places {
            self.acked(*place).await;
        }
    }

    /// A client with a send in flight.
    pub fn sender_in_flight(&self, random: &mut StdRng) -> Option<&Client> {
        let place = self.inflight.lock().iter().copied().choose(random)?;
        self.sender(place).map(|(client, _)| client)
    }

    /// Everything is acked: observers wait for what is missing up to these positions, and end.
    pub fn finish(&self, heads: BTreeMap<ChannelId, u64>) {
        self.finish.send_replace(Some(Arc::new(heads)));
    }

    /// The final positions, once they are known.
    pub fn finished(&self) -> watch::Receiver<Option<Arc<BTreeMap<ChannelId, u64>>>> {
        self.finish.subscribe()
    }
}
