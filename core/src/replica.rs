//! One shard's replica on this node: its Raft group, its applied state, and why it has stopped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use throng_protocol::cluster::{Refusal, ShardStatus};
use throng_protocol::code::Code;
use throng_protocol::ids::{NodeId, ShardId};
use throng_protocol::placement::{Plane, ShardInfo};
use throng_raft_store::StateReader;
use throng_state::{ApplyError, Command, Reply, View};
use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::dispatch::refused;
use crate::metrics::{Metrics, ReplicaFigures};
use crate::outbox::OutboxSignals;
use crate::raft::{ProposeError, ShardHandle};

/// How far a replica's Raft group is, for whoever watches a cluster from inside its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The shard.
    pub shard: ShardId,
    /// The term in which it leads, if it does.
    pub leads: Option<u64>,
    /// The last entry that is no longer in the log; 0 if all are.
    pub purged: u64,
    /// The last entry of the snapshot that came from another node last; 0 if none did.
    pub installed: u64,
    /// How often it has begun to look for a leader, since its own had become silent.
    pub silences: u64,
}

/// One shard's replica.
#[derive(Debug)]
pub(crate) struct Replica {
    info: ShardInfo,
    handle: ShardHandle,
    reader: StateReader,
    outbox: OutboxSignals,
    installed: Arc<AtomicU64>,
    metrics: Metrics,
    leasing: Mutex<()>,
    failed: OnceLock<String>,
    /// Told when `failed` is set.
    failing: Notify,
}

impl Replica {
    pub fn new(
        info: ShardInfo,
        handle: ShardHandle,
        reader: StateReader,
        outbox: OutboxSignals,
        installed: Arc<AtomicU64>,
        metrics: Metrics,
    ) -> Self {
        Self {
            info,
            handle,
            reader,
            outbox,
            installed,
            metrics,
            leasing: Mutex::new(()),
            failed: OnceLock::new(),
            failing: Notify::new(),
        }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.info.id
    }

    /// The shard's plane.
    pub fn plane(&self) -> Plane {
        self.info.plane
    }

    /// The shard's voters when this node started.
    pub fn voters(&self) -> &[NodeId] {
        &self.info.voters
    }

    /// The Raft group.
    pub fn handle(&self) -> &ShardHandle {
        &self.handle
    }

    /// What wakes and follows the sender of this shard's outboxes.
    pub fn outbox(&self) -> &OutboxSignals {
        &self.outbox
    }

    /// Reads the applied state of one moment.
    pub fn read<T>(&self, query: impl FnOnce(&dyn View) -> Result<T, ApplyError>) -> Result<T, Refusal> {
        self.check()?;
        self.reader
            .read(|view, _| query(view))
            .map_err(|error| self.fail(&error.to_string()))
    }

    /// Commits and applies a command.
    pub async fn propose(&self, command: Command) -> Result<Reply, Refusal> {
        self.check()?;
        self.metrics.proposals.inc();
        let reply = self.handle.propose(command.encode()).await;
        let reply = reply.map_err(|error| self.refusal(error))?;
        match Reply::decode(&reply) {
            Ok(Reply::Refused { code, text }) => Err(refused(code, text)),
            Ok(Reply::GrantStale) => Err(Refusal::GrantStale),
            Ok(reply) => Ok(reply),
            Err(error) => Err(refused(
                Code::Internal,
                format!("a reply cannot be read: {error}"),
            )),
        }
    }

    /// Makes what is read next linearizable.
    pub async fn linearize(&self) -> Result<(), Refusal> {
        self.check()?;
        self.handle.linearize().await.map_err(|error| self.refusal(error))
    }

    /// Refuses unless this replica leads: what only a leader judges is not judged elsewhere.
    pub fn must_lead(&self) -> Result<(), Refusal> {
        self.check()?;
        self.handle.must_lead().map_err(|error| self.refusal(error))
    }

    /// Serves until it must not, and gives its place in the Raft group up then: a leader that
    /// refuses what it is asked must not stay the leader, and heartbeats alone need no disk.
    pub async fn serve(&self) {
        tokio::select! {
            () = self.stopped() => {}
            () = self.failing.notified() => self.handle.shutdown().await,
        }
    }

    /// Stops serving for a reason outside the replica.
    pub fn give_up(&self, reason: &str) {
        self.fail(reason);
    }

    /// Waits for the end of the Raft group and stops serving then.
    async fn stopped(&self) {
        let mut leadership = self.handle.watch_leadership();
        while leadership.changed().await.is_ok() {}
        let reason = self
            .failure()
            .unwrap_or_else(|| "its Raft group has stopped".to_owned());
        self.fail(&reason);
    }

    /// Waits for the turn to lease user numbers.
    pub async fn lease_turn(&self) -> MutexGuard<'_, ()> {
        self.leasing.lock().await
    }

    /// Why the replica has stopped, if it has.
    pub fn failure(&self) -> Option<String> {
        self.failed
            .get()
            .cloned()
            .or_else(|| self.reader.stopped())
            .or_else(|| self.handle.status().stopped)
    }

    /// The replica, for operators.
    pub fn status(&self) -> ShardStatus {
        let status = self.handle.status();
        ShardStatus {
            shard: self.shard(),
            leader: self.handle.leadership().leader,
            term: status.term,
            last_log: status.last_log,
            applied: status.applied,
            failed: self.failure(),
        }
    }

    /// How far its Raft group is.
    pub fn progress(&self) -> Progress {
        let leadership = self.handle.leadership();
        Progress {
            shard: self.shard(),
            leads: leadership.leads.then_some(leadership.term),
            purged: self.handle.status().purged,
            installed: self.installed.load(Ordering::Relaxed),
            silences: self.handle.silences(),
        }
    }

    /// The replica, for metrics.
    pub fn figures(&self) -> ReplicaFigures {
        ReplicaFigures {
            shard: self.shard(),
            applied: self.reader.applied_index(),
            purged: self.handle.status().purged,
            leads: self.handle.leadership().leads,
            failed: self.failure().is_some(),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        match self.failed.get().cloned().or_else(|| self.reader.stopped()) {
            Some(reason) => Err(self.fail(&reason)),
            None => Ok(()),
        }
    }

    /// Stops serving; the first reason is logged and stays.
    fn fail(&self, reason: &str) -> Refusal {
        let reason = self.failed.get_or_init(|| {
            tracing::error!(shard = %self.shard(), reason, "this replica has stopped and serves nothing any more");
            self.failing.notify_one();
            reason.to_owned()
        });
        refused(
            Code::StoreFailed,
            format!(
                "this node's replica of shard {} has stopped: {reason}",
                self.shard()
            ),
        )
    }

    fn refusal(&self, error: ProposeError) -> Refusal {
        match error {
            ProposeError::NotLeader { leader } => Refusal::NotLeader { leader },
            ProposeError::Stopped(reason) => self.fail(&self.reader.stopped().unwrap_or(reason)),
            ProposeError::Discarded => refused(
                Code::Unavailable,
                format!(
                    "shard {} has another leader now, which may carry this out or not",
                    self.shard()
                ),
            ),
            ProposeError::Timeout => refused(
                Code::Unavailable,
                format!("shard {} has no quorum at the moment", self.shard()),
            ),
            ProposeError::Overloaded => refused(
                Code::Overloaded,
                format!("too much waits for shard {}", self.shard()),
            ),
        }
    }
}
