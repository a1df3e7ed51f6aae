//! Raft's messages from other nodes, handed to the groups of this one.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use throng_protocol::cluster;
use throng_protocol::ids::{NodeId, ShardId};
use throng_raft_store::{SnapshotReceiver, StateReader};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::ShardHandle;
use super::wire::{RaftAnswer, RaftBody, RaftRequest};
use crate::limits::{APPEND_TIMEOUT, HEARTBEAT_ANSWER_TIMEOUT};
use crate::metrics::Metrics;

/// The groups of this node.
pub(crate) struct RaftServer {
    groups: HashMap<ShardId, Group>,
    draining: CancellationToken,
    metrics: Metrics,
}

struct Group {
    handle: ShardHandle,
    reader: StateReader,
    /// The snapshot that is on its way from each node; at most one, and a new one takes its place.
    incoming: Mutex<HashMap<NodeId, Incoming>>,
}

struct Incoming {
    receiver: SnapshotReceiver,
    bytes: u64,
}

impl RaftServer {
    /// No groups yet; leadership is not taken over once `draining`.
    pub fn new(draining: CancellationToken, metrics: Metrics) -> Self {
        Self {
            groups: HashMap::new(),
            draining,
            metrics,
        }
    }

    /// Adds a group. All are added before the first message is taken.
    pub fn add(&mut self, handle: &ShardHandle, reader: StateReader) {
        let group = Group {
            handle: handle.clone(),
            reader,
            incoming: Mutex::default(),
        };
        self.groups.insert(handle.shard(), group);
    }

    /// Answers one message.
    pub async fn answer(self: Arc<Self>, from: NodeId, request: Bytes) -> Bytes {
        let answer = match cluster::decode::<RaftRequest>(&request) {
            Ok(RaftRequest {
                body: RaftBody::Transfer(_),
                ..
            }) if self.draining.is_cancelled() => {
                RaftAnswer::Failed("this node is draining as well".to_owned())
            }
            Ok(request) => match self.groups.get(&request.shard) {
                Some(group) => group
                    .take(from, request.body)
                    .await
                    .unwrap_or_else(RaftAnswer::Failed),
                None => RaftAnswer::Failed(format!("shard {} is not on this node", request.shard)),
            },
            Err(error) => RaftAnswer::Failed(error.to_string()),
        };
        if matches!(answer, RaftAnswer::SnapshotInstalled { .. }) {
            self.metrics.snapshots_installed.inc();
        }
        cluster::encode(&answer)
    }
}

impl Group {
    async fn take(&self, from: NodeId, body: RaftBody) -> Result<RaftAnswer, String> {
        let raft = self.handle.raft();
        match body {
            RaftBody::Append(append) => {
                let request = AppendEntriesRequest::try_from(append)?;
                // Raft has the request from here on; it is only its answer that a held disk keeps, and
                // by then the leader has given the call up. What waits on must not fill the lane.
                let limit = if request.entries.is_empty() {
                    HEARTBEAT_ANSWER_TIMEOUT
                } else {
                    APPEND_TIMEOUT
                };
                let answer = tokio::time::timeout(limit, raft.append_entries(request)).await;
                let answer = answer.map_err(|_| "the disk did not sync in time".to_owned())?;
                let answer = answer.map_err(text)?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    self.handle.heard_leader();
                }
                Ok(RaftAnswer::Append(answer))
            }
            RaftBody::Vote(request) => raft.vote(request).await.map(RaftAnswer::Vote).map_err(text),
            RaftBody::PreVote(request) => raft.pre_vote(request).await.map(RaftAnswer::Vote).map_err(text),
            RaftBody::Transfer(request) => {
                let answer = raft.handle_transfer_leader(request).await;
                answer.map(RaftAnswer::Transfer).map_err(text)
            }
            RaftBody::SnapshotBegin => {
                let receiver = self.reader.receive_snapshot().map_err(text)?;
                let begun = Incoming { receiver, bytes: 0 };
                self.incoming.lock().await.insert(from, begun);
                Ok(RaftAnswer::SnapshotChunk)
            }
            RaftBody::SnapshotChunk { offset, bytes } => {
                let mut incoming = self.incoming.lock().await;
                let snapshot = incoming.get_mut(&from).ok_or("no snapshot has begun")?;
                if snapshot.bytes != offset {
                    return Err(format!(
                        "a chunk at {offset} came behind {} bytes",
                        snapshot.bytes
                    ));
                }
                snapshot.bytes += bytes.len() as u64;
                snapshot.receiver.write(bytes).await.map_err(text)?;
                Ok(RaftAnswer::SnapshotChunk)
            }
            RaftBody::SnapshotEnd { vote } => {
                let snapshot = self
                    .incoming
                    .lock()
                    .await
                    .remove(&from)
                    .ok_or("no snapshot has begun")?;
                let snapshot = snapshot.receiver.finish().await.map_err(text)?;
                let installed = raft.install_full_snapshot(vote, snapshot).await.map_err(text)?;
                Ok(RaftAnswer::SnapshotInstalled { vote: installed.vote })
            }
        }
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
