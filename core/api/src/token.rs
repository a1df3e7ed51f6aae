//! Signing the tokens that clients authenticate with (SPEC.md, 3).

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use throng_protocol::cluster::AppKey;
use throng_protocol::ids::{AppId, UserId};

#[derive(Serialize)]
struct Claims<'a> {
    app: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
}

/// A token of a user, signed with an HS256 key of the app, for a time in Unix seconds.
pub fn sign(key: &AppKey, app: &AppId, user: &UserId, iat: u64, exp: u64) -> Result<String, String> {
    let claims = Claims {
        app: app.as_str(),
        sub: user.as_str(),
        iat,
        exp,
    };
    let header = Header {
        kid: Some(key.kid.clone()),
        ..Header::new(Algorithm::HS256)
    };
    let signed = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&key.material));
    signed.map_err(|error| error.to_string())
}
