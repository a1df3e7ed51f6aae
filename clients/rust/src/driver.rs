//! The one task behind a client: it drives the machine over whatever connection there is.
//!
//! Inputs are the handle's commands, frames, and time; every turn ends by carrying out what the
//! machine asks for. It owns reconnecting; what is in flight and where subscriptions stand is the
//! machine's.

mod commands;
mod connect;
mod online;
mod sinks;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use throng_protocol::cluster::Change;
use throng_protocol::ids::{ChannelId, ClientMessageId, GroupId, Position, Seq, Ts, UserId};
use throng_protocol::message::{Anchor, Direction, Place};
use throng_protocol::session::client::{
    Answer, ClientEvent, ClientMachine, ClientMachineConfig, DisconnectReason, OpId,
    RequestError as MachineError, SyncFrom,
};
use throng_transport::ClientEndpoint;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::client::{Ack, PendingSend, State};
use crate::config::{ClientConfig, TokenError};
use crate::error::{CloseReason, ConnectError, RequestError};
use crate::subscription::{Consumed, From, Room, Subscription};

use sinks::Sink;

/// How long an edge may take to answer the first attempt; doubles with each failure up to the transport's
/// own limit. Short, because QUIC repeats a first packet only after 1, 3 and 7 s, by when another edge,
/// or the same one restarted, has answered a new attempt.
const DIAL_MIN: Duration = Duration::from_secs(2);
/// First wait before connecting again; doubles to [`RECONNECT_MAX`], half of it jitter.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
/// Longest wait before connecting again.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// Time between savings of positions that moved.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) type Key = (GroupId, ChannelId);
type Answered<T> = oneshot::Sender<Result<T, RequestError>>;

/// A request that is answered by one answer of the machine.
#[derive(Debug)]
pub(crate) enum Request {
    CreateGroup(GroupId),
    CreateChannel(Key),
    Join(GroupId),
    Leave(GroupId),
    Kick(GroupId, UserId),
    Mute(GroupId, UserId, u64),
    /// Ends at a time from now on, by the cluster's clock.
    MuteFor(GroupId, UserId, Duration),
    History(Key, Anchor, Direction, u32),
    Sync(Key, SyncFrom, u32),
    Change(Key, ClientMessageId, Position, Change),
    Changes(Key, Position, Seq, Seq),
    Expansion(Key, Position, String),
}

/// What the handle asks for; waits while the machine has no room.
#[derive(Debug)]
pub(crate) enum Command {
    Send {
        key: Key,
        id: ClientMessageId,
        body: Bytes,
        reply: Answered<Ack>,
    },
    Request {
        request: Request,
        reply: Answered<Answer>,
    },
    Subscribe {
        key: Key,
        from: From,
        reply: Answered<Subscription>,
    },
    Unsubscribe {
        key: Key,
        id: u64,
    },
}

/// What never waits behind commands.
#[derive(Debug)]
pub(crate) enum Control {
    Rebind(Answered<()>),
    DropConnection(oneshot::Sender<Option<usize>>),
    Freeze(Duration, oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// What handle and driver share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) consumed: Mutex<BTreeMap<Key, Consumed>>,
    pub(crate) restored: Mutex<Vec<PendingSend>>,
    pub(crate) last_failure: Mutex<String>,
}

impl Shared {
    pub(crate) fn positions(&self) -> Vec<Place> {
        let consumed = self.consumed.lock();
        consumed
            .iter()
            .map(|((group, channel), position)| Place {
                group: group.clone(),
                channel: channel.clone(),
                position: *position.lock(),
                ts: Ts(0),
            })
            .collect()
    }
}

/// Who waits for an operation of the machine.
#[derive(Debug)]
enum Reply {
    Send {
        key: Key,
        id: ClientMessageId,
        body: Bytes,
        reply: Answered<Ack>,
    },
    Request(Answered<Answer>),
    Subscribe {
        key: Key,
        reply: Answered<Subscription>,
    },
    Nobody,
}

/// Why a connection is left.
#[derive(Debug)]
enum Leave {
    /// Connect again.
    Reconnect(String),
    /// Closed for good.
    Close(CloseReason, Option<oneshot::Sender<()>>),
}

type Queues = (
    mpsc::Sender<Command>,
    mpsc::Receiver<Command>,
    mpsc::Receiver<Control>,
);

pub(crate) struct Driver {
    config: ClientConfig,
    endpoint: Arc<ClientEndpoint>,
    machine: ClientMachine,
    epoch: Instant,
    random: StdRng,
    /// Given to subscriptions, which unsubscribe through it.
    commands_in: mpsc::Sender<Command>,
    commands: mpsc::Receiver<Command>,
    controls: mpsc::Receiver<Control>,
    shared: Arc<Shared>,
    state: watch::Sender<State>,
    replies: HashMap<OpId, Reply>,
    sinks: BTreeMap<Key, Sink>,
    last_sink: u64,
    /// Subscriptions nobody listens to, not yet given up for want of room.
    abandoned: Vec<Key>,
    room: Arc<Room>,
    stalled: bool,
    save_at: Option<Instant>,
    saved: BTreeMap<Key, Position>,
    token: Option<BoxFuture<'static, Result<String, TokenError>>>,
    disconnect: Option<DisconnectReason>,
    /// Edges a drain notice named, tried first.
    alternatives: VecDeque<String>,
    next_edge: usize,
    edge: Arc<str>,
    address: Arc<str>,
    connection: u32,
    welcomed: bool,
    ever_welcomed: bool,
    /// Failures since the last welcome.
    attempts: u32,
    untrusted: usize,
    retry_after: Duration,
}

impl Driver {
    pub(crate) fn new(
        config: ClientConfig,
        endpoint: Arc<ClientEndpoint>,
        (commands_in, commands, controls): Queues,
        shared: Arc<Shared>,
        state: watch::Sender<State>,
    ) -> Result<Self, ConnectError> {
        let mut machine_config = ClientMachineConfig::new(config.device.clone(), config.seed);
        machine_config.request_deadline_ms =
            u64::try_from(config.request_deadline.as_millis()).unwrap_or(u64::MAX);
        machine_config.operations_max = config.requests_max.max(1);
        let mut random = StdRng::seed_from_u64(config.seed);
        let next_edge = random.random_range(0..config.edges.len().max(1));
        let mut driver = Self {
            machine: ClientMachine::new(machine_config),
            config,
            endpoint,
            epoch: Instant::now(),
            random,
            commands_in,
            commands,
            controls,
            shared,
            state,
            replies: HashMap::new(),
            sinks: BTreeMap::new(),
            last_sink: 0,
            abandoned: Vec::new(),
            room: Arc::default(),
            stalled: false,
            save_at: None,
            saved: BTreeMap::new(),
            token: None,
            disconnect: None,
            alternatives: VecDeque::new(),
            next_edge,
            edge: Arc::from(""),
            address: Arc::from(""),
            connection: 0,
            welcomed: false,
            ever_welcomed: false,
            attempts: 0,
            untrusted: 0,
            retry_after: Duration::ZERO,
        };
        driver.restore()?;
        Ok(driver)
    }

