//! What Raft groups of two nodes say to each other: postcard of these enums, over RPC lanes.
//!
//! Entries travel as the log stores them. The version is the connection's.

use bytes::Bytes;
use openraft::alias::{LogIdOf, VoteOf};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::CORE_LANES;
use throng_protocol::ids::ShardId;
use throng_raft_store::{TypeConfig, entry};

/// Entries on their way to a follower.
pub(super) const APPEND_LANE: u8 = CORE_LANES;
/// Heartbeats and the probes of linearizable reads.
pub(super) const HEARTBEAT_LANE: u8 = CORE_LANES + 1;
/// Votes, and the transfer of leadership.
pub(super) const VOTE_LANE: u8 = CORE_LANES + 2;
/// Snapshots.
pub(super) const SNAPSHOT_LANE: u8 = CORE_LANES + 3;

/// What nodes say of themselves, for all their shards.
pub(crate) const BEAT_LANE: u8 = CORE_LANES + 4;

/// Whether a lane carries Raft's messages.
pub(crate) fn is_raft_lane(kind: u8) -> bool {
    (APPEND_LANE..=SNAPSHOT_LANE).contains(&kind)
}

type Vote = VoteOf<TypeConfig>;
type LogId = LogIdOf<TypeConfig>;

/// A message to a replica of a shard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RaftRequest {
    pub shard: ShardId,
    pub body: RaftBody,
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RaftBody {
    Append(Append),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// A snapshot begins; one that was on its way from the same node is given up.
    SnapshotBegin,
    /// The bytes of it that come next.
    SnapshotChunk {
        offset: u64,
        bytes: Bytes,
    },
    /// It is complete.
    SnapshotEnd {
        vote: Vote,
    },
}

/// The answer to a [`RaftRequest`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RaftAnswer {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    Transfer(TransferLeaderResponse<TypeConfig>),
    SnapshotChunk,
    SnapshotInstalled {
        vote: Vote,
    },
    /// The replica cannot take it: it is not here, or has stopped, or the message makes no sense.
    Failed(String),
}

/// Entries, or none: a heartbeat.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Append {
    vote: Vote,
    prev: Option<LogId>,
    commit: Option<LogId>,
    entries: Vec<Bytes>,
}

impl From<&AppendEntriesRequest<TypeConfig>> for Append {
    fn from(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        Self {
            vote: request.vote,
            prev: request.prev_log_id,
            commit: request.leader_commit,
            entries: request.entries.iter().map(entry::encode).collect(),
        }
    }
}

impl TryFrom<Append> for AppendEntriesRequest<TypeConfig> {
    type Error = String;

    fn try_from(append: Append) -> Result<Self, String> {
        let decode = |bytes| entry::decode(bytes).map_err(|error| error.to_string());
        Ok(Self {
            vote: append.vote,
            prev_log_id: append.prev,
            leader_commit: append.commit,
            entries: append.entries.into_iter().map(decode).collect::<Result<_, _>>()?,
        })
    }
}
