//! The keys that an app's back ends use the Server API with: kept as digests, added and removed one by one,
//! so that who changes one key undoes no change of another.

use throng_protocol::cluster::ApiKey;
use throng_protocol::code::Code;
use throng_protocol::ids::AppId;
use throng_protocol::limits::NAME_BYTES_MAX;

use crate::effect::Effects;
use crate::limits::API_KEYS_MAX;
use crate::record::{ApiKeysRecord, AppRecord, read};
use crate::{ApplyError, Reply, View, keys};

/// Adds a key; nothing changes for one that is there.
pub(super) fn add(
    view: &dyn View,
    app: &AppId,
    key: &ApiKey,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    if read::<AppRecord>(view, &keys::app(app))?.is_none() {
        return Ok(Reply::refused(Code::AppUnknown, format!("there is no app {app}")));
    }
    let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if key.kid.is_empty() || key.kid.len() > NAME_BYTES_MAX || !key.kid.bytes().all(named) {
        let text = format!("the id of a key has 1 to {NAME_BYTES_MAX} letters, digits, - and _");
        return Ok(Reply::refused(Code::InvalidField, text));
    }
    let mut held = held(view, app)?;
    match held.iter().find(|other| other.kid == key.kid) {
        Some(same) if same == key => return Ok(Reply::Done),
        Some(_) => {
            let text = format!("app {app} has another key {:?}; remove that one first", key.kid);
            return Ok(Reply::refused(Code::AlreadyExists, text));
        }
        None if held.len() >= API_KEYS_MAX => {
            let text = format!("an app has at most {API_KEYS_MAX} keys of the Server API");
            return Ok(Reply::refused(Code::InvalidField, text));
        }
        None => {}
    }
    held.push(key.clone());
    effects.put(keys::api_keys(app), &ApiKeysRecord { keys: held });
    Ok(Reply::Done)
}

/// Removes a key; nothing changes where there is none of that id.
pub(super) fn remove(
    view: &dyn View,
    app: &AppId,
    kid: &str,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    let mut held = held(view, app)?;
    let before = held.len();
    held.retain(|key| key.kid != kid);
    if held.len() < before {
        effects.put(keys::api_keys(app), &ApiKeysRecord { keys: held });
    }
    Ok(Reply::Done)
}

fn held(view: &dyn View, app: &AppId) -> Result<Vec<ApiKey>, ApplyError> {
    let record = read::<ApiKeysRecord>(view, &keys::api_keys(app))?;
    Ok(record.map(|record| record.keys).unwrap_or_default())
}
