//! A node's endpoint: listening, connecting, and the exchange of hellos.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls_pki_types::CertificateDer;
use throng_protocol::cluster::{self, ClusterHello, PeerId};

use crate::cluster::connection::ClusterConnection;
use crate::cluster::identity::{check_cluster_name, node_name, peer_in};
use crate::cluster::lane::{CONTROL_LANE, LaneReader, LaneWriter};
use crate::link::LinkClosed;
use crate::settings::{CLUSTER_CONNECT_TIMEOUT, INCOMING_BUFFER, INCOMING_BUFFER_TOTAL, cluster_transport};
use crate::socket::{self, BindError};
use crate::tls::{self, Identity, TlsError};

/// The versions of the cluster wire this build speaks.
pub const CLUSTER_VERSIONS: &[u16] = &[1];

/// Close codes of the connection before the hellos are through. Codes of later closes are the
/// users', and theirs are `throng_protocol::code` numbers, which end far below.
const CLOSE_VERSION: u32 = 0x1_0001;
const CLOSE_CLUSTER: u32 = 0x1_0002;
const CLOSE_PEER: u32 = 0x1_0003;
const CLOSE_HELLO: u32 = 0x1_0004;

/// First packets of nodes that wait to be accepted: a cluster has few nodes and edges.
const INCOMING_MAX: usize = 1_024;

/// TLS alert for a certificate whose name is not the one asked for (and nothing else in rustls but
/// unreadable certificates).
const ALERT_BAD_CERTIFICATE: u8 = 42;

/// A node's certificate, the CA of its cluster, and who the node is.
#[derive(Clone)]
pub struct ClusterTls {
    server: Arc<QuicServerConfig>,
    client: Arc<QuicClientConfig>,
    secret: Arc<[u8]>,
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
        let me = peer_in(identity.leaf(), cluster).map_err(|reason| TlsError::Identity {
            path: identity.cert_path().to_owned(),
            reason,
        })?;
        let (server, client) = tls::mutual_configs(&identity, tls::load_roots(ca)?, cluster::ALPN)?;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
            secret: Arc::from(identity.secret()),
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
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
    hello: Arc<Hello>,
    me: PeerId,
}

/// What this side says, and how it judges the other's.
#[derive(Debug)]
struct Hello {
    cluster: Arc<str>,
    versions: Vec<u16>,
}

/// Why connecting to a node failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterConnectError {
    /// The address cannot be used, or the endpoint is closed.
    #[error("cannot connect to {addr}: {reason}")]
    Start {
        /// The address.
        addr: SocketAddr,
        /// What quinn said.
        reason: String,
    },
    /// Nobody answered in time: the node is down, or UDP does not get through.
    #[error("no answer from {addr} within {CLUSTER_CONNECT_TIMEOUT:?}")]
    Timeout {
        /// The address.
        addr: SocketAddr,
    },
    /// Another node, or a node of another cluster, is at that address.
    #[error("{addr} is not {expected}: {reason}")]
    OtherPeer {
        /// The address.
        addr: SocketAddr,
        /// The name that was expected in the certificate.
        expected: String,
        /// What was found.
        reason: String,
    },
    /// One side's certificate is not of the other's CA, expired, or missing.
    #[error("{addr}: {reason}; both nodes need valid certificates of one CA")]
    Untrusted {
        /// The address.
        addr: SocketAddr,
        /// Which check failed.
        reason: String,
    },
    /// The peer is of another cluster, or takes this node for one.
    #[error("{addr} is of another cluster: {reason}")]
    OtherCluster {
        /// The address.
        addr: SocketAddr,
        /// What the peer said.
        reason: String,
    },
    /// No version in common: upgrade one step at a time.
    #[error("{addr} speaks no version in common: {reason}")]
    Version {
        /// The address.
        addr: SocketAddr,
        /// Which versions were offered.
        reason: String,
    },
    /// The connection ended otherwise.
    #[error("cannot connect to {addr}: {reason}")]
    Closed {
        /// The address.
        addr: SocketAddr,
        /// How it ended.
        reason: LinkClosed,
    },
}

/// Why a node that connected was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// It took too long.
    #[error("the handshake took longer than {0:?}")]
    Timeout(Duration),
    /// The TLS handshake failed, or the peer went away.
    #[error("the handshake failed: {0}")]
    Closed(#[from] LinkClosed),
    /// The certificate does not name one node of this cluster.
    #[error("{0}")]
    Peer(String),
    /// The peer is of another cluster by its hello.
    #[error("the peer says it is of cluster {0}")]
    OtherCluster(String),
    /// No version in common.
    #[error("the peer speaks versions {theirs:?}, this node {ours:?}")]
    Version {
        /// The peer's versions.
        theirs: Vec<u16>,
        /// This node's versions.
        ours: Vec<u16>,
    },
    /// The peer did not say hello as it must.
    #[error("no valid hello: {0}")]
    Hello(String),
}

