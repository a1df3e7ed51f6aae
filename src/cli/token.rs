//! `throng token`: a development token for a user, signed with the app's secret.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use throng_protocol::cluster::{AppKey, TokenAlgorithm};
use throng_protocol::ids::{AppId, UserId};
use throng_server_api::token;

use super::cluster_file::ClusterFile;
use super::failure::Failure;

/// The key id `up` registers an app's secret under.
pub const KEY_ID: &str = "1";

/// How long a token of the tools lives: the length of a long test. Back ends choose their own,
/// up to the limit in SPEC.md.
pub const LIFETIME: Duration = Duration::from_secs(12 * 3_600);

/// Signs a token for `user`.
pub fn sign(cluster: &ClusterFile, user: &str, lifetime: Duration) -> Result<String, Failure> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let failed = |why: String| {
        Failure::new(
            format!("the token cannot be signed: {why}"),
            "throng token",
            "correct the name of the user",
        )
    };
    let app = AppId::new(&cluster.app_id).map_err(|error| failed(error.to_string()))?;
    let user = UserId::new(user).map_err(|error| failed(error.to_string()))?;
    let key = AppKey {
        kid: KEY_ID.to_owned(),
        algorithm: TokenAlgorithm::Hs256,
        material: Bytes::copy_from_slice(cluster.app_secret.as_bytes()),
    };
    token::sign(&key, &app, &user, now, now + lifetime.as_secs()).map_err(failed)
}

/// Prints a token for a user of a cluster.
pub fn run(dir: &Path, user: &str, seconds: u64) -> Result<(), Failure> {
    let cluster = ClusterFile::read(dir)?;
    super::tell::say(sign(&cluster, user, Duration::from_secs(seconds))?);
    Ok(())
}
