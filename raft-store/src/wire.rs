//! Raft's messages between nodes, as bytes: `[version u8][postcard]`, and behind the head of an
//! append the entries as the log writes them, so that a command is copied, never encoded.
//!
//! The shapes are ours, not openraft's: its types may gain fields between versions, and positional
//! formats do not forgive that. Which shard a message is for, how it travels and the snapshot stream
//! itself ([`SpooledSnapshot::chunks`](crate::SpooledSnapshot::chunks)) are the caller's business.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId as _;
use serde::{Deserialize, Serialize};

use crate::entry::{self, EntryError};
use crate::types::{LogId, TypeConfig, Vote, log_id};

/// The version of this module's bytes.
pub const WIRE_VERSION: u8 = 1;

/// Entries accepted in one append: above anything a leader sends (`max_payload_entries`).
const ENTRIES_MAX: u32 = 65_536;

/// Bytes are not a message of this module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another build sent them.
    #[error("a Raft message has version {0}, this build speaks {WIRE_VERSION}")]
    Version(u8),
    /// They are not what their version says.
    #[error("a Raft message is malformed: {0}")]
    Malformed(String),
}

impl From<postcard::Error> for WireError {
    fn from(error: postcard::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<EntryError> for WireError {
    fn from(error: EntryError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// What one node asks another.
#[derive(Debug, Clone)]
pub enum Request {
    /// A candidate asks for a vote.
    Vote(VoteRequest<TypeConfig>),
    /// A candidate-to-be asks whether it would get one.
    PreVote(VoteRequest<TypeConfig>),
    /// A leader sends entries; without entries, a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A leader hands its office over.
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// A leader sends a snapshot; its chunks follow.
    Snapshot(Vote),
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To `Vote` and `PreVote`.
    Vote(VoteResponse<TypeConfig>),
    /// To `Append`: the last entry that matches now, or why not.
    Append(Result<Option<LogId>, StreamAppendError<TypeConfig>>),
    /// To `TransferLeader`.
    TransferLeader(Result<(), TransferLeaderError<TypeConfig>>),
    /// To `Snapshot`, when it is installed.
    Snapshot(SnapshotResponse<TypeConfig>),
    /// To any request.
    Refused(Refusal),
}

/// Why a replica does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The node has no replica of the shard (yet).
    #[error("the node has no replica of this shard")]
    UnknownShard,
    /// The replica has stopped: its store has failed, or a record is damaged.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
    /// The request could not be used.
    #[error("the request is not usable: {0}")]
    Malformed(String),
}

#[derive(Serialize, Deserialize)]
struct At {
    term: u64,
    index: u64,
}

#[derive(Serialize, Deserialize)]
struct Ballot {
    term: u64,
    node: u64,
    committed: bool,
}

#[derive(Serialize, Deserialize)]
struct Candidacy {
    vote: Ballot,
    last: Option<At>,
    transfer: bool,
}

/// New variants go to the end: postcard numbers them by their order.
#[derive(Serialize, Deserialize)]
enum RequestHead {
    Vote(Candidacy),
    PreVote(Candidacy),
    Append {
        vote: Ballot,
        prev: Option<At>,
        commit: Option<At>,
        entries: u32,
    },
    TransferLeader {
        from: Ballot,
        to: u64,
        last: Option<At>,
    },
    Snapshot(Ballot),
}

/// New variants go to the end.
#[derive(Serialize, Deserialize)]
enum ResponseHead {
    Vote {
        vote: Ballot,
        granted: bool,
        last: Option<At>,
    },
    Matched(Option<At>),
    Conflict(At),
    HigherVote(Ballot),
    TransferAccepted,
    TransferVoteChanged {
        expected: Ballot,
        actual: Ballot,
    },
    TransferLogNotFlushed {
        expected: Option<At>,
        actual: Option<At>,
    },
    Snapshot(Ballot),
    Refused(Refusal),
}

impl From<LogId> for At {
    fn from(id: LogId) -> Self {
        Self {
            term: id.leader_id.term,
            index: id.index,
        }
    }
}

impl From<At> for LogId {
    fn from(at: At) -> Self {
        log_id(at.term, at.index)
    }
}

impl From<Vote> for Ballot {
    fn from(vote: Vote) -> Self {
        Self {
            term: vote.leader_id.term(),
            node: *vote.leader_id.node_id(),
            committed: vote.committed,
        }
    }
}

impl From<Ballot> for Vote {
    fn from(ballot: Ballot) -> Self {
        if ballot.committed {
            Self::new_committed(ballot.term, ballot.node)
        } else {
            Self::new(ballot.term, ballot.node)
        }
    }
}

impl From<&VoteRequest<TypeConfig>> for Candidacy {
    fn from(request: &VoteRequest<TypeConfig>) -> Self {
        Self {
            vote: request.vote.into(),
            last: request.last_log_id.map(At::from),
            transfer: request.leadership_transfer,
        }
    }
}

impl From<Candidacy> for VoteRequest<TypeConfig> {
    fn from(candidacy: Candidacy) -> Self {
        let mut request = Self::new(candidacy.vote.into(), candidacy.last.map(LogId::from));
        request.leadership_transfer = candidacy.transfer;
        request
    }
}

fn head(value: &impl Serialize) -> BytesMut {
    let bytes = postcard::to_extend(value, vec![WIRE_VERSION])
        .expect("invariant: these types hold no sequences of unknown length");
    BytesMut::from(&bytes[..])
}

fn split_version(bytes: &[u8]) -> Result<&[u8], WireError> {
    match bytes {
        [WIRE_VERSION, rest @ ..] => Ok(rest),
        [version, ..] => Err(WireError::Version(*version)),
        [] => Err(WireError::Malformed("it is empty".to_owned())),
    }
}

fn nothing_left(rest: &[u8]) -> Result<(), WireError> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(WireError::Malformed(format!(
        "{} bytes are left over",
        rest.len()
    )))
}

impl Request {
    /// The request as bytes.
    pub fn encode(&self) -> Bytes {
        let (request_head, entries) = match self {
            Self::Vote(request) => (RequestHead::Vote(request.into()), &[][..]),
            Self::PreVote(request) => (RequestHead::PreVote(request.into()), &[][..]),
            Self::Append(append) => {
                let head = RequestHead::Append {
                    vote: append.vote.into(),
                    prev: append.prev_log_id.map(At::from),
                    commit: append.leader_commit.map(At::from),
                    entries: u32::try_from(append.entries.len()).unwrap_or(u32::MAX),
                };
                (head, &append.entries[..])
            }
            Self::TransferLeader(request) => {
                let head = RequestHead::TransferLeader {
                    from: (*request.from_leader()).into(),
                    to: *request.to_node_id(),
                    last: request.last_log_id().copied().map(At::from),
                };
                (head, &[][..])
            }
            Self::Snapshot(vote) => (RequestHead::Snapshot((*vote).into()), &[][..]),
        };
        let mut bytes = head(&request_head);
        for entry in entries {
            let entry = entry::encode(entry);
            bytes.put_u32(u32::try_from(entry.len()).unwrap_or(u32::MAX));
            bytes.put_slice(&entry);
        }
        bytes.freeze()
    }

    /// Reads a request; commands share the memory of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let (request_head, rest) = postcard::take_from_bytes(split_version(bytes)?)?;
        let request = match request_head {
            RequestHead::Vote(candidacy) => Self::Vote(candidacy.into()),
            RequestHead::PreVote(candidacy) => Self::PreVote(candidacy.into()),
            RequestHead::Append {
                vote,
                prev,
                commit,
                entries,
            } => {
                return Ok(Self::Append(AppendEntriesRequest {
                    vote: vote.into(),
                    prev_log_id: prev.map(LogId::from),
                    entries: decode_entries(bytes.slice_ref(rest), entries)?,
                    leader_commit: commit.map(LogId::from),
                }));
            }
            RequestHead::TransferLeader { from, to, last } => {
                Self::TransferLeader(TransferLeaderRequest::new(from.into(), to, last.map(LogId::from)))
            }
            RequestHead::Snapshot(vote) => Self::Snapshot(vote.into()),
        };
        nothing_left(rest)?;
        Ok(request)
    }
}

fn decode_entries(mut bytes: Bytes, count: u32) -> Result<Vec<crate::types::Entry>, WireError> {
    if count > ENTRIES_MAX {
        return Err(WireError::Malformed(format!("it announces {count} entries")));
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        if bytes.len() < 4 {
            return Err(WireError::Malformed("it ends between entries".to_owned()));
        }
        let len = usize::try_from(bytes.get_u32()).unwrap_or(usize::MAX);
        if bytes.len() < len {
            return Err(WireError::Malformed("it ends inside an entry".to_owned()));
        }
        entries.push(entry::decode(bytes.split_to(len))?);
    }
    nothing_left(&bytes)?;
    Ok(entries)
}

impl Response {
    /// The response as bytes.
    pub fn encode(&self) -> Bytes {
        let response_head = match self {
            Self::Vote(response) => ResponseHead::Vote {
                vote: response.vote.into(),
                granted: response.vote_granted,
                last: response.last_log_id.map(At::from),
            },
            Self::Append(Ok(matched)) => ResponseHead::Matched(matched.map(At::from)),
            Self::Append(Err(StreamAppendError::Conflict(at))) => ResponseHead::Conflict((*at).into()),
            Self::Append(Err(StreamAppendError::HigherVote(vote))) => {
                ResponseHead::HigherVote((*vote).into())
            }
            Self::TransferLeader(Ok(())) => ResponseHead::TransferAccepted,
            Self::TransferLeader(Err(TransferLeaderError::VoteChanged { expected, actual })) => {
                ResponseHead::TransferVoteChanged {
                    expected: (*expected).into(),
                    actual: (*actual).into(),
                }
            }
            Self::TransferLeader(Err(TransferLeaderError::LogNotFlushed { expected, actual })) => {
                ResponseHead::TransferLogNotFlushed {
                    expected: expected.map(At::from),
                    actual: actual.map(At::from),
                }
            }
            Self::Snapshot(response) => ResponseHead::Snapshot(response.vote.into()),
            Self::Refused(refusal) => ResponseHead::Refused(refusal.clone()),
        };
        head(&response_head).freeze()
    }

