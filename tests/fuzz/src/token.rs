//! Tokens: no text panics, and none is accepted that was not signed with the app's key for now.
//!
//! The input is `[mode][...]`: mode 0 takes the rest as a token; the others take it as
//! `header \n claims` and sign it, with the app's key (1), with another key (2), or with none (3).

use bytes::Bytes;
use ring::hmac;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use throng_gateway::token::verify;
use throng_protocol::cluster::{AppKey, TokenAlgorithm};
use throng_protocol::ids::AppId;

use crate::base64;

/// The secret of the one key there is.
pub const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
/// The id of that key.
pub const KID: &str = "1";
/// The app it is of.
pub const APP: &str = "app";
/// The time at which tokens are judged, Unix seconds.
pub const NOW_S: u64 = 1_700_000_000;

/// The longest life of a token and how far its `iat` may lie ahead, as SPEC.md has them.
const LIFETIME_MAX_S: u64 = 24 * 3_600;
const LEEWAY_S: u64 = 5;

/// Runs the target.
pub fn run(data: &[u8]) {
    is_accepted(data);
}

/// Runs the target; whether its token was accepted.
pub fn is_accepted(data: &[u8]) -> bool {
    let Some((&mode, rest)) = data.split_first() else {
        return false;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return false;
    };
    if mode % 4 == 0 {
        return judged(text);
    }
    let (header, claims) = text.split_once('\n').unwrap_or((text, "{}"));
    let signed = [header, claims]
        .map(|part| base64::encode(part.as_bytes()))
        .join(".");
    let signature = match mode % 4 {
        1 => sign(&signed, SECRET),
        2 => sign(&signed, b"another secret of thirty-two bytes"),
        _ => String::new(),
    };
    let accepted = judged(&format!("{signed}.{signature}"));
    assert!(!accepted || mode % 4 == 1, "accepted without the app's signature");
    accepted
}

/// Whether a token is accepted; checks everything that must hold of one that is.
fn judged(token: &str) -> bool {
    let verified = verify(token, NOW_S * 1_000 + 999, keys_of);
    let Ok(verified) = verified else {
        return false;
    };
    let (signed, signature) = token.rsplit_once('.').expect("a token has three parts");
    let (header, claims) = signed.split_once('.').expect("a token has three parts");
    assert_eq!(signature, sign(signed, SECRET), "the signature is not the key's");
    let header: Header = json(header);
    let claims: Claims = json(claims);
    assert_eq!((header.alg.as_str(), header.kid.as_str()), ("HS256", KID));
    assert_eq!((claims.app.as_str(), verified.app.as_str()), (APP, APP));
    assert_eq!(claims.sub, verified.user.as_str());
    assert!(claims.exp > NOW_S, "expired");
    assert!(claims.iat <= NOW_S + LEEWAY_S, "of the future");
    assert!(
        claims.exp.saturating_sub(claims.iat) <= LIFETIME_MAX_S,
        "lives too long"
    );
    assert_eq!(verified.expires_ms, claims.exp.saturating_mul(1_000));
    true
}

fn keys_of(app: &AppId) -> Vec<AppKey> {
    let key = AppKey {
        kid: KID.to_owned(),
        algorithm: TokenAlgorithm::Hs256,
        material: Bytes::from_static(SECRET),
    };
    if app.as_str() == APP {
        vec![key]
    } else {
        Vec::new()
    }
}

/// The signature of the two signed parts of a token.
pub fn sign(signed: &str, secret: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    base64::encode(hmac::sign(&key, signed.as_bytes()).as_ref())
}

/// What a token says of itself; anything else in it is nobody's business.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    app: String,
    sub: String,
    iat: u64,
    exp: u64,
}

fn json<T: DeserializeOwned>(part: &str) -> T {
    let bytes = base64::decode(part).expect("a signed part is base64");
    serde_json::from_slice(&bytes).expect("a signed part is JSON")
}
