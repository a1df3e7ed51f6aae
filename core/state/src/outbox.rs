//! The outbox: the one way a shard tells another something.
//!
//! A record is committed with its cause and numbered densely from 1 for each pair of source and
//! target: the receiver takes exactly the number behind the last one it has, which a numbering over
//! all targets would not allow it to check. The leader sends from the store, in order, until the
//! target has committed; what was acknowledged is deleted. This module refuses to know who sends.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::ChannelInfo;
use throng_protocol::ids::Epoch;

use crate::codec::{self, DecodeError};

/// The version written before a delivery that travels by itself.
const VERSION: u8 = 1;

/// What one shard tells another. Variants are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// To a message shard: begin the log of a channel.
    OpenChannel {
        /// The channel.
        info: ChannelInfo,
        /// The incarnation its log begins with.
        epoch: Epoch,
    },
}

impl Delivery {
    /// The delivery as it travels between shards, opaque to the wire.
    pub fn encode(&self) -> Bytes {
        codec::encode(VERSION, self)
    }

    /// Reads a delivery that came over the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(VERSION, bytes)
    }
}
