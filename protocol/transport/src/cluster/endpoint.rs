//! A node's endpoint: listening, connecting, and the exchange of hellos.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use throng_protocol::cluster::{self, PeerId};

use crate::carrier::{Carrier, ConnectFailure, Established};
use crate::cluster::connection::ClusterConnection;
use crate::cluster::error::{
    AcceptError, CLOSE_PEER, ClusterConnectError, close_for, connect_error, hello_error,
};
use crate::cluster::hello::Hello;
use crate::cluster::identity::{check_cluster_name, dns_names, node_name, peer_among};
use crate::link::{Link, LinkClosed};
use crate::quic::QuicCarrier;
use crate::settings::{CLUSTER_CONNECT_TIMEOUT, INCOMING_BUFFER, INCOMING_BUFFER_TOTAL, cluster_transport};
use crate::socket::{self, BindError, ResetSecret};
use crate::tls::{self, Identity, TlsError};

/// The versions of the cluster wire this build speaks.
pub const CLUSTER_VERSIONS: &[u16] = &[1];

/// First packets of nodes that wait to be accepted: a cluster has few nodes and edges.
const INCOMING_MAX: usize = 1_024;

/// A node's certificate, the CA of its cluster, and who the node is.
#[derive(Clone)]
pub struct ClusterTls {
    server: Arc<QuicServerConfig>,
    client: Arc<QuicClientConfig>,
    secret: ResetSecret,
    cluster: Arc<str>,
    me: PeerId,
}

impl fmt::Debug for ClusterTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterTls")
            .field("cluster", &self.cluster)
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

impl ClusterTls {
    /// Loads the cluster's CA and this node's certificate and key from PEM files. Who the node is
    /// comes from the certificate.
    pub fn load(ca: &Path, cert: &Path, key: &Path, cluster: &str) -> Result<Self, TlsError> {
        check_cluster_name(cluster).map_err(TlsError::Config)?;
        let identity = Identity::load(cert, key)?;
        let wrong = |reason| TlsError::Identity {
            path: identity.cert_path().to_owned(),
            reason,
        };
        let names = dns_names(identity.leaf());
        let names = names.ok_or_else(|| wrong("the certificate cannot be parsed".to_owned()))?;
        let me = peer_among(&names, cluster).map_err(wrong)?;
        let (server, client) = tls::mutual_configs(&identity, tls::load_roots(ca)?, cluster::ALPN)?;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
            secret: identity.reset_secret(),
            cluster: Arc::from(cluster),
            me,
        })
    }

    /// Who this node is.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

/// One UDP socket on which a node listens and from which it connects.
#[derive(Debug)]
pub struct ClusterEndpoint {
    carrier: Arc<dyn Carrier>,
    hello: Arc<Hello>,
    me: PeerId,
}

impl ClusterEndpoint {
    /// Listens on an address, from which it connects as well. Must be called inside a tokio runtime.
    pub fn bind(addr: SocketAddr, tls: &ClusterTls) -> Result<Self, BindError> {
        Self::bind_with_versions(addr, tls, CLUSTER_VERSIONS.to_vec())
    }

    /// For tools and others that only connect: a socket on a free port that takes no connections.
    /// Must be called inside a tokio runtime.
    pub fn outgoing(tls: &ClusterTls) -> Result<Self, BindError> {
        Self::new(socket::bind_any()?, tls, CLUSTER_VERSIONS.to_vec(), None)
    }

    fn bind_with_versions(addr: SocketAddr, tls: &ClusterTls, versions: Vec<u16>) -> Result<Self, BindError> {
        let mut server = quinn::ServerConfig::with_crypto(tls.server.clone());
        server
            .transport_config(cluster_transport())
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
        Self::new(socket::bind(addr)?, tls, versions, Some(server))
    }

    fn new(
        socket: UdpSocket,
        tls: &ClusterTls,
        versions: Vec<u16>,
        server: Option<quinn::ServerConfig>,
    ) -> Result<Self, BindError> {
        let mut client = quinn::ClientConfig::new(tls.client.clone());
        client.transport_config(cluster_transport());
        let endpoint = socket::endpoint(socket, Some(&tls.secret), server)?;
        let carrier = Arc::new(QuicCarrier::new(endpoint, Some(client)));
        Ok(Self::speaking(carrier, tls.cluster.clone(), tls.me, versions))
    }

    /// An endpoint on a carrier, whose certificate says that this is `me` of `cluster`.
    pub fn over(carrier: Arc<dyn Carrier>, cluster: &str, me: PeerId) -> Self {
        Self::speaking(carrier, Arc::from(cluster), me, CLUSTER_VERSIONS.to_vec())
    }

    fn speaking(carrier: Arc<dyn Carrier>, cluster: Arc<str>, me: PeerId, versions: Vec<u16>) -> Self {
        Self {
            carrier,
            hello: Arc::new(Hello { cluster, versions }),
            me,
        }
    }

