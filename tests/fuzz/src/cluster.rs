//! The wire between nodes: whatever comes decodes or is refused, and what decodes is written and read
//! again as the same.
//!
//! The input is `[which type][bytes]`.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use throng_protocol::cluster::{
    Answer, ClusterHello, FeedEvent, FeedRequest, Grant, GrantClaims, Request, decode, encode,
};
use throng_protocol::placement::ClusterMap;

/// Runs the target.
pub fn run(data: &[u8]) {
    let Some((&which, bytes)) = data.split_first() else {
        return;
    };
    match which % 8 {
        0 => again::<Request>(bytes),
        1 => again::<Answer>(bytes),
        2 => again::<FeedRequest>(bytes),
        3 => again::<FeedEvent>(bytes),
        4 => again::<ClusterHello>(bytes),
        5 => again::<Grant>(bytes),
        6 => again::<GrantClaims>(bytes),
        _ => again::<ClusterMap>(bytes),
    }
}

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = decode::<T>(bytes) else {
        return;
    };
    let written = encode(&value);
    assert_eq!(decode::<T>(&written).as_ref(), Ok(&value));
    assert!(written.len() <= bytes.len(), "ours is the shortest form");
}
