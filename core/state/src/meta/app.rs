//! Apps and the keys that verify their tokens.

use throng_protocol::cluster::{AppKey, TokenAlgorithm};
use throng_protocol::code::Code;
use throng_protocol::ids::AppId;
use throng_protocol::limits::NAME_BYTES_MAX;

use crate::effect::Effects;
use crate::limits::{APP_KEYS_MAX, HS256_SECRET_BYTES_MIN, KEY_BYTES_MAX};
use crate::record::AppRecord;
use crate::{Reply, keys};

/// Registers an app or replaces its keys. No keys are a valid set: nobody gets in.
pub(super) fn put_app(app: &AppId, app_keys: &[AppKey], effects: &mut Effects) -> Reply {
    if let Some(fault) = fault(app_keys) {
        return Reply::refused(Code::InvalidField, fault);
    }
    effects.put(
        keys::app(app),
        &AppRecord {
            keys: app_keys.to_vec(),
        },
    );
    Reply::Done
}

/// What is wrong with a set of keys. Never says what a key holds.
fn fault(app_keys: &[AppKey]) -> Option<String> {
    if app_keys.len() > APP_KEYS_MAX {
        return Some(format!("an app has at most {APP_KEYS_MAX} keys"));
    }
    app_keys.iter().enumerate().find_map(|(place, key)| {
        if key.kid.is_empty() || key.kid.len() > NAME_BYTES_MAX {
            return Some(format!("the id of a key has 1 to {NAME_BYTES_MAX} bytes"));
        }
        if app_keys[..place].iter().any(|other| other.kid == key.kid) {
            return Some(format!("two keys have the id {:?}", key.kid));
        }
        if key.material.len() > KEY_BYTES_MAX {
            return Some(format!("key {:?} has more than {KEY_BYTES_MAX} bytes", key.kid));
        }
        let short = key.algorithm == TokenAlgorithm::Hs256 && key.material.len() < HS256_SECRET_BYTES_MIN;
        short.then(|| format!("key {:?} has less than {HS256_SECRET_BYTES_MIN} bytes", key.kid))
    })
}
