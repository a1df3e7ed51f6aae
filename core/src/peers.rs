//! Ways to other core nodes: their addresses, and lanes to them over the pool.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use throng_protocol::cluster::{self, Answer, ClusterDecodeError, PeerId, REQUEST_LANE, Request};
use throng_protocol::ids::NodeId;
use throng_protocol::placement::ClusterMap;
use throng_transport::{ClusterPool, PoolError, RpcClient, RpcError};

/// Why another node gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The map has no such node.
    #[error("node {0} is not in the map")]
    Unknown(NodeId),
    /// The node's address has no meaning here.
    #[error("the address {address} of node {node} cannot be resolved: {reason}")]
    Address {
        node: NodeId,
        address: String,
        reason: String,
    },
    /// There is no connection.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// There was one, and no answer came; the request may have been carried out.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The answer makes no sense.
    #[error(transparent)]
    Decode(#[from] ClusterDecodeError),
}

/// The other core nodes.
#[derive(Debug)]
pub(crate) struct Peers {
    pool: ClusterPool,
    addresses: RwLock<HashMap<NodeId, String>>,
}

impl Peers {
    /// Nodes reached through a pool, at the addresses of a map.
    pub fn new(pool: ClusterPool, map: &ClusterMap) -> Self {
        let peers = Self {
            pool,
            addresses: RwLock::default(),
        };
        peers.update(map);
        peers
    }

    /// Takes over the addresses of a newer map.
    pub fn update(&self, map: &ClusterMap) {
        let mut addresses = self.addresses.write();
        for node in &map.nodes {
            addresses.insert(node.id, node.address.clone());
        }
    }

    /// A client for a lane of a kind to a node.
    pub async fn rpc(&self, node: NodeId, lane: u8) -> Result<RpcClient, PeerError> {
        let address = self
            .addresses
            .read()
            .get(&node)
            .cloned()
            .ok_or(PeerError::Unknown(node))?;
        let resolved = resolve(node, address).await?;
        Ok(self.pool.rpc(PeerId::Core(node), resolved, lane).await?)
    }

    /// Sends bytes over a lane of a kind to a node and waits for the answer.
    pub async fn call(
        &self,
        node: NodeId,
        lane: u8,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let connected = tokio::time::timeout(timeout, self.rpc(node, lane)).await;
        let client = connected.map_err(|_| PeerError::Rpc(RpcError::Timeout))??;
        Ok(client.call(payload, timeout).await?)
    }

    /// Asks a node.
    pub async fn ask(&self, node: NodeId, request: &Request, timeout: Duration) -> Result<Answer, PeerError> {
        let answer = self
            .call(node, REQUEST_LANE, cluster::encode(request), timeout)
            .await?;
        Ok(cluster::decode(&answer)?)
    }
}

async fn resolve(node: NodeId, address: String) -> Result<SocketAddr, PeerError> {
    if let Ok(parsed) = address.parse() {
        return Ok(parsed);
    }
    let unresolved = |reason: String| PeerError::Address {
        node,
        address: address.clone(),
        reason,
    };
    let mut found = tokio::net::lookup_host(&address)
        .await
        .map_err(|error| unresolved(error.to_string()))?;
    found.next().ok_or_else(|| unresolved("no such host".to_owned()))
}