impl ClusterEndpoint {
    /// Listens on an address, from which it connects as well. Must be called inside a tokio runtime.
    pub fn bind(addr: SocketAddr, tls: &ClusterTls) -> Result<Self, BindError> {
        Self::bind_with_versions(addr, tls, CLUSTER_VERSIONS.to_vec())
    }

    fn bind_with_versions(addr: SocketAddr, tls: &ClusterTls, versions: Vec<u16>) -> Result<Self, BindError> {
        let transport = cluster_transport();
        let mut server = quinn::ServerConfig::with_crypto(tls.server.clone());
        server
            .transport_config(transport.clone())
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
        let mut client = quinn::ClientConfig::new(tls.client.clone());
        client.transport_config(transport);
        let socket = socket::bind(addr)?;
        let endpoint = socket::endpoint(socket, Some(&tls.secret), Some(server))
            .map_err(|source| BindError::new(addr, source))?;
        let hello = Arc::new(Hello {
            cluster: tls.cluster.clone(),
            versions,
        });
        Ok(Self {
            endpoint,
            client,
            hello,
            me: tls.me,
        })
    }

    /// Who this node is.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// Where this endpoint listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
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
        let connection = self
            .endpoint
            .connect_with(self.client.clone(), addr, &name)
            .map_err(|error| ClusterConnectError::Start {
                addr,
                reason: error.to_string(),
            })?
            .await
            .map_err(|error| connect_error(addr, &name, error.into()))?;
        // TLS has compared one name; the certificate must have no second one.
        match peer_of(&connection, &self.hello.cluster) {
            Ok(peer) if peer == expected => {}
            Ok(_) => {
                let reason = "the certificate names another node".to_owned();
                return Err(refuse_peer(&connection, addr, name, reason));
            }
            Err(reason) => return Err(refuse_peer(&connection, addr, name, reason)),
        }
        match self.hello.say(&connection).await {
            Ok(version) => Ok(ClusterConnection::new(connection, expected, version)),
            Err(AcceptError::Closed(closed)) => Err(connect_error(addr, &name, closed)),
            Err(error) => {
                close_for(&connection, &error);
                Err(hello_error(addr, &error))
            }
        }
    }

    /// The next node that connects; `None` when the endpoint is closed. Finish each one in a task of
    /// its own. Cancel-safe.
    pub async fn accept(&self) -> Option<ClusterHandshake> {
        loop {
            let incoming = self.endpoint.accept().await?;
            // Fails for packets that are no handshake; there is nobody to tell.
            if let Ok(connecting) = incoming.accept() {
                return Some(ClusterHandshake {
                    connecting,
                    hello: self.hello.clone(),
                });
            }
        }
    }

    /// Closes all connections and ends [`Self::accept`].
    pub fn close(&self, code: u32, reason: &str) {
        self.endpoint.close(code.into(), reason.as_bytes());
    }

    /// Waits until all connections are gone, so that peers have heard of the close.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// A node that connects. Dropping it gives the connection up.
#[derive(Debug)]
pub struct ClusterHandshake {
    connecting: quinn::Connecting,
    hello: Arc<Hello>,
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
        let connection = self.connecting.await.map_err(LinkClosed::from)?;
        let answered = async {
            let peer = peer_of(&connection, &self.hello.cluster).map_err(AcceptError::Peer)?;
            Ok((peer, self.hello.answer(&connection).await?))
        };
        match answered.await {
            Ok((peer, version)) => Ok(ClusterConnection::new(connection, peer, version)),
            Err(error) => {
                close_for(&connection, &error);
                Err(error)
            }
        }
    }
}

impl Hello {
    /// The connecting side: speaks first.
    async fn say(&self, connection: &quinn::Connection) -> Result<u16, AcceptError> {
        let (send, recv) = connection.open_bi().await.map_err(LinkClosed::from)?;
        let writer = LaneWriter::start(Box::new(send), CONTROL_LANE).await;
        let mut writer = writer.map_err(|error| hello_failed(connection, &error))?;
        self.write(connection, &mut writer).await?;
        self.read(connection, &mut LaneReader::new(Box::new(recv))).await
    }

