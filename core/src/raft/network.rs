//! How a shard's Raft group reaches the replicas on other nodes.

use std::sync::Arc;
use std::time::Duration;

use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend};
use throng_protocol::cluster;
use throng_protocol::ids::{NodeId, ShardId};
use throng_raft_store::{SnapshotData, TypeConfig};
use throng_transport::RpcError;

use super::wire::{
    APPEND_LANE, Append, HEARTBEAT_LANE, RaftAnswer, RaftBody, RaftRequest, SNAPSHOT_LANE, VOTE_LANE,
};
use crate::limits::{APPEND_TIMEOUT, SNAPSHOT_CHUNK_TIMEOUT, SNAPSHOT_INSTALL_TIMEOUT};
use crate::peers::{PeerError, Peers};

/// Makes the networks of one shard.
#[derive(Debug, Clone)]
pub(crate) struct NetworkFactory {
    shard: ShardId,
    me: NodeId,
    peers: Arc<Peers>,
}

impl NetworkFactory {
    pub fn new(shard: ShardId, me: NodeId, peers: Arc<Peers>) -> Self {
        Self { shard, me, peers }
    }

    fn to(&self, target: u64, append_lane: u8) -> Network {
        Network {
            from: self.clone(),
            target: NodeId(target),
            append_lane,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Network {
        self.to(target, APPEND_LANE)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _: &EmptyNode) -> Network {
        self.to(target, HEARTBEAT_LANE)
    }
}

/// The way to one replica.
#[derive(Debug)]
pub(crate) struct Network {
    from: NetworkFactory,
    target: NodeId,
    append_lane: u8,
}

impl Network {
    async fn call(
        &self,
        lane: u8,
        body: RaftBody,
        action: RPCTypes,
        timeout: Duration,
    ) -> Result<RaftAnswer, RPCError<TypeConfig>> {
        let shard = self.from.shard;
        let request = cluster::encode(&RaftRequest { shard, body });
        let answer = self.from.peers.call(self.target, lane, request, timeout).await;
        let answer = answer.map_err(|error| self.failed(error, action, timeout))?;
        match cluster::decode(&answer) {
            Ok(RaftAnswer::Failed(reason)) => Err(Unreachable::from_string(reason).into()),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Unreachable::new(&error).into()),
        }
    }

    /// What openraft should do about a failed call: try again at once when a connection was lost,
    /// after a pause when there is no way to the node.
    fn failed(&self, error: PeerError, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        match error {
            PeerError::Rpc(RpcError::Timeout) => Timeout {
                action,
                id: self.from.me.0,
                target: self.target.0,
                timeout,
            }
            .into(),
            PeerError::Rpc(RpcError::Lost) => NetworkError::new(&RpcError::Lost).into(),
            error => Unreachable::new(&error).into(),
        }
    }

    async fn send_snapshot(
        &self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        // First of all: a node that is away must not cost a copy of the state for every attempt.
        self.snapshot_part(RaftBody::SnapshotBegin, SNAPSHOT_CHUNK_TIMEOUT)
            .await?;
        let spooled = snapshot
            .snapshot
            .spool()
            .await
            .map_err(|error| Unreachable::new(&error))?;
        let mut chunks = spooled.chunks();
        let mut offset = 0;
        while let Some(bytes) = chunks.next().await.map_err(|error| Unreachable::new(&error))? {
            let next = offset + bytes.len() as u64;
            let chunk = RaftBody::SnapshotChunk { offset, bytes };
            self.snapshot_part(chunk, SNAPSHOT_CHUNK_TIMEOUT).await?;
            offset = next;
        }
        let end = RaftBody::SnapshotEnd { vote };
        match self.snapshot_part(end, SNAPSHOT_INSTALL_TIMEOUT).await? {
            RaftAnswer::SnapshotInstalled { vote } => Ok(SnapshotResponse::new(vote)),
            other => Err(unexpected(&other)),
        }
    }

    async fn snapshot_part(
        &self,
        body: RaftBody,
        timeout: Duration,
    ) -> Result<RaftAnswer, RPCError<TypeConfig>> {
        self.call(SNAPSHOT_LANE, body, RPCTypes::InstallSnapshot, timeout)
            .await
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let timeout = if self.append_lane == HEARTBEAT_LANE {
            // All of it: the answer waits for the follower's disk, and a read that a quorum must
            // confirm waits for the answer.
            option.hard_ttl()
        } else {
            APPEND_TIMEOUT
        };
        let body = RaftBody::Append(Append::from(&rpc));
        match self
            .call(self.append_lane, body, RPCTypes::AppendEntries, timeout)
            .await?
        {
            RaftAnswer::Append(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = RaftBody::Vote(rpc);
        match self
            .call(VOTE_LANE, body, RPCTypes::Vote, option.soft_ttl())
            .await?
        {
            RaftAnswer::Vote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = RaftBody::PreVote(rpc);
        match self
            .call(VOTE_LANE, body, RPCTypes::Vote, option.soft_ttl())
            .await?
        {
            RaftAnswer::Vote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            sent = self.send_snapshot(vote, snapshot) => Ok(sent?),
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = RaftBody::Transfer(request);
        match self
            .call(VOTE_LANE, body, RPCTypes::TransferLeader, option.soft_ttl())
            .await?
        {
            RaftAnswer::Transfer(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(answer: &RaftAnswer) -> RPCError<TypeConfig> {
    Unreachable::from_string(format!("the peer answered something else: {answer:?}")).into()
}
