//! `throng token`: a development token for a user, signed with the app's secret.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::cluster_file::ClusterFile;
use super::failure::Failure;

/// The key id `up` registers an app's secret under.
pub const KEY_ID: &str = "1";

/// How long a token of the tools lives: the length of a long test. Back ends choose their own,
/// up to the limit in SPEC.md.
pub const LIFETIME: Duration = Duration::from_secs(12 * 3_600);

#[derive(Serialize)]
struct Claims<'a> {
    app: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
}

/// Signs a token for `user`.
pub fn sign(cluster: &ClusterFile, user: &str, lifetime: Duration) -> Result<String, Failure> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let claims = Claims {
        app: &cluster.app_id,
        sub: user,
        iat: now,
        exp: now + lifetime.as_secs(),
    };
    let header = Header {
        kid: Some(KEY_ID.to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    let key = EncodingKey::from_secret(cluster.app_secret.as_bytes());
    jsonwebtoken::encode(&header, &claims, &key).map_err(|error| {
        Failure::new(
            format!("the token cannot be signed: {error}"),
            "throng token",
            "report it",
        )
    })
}

/// Prints a token for a user of a cluster.
pub fn run(dir: &Path, user: &str, seconds: u64) -> Result<(), Failure> {
    let cluster = ClusterFile::read(dir)?;
    super::tell::say(sign(&cluster, user, Duration::from_secs(seconds))?);
    Ok(())
}
