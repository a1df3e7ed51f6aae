//! A shard's Raft group, without openraft's types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError, LinearizableReadError,
    RaftError,
};
use openraft::{EmptyNode, ReadPolicy, ServerState};
use parking_lot::Mutex;
use throng_protocol::ids::{NodeId, ShardId};
use throng_raft_store::{CommandBytes, LogStore, ShardTiming, StateMachine, TypeConfig};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::ticks::Ticks;
use super::{NetworkFactory, Raft};
use crate::limits::{
    LEASE_RETRY_PAUSE, LEASE_RETRY_PAUSE_MAX, LINEARIZE_TIMEOUT, PROPOSAL_KIB_IN_FLIGHT_MAX, PROPOSE_TIMEOUT,
};

/// Why a command was not carried out, or not known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposeError {
    /// Another node leads, or nobody does; nothing was done here.
    #[error("another node leads the shard")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Accepted here, and then another node's log took its place in ours: it may have been committed
    /// through that node, or may still be.
    #[error("another node leads the shard, and may carry this out or not")]
    Discarded,
    /// The replica has stopped for good; what was accepted may still be carried out elsewhere.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
    /// No quorum in time; it may still be carried out.
    #[error("no quorum in time")]
    Timeout,
    /// Too much is in flight; nothing was done.
    #[error("too many proposals wait for this shard")]
    Overloaded,
}

/// Who leads a shard, as one replica sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Leadership {
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// Whether it is this replica.
    pub leads: bool,
    /// The term.
    pub term: u64,
}

/// What a replica's Raft group says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RaftStatus {
    pub term: u64,
    pub last_log: u64,
    pub applied: u64,
    /// The last entry that is no longer in the log, because a snapshot holds what it did.
    pub purged: u64,
    /// Why it has stopped.
    pub stopped: Option<String>,
}

/// A shard's Raft group. Clones share it.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    shard: ShardId,
    me: NodeId,
    raft: Raft,
    leadership: watch::Receiver<Leadership>,
    in_flight: Arc<Semaphore>,
    ticks: Arc<Ticks>,
    /// When a proposal without a lease asked for a heartbeat last.
    hastened: Arc<Mutex<Option<Instant>>>,
    _follows: Arc<AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardHandle")
            .field("shard", &self.shard)
            .field("leadership", &*self.leadership.borrow())
            .finish_non_exhaustive()
    }
}

impl ShardHandle {
    /// Starts a shard's Raft group on this node.
    pub async fn start(
        shard: ShardId,
        me: NodeId,
        timing: ShardTiming,
        network: NetworkFactory,
        log: LogStore,
        state: StateMachine,
    ) -> Result<Self, String> {
        let config = throng_raft_store::raft_config(timing).map_err(|error| error.to_string())?;
        let raft = Raft::new(me.0, config, network, log, state)
            .await
            .map_err(|error| error.to_string())?;
        // The node sends them with its beats, for all its shards at once.
        raft.runtime_config().heartbeat(false);
        let (sender, leadership) = watch::channel(Leadership::default());
        let follows = AbortOnDropHandle::new(tokio::spawn(follow(raft.clone(), me, sender)));
        Ok(Self {
            shard,
            me,
            raft,
            leadership,
            in_flight: Arc::new(Semaphore::new(PROPOSAL_KIB_IN_FLIGHT_MAX as usize)),
            ticks: Arc::new(Ticks::new(timing)),
            hastened: Arc::default(),
            _follows: Arc::new(follows),
        })
    }

    /// Sends a heartbeat, if this replica leads. A replica that has stopped sends none.
    pub async fn heartbeat(&self) {
        let _ = self.raft.trigger().heartbeat().await;
    }

    /// Sends a heartbeat unless that was done a moment ago: thousands may wait for one lease.
    async fn hasten_heartbeat(&self) {
        let due = {
            let (now, mut last) = (Instant::now(), self.hastened.lock());
            let due = last.is_none_or(|last| now - last >= LEASE_RETRY_PAUSE);
            if due {
                *last = Some(now);
            }
            due
        };
        if due {
            self.heartbeat().await;
        }
    }

    /// How often the group has begun to tick since it was started: its leader had become silent, or it
    /// had lost its place.
    pub fn silences(&self) -> u64 {
        self.ticks.silences()
    }

    /// Lets the group tick if its leader is silent, and not otherwise.
    pub fn listen_for_leader(&self) {
        if let Some(on) = self.ticks.change(self.leadership().leads) {
            self.raft.runtime_config().tick(on);
        }
    }

    /// A node says that it leads this shard in a term, which counts if this replica follows it there.
    pub fn heard_node(&self, node: NodeId, term: u64) {
        let known = self.leadership();
        if known.leader == Some(node) && known.term == term {
            self.ticks.heard_node();
        }
    }

    /// The group has accepted something its leader said.
    pub(super) fn heard_leader(&self) {
        self.ticks.heard_group();
    }

