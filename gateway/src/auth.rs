//! Tokens: short-lived JWTs that an app's back end signs, verified once per connection.
//!
//! Header: `alg` and `kid`. Claims: `app` (the app's id), `sub` (the user), `iat` and `exp` in seconds.
//! The key decides the algorithm, not the token. No claim is believed before the signature is
//! verified; `app` and `kid` only choose which key that is done with.

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use throng_protocol::cluster::{AppKey, Reply, Request, TokenAlgorithm};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, UserId};
use tokio::time::{Instant, timeout_at};

use crate::cache::{Cache, Coalesce};
use crate::limits::{APP_KEYS_INTERVAL_MIN, APP_KEYS_TTL, APPS_MAX, TOKEN_LEEWAY_S, TOKEN_LIFETIME_MAX_S};
use crate::refused::Refused;
use crate::upstream::{Deadline, Upstream};

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub app: AppId,
    pub user: UserId,
    pub expires_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Claims {
    app: String,
    sub: String,
    iat: u64,
    exp: u64,
}

#[derive(Debug, Clone)]
struct HeldKeys {
    keys: Arc<[AppKey]>,
    read: Instant,
}

/// Verifies tokens with the keys of their apps.
#[derive(Debug)]
pub(crate) struct Auth {
    upstream: Arc<Upstream>,
    apps: Cache<AppId, HeldKeys>,
    /// Apps that were not known, and when: whoever invents one is not asked for again at once.
    unknown: Cache<AppId, Instant>,
    asked: Coalesce<AppId, Result<Option<HeldKeys>, Refused>>,
}

impl Auth {
    pub fn new(upstream: Arc<Upstream>) -> Self {
        Self {
            upstream,
            apps: Cache::new(APPS_MAX),
            unknown: Cache::new(APPS_MAX),
            asked: Coalesce::default(),
        }
    }

    /// Verifies a token at a time.
    pub async fn verify(&self, token: &str, now_ms: u64, by: Deadline) -> Result<Verified, Refused> {
        let (app, kid) = addressed(token)?;
        let mut held = self.keys(&app, APP_KEYS_TTL, by).await?;
        if !held.keys.iter().any(|key| key.kid == kid) {
            // A key that was added a moment ago; asked for at most so often, whoever invents ids.
            held = self.keys(&app, APP_KEYS_INTERVAL_MIN, by).await?;
        }
        let key = held.keys.iter().find(|key| key.kid == kid);
        let key = key.ok_or_else(|| invalid(format!("app {app} has no key {kid:?}")))?;
        judge(token, app, key, now_ms)
    }

    async fn keys(
        &self,
        app: &AppId,
        age_max: std::time::Duration,
        by: Deadline,
    ) -> Result<HeldKeys, Refused> {
        if let Some(held) = self.apps.get(app).filter(|held| held.read.elapsed() < age_max) {
            return Ok(held);
        }
        let missed = self.unknown.get(app);
        if missed.is_some_and(|since| since.elapsed() < APP_KEYS_INTERVAL_MIN) {
            return Err(unknown(app));
        }
        let (upstream, asked_app) = (Arc::clone(&self.upstream), app.clone());
        let asked = self.asked.ask(app.clone(), || async move {
            let request = Request::App { app: asked_app };
            match upstream.call_any(&request, Deadline::start()).await? {
                Reply::App(keys) => Ok(keys.map(|keys| HeldKeys {
                    keys: keys.into(),
                    read: Instant::now(),
                })),
                other => Err(Refused::unexpected(&other)),
            }
        });
        match timeout_at(by.at(), asked).await {
            Ok(Some(Ok(Some(held)))) => {
                self.apps.insert(app.clone(), held.clone());
                Ok(held)
            }
            Ok(Some(Ok(None))) => {
                self.apps.remove(app);
                self.unknown.insert(app.clone(), Instant::now());
                Err(unknown(app))
            }
            Ok(Some(Err(refused))) => Err(refused),
            Ok(None) | Err(_) => Err(Refused::unavailable("the app's keys could not be read in time")),
        }
    }
}

fn unknown(app: &AppId) -> Refused {
    Refused::new(Code::AppUnknown, format!("app {app} is not known here"))
}

fn invalid(text: impl Into<String>) -> Refused {
    Refused::new(Code::TokenInvalid, text)
}

/// Which app and key a token says it is of; nothing of it is verified yet.
fn addressed(token: &str) -> Result<(AppId, String), Refused> {
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
fn judge(token: &str, app: AppId, key: &AppKey, now_ms: u64) -> Result<Verified, Refused> {
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
