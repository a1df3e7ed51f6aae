//! Comparing clocks: a node whose clock is ahead of the majority's leads no shard.
//!
//! Time stamps of messages come from their leader's clock. One that runs ahead would push every
//! channel it leads into the future, and `apply` never goes back. So nodes ask each other for the
//! time, and one that is ahead of the majority by more than half a second hands its shards to
//! others and does not stand for election until its clock is right. Clocks behind need nothing:
//! `apply` lifts their stamps.

use std::sync::Arc;

use throng_protocol::cluster::{Reply, Request};
use throng_protocol::ids::NodeId;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::core::Core;
use crate::limits::{CLOCK_AHEAD_MS_MAX, CLOCK_INTERVAL, CLOCK_ROUND_TRIP_MAX};

/// Compares clocks until dropped.
pub(crate) async fn run(core: Arc<Core>, others: Vec<NodeId>) {
    let mut ticks = interval(CLOCK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut barred = false;
    loop {
        ticks.tick().await;
        let mut ahead = Vec::with_capacity(others.len());
        for node in &others {
            if let Some(ms) = ahead_of(&core, *node).await {
                ahead.push((*node, ms));
            }
        }
        let by = ahead_of_majority(others.len() + 1, &ahead);
        core.metrics().clock_ahead(by);
        let bar = by > CLOCK_AHEAD_MS_MAX;
        if bar != barred {
            barred = bar;
            for replica in core.replicas() {
                replica.handle().stand_for_election(!bar);
            }
        }
        if bar {
            tracing::error!(
                ahead_ms = by,
                "this clock is ahead of the majority's: leading no shard until it is right"
            );
            step_down(&core, &ahead).await;
        }
    }
}

/// How far this clock is ahead of another node's, `None` if it cannot be told.
async fn ahead_of(core: &Core, node: NodeId) -> Option<i64> {
    let (asked_ms, asked) = (core.now_ms(), Instant::now());
    let answer = core
        .peers()
        .ask(node, &Request::Clock, CLOCK_ROUND_TRIP_MAX)
        .await;
    let Ok(Ok(Reply::Clock(theirs))) = answer else {
        return None;
    };
    let half = u64::try_from(asked.elapsed().as_millis() / 2).ok()?;
    Some(
        asked_ms
            .saturating_add(half)
            .cast_signed()
            .saturating_sub(theirs.cast_signed()),
    )
}

/// How far this clock is ahead of the slowest majority of `nodes` clocks, this one among them. Nodes
/// that did not answer count as agreeing: without a majority that says otherwise nothing happens.
fn ahead_of_majority(nodes: usize, ahead: &[(NodeId, i64)]) -> i64 {
    let mut offsets: Vec<i64> = ahead.iter().map(|(_, ms)| *ms).collect();
    offsets.resize(nodes, 0);
    offsets.sort_unstable_by(|a, b| b.cmp(a));
    let majority = nodes / 2 + 1;
    offsets.get(majority - 1).copied().unwrap_or(0).max(0)
}

/// Hands the shards this node leads to nodes whose clocks are behind this one.
async fn step_down(core: &Core, ahead: &[(NodeId, i64)]) {
    let right = |node: &NodeId| {
        ahead
            .iter()
            .any(|(other, ms)| other == node && *ms > CLOCK_AHEAD_MS_MAX)
    };
    for replica in core
        .replicas()
        .filter(|replica| replica.handle().leadership().leads)
    {
        if let Some(node) = replica.voters().iter().copied().find(right)
            && let Err(error) = replica.handle().transfer_leader(node).await
        {
            tracing::warn!(shard = %replica.shard(), error, "leadership was not handed over");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ms: &[i64]) -> Vec<(NodeId, i64)> {
        ms.iter().zip(2..).map(|(ms, id)| (NodeId(id), *ms)).collect()
    }

    #[test]
    fn a_clock_is_ahead_only_if_a_majority_says_so() {
        // This node and one that cannot be asked agree with it, so one witness is no majority.
        assert_eq!(ahead_of_majority(3, &of(&[900])), 0);
        assert_eq!(ahead_of_majority(3, &of(&[900, 0])), 0);
        assert_eq!(ahead_of_majority(3, &of(&[900, -100])), 0);
        assert_eq!(ahead_of_majority(3, &of(&[900, 700])), 700);
        assert_eq!(ahead_of_majority(5, &of(&[900, 700])), 0);
        assert_eq!(ahead_of_majority(1, &of(&[])), 0);
    }
}
