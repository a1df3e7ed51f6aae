//! The meta shard: the cluster's map and keys, apps, and leases of user numbers. It refuses to take
//! part in anything that happens per message or per user.

mod api_keys;
mod app;
mod bootstrap;
mod lease;

use crate::command::MetaCommand;
use crate::effect::Effects;
use crate::{ApplyError, Reply, View};

/// Applies a command to the meta shard.
pub(crate) fn apply(
    view: &dyn View,
    command: &MetaCommand,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    match command {
        MetaCommand::Bootstrap { map, cluster_key } => bootstrap::bootstrap(view, map, cluster_key, effects),
        MetaCommand::PutMap { map } => bootstrap::put_map(view, map, effects),
        MetaCommand::PutApp { app, keys } => Ok(app::put_app(app, keys, effects)),
        MetaCommand::AddApiKey { app, key } => api_keys::add(view, app, key, effects),
        MetaCommand::RemoveApiKey { app, kid } => api_keys::remove(view, app, kid, effects),
        MetaCommand::LeaseNumbers {
            shard,
            count,
            request,
        } => lease::lease_numbers(view, *shard, *count, *request, effects),
    }
}
