//! Requests to the meta shard: the map, apps, ranges of user numbers.

use throng_protocol::cluster::{Answer, Reply};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ShardId};
use throng_protocol::placement::META_SHARD;
use throng_state::command::{Command, MetaCommand};
use throng_state::{Reply as StateReply, query};

use super::{refused, unexpected};
use crate::core::Core;

/// The map, as this node knows it.
pub(super) fn map(core: &Core) -> Answer {
    let state = core.cluster()?;
    Ok(Reply::Map(state.map.clone()))
}

/// An app's keys. A replica that knows the app answers; one that does not may be behind, so only
/// the leader says that there is none.
pub(super) async fn app(core: &Core, app: &AppId) -> Answer {
    let meta = core.replica(META_SHARD)?;
    if let Some(keys) = meta.read(|view| query::app_keys(view, app))? {
        return Ok(Reply::App(Some(keys)));
    }
    meta.linearize().await?;
    Ok(Reply::App(meta.read(|view| query::app_keys(view, app))?))
}

/// An app's keys of the Server API.
pub(super) async fn api_keys(core: &Core, app: &AppId) -> Answer {
    let meta = core.replica(META_SHARD)?;
    meta.linearize().await?;
    Ok(Reply::ApiKeys(meta.read(|view| query::api_keys(view, app))?))
}

/// Changes what is known of an app.
pub(super) async fn change(core: &Core, command: MetaCommand) -> Answer {
    let meta = core.replica(META_SHARD)?;
    match meta.propose(Command::Meta(command)).await? {
        StateReply::Done => Ok(Reply::Done),
        other => Err(unexpected(&other)),
    }
}

/// Leases a range of user numbers to a management shard.
pub(super) async fn lease(core: &Core, shard: ShardId, count: u32, request: u64) -> Answer {
    if core.cluster()?.map.shard(shard).is_none() {
        return Err(refused(Code::InvalidField, format!("there is no shard {shard}")));
    }
    let meta = core.replica(META_SHARD)?;
    let command = MetaCommand::LeaseNumbers {
        shard,
        count,
        request,
    };
    match meta.propose(Command::Meta(command)).await? {
        StateReply::Leased { start, end } => Ok(Reply::Leased { start, end }),
        other => Err(unexpected(&other)),
    }
}
