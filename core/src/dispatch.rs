//! Answering requests of edges, operators and other core nodes.
//!
//! Every request is judged first by who asks, then sent to the module of its plane. Writes and
//! linearizable reads are carried out by the leader of their shard only; any other node names the
//! leader it knows.

mod changes;
mod fences;
mod management;
mod message;
mod meta;
mod numbers;
mod status;

use throng_protocol::cluster::{Answer, By, PeerId, Refusal, Reply, Request};
use throng_protocol::code::Code;

use throng_protocol::limits::PAGE_BYTES_TARGET;
use throng_state::command::MetaCommand;
use throng_state::query::PageWanted;

use crate::core::Core;

/// Who may ask what.
fn permitted(peer: PeerId, request: &Request) -> bool {
    match request {
        Request::PutApp { .. }
        | Request::AddApiKey { .. }
        | Request::RemoveApiKey { .. }
        | Request::Status => peer == PeerId::Admin,
        Request::Deliver { .. } | Request::LeaseNumbers { .. } | Request::Clock => {
            matches!(peer, PeerId::Core(_))
        }
        Request::Map
        | Request::App { .. }
        | Request::User { .. }
        | Request::KnownUser { .. }
        | Request::CreateGroup { .. }
        | Request::Join { .. }
        | Request::Leave { .. }
        | Request::Grant { .. }
        | Request::Channel { .. }
        | Request::Changes { .. }
        | Request::Page { .. } => true,
        // An edge speaks for users, who need a right of their own in the group. The app itself speaks through
        // the Server API of a core node.
        Request::CreateChannel { by, .. } | Request::Kick { by, .. } | Request::Mute { by, .. } => {
            by.is_some() || !matches!(peer, PeerId::Edge(_))
        }
        Request::Expansion { grant, .. } => grant.is_some() || !matches!(peer, PeerId::Edge(_)),
        Request::Append { append, .. } => {
            matches!(append.by, By::Member(_)) || !matches!(peer, PeerId::Edge(_))
        }
        Request::Change { change, .. } => {
            matches!(change.by, By::Member(_)) || !matches!(peer, PeerId::Edge(_))
        }
        Request::Group { .. }
        | Request::Members { .. }
        | Request::Channels { .. }
        | Request::JoinAll { .. }
        | Request::ArchiveChannel { .. }
        | Request::PutRole { .. }
        | Request::RemoveRole { .. }
        | Request::AssignRoles { .. }
        | Request::Roles { .. }
        | Request::ApiKeys { .. } => !matches!(peer, PeerId::Edge(_)),
    }
}

/// Answers a request.
pub(crate) async fn answer(core: &Core, peer: PeerId, request: Request) -> Answer {
    let answer = if permitted(peer, &request) {
        carry_out(core, request).await
    } else {
        Err(refused(Code::Forbidden, format!("{peer:?} may not ask this")))
    };
    core.metrics().answered(&answer);
    answer
}

async fn carry_out(core: &Core, request: Request) -> Answer {
    match request {
        Request::Map => meta::map(core),
        Request::App { app } => meta::app(core, &app).await,
        Request::PutApp { app, keys } => meta::change(core, MetaCommand::PutApp { app, keys }).await,
        Request::User { app, user } => numbers::user(core, app, user).await,
        Request::Append { shard, append } => message::append(core, shard, append).await,
        Request::Page {
            shard,
            channel,
            anchor,
            direction,
            limit,
            grant,
            fences,
        } => {
            let wanted = PageWanted {
                anchor,
                direction,
                limit,
                bytes_target: PAGE_BYTES_TARGET,
                fences,
            };
            message::page(core, shard, channel, wanted, grant).await
        }
        request @ (Request::Change { .. } | Request::Changes { .. } | Request::Expansion { .. }) => {
            changes::carry_out(core, request).await
        }
        request @ (Request::CreateGroup { .. }
        | Request::CreateChannel { .. }
        | Request::Join { .. }
        | Request::JoinAll { .. }
        | Request::Leave { .. }
        | Request::Grant { .. }
        | Request::Channel { .. }
        | Request::Group { .. }
        | Request::Members { .. }
        | Request::Roles { .. }
        | Request::Channels { .. }) => management::carry_out(core, request).await,
        request @ (Request::Kick { .. }
        | Request::Mute { .. }
        | Request::ArchiveChannel { .. }
        | Request::PutRole { .. }
        | Request::RemoveRole { .. }
        | Request::AssignRoles { .. }) => fences::take(core, request).await,
        Request::AddApiKey { app, key } => meta::change(core, MetaCommand::AddApiKey { app, key }).await,
        Request::RemoveApiKey { app, kid } => {
            meta::change(core, MetaCommand::RemoveApiKey { app, kid }).await
        }
        Request::ApiKeys { app } => meta::api_keys(core, &app).await,
        Request::KnownUser { app, user } => numbers::known(core, &app, &user).await,
        Request::Status => Ok(Reply::Status(status::status(core))),
        Request::Clock => Ok(Reply::Clock(core.now_ms())),
        request @ (Request::Deliver { .. } | Request::LeaseNumbers { .. }) => {
            between_cores(core, request).await
        }
    }
}

