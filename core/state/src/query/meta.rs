//! Reading the meta shard.

use throng_protocol::cluster::{ApiKey, AppKey};
use throng_protocol::ids::AppId;
use throng_protocol::placement::ClusterMap;

use crate::command::ClusterKey;
use crate::record::{ApiKeysRecord, AppRecord, ClusterKeyRecord, MapRecord, Record, read};
use crate::{ApplyError, View, keys};

/// Most cluster keys that are read: the current one, those of the last rotations, and slack.
const CLUSTER_KEYS_MAX: usize = 64;

/// The cluster's map; `None` before it was bootstrapped.
pub fn cluster_map(view: &dyn View) -> Result<Option<ClusterMap>, ApplyError> {
    Ok(read::<MapRecord>(view, &keys::map())?.map(|record| record.map))
}

/// The keys that seal grants, ascending by id; the last one seals new grants.
pub fn cluster_keys(view: &dyn View) -> Result<Vec<ClusterKey>, ApplyError> {
    let (from, to) = keys::cluster_keys();
    let mut found = view.scan_back(&from, &to, CLUSTER_KEYS_MAX)?;
    found.reverse();
    found
        .iter()
        .map(|(key, value)| Ok(ClusterKeyRecord::decode(key, value)?.key))
        .collect()
}

/// The keys that verify an app's tokens; `None` for an app that is not registered.
pub fn app_keys(view: &dyn View, app: &AppId) -> Result<Option<Vec<AppKey>>, ApplyError> {
    Ok(read::<AppRecord>(view, &keys::app(app))?.map(|record| record.keys))
}

/// An app's keys of the Server API; none for an app that is not registered.
pub fn api_keys(view: &dyn View, app: &AppId) -> Result<Vec<ApiKey>, ApplyError> {
    Ok(read::<ApiKeysRecord>(view, &keys::api_keys(app))?
        .map(|record| record.keys)
        .unwrap_or_default())
}
