//! The sender of a shard's outboxes.
//!
//! While this node leads a shard, what its outboxes hold is sent to the leaders of the shards it is
//! for, in order and again and again until they have committed it; then it is acknowledged and
//! deleted. The records are state, committed with their cause: the sender keeps nothing, and any
//! later leader goes on where this one stopped. The receiver ignores what it has seen.

use std::collections::HashSet;
use std::sync::Arc;

use throng_planted::planted;
use throng_protocol::cluster::{Refusal, Reply, Request};
use throng_protocol::ids::ShardId;
use throng_state::Reply as StateReply;
use throng_state::command::{Command, ManagementCommand};
use throng_state::query::{self, Pending};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::calls;
use crate::core::Core;
use crate::limits::{OUTBOX_BATCH, OUTBOX_RETRY_PAUSE, OUTBOX_TARGETS_MAX};
use crate::replica::Replica;

/// What wakes a shard's sender, and what it tells.
#[derive(Debug, Clone)]
pub(crate) struct OutboxSignals {
    added: Arc<Notify>,
    acked: Arc<watch::Sender<()>>,
}

impl Default for OutboxSignals {
    fn default() -> Self {
        Self {
            added: Arc::default(),
            acked: Arc::new(watch::Sender::new(())),
        }
    }
}

impl OutboxSignals {
    /// A record was added.
    pub fn added(&self) {
        self.added.notify_one();
    }

    /// Tells after every acknowledgement.
    pub fn acked(&self) -> watch::Receiver<()> {
        self.acked.subscribe()
    }
}

/// Sends a shard's outboxes whenever this node leads it. Ends when the replica stops.
pub(crate) async fn run(core: Arc<Core>, replica: Arc<Replica>) {
    let mut leadership = replica.handle().watch_leadership();
    loop {
        if leadership.wait_for(|now| now.leads).await.is_err() {
            return;
        }
        let term = leadership.borrow().term;
        tokio::select! {
            () = lead(&core, &replica) => return,
            lost = leadership.wait_for(|now| !now.leads || now.term != term) => {
                if lost.is_err() {
                    return;
                }
            }
        }
    }
}

/// Sends while this node leads; ends only when the replica has failed. One task per target, so that
/// a shard without a leader holds up nobody else's records.
async fn lead(core: &Arc<Core>, replica: &Arc<Replica>) {
    let mut sending: HashSet<ShardId> = HashSet::new();
    let mut senders: JoinSet<ShardId> = JoinSet::new();
    if planted!("outbox_lost_by_new_leader")
        && let Ok(outboxes) = replica.read(|view| query::outboxes(view, OUTBOX_TARGETS_MAX))
    {
        for outbox in outboxes {
            acknowledge(replica, outbox.target, outbox.last).await;
        }
    }
    loop {
        let Ok(outboxes) = replica.read(|view| query::outboxes(view, OUTBOX_TARGETS_MAX)) else {
            return;
        };
        for outbox in outboxes {
            if outbox.acked < outbox.last && sending.insert(outbox.target) {
                let (core, replica) = (Arc::clone(core), Arc::clone(replica));
                senders.spawn(async move {
                    drain(&core, &replica, outbox.target).await;
                    outbox.target
                });
            }
        }
        tokio::select! {
            () = replica.outbox().added.notified() => {}
            Some(done) = senders.join_next() => {
                match done {
                    Ok(target) => { sending.remove(&target); }
                    Err(error) => {
                        tracing::error!(%error, "a sender of an outbox panicked");
                        sending.clear();
                        senders.abort_all();
                    }
                }
            }
        }
    }
}

/// Sends the records for one shard until none is left.
async fn drain(core: &Core, replica: &Replica, target: ShardId) {
    loop {
        let pending = replica.read(|view| query::outbox_pending(view, target, 0, OUTBOX_BATCH));
        let pending = match pending {
            Ok(pending) if pending.is_empty() => return,
            Ok(pending) => pending,
            Err(_) => return,
        };
        let through = send(core, replica.shard(), target, &pending).await;
        if through > 0 && acknowledge(replica, target, through).await {
            replica.outbox().acked.send_replace(());
            core.metrics().outbox_sent.inc_by(pending.len() as u64);
        } else {
            sleep(OUTBOX_RETRY_PAUSE).await;
        }
    }
}

/// Sends records in order; returns the number of the last one the target has, 0 for none.
async fn send(core: &Core, source: ShardId, target: ShardId, pending: &[Pending]) -> u64 {
    let mut through = 0;
    for record in pending {
        let request = Request::Deliver {
            shard: target,
            source,
            number: record.number,
            delivery: record.delivery.encode(),
        };
        match calls::call(core, target, &request).await {
            Ok(Reply::Done) => through = record.number,
            Ok(Reply::DeliverFrom { expected }) => {
                tracing::error!(%source, %target, number = record.number, expected,
                    "a shard misses outbox records that were acknowledged");
                break;
            }
            Ok(other) => {
                tracing::error!(%source, %target, ?other, "a delivery was answered with something else");
                break;
            }
            Err(_) if planted!("outbox_acked_early") => through = record.number,
            Err(Refusal::NotLeader { .. }) => break,
            Err(Refusal::GrantStale) => {
                tracing::error!(%source, %target, "a delivery was answered like a grant");
                break;
            }
            Err(Refusal::Code { code, text }) => {
                tracing::warn!(%source, %target, number = record.number, code = code.name(), text,
                    "an outbox record was not taken and is sent again");
                break;
            }
        }
    }
    through
}

/// Commits that the target has records up to `through`.
async fn acknowledge(replica: &Replica, target: ShardId, through: u64) -> bool {
    let command = Command::Management(ManagementCommand::OutboxAcked { target, through });
    match replica.propose(command).await {
        Ok(StateReply::OutboxAcked { .. }) => true,
        Ok(other) => {
            tracing::error!(?other, "an acknowledgement was answered with something else");
            false
        }
        Err(refusal) => {
            tracing::debug!(?refusal, "an acknowledgement was not committed");
            false
        }
    }
}