/// Carries out what core nodes ask of each other, and a node of itself. These never call another
/// node, so that calls between nodes cannot wait for each other in a circle.
pub(crate) async fn between_cores(core: &Core, request: Request) -> Answer {
    match request {
        Request::Deliver {
            shard,
            source,
            number,
            delivery,
        } => message::deliver(core, shard, source, number, &delivery).await,
        Request::LeaseNumbers {
            shard,
            count,
            request,
        } => meta::lease(core, shard, count, request).await,
        _ => Err(refused(Code::Internal, "not a request between core nodes")),
    }
}

/// A numbered refusal.
pub(crate) fn refused(code: Code, text: impl Into<String>) -> Refusal {
    Refusal::Code {
        code,
        text: text.into(),
    }
}

/// For a reply of the state machine that cannot be the answer to what was proposed.
pub(crate) fn unexpected(reply: &throng_state::Reply) -> Refusal {
    tracing::error!(?reply, "a command was answered with the reply to another");
    refused(Code::Internal, "the state machine gave another kind of reply")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use throng_protocol::cluster::{Append, Grant, Permissions};
    use throng_protocol::ids::{
        AppId, ChannelId, ChannelNumber, ClientMessageId, EdgeId, GroupId, NodeId, RoleId, ShardId,
        UserNumber,
    };

    use super::*;

    #[test]
    fn who_may_ask_what() {
        let put = Request::PutApp {
            app: AppId::new("app").unwrap(),
            keys: Vec::new(),
        };
        let lease = Request::LeaseNumbers {
            shard: ShardId(1),
            count: 1,
            request: 1,
        };
        let (app, group) = (AppId::new("app").unwrap(), GroupId::new("group").unwrap());
        let create = |by| Request::CreateChannel {
            app: app.clone(),
            group: group.clone(),
            channel: ChannelId::new("channel").unwrap(),
            by,
        };
        let keys = Request::RemoveApiKey {
            app: app.clone(),
            kid: "one".to_owned(),
        };
        let members = Request::Members {
            app: app.clone(),
            group: group.clone(),
            after: UserNumber(0),
            limit: 1,
        };
        let append = |by| Request::Append {
            shard: ShardId(101),
            append: Append {
                channel: ChannelNumber(1),
                by,
                client_message_id: ClientMessageId(1),
                first_attempt_ms: 0,
                body: Bytes::new(),
            },
        };
        let of_member = append(By::Member(Grant {
            key_id: 1,
            claims: Bytes::new(),
            seal: [0; 32],
        }));
        let of_app = append(By::App {
            app: app.clone(),
            group: group.clone(),
        });
        let role = Request::PutRole {
            app: app.clone(),
            group: group.clone(),
            role: RoleId::new("moderator").unwrap(),
            permissions: Permissions::ALL,
        };
        let (edge, core) = (PeerId::Edge(EdgeId(1)), PeerId::Core(NodeId(1)));
        for (request, may) in [
            (put, [false, false, true]),
            (Request::Status, [false, false, true]),
            (lease, [false, true, false]),
            (Request::Clock, [false, true, false]),
            (Request::Map, [true, true, true]),
            (create(Some(UserNumber(1))), [true, true, true]),
            (create(None), [false, true, true]),
            (keys, [false, false, true]),
            (members, [false, true, true]),
            (of_member, [true, true, true]),
            (of_app, [false, true, true]),
            (role, [false, true, true]),
        ] {
            let found = [edge, core, PeerId::Admin].map(|peer| permitted(peer, &request));
            assert_eq!(found, may, "{request:?}");
        }
    }
}
