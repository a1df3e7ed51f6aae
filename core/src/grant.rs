//! Sealing and checking grants.
//!
//! A grant says what management knew of a member; its seal is an HMAC under a key that all core
//! nodes share through the meta shard, so that a message shard checks it alone. This module judges
//! the seal and the age; what the claims allow is judged when a command is applied.

use bytes::Bytes;
use ring::hmac;
use throng_protocol::cluster::{self, Grant, GrantClaims};
use throng_protocol::code::Code;
use throng_state::command::ClusterKey;

use crate::limits::{GRANT_SKEW_MS, GRANT_TTL_MS};

/// Why a grant is not taken. Whoever presented it asks management for a fresh one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// No key of that id is known here (yet).
    #[error("the grant is sealed with key {0}, which this node does not know")]
    KeyUnknown(u32),
    /// It was not sealed with that key, or changed since.
    #[error("the grant's seal is broken")]
    SealBroken,
    /// The seal is right, but the claims cannot be read.
    #[error("the grant's claims cannot be read: {0}")]
    Malformed(String),
    /// It is too old.
    #[error("the grant is {age_ms} ms old, {GRANT_TTL_MS} ms are allowed")]
    Expired {
        /// Its age.
        age_ms: u64,
    },
    /// It comes from the future.
    #[error("the grant was made {ahead_ms} ms from now")]
    FromFuture {
        /// How far ahead.
        ahead_ms: u64,
    },
}

impl GrantError {
    /// The code for the asker.
    pub fn code(&self) -> Code {
        match self {
            // A key that rotated in reaches this node within moments.
            Self::KeyUnknown(_) => Code::Unavailable,
            Self::SealBroken | Self::Malformed(_) | Self::Expired { .. } | Self::FromFuture { .. } => {
                Code::Forbidden
            }
        }
    }
}

/// Seals claims.
pub fn seal(key: &ClusterKey, claims: &GrantClaims) -> Grant {
    let claims = cluster::encode(claims);
    let tag = hmac::sign(&hmac_key(key), &claims);
    let mut seal = [0; 32];
    // HMAC-SHA256 has 32 bytes.
    seal.copy_from_slice(tag.as_ref());
    Grant {
        key_id: key.id,
        claims,
        seal,
    }
}

/// The claims of a grant whose seal and age are right.
pub fn verify(keys: &[ClusterKey], grant: &Grant, now_ms: u64) -> Result<GrantClaims, GrantError> {
    let Grant { key_id, claims, seal } = grant;
    let key = keys
        .iter()
        .find(|key| key.id == *key_id)
        .ok_or(GrantError::KeyUnknown(*key_id))?;
    hmac::verify(&hmac_key(key), claims, seal).map_err(|_| GrantError::SealBroken)?;
    let claims = read(claims)?;
    let age_ms = now_ms.saturating_sub(claims.issued_ms);
    if age_ms > GRANT_TTL_MS {
        return Err(GrantError::Expired { age_ms });
    }
    let ahead_ms = claims.issued_ms.saturating_sub(now_ms);
    if ahead_ms > GRANT_SKEW_MS {
        return Err(GrantError::FromFuture { ahead_ms });
    }
    Ok(claims)
}

fn read(claims: &Bytes) -> Result<GrantClaims, GrantError> {
    cluster::decode(claims).map_err(|error| GrantError::Malformed(error.to_string()))
}

fn hmac_key(key: &ClusterKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &key.secret)
}

#[cfg(test)]
mod tests {
    use throng_protocol::ids::{AppId, GroupId, UserId, UserNumber};

    use throng_protocol::cluster::Permissions;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn key(id: u32) -> ClusterKey {
        ClusterKey {
            id,
            secret: [u8::try_from(id).unwrap(); 32],
        }
    }

    fn claims() -> GrantClaims {
        GrantClaims {
            app: AppId::new("app").unwrap(),
            group: GroupId::new("group").unwrap(),
            user: UserId::new("ann").unwrap(),
            number: UserNumber(7),
            version: 3,
            since: 2,
            issued_ms: NOW,
            muted_until: 0,
            fenced: 2,
            permissions: Permissions::EVERYONE,
        }
    }

    #[test]
    fn a_sealed_grant_is_taken_until_it_is_too_old() {
        let grant = seal(&key(1), &claims());
        let keys = [key(1), key(2)];
        assert_eq!(verify(&keys, &grant, NOW + GRANT_TTL_MS), Ok(claims()));
        assert_eq!(
            verify(&keys, &grant, NOW + GRANT_TTL_MS + 1),
            Err(GrantError::Expired {
                age_ms: GRANT_TTL_MS + 1
            })
        );
        assert_eq!(verify(&keys, &grant, NOW - GRANT_SKEW_MS), Ok(claims()));
        assert_eq!(
            verify(&keys, &grant, NOW - GRANT_SKEW_MS - 1),
            Err(GrantError::FromFuture {
                ahead_ms: GRANT_SKEW_MS + 1
            })
        );
    }

    #[test]
    fn a_changed_grant_and_one_of_another_key_are_refused() {
        let mut grant = seal(&key(1), &claims());
        assert_eq!(verify(&[key(2)], &grant, NOW), Err(GrantError::KeyUnknown(1)));
        let stranger = ClusterKey {
            id: 1,
            secret: [9; 32],
        };
        assert_eq!(verify(&[stranger], &grant, NOW), Err(GrantError::SealBroken));
        let mut changed = claims();
        changed.number = UserNumber(8);
        grant.claims = cluster::encode(&changed);
        assert_eq!(verify(&[key(1)], &grant, NOW), Err(GrantError::SealBroken));
    }
}
