//! The keys that an app's back ends use the Server API with: kept as digests, replaced as a set, so that a
//! key is rotated by putting the new one beside the old and then leaving the old one out.

use throng_protocol::cluster::ApiKey;
use throng_protocol::code::Code;
use throng_protocol::ids::AppId;
use throng_protocol::limits::NAME_BYTES_MAX;

use crate::effect::Effects;
use crate::limits::API_KEYS_MAX;
use crate::record::{ApiKeysRecord, AppRecord, read};
use crate::{ApplyError, Reply, View, keys};

/// Replaces the keys of an app.
pub(super) fn put_api_keys(
    view: &dyn View,
    app: &AppId,
    api_keys: &[ApiKey],
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    if read::<AppRecord>(view, &keys::app(app))?.is_none() {
        return Ok(Reply::refused(Code::AppUnknown, format!("there is no app {app}")));
    }
    if let Some(fault) = fault(api_keys) {
        return Ok(Reply::refused(Code::InvalidField, fault));
    }
    let keys = api_keys.to_vec();
    effects.put(keys::api_keys(app), &ApiKeysRecord { keys });
    Ok(Reply::Done)
}

/// What is wrong with a set of keys.
fn fault(api_keys: &[ApiKey]) -> Option<String> {
    if api_keys.len() > API_KEYS_MAX {
        return Some(format!(
            "an app has at most {API_KEYS_MAX} keys of the Server API"
        ));
    }
    api_keys.iter().enumerate().find_map(|(place, key)| {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if key.kid.is_empty() || key.kid.len() > NAME_BYTES_MAX || !key.kid.bytes().all(named) {
            return Some(format!(
                "the id of a key has 1 to {NAME_BYTES_MAX} letters, digits, - and _"
            ));
        }
        let twice = api_keys[..place].iter().any(|other| other.kid == key.kid);
        twice.then(|| format!("two keys have the id {:?}", key.kid))
    })
}
