//! Tokens: who gets in, and how the others are told.

use jsonwebtoken::Algorithm;
use throng_protocol::message::Message;

use crate::client::{Client, claims, sign, token};
use crate::stand_in::{Edge, SECRET};
use std::sync::atomic::Ordering;

async fn refused_with(token: String, code: u16) {
    let edge = Edge::start().await;
    let mut bystander = Client::open(&edge, "bob").await;
    let mut client = Client::greet(&edge).await;
    match client.authenticate(token).await {
        Message::Error(error) => assert_eq!((error.request, error.code), (0, code), "{}", error.message),
        other => panic!("expected error {code}, heard {other:?}"),
    }
    client.expect_closed(code).await;
    bystander.ping().await;
}

#[tokio::test]
async fn what_is_no_token_is_refused_with_200() {
    refused_with("not a token".to_owned(), 200).await;
}

#[tokio::test]
async fn a_wrong_signature_is_refused_with_200() {
    refused_with(
        sign("1", Algorithm::HS256, &claims("app", "ann", 60), b"a guess"),
        200,
    )
    .await;
}

#[tokio::test]
async fn another_algorithm_than_the_keys_is_refused_with_200() {
    refused_with(
        sign("1", Algorithm::HS512, &claims("app", "ann", 60), SECRET),
        200,
    )
    .await;
}

#[tokio::test]
async fn an_unsigned_token_is_refused_with_200() {
    let good = token("ann");
    let claims = good.split('.').nth(1).unwrap();
    // {"alg":"none","kid":"1"}
    refused_with(format!("eyJhbGciOiJub25lIiwia2lkIjoiMSJ9.{claims}."), 200).await;
}

#[tokio::test]
async fn a_key_the_app_does_not_have_is_refused_with_200() {
    refused_with(
        sign("2", Algorithm::HS256, &claims("app", "ann", 60), SECRET),
        200,
    )
    .await;
}

#[tokio::test]
async fn an_expired_token_is_refused_with_201() {
    refused_with(
        sign("1", Algorithm::HS256, &claims("app", "ann", -60), SECRET),
        201,
    )
    .await;
}

#[tokio::test]
async fn a_token_of_a_foreign_app_is_refused_with_202() {
    refused_with(
        sign("1", Algorithm::HS256, &claims("elsewhere", "ann", 60), SECRET),
        202,
    )
    .await;
}

#[tokio::test]
async fn a_session_ends_with_201_when_its_token_does() {
    let edge = Edge::start().await;
    let mut client = Client::greet(&edge).await;
    let short = sign("1", Algorithm::HS256, &claims("app", "ann", 2), SECRET);
    assert!(matches!(client.authenticate(short).await, Message::Welcome(_)));
    client.expect_close(201).await;
}

#[tokio::test]
async fn an_app_that_is_not_known_is_not_asked_for_each_time() {
    let edge = Edge::start().await;
    for _ in 0..5 {
        let mut client = Client::greet(&edge).await;
        let foreign = sign("1", Algorithm::HS256, &claims("elsewhere", "ann", 60), SECRET);
        assert!(matches!(client.authenticate(foreign).await, Message::Error(error) if error.code == 202));
    }
    assert!(edge.core.apps.load(Ordering::SeqCst) < 5);
}
