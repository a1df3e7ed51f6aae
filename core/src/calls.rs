//! Calling another shard's leader, wherever it is.
//!
//! The one place where a core node follows redirects; it does so for a bounded time. What it calls
//! may be carried out more than once: only idempotent requests go through here.

use std::time::Duration;

use throng_protocol::cluster::{Answer, PeerId, Refusal, Reply, Request};
use throng_protocol::code::{Class, Code};
use throng_protocol::ids::{NodeId, ShardId};
use throng_protocol::placement::{META_SHARD, PlacementKey};
use tokio::time::{Instant, sleep, timeout_at};

use crate::core::Core;
use crate::dispatch;
use crate::limits::{
    BACK_END_ATTEMPT_TIMEOUT, BACK_END_TIMEOUT, CALL_ATTEMPT_TIMEOUT, CALL_RETRY_PAUSE, CALL_TIMEOUT,
};

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
enum Caller {
    /// A request of another node or an edge, which this node answers.
    Node,
    /// The back end of an app.
    BackEnd,
}

impl Caller {
    /// How long to look for the leader.
    fn timeout(self) -> Duration {
        match self {
            Self::Node => CALL_TIMEOUT,
            Self::BackEnd => BACK_END_TIMEOUT,
        }
    }

    /// How long one attempt may take.
    fn attempt_timeout(self) -> Duration {
        match self {
            Self::Node => CALL_ATTEMPT_TIMEOUT,
            Self::BackEnd => BACK_END_ATTEMPT_TIMEOUT,
        }
    }
}

/// Carries a request out at the leader of `shard`, on this node or another.
pub(crate) async fn call(core: &Core, shard: ShardId, request: &Request) -> Result<Reply, Refusal> {
    call_as(core, Caller::Node, shard, request).await
}

/// Carries a request of an app's back end out, at the leader of the shard it is for.
pub(crate) async fn ask(core: &Core, request: &Request) -> Answer {
    let shard = shard_for(core, request)?;
    call_as(core, Caller::BackEnd, shard, request).await
}

/// The shard whose leader carries a request out.
fn shard_for(core: &Core, request: &Request) -> Result<ShardId, Refusal> {
    match request {
        Request::Group { app, group }
        | Request::Members { app, group, .. }
        | Request::Channels { app, group, .. }
        | Request::Channel { app, group, .. }
        | Request::CreateGroup { app, group, .. }
        | Request::CreateChannel { app, group, .. }
        | Request::Grant { app, group, .. }
        | Request::Join { app, group, .. }
        | Request::JoinAll { app, group, .. }
        | Request::Leave { app, group, .. }
        | Request::Kick { app, group, .. }
        | Request::Mute { app, group, .. }
        | Request::ArchiveChannel { app, group, .. }
        | Request::PutRole { app, group, .. }
        | Request::RemoveRole { app, group, .. }
        | Request::AssignRoles { app, group, .. }
        | Request::Roles { app, group } => core.shard_of(PlacementKey::Group(app, group)),
        Request::User { app, user } | Request::KnownUser { app, user } => {
            core.shard_of(PlacementKey::Directory(app, user))
        }
        Request::Append { shard, .. }
        | Request::Page { shard, .. }
        | Request::Change { shard, .. }
        | Request::Changes { shard, .. }
        | Request::Expansion { shard, .. } => Ok(*shard),
        Request::App { .. } | Request::ApiKeys { .. } | Request::Map => Ok(META_SHARD),
        Request::PutApp { .. }
        | Request::AddApiKey { .. }
        | Request::RemoveApiKey { .. }
        | Request::Status
        | Request::Deliver { .. }
        | Request::LeaseNumbers { .. }
        | Request::Clock => Err(dispatch::refused(
            Code::Forbidden,
            "not a request of an app's back end",
        )),
    }
}

async fn call_as(core: &Core, caller: Caller, shard: ShardId, request: &Request) -> Answer {
    let deadline = Instant::now() + caller.timeout();
    let mut hint = core.known_leader(shard);
    let mut turn = 0;
    let mut last = Refusal::NotLeader { leader: None };
    while Instant::now() < deadline {
        let Some(node) = hint.take().or_else(|| core.voter(shard, turn)) else {
            return Err(last);
        };
        turn += 1;
        let attempt = timeout_at(deadline, attempt(core, caller, node, request));
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

async fn attempt(core: &Core, caller: Caller, node: NodeId, request: &Request) -> Answer {
    if node == core.id() {
        return match caller {
            Caller::Node => dispatch::between_cores(core, request.clone()).await,
            // Boxed: answering may call another shard.
            Caller::BackEnd => {
                Box::pin(dispatch::answer(core, PeerId::Core(core.id()), request.clone())).await
            }
        };
    }
    match core.peers().ask(node, request, caller.attempt_timeout()).await {
        Ok(answer) => answer,
        Err(error) => Err(match caller {
            Caller::Node => unreachable(node, &error.to_string()),
            // Where nodes are is no business of an app.
            Caller::BackEnd => unreachable(node, "no answer"),
        }),
    }
}

fn unreachable(node: NodeId, why: &str) -> Refusal {
    Refusal::Code {
        code: Code::Unavailable,
        text: format!("node {node} cannot be reached: {why}"),
    }
}
