//! Calling another shard's leader, wherever it is.
//!
//! The one place where a core node follows redirects; it does so for a bounded time. What it calls
//! may be carried out more than once: only idempotent requests go through here.

use throng_protocol::cluster::{Refusal, Reply, Request};
use throng_protocol::code::{Class, Code};
use throng_protocol::ids::{NodeId, ShardId};
use tokio::time::{Instant, sleep, timeout_at};

use crate::core::Core;
use crate::dispatch;
use crate::limits::{CALL_ATTEMPT_TIMEOUT, CALL_RETRY_PAUSE, CALL_TIMEOUT};

/// Carries a request out at the leader of `shard`, on this node or another.
pub(crate) async fn call(core: &Core, shard: ShardId, request: &Request) -> Result<Reply, Refusal> {
    let deadline = Instant::now() + CALL_TIMEOUT;
    let mut hint = core.known_leader(shard);
    let mut turn = 0;
    let mut last = Refusal::NotLeader { leader: None };
    while Instant::now() < deadline {
        let Some(node) = hint.take().or_else(|| core.voter(shard, turn)) else {
            return Err(last);
        };
        turn += 1;
        let attempt = timeout_at(deadline, attempt(core, node, request));
        match attempt
            .await
            .unwrap_or_else(|_| Err(unreachable(node, "no answer in time")))
        {
            Ok(reply) => return Ok(reply),
            Err(Refusal::NotLeader { leader }) => {
                // A node that knows the leader is followed at once, but not in circles.
                hint = leader.filter(|leader| *leader != node);
                if hint.is_none() || turn > 2 {
                    sleep(CALL_RETRY_PAUSE).await;
                }
            }
            Err(Refusal::Code { code, text }) => {
                last = Refusal::Code { code, text };
                if code.class() != Class::Retryable {
                    return Err(last);
                }
                sleep(CALL_RETRY_PAUSE).await;
            }
            Err(stale @ Refusal::GrantStale) => return Err(stale),
        }
    }
    Err(last)
}

async fn attempt(core: &Core, node: NodeId, request: &Request) -> Result<Reply, Refusal> {
    if node == core.id() {
        return dispatch::between_cores(core, request.clone()).await;
    }
    match core.peers().ask(node, request, CALL_ATTEMPT_TIMEOUT).await {
        Ok(answer) => answer,
        Err(error) => Err(unreachable(node, &error.to_string())),
    }
}

fn unreachable(node: NodeId, why: &str) -> Refusal {
    Refusal::Code {
        code: Code::Unavailable,
        text: format!("node {node} cannot be reached: {why}"),
    }
}