    /// Who this node is.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// Where this endpoint listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.carrier.local_addr()
    }

    /// Connects to a node; done when its certificate names exactly `expected` in this cluster, it
    /// has accepted this node's certificate, and a version is settled.
    pub async fn connect(
        &self,
        addr: SocketAddr,
        expected: PeerId,
    ) -> Result<ClusterConnection, ClusterConnectError> {
        match tokio::time::timeout(CLUSTER_CONNECT_TIMEOUT, self.connect_patiently(addr, expected)).await {
            Ok(result) => result,
            Err(_) => Err(ClusterConnectError::Timeout { addr }),
        }
    }

    async fn connect_patiently(
        &self,
        addr: SocketAddr,
        expected: PeerId,
    ) -> Result<ClusterConnection, ClusterConnectError> {
        let name = node_name(expected, &self.hello.cluster);
        let established = self.carrier.connect(addr, &name).await;
        let Established { link, names, .. } = established.map_err(|failure| match failure {
            ConnectFailure::Start(reason) => ClusterConnectError::Start { addr, reason },
            ConnectFailure::Closed(closed) => connect_error(addr, &name, closed),
        })?;
        // TLS has compared one name; the certificate must have no second one.
        match peer_among(&names, &self.hello.cluster) {
            Ok(peer) if peer == expected => {}
            Ok(_) => {
                let reason = "the certificate names another node".to_owned();
                return Err(refuse_peer(&*link, addr, name, reason));
            }
            Err(reason) => return Err(refuse_peer(&*link, addr, name, reason)),
        }
        match self.hello.say(&*link).await {
            Ok(version) => Ok(ClusterConnection::new(link, expected, version)),
            Err(AcceptError::Closed(closed)) => Err(connect_error(addr, &name, closed)),
            Err(error) => {
                close_for(&*link, &error);
                Err(hello_error(addr, &error))
            }
        }
    }

    /// The next node that connects; `None` when the endpoint is closed. Finish each one in a task of
    /// its own. Cancel-safe.
    pub async fn accept(&self) -> Option<ClusterHandshake> {
        loop {
            let incoming = self.carrier.accept().await?;
            if let Some(connecting) = incoming.accept() {
                return Some(ClusterHandshake {
                    connecting,
                    hello: self.hello.clone(),
                });
            }
        }
    }

    /// Closes all connections and ends [`Self::accept`].
    pub fn close(&self, code: u32, reason: &str) {
        self.carrier.close(code, reason);
    }

    /// Waits until all connections are gone, so that peers have heard of the close.
    pub async fn wait_idle(&self) {
        self.carrier.wait_idle().await;
    }
}

/// A node that connects. Dropping it gives the connection up.
pub struct ClusterHandshake {
    connecting: BoxFuture<'static, Result<Established, LinkClosed>>,
    hello: Arc<Hello>,
}

impl fmt::Debug for ClusterHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterHandshake").finish_non_exhaustive()
    }
}

impl ClusterHandshake {
    /// Waits for the end of the handshake and the hellos; the connection is closed on an error.
    pub async fn finish(self, timeout: Duration) -> Result<ClusterConnection, AcceptError> {
        match tokio::time::timeout(timeout, self.finish_patiently()).await {
            Ok(result) => result,
            Err(_) => Err(AcceptError::Timeout(timeout)),
        }
    }

    async fn finish_patiently(self) -> Result<ClusterConnection, AcceptError> {
        let Established { link, names, .. } = self.connecting.await?;
        let answered = async {
            let peer = peer_among(&names, &self.hello.cluster).map_err(AcceptError::Peer)?;
            Ok((peer, self.hello.answer(&*link).await?))
        };
        match answered.await {
            Ok((peer, version)) => Ok(ClusterConnection::new(link, peer, version)),
            Err(error) => {
                close_for(&*link, &error);
                Err(error)
            }
        }
    }
}

fn refuse_peer(link: &dyn Link, addr: SocketAddr, expected: String, reason: String) -> ClusterConnectError {
    link.close(CLOSE_PEER, &reason);
    ClusterConnectError::OtherPeer {
        addr,
        expected,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev_ca::DevCa;
    use throng_protocol::ids::NodeId;

    #[tokio::test]
    async fn the_newest_common_version_is_chosen_and_none_is_a_typed_error() {
        let folder = tempfile::tempdir().unwrap();
        let ca = DevCa::open(folder.path()).unwrap();
        let bind = |id, versions: &[u16]| {
            let files = ca.node(PeerId::Core(NodeId(id)), "dev").unwrap();
            let tls = ClusterTls::load(&files.ca, &files.cert, &files.key, "dev").unwrap();
            let local = SocketAddr::from(([127, 0, 0, 1], 0));
            ClusterEndpoint::bind_with_versions(local, &tls, versions.to_vec()).unwrap()
        };
        let patience = Duration::from_secs(20);
        for (ours, theirs, common) in [(&[1, 2, 3], &[2, 3, 4], Some(3)), (&[1, 2, 3], &[4, 5, 6], None)] {
            let (one, two) = (bind(1, ours), bind(2, theirs));
            let addr = two.local_addr().unwrap();
            let accept = async { two.accept().await.unwrap().finish(patience).await };
            let (connected, accepted) = tokio::join!(one.connect(addr, PeerId::Core(NodeId(2))), accept);
            match common {
                Some(version) => {
                    assert_eq!(
                        (connected.unwrap().version(), accepted.unwrap().version()),
                        (version, version)
                    );
                }
                None => {
                    assert!(
                        matches!(connected, Err(ClusterConnectError::Version { .. })),
                        "{connected:?}"
                    );
                    assert!(
                        matches!(accepted, Err(AcceptError::Version { .. })),
                        "{accepted:?}"
                    );
                }
            }
        }
    }
}