    /// Connects, drives, connects again, until it is over.
    pub(crate) async fn run(mut self) {
        let (reason, told) = loop {
            let leave = match self.connect().await {
                Ok(link) => self.online(link).await,
                Err(leave) => leave,
            };
            match leave {
                Leave::Close(reason, told) => break (reason, told),
                Leave::Reconnect(reason) => {
                    tracing::debug!(%reason, edge = %self.address, "reconnecting");
                    *self.shared.last_failure.lock() = reason;
                }
            }
        };
        self.end(&reason);
        if self.config.endpoint.is_none() && told.is_some() {
            // The close is in the socket's queue; give it a moment to leave.
            let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
        }
        self.state.send_replace(State::Closed(reason));
        if let Some(told) = told {
            let _ = told.send(());
        }
    }

    fn end(&mut self, reason: &CloseReason) {
        let now_ms = self.now_ms();
        self.machine
            .abort(now_ms, &MachineError::Closed(reason.to_string()));
        self.turn();
        self.save_positions();
        self.commands.close();
        self.controls.close();
        while let Ok(command) = self.commands.try_recv() {
            drop(command);
        }
        self.sinks.clear();
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When the machine or a saving is due.
    fn wake_at(&self) -> Instant {
        let machine = self
            .machine
            .poll_timeout()
            .map(|(at_ms, _)| self.epoch + Duration::from_millis(at_ms));
        let far = self.epoch + Duration::from_secs(365 * 24 * 3_600);
        [machine, self.save_at].into_iter().flatten().min().unwrap_or(far)
    }

    fn handle_wake(&mut self) {
        let now_ms = self.now_ms();
        self.machine.handle_timeout(now_ms);
        if self.save_at.is_some_and(|at| at <= Instant::now()) {
            self.save_at = None;
            self.save_positions();
        }
    }

    /// Carries out what the machine asks for.
    fn turn(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                ClientEvent::TokenNeeded { edge } => {
                    self.edge = Arc::from(edge);
                    self.token = Some(self.config.tokens.token());
                }
                ClientEvent::Welcomed(_) => self.handle_welcomed(),
                ClientEvent::Attempted { op, first_attempt_ms } => self.save_attempt(op, first_attempt_ms),
                ClientEvent::Answered { op, outcome } => self.answered(op, outcome),
                ClientEvent::Entries(entries) => self.push_entries(entries),
                ClientEvent::Reset {
                    group,
                    channel,
                    from,
                    to,
                } => self.push_reset(&(group, channel), from, to),
                ClientEvent::SubscriptionEnded {
                    group,
                    channel,
                    error,
                } => self.push_end(&(group, channel), &error),
                ClientEvent::Drain { reason, edges } => {
                    tracing::debug!(%reason, "the edge drains");
                    self.alternatives = edges.into_iter().take(16).collect();
                }
                ClientEvent::Disconnect(reason) => self.disconnect = Some(reason),
            }
        }
        self.give_up_abandoned();
        self.flush_sinks();
    }

    fn handle_welcomed(&mut self) {
        self.welcomed = true;
        self.ever_welcomed = true;
        self.attempts = 0;
        self.untrusted = 0;
        self.connection += 1;
        self.state.send_replace(State::Open {
            edge: self.edge.clone(),
            address: self.address.clone(),
            connection: self.connection,
        });
    }
}
