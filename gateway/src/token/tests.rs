use bytes::Bytes;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use super::*;

const NOW_S: u64 = 1_700_000_000;
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

#[derive(Serialize, Clone)]
struct Payload {
    app: &'static str,
    sub: &'static str,
    iat: u64,
    exp: u64,
}

const GOOD: Payload = Payload {
    app: "app",
    sub: "ann",
    iat: NOW_S,
    exp: NOW_S + 3_600,
};

fn signed(algorithm: Algorithm, kid: Option<&str>, payload: &impl Serialize, secret: &[u8]) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, payload, &EncodingKey::from_secret(secret)).unwrap()
}

fn token(payload: &Payload) -> String {
    signed(Algorithm::HS256, Some("1"), payload, SECRET)
}

fn checked(token: &str) -> Result<Verified, Refused> {
    let (app, kid) = addressed(token)?;
    let key = AppKey {
        kid,
        algorithm: TokenAlgorithm::Hs256,
        material: Bytes::from_static(SECRET),
    };
    judge(token, app, &key, NOW_S * 1_000)
}

#[track_caller]
fn assert_refused(token: &str, code: Code) {
    assert_eq!(checked(token).map_err(|refused| refused.code), Err(code));
}

#[test]
fn a_good_token_names_app_user_and_expiry() {
    let verified = checked(&token(&GOOD)).unwrap();
    assert_eq!((verified.app.as_str(), verified.user.as_str()), ("app", "ann"));
    assert_eq!(verified.expires_ms, (NOW_S + 3_600) * 1_000);
}

#[test]
fn a_wrong_signature_another_algorithm_or_none_is_refused() {
    assert_refused(
        &signed(Algorithm::HS256, Some("1"), &GOOD, b"another secret"),
        Code::TokenInvalid,
    );
    assert_refused(
        &signed(Algorithm::HS384, Some("1"), &GOOD, SECRET),
        Code::TokenInvalid,
    );
    assert_refused(&signed(Algorithm::HS256, None, &GOOD, SECRET), Code::TokenInvalid);
    // {"alg":"none","kid":"1"}, the claims of a good token, no signature.
    let good = token(&GOOD);
    let claims = good.split('.').nth(1).unwrap();
    let none = format!("eyJhbGciOiJub25lIiwia2lkIjoiMSJ9.{claims}.");
    assert_refused(&none, Code::TokenInvalid);
    for rubbish in ["", "a", "a.b.c", "....", &good[..good.len() - 5]] {
        assert_refused(rubbish, Code::TokenInvalid);
    }
}

#[test]
fn an_expired_token_is_told_so_but_only_if_it_was_good() {
    let expiring = |exp| {
        token(&Payload {
            iat: NOW_S - 60,
            exp,
            ..GOOD
        })
    };
    assert_refused(&expiring(NOW_S - TOKEN_LEEWAY_S), Code::TokenExpired);
    assert!(checked(&expiring(NOW_S + 1)).is_ok());
    // Whoever cannot sign is not told that the time is over.
    let foreign = Payload {
        exp: NOW_S - 60,
        ..GOOD
    };
    assert_refused(
        &signed(Algorithm::HS256, Some("1"), &foreign, b"x"),
        Code::TokenInvalid,
    );
}

#[test]
fn a_token_from_the_future_or_of_too_long_a_life_is_refused() {
    let issued = |iat, exp| token(&Payload { iat, exp, ..GOOD });
    assert!(checked(&issued(NOW_S + TOKEN_LEEWAY_S, NOW_S + 60)).is_ok());
    assert_refused(
        &issued(NOW_S + TOKEN_LEEWAY_S + 1, NOW_S + 60),
        Code::TokenInvalid,
    );
    assert!(checked(&issued(NOW_S, NOW_S + TOKEN_LIFETIME_MAX_S)).is_ok());
    assert_refused(
        &issued(NOW_S, NOW_S + TOKEN_LIFETIME_MAX_S + 1),
        Code::TokenInvalid,
    );
}

#[test]
fn a_token_without_a_claim_or_with_a_name_out_of_range_is_refused() {
    #[derive(Serialize)]
    struct NoSub {
        app: &'static str,
        iat: u64,
        exp: u64,
    }
    let no_sub = NoSub {
        app: "app",
        iat: NOW_S,
        exp: NOW_S + 60,
    };
    assert_refused(
        &signed(Algorithm::HS256, Some("1"), &no_sub, SECRET),
        Code::TokenInvalid,
    );
    assert_refused(&token(&Payload { sub: "", ..GOOD }), Code::TokenInvalid);
    assert_refused(&token(&Payload { app: "", ..GOOD }), Code::TokenInvalid);
}