    /// Forms the group of `voters` unless it has been formed before.
    pub async fn initialize(&self, voters: &[NodeId]) -> Result<(), String> {
        if self
            .raft
            .is_initialized()
            .await
            .map_err(|error| error.to_string())?
        {
            return Ok(());
        }
        let members: BTreeMap<u64, EmptyNode> = voters.iter().map(|node| (node.0, EmptyNode {})).collect();
        match self.raft.initialize(members).await {
            // Another replica was faster, and its entries have come here in the meantime.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The group itself, for this module's server.
    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Refuses unless this replica leads, as far as it knows.
    pub fn must_lead(&self) -> Result<(), ProposeError> {
        let now = *self.leadership.borrow();
        if now.leads {
            return Ok(());
        }
        Err(ProposeError::NotLeader {
            leader: now.leader.filter(|leader| *leader != self.me),
        })
    }

    /// Commits and applies a command; answers what the state machine replied.
    pub async fn propose(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        self.must_lead()?;
        let kib = u32::try_from(command.len() / 1024 + 1).unwrap_or(u32::MAX);
        let permit = self.in_flight.try_acquire_many(kib);
        let _permit = permit.map_err(|_| ProposeError::Overloaded)?;
        let proposing = async {
            let mut pause = LEASE_RETRY_PAUSE;
            loop {
                match self.raft.client_write(CommandBytes(command.clone())).await {
                    Ok(response) => return Ok(response.data.0),
                    Err(RaftError::Fatal(fatal)) => return Err(stopped(&fatal)),
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))
                        if self.leaseless(&to) =>
                    {
                        // The next one may be a good part of a lease away.
                        self.hasten_heartbeat().await;
                        wait(&mut pause).await;
                    }
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                        return Err(self.elsewhere(&to));
                    }
                    Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                        return Err(ProposeError::Discarded);
                    }
                    Err(RaftError::APIError(other)) => return Err(ProposeError::Stopped(other.to_string())),
                }
            }
        };
        within(PROPOSE_TIMEOUT, proposing).await
    }

    /// Waits until a quorum has confirmed that this replica leads, and everything committed before
    /// the call is applied: what is read then is linearizable.
    pub async fn linearize(&self) -> Result<(), ProposeError> {
        self.must_lead()?;
        let confirming = async {
            let mut pause = LEASE_RETRY_PAUSE;
            loop {
                match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                    Ok(_) => return Ok(()),
                    Err(RaftError::Fatal(fatal)) => return Err(stopped(&fatal)),
                    Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                        if !self.leaseless(&to) {
                            return Err(self.elsewhere(&to));
                        }
                        wait(&mut pause).await;
                    }
                    Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                        wait(&mut pause).await;
                    }
                }
            }
        };
        within(LINEARIZE_TIMEOUT, confirming).await
    }

    /// A fresh leader has no lease until a quorum has answered it, moments later: not an error.
    fn leaseless(&self, to: &ForwardToLeader<TypeConfig>) -> bool {
        to.reason == ForwardReason::LeaseExpired && self.leadership.borrow().leads
    }

    fn elsewhere(&self, to: &ForwardToLeader<TypeConfig>) -> ProposeError {
        let leader = to.leader_id.map(NodeId).filter(|leader| *leader != self.me);
        ProposeError::NotLeader { leader }
    }

    /// Who leads, as this replica sees it.
    pub fn leadership(&self) -> Leadership {
        *self.leadership.borrow()
    }

    /// Follows who leads.
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Hands leadership to another voter. Returns at once; watch the leadership.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), String> {
        let transferred = self.raft.trigger().transfer_leader(to.0).await;
        transferred.map_err(|error| error.to_string())
    }

    /// Whether this replica may stand for election.
    pub fn stand_for_election(&self, may: bool) {
        self.raft.runtime_config().elect(may);
    }

    /// What the group says of itself.
    pub fn status(&self) -> RaftStatus {
        let metrics = self.raft.metrics();
        // The guard blocks the group while it lives: it ends with this expression.
        let metrics = metrics.borrow_watched();
        RaftStatus {
            term: metrics.current_term,
            last_log: metrics.last_log_index.unwrap_or(0),
            applied: metrics.last_applied.map_or(0, |applied| applied.index),
            purged: metrics.purged.map_or(0, |purged| purged.index),
            stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// Stops the group on this node.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(shard = %self.shard, %error, "the Raft group did not stop cleanly");
        }
    }
}

fn stopped(fatal: &Fatal<TypeConfig>) -> ProposeError {
    ProposeError::Stopped(fatal.to_string())
}

/// Waits before the group is asked again, longer each time: thousands may wait for one lease.
async fn wait(pause: &mut Duration) {
    sleep(*pause).await;
    *pause = (*pause * 2).min(LEASE_RETRY_PAUSE_MAX);
}

async fn within<T>(
    limit: Duration,
    future: impl Future<Output = Result<T, ProposeError>>,
) -> Result<T, ProposeError> {
    timeout(limit, future).await.unwrap_or(Err(ProposeError::Timeout))
}

/// Copies who leads from openraft's metrics until the group or all handles are gone.
async fn follow(raft: Raft, me: NodeId, sender: watch::Sender<Leadership>) {
    let mut metrics = raft.server_metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_watched();
            Leadership {
                leader: metrics.current_leader.map(NodeId),
                leads: metrics.state == ServerState::Leader && metrics.current_leader == Some(me.0),
                term: metrics.vote.leader_id.term,
            }
        };
        sender.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        if metrics.changed().await.is_err() {
            sender.send_replace(Leadership::default());
            return;
        }
    }
}
