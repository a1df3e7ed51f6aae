//! The keys of apps as they were confirmed a moment ago: a back end's requests are not each a question to the
//! leader of the meta shard, and a removed key is refused within that moment, also by a node that is cut
//! off, which can confirm nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use throng_protocol::cluster::ApiKey;
use throng_protocol::ids::AppId;

/// For how long an answer of the cluster stands.
pub const FRESH: Duration = Duration::from_secs(1);

/// Apps that are remembered at once: when there are more, all are asked for anew.
const APPS_MAX: usize = 1_024;

/// What was confirmed when.
#[derive(Debug, Default)]
pub struct KnownKeys(Mutex<HashMap<AppId, (Instant, Vec<ApiKey>)>>);

impl KnownKeys {
    /// An app's keys, if they were confirmed within [`FRESH`].
    pub fn get(&self, app: &AppId, now: Instant) -> Option<Vec<ApiKey>> {
        let known = self.0.lock();
        let (at, keys) = known.get(app)?;
        (now.saturating_duration_since(*at) < FRESH).then(|| keys.clone())
    }

    /// Remembers what was answered to a question that was asked at `asked`.
    pub fn put(&self, app: AppId, asked: Instant, keys: Vec<ApiKey>) {
        let mut known = self.0.lock();
        if known.len() >= APPS_MAX && !known.contains_key(&app) {
            known.clear();
        }
        known.insert(app, (asked, keys));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_confirmed_stands_for_a_moment() {
        let (known, now) = (KnownKeys::default(), Instant::now());
        let app = |number: usize| AppId::new(&format!("app-{number}")).unwrap();
        assert_eq!(known.get(&app(1), now), None);
        known.put(app(1), now, Vec::new());
        let last = now + FRESH - Duration::from_millis(1);
        assert_eq!(known.get(&app(1), last), Some(Vec::new()));
        assert_eq!(known.get(&app(1), now + FRESH), None);
        assert_eq!(known.get(&app(2), now), None);
        for number in 2..2 * APPS_MAX {
            known.put(app(number), now, Vec::new());
            assert!(known.0.lock().len() <= APPS_MAX);
        }
    }
}
