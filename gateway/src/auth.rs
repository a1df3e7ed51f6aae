//! Tokens: short-lived JWTs that an app's back end signs, verified once per connection.
//!
//! What a token is and when it is good is in [`crate::token`]; here is where the keys come from.

use std::sync::Arc;

use throng_protocol::cluster::{AppKey, Reply, Request};
use throng_protocol::code::Code;
use throng_protocol::ids::AppId;
use tokio::time::{Instant, timeout_at};

use crate::cache::{Cache, Coalesce};
use crate::limits::{APP_KEYS_INTERVAL_MIN, APP_KEYS_TTL, APPS_MAX};
use crate::refused::Refused;
use crate::token::{Verified, addressed, judge, key_of};
use crate::upstream::{Deadline, Upstream};

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
        let key = key_of(&held.keys, &app, &kid)?;
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
