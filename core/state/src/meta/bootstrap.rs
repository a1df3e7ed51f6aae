//! The beginning of a cluster, and changes of its map.

use throng_protocol::code::Code;
use throng_protocol::placement::ClusterMap;

use crate::command::ClusterKey;
use crate::effect::Effects;
use crate::record::{ClusterKeyRecord, MapRecord, read};
use crate::{ApplyError, Reply, View, keys};

/// Stores the first map and key. Every node proposes this when it starts on an empty shard; the
/// first one wins, and the others' keys are dropped.
pub(super) fn bootstrap(
    view: &dyn View,
    map: &ClusterMap,
    cluster_key: &ClusterKey,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    if read::<MapRecord>(view, &keys::map())?.is_some() {
        return Ok(Reply::Bootstrapped { first: false });
    }
    effects.put(keys::map(), &MapRecord { map: map.clone() });
    effects.put(
        keys::cluster_key(cluster_key.id),
        &ClusterKeyRecord {
            key: cluster_key.clone(),
        },
    );
    Ok(Reply::Bootstrapped { first: true })
}

/// Replaces the map. The version decides, so that a retry does no harm and a late proposal does not
/// undo a newer one.
pub(super) fn put_map(view: &dyn View, map: &ClusterMap, effects: &mut Effects) -> Result<Reply, ApplyError> {
    let Some(current) = read::<MapRecord>(view, &keys::map())? else {
        return Ok(Reply::refused(
            Code::Unavailable,
            "the cluster has not been bootstrapped",
        ));
    };
    if *map == current.map {
        return Ok(Reply::Done);
    }
    if map.version <= current.map.version {
        let text = format!(
            "map version {} is not above the current {}",
            map.version, current.map.version
        );
        return Ok(Reply::refused(Code::InvalidField, text));
    }
    effects.put(keys::map(), &MapRecord { map: map.clone() });
    Ok(Reply::Done)
}