    /// Reads a response.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (response_head, rest) = postcard::take_from_bytes(split_version(bytes)?)?;
        nothing_left(rest)?;
        Ok(match response_head {
            ResponseHead::Vote { vote, granted, last } => {
                let vote: Vote = vote.into();
                Self::Vote(VoteResponse::new(vote, last.map(LogId::from), granted))
            }
            ResponseHead::Matched(matched) => Self::Append(Ok(matched.map(LogId::from))),
            ResponseHead::Conflict(at) => Self::Append(Err(StreamAppendError::Conflict(at.into()))),
            ResponseHead::HigherVote(vote) => Self::Append(Err(StreamAppendError::HigherVote(vote.into()))),
            ResponseHead::TransferAccepted => Self::TransferLeader(Ok(())),
            ResponseHead::TransferVoteChanged { expected, actual } => {
                Self::TransferLeader(Err(TransferLeaderError::VoteChanged {
                    expected: expected.into(),
                    actual: actual.into(),
                }))
            }
            ResponseHead::TransferLogNotFlushed { expected, actual } => {
                Self::TransferLeader(Err(TransferLeaderError::LogNotFlushed {
                    expected: expected.map(LogId::from),
                    actual: actual.map(LogId::from),
                }))
            }
            ResponseHead::Snapshot(vote) => Self::Snapshot(SnapshotResponse::new(vote.into())),
            ResponseHead::Refused(refusal) => Self::Refused(refusal),
        })
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
