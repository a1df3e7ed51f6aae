//! What a token is, and when it is good.
//!
//! Header: `alg` and `kid`. Claims: `app` (the app's id), `sub` (the user), `iat` and `exp` in seconds.
//! The key decides the algorithm, not the token. No claim is believed before the signature is
//! verified; `app` and `kid` only choose which key that is done with. Pure: the time and the keys come
//! in.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use throng_protocol::cluster::{AppKey, TokenAlgorithm};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, UserId};

use crate::limits::{TOKEN_LEEWAY_S, TOKEN_LIFETIME_MAX_S};
use crate::refused::Refused;

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The app.
    pub app: AppId,
    /// The user.
    pub user: UserId,
    /// The end of its life, Unix milliseconds.
    pub expires_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Claims {
    app: String,
    sub: String,
    iat: u64,
    exp: u64,
}

/// Verifies a token at a time with the keys of the app it names: what an edge does with the keys that
/// the cluster has, for tools and tests that have some of their own.
pub fn verify(token: &str, now_ms: u64, keys: impl FnOnce(&AppId) -> Vec<AppKey>) -> Result<Verified, Code> {
    let verified = addressed(token).and_then(|(app, kid)| {
        let keys = keys(&app);
        let key = key_of(&keys, &app, &kid)?;
        judge(token, app, key, now_ms)
    });
    verified.map_err(|refused| refused.code)
}

/// The key that a token names.
pub(crate) fn key_of<'a>(keys: &'a [AppKey], app: &AppId, kid: &str) -> Result<&'a AppKey, Refused> {
    let key = keys.iter().find(|key| key.kid == kid);
    key.ok_or_else(|| invalid(format!("app {app} has no key {kid:?}")))
}

fn invalid(text: impl Into<String>) -> Refused {
    Refused::new(Code::TokenInvalid, text)
}

/// Which app and key a token says it is of; nothing of it is verified yet.
pub(crate) fn addressed(token: &str) -> Result<(AppId, String), Refused> {
    let header = jsonwebtoken::decode_header(token).map_err(|error| {
        invalid(format!(
            "the token is not a JWT with a supported algorithm: {error}"
        ))
    })?;
    if header.alg != Algorithm::HS256 {
        return Err(invalid(format!(
            "tokens are signed with HS256, not {:?}",
            header.alg
        )));
    }
    let kid = header
        .kid
        .ok_or_else(|| invalid("the token's header has no kid"))?;
    let mut unchecked = validation();
    unchecked.insecure_disable_signature_validation();
    let claims = jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(&[]), &unchecked)
        .map_err(|error| invalid(format!("the token lacks app, sub, iat or exp: {error}")))?
        .claims;
    let app = AppId::new(&claims.app).map_err(|error| invalid(format!("the token's app: {error}")))?;
    Ok((app, kid))
}

/// Checks the signature with the one algorithm of the key, then the claims.
pub(crate) fn judge(token: &str, app: AppId, key: &AppKey, now_ms: u64) -> Result<Verified, Refused> {
    let (secret, validation) = match key.algorithm {
        TokenAlgorithm::Hs256 => (DecodingKey::from_secret(&key.material), validation()),
        other => return Err(invalid(format!("{other:?} is not supported by this edge"))),
    };
    let claims = jsonwebtoken::decode::<Claims>(token, &secret, &validation)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => invalid("the token's signature is wrong"),
            _ => invalid(format!("the token is not valid: {error}")),
        })?
        .claims;
    let now_s = now_ms / 1_000;
    if claims.exp <= now_s {
        return Err(Refused::new(
            Code::TokenExpired,
            "the token has expired; fetch a fresh one",
        ));
    }
    if claims.iat > now_s.saturating_add(TOKEN_LEEWAY_S) {
        return Err(invalid(
            "the token's iat lies in the future; check the clock of the back end",
        ));
    }
    if claims.exp.saturating_sub(claims.iat) > TOKEN_LIFETIME_MAX_S {
        return Err(invalid(format!(
            "the token lives longer than {TOKEN_LIFETIME_MAX_S} s"
        )));
    }
    let user = UserId::new(&claims.sub).map_err(|error| invalid(format!("the token's sub: {error}")))?;
    let expires_ms = claims.exp.saturating_mul(1_000);
    Ok(Verified {
        app,
        user,
        expires_ms,
    })
}

/// Signatures and shape only: times are judged by the edge's own clock.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

#[cfg(test)]
mod tests;
