//! The back end of the simulated app: it registers the app's key and signs tokens.

use std::sync::Arc;

use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use throng_client::{TokenError, TokenSource, token_fn};
use throng_protocol::cluster::{AppKey, TokenAlgorithm};

use crate::history::User;
use crate::host::EPOCH_MS;
use crate::net::Network;

/// The app's id.
pub const APP: &str = "sim";
const KEY_ID: &str = "1";
const SECRET: &[u8] = b"the secret of the simulated app, known to all";
/// Tokens are from a while ago, so that an edge whose clock is behind takes them.
const ISSUED_BEFORE_S: u64 = 60;
/// Longer than any run.
const LIFETIME_S: u64 = 3_600;

#[derive(Serialize)]
struct Claims {
    app: &'static str,
    sub: String,
    iat: u64,
    exp: u64,
}

/// The app's key.
pub fn key() -> AppKey {
    AppKey {
        kid: KEY_ID.to_owned(),
        algorithm: TokenAlgorithm::Hs256,
        material: Bytes::from_static(SECRET),
    }
}

/// Where a user's tokens come from.
pub fn source(net: &Network, user: User) -> Arc<dyn TokenSource> {
    let net = net.clone();
    token_fn(move || std::future::ready(sign(&net, user)))
}

fn sign(net: &Network, user: User) -> Result<String, TokenError> {
    let iat = (EPOCH_MS + net.now() / 1_000) / 1_000 - ISSUED_BEFORE_S;
    let claims = Claims {
        app: APP,
        sub: user.to_string(),
        iat,
        exp: iat + LIFETIME_S,
    };
    let header = Header {
        kid: Some(KEY_ID.to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    let key = EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&header, &claims, &key).map_err(|error| TokenError(error.to_string()))
}