    /// The accepting side.
    async fn answer(&self, connection: &quinn::Connection) -> Result<u16, AcceptError> {
        let (send, recv) = connection.accept_bi().await.map_err(LinkClosed::from)?;
        let mut reader = LaneReader::new(Box::new(recv));
        let kind = reader
            .kind()
            .await
            .map_err(|error| hello_failed(connection, &error))?;
        if kind != CONTROL_LANE {
            return Err(AcceptError::Hello(format!("the first lane is of kind {kind}")));
        }
        let version = self.read(connection, &mut reader).await?;
        self.write(connection, &mut LaneWriter::answer(Box::new(send)))
            .await?;
        Ok(version)
    }

    async fn write(
        &self,
        connection: &quinn::Connection,
        writer: &mut LaneWriter,
    ) -> Result<(), AcceptError> {
        let hello = ClusterHello {
            versions: self.versions.clone(),
            cluster: self.cluster.to_string(),
        };
        let frame = cluster::encode(&hello);
        writer
            .write_one(frame)
            .await
            .map_err(|error| hello_failed(connection, &error))?;
        writer.finish();
        Ok(())
    }

    async fn read(
        &self,
        connection: &quinn::Connection,
        reader: &mut LaneReader,
    ) -> Result<u16, AcceptError> {
        let frame = reader
            .next()
            .await
            .map_err(|error| hello_failed(connection, &error))?;
        let frame = frame.ok_or_else(|| AcceptError::Hello("the control lane ended".to_owned()))?;
        let hello: ClusterHello =
            cluster::decode(&frame).map_err(|error| AcceptError::Hello(error.to_string()))?;
        if *hello.cluster != *self.cluster {
            return Err(AcceptError::OtherCluster(hello.cluster));
        }
        let common = self
            .versions
            .iter()
            .filter(|version| hello.versions.contains(version))
            .max();
        common.copied().ok_or_else(|| AcceptError::Version {
            theirs: hello.versions,
            ours: self.versions.clone(),
        })
    }
}

/// The node the peer's certificate names.
fn peer_of(connection: &quinn::Connection, cluster: &str) -> Result<PeerId, String> {
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain
        .as_deref()
        .and_then(|chain| chain.first())
        .ok_or("the peer has no certificate")?;
    peer_in(leaf, cluster)
}

/// A hello that failed with its stream: the connection's end says more, if it ended.
fn hello_failed(connection: &quinn::Connection, error: &dyn fmt::Display) -> AcceptError {
    match connection.close_reason() {
        Some(reason) => AcceptError::Closed(reason.into()),
        None => AcceptError::Hello(error.to_string()),
    }
}

fn close_for(connection: &quinn::Connection, error: &AcceptError) {
    let code = match error {
        AcceptError::Version { .. } => CLOSE_VERSION,
        AcceptError::OtherCluster(_) => CLOSE_CLUSTER,
        AcceptError::Peer(_) => CLOSE_PEER,
        AcceptError::Timeout(_) | AcceptError::Closed(_) | AcceptError::Hello(_) => CLOSE_HELLO,
    };
    connection.close(VarInt::from_u32(code), error.to_string().as_bytes());
}

fn refuse_peer(
    connection: &quinn::Connection,
    addr: SocketAddr,
    expected: String,
    reason: String,
) -> ClusterConnectError {
    connection.close(VarInt::from_u32(CLOSE_PEER), reason.as_bytes());
    ClusterConnectError::OtherPeer {
        addr,
        expected,
        reason,
    }
}

fn hello_error(addr: SocketAddr, error: &AcceptError) -> ClusterConnectError {
    let reason = error.to_string();
    match error {
        AcceptError::OtherCluster(_) => ClusterConnectError::OtherCluster { addr, reason },
        AcceptError::Version { .. } => ClusterConnectError::Version { addr, reason },
        _ => ClusterConnectError::Closed {
            addr,
            reason: LinkClosed::Lost(reason),
        },
    }
}

fn connect_error(addr: SocketAddr, expected: &str, closed: LinkClosed) -> ClusterConnectError {
    match closed {
        LinkClosed::TimedOut => ClusterConnectError::Timeout { addr },
        LinkClosed::Untrusted {
            alert: ALERT_BAD_CERTIFICATE,
            text,
        } => ClusterConnectError::OtherPeer {
            addr,
            expected: expected.to_owned(),
            reason: text,
        },
        LinkClosed::Untrusted { text, .. } => ClusterConnectError::Untrusted { addr, reason: text },
        LinkClosed::Peer {
            code: CLOSE_VERSION,
            reason,
        } => ClusterConnectError::Version { addr, reason },
        LinkClosed::Peer {
            code: CLOSE_CLUSTER,
            reason,
        } => ClusterConnectError::OtherCluster { addr, reason },
        LinkClosed::Peer {
            code: CLOSE_PEER,
            reason,
        } => ClusterConnectError::Untrusted { addr, reason },
        reason => ClusterConnectError::Closed { addr, reason },
    }
}
