//! Nodes, servers and clients for the tests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use throng_protocol::cluster::PeerId;
use throng_protocol::frame;
use throng_protocol::ids::{EdgeId, NodeId};
use throng_transport::cluster::{LaneReader, LaneWriter};
use throng_transport::dev_ca::DevCa;
use throng_transport::{
    BindError, ClientEndpoint, ClusterConnection, ClusterEndpoint, ClusterTls, FrameReader, FrameWriter,
    HandshakeError, Limits, Link, ServerEndpoint, ServerTls, Trust,
};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

/// Long enough for a busy machine; no test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const CORE_1: PeerId = PeerId::Core(NodeId(1));
pub const CORE_2: PeerId = PeerId::Core(NodeId(2));
pub const EDGE_1: PeerId = PeerId::Edge(EdgeId(1));

pub fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A server, a client that trusts it, and links between them on demand.
pub struct Pair {
    pub server: ServerEndpoint,
    pub client: ClientEndpoint,
    pub addr: SocketAddr,
    pub folder: TempDir,
}

impl Pair {
    pub fn new() -> Self {
        Self::bound(ServerEndpoint::bind)
    }

    /// One with the worker that edges have, and one with quinn's endpoint, which says what is right.
    pub fn both() -> [Self; 2] {
        [Self::new(), Self::bound(ServerEndpoint::bind_quinn)]
    }

    fn bound(bind: impl FnOnce(SocketAddr, &ServerTls, Limits) -> Result<ServerEndpoint, BindError>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = DevCa::open(folder.path()).unwrap().server("edge", &[]).unwrap();
        let tls = ServerTls::load(&files.cert, &files.key).unwrap();
        let server = bind(local(), &tls, Limits::default()).unwrap();
        let client = ClientEndpoint::new(&Trust::ca_file(&files.ca).unwrap()).unwrap();
        let addr = server.local_addr().unwrap();
        Self {
            server,
            client,
            addr,
            folder,
        }
    }

    /// Both ends of a new link: the client's and the server's.
    pub async fn link(&self) -> (Arc<dyn Link>, Arc<dyn Link>) {
        let accept = async {
            self.server
                .accept()
                .await
                .unwrap()
                .finish(PATIENCE)
                .await
                .unwrap()
        };
        let (client, server) = tokio::join!(self.client.connect(self.addr, "localhost"), accept);
        (client.unwrap(), server)
    }
}

/// A server that finishes every handshake and echoes one frame on each link.
pub struct Server {
    pub endpoint: Arc<ServerEndpoint>,
    pub addr: SocketAddr,
    pub trust: Trust,
    pub tls: ServerTls,
    failed: Mutex<mpsc::Receiver<HandshakeError>>,
    _folder: TempDir,
}

impl Server {
    pub fn start(limits: Limits, handshake: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = DevCa::open(folder.path()).unwrap().server("edge", &[]).unwrap();
        let tls = ServerTls::load(&files.cert, &files.key).unwrap();
        let endpoint = Arc::new(ServerEndpoint::bind(local(), &tls, limits).unwrap());
        let (failure, failed) = mpsc::channel(1_000);
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            while let Some(taken) = accepting.accept().await {
                let failure = failure.clone();
                tokio::spawn(async move {
                    match taken.finish(handshake).await {
                        Ok(link) => echo_once(link).await,
                        Err(error) => failure.send(error).await.unwrap(),
                    }
                });
            }
        });
        Self {
            addr: endpoint.local_addr().unwrap(),
            trust: Trust::ca_file(&files.ca).unwrap(),
            failed: Mutex::new(failed),
            tls,
            endpoint,
            _folder: folder,
        }
    }

    /// A client that keeps the rules connects, is answered, and leaves.
    pub async fn serves_an_honest_client(&self) {
        let client = ClientEndpoint::new(&self.trust).unwrap();
        let link = client.connect(self.addr, "localhost").await.unwrap();
        let (send, recv) = link.open_bi().await.unwrap();
        let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(recv));
        writer.write_one(frame::encode(9, b"hello")).await.unwrap();
        let back = timeout(PATIENCE, reader.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(back.payload, b"hello"[..]);
        link.close(0, "");
        client.wait_idle().await;
    }

    /// The next handshake that fails.
    pub async fn failed(&self) -> HandshakeError {
        timeout(PATIENCE, self.failed.lock().await.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Waits until the server has nothing more to send to anybody.
    pub async fn idle(&self) {
        timeout(PATIENCE, self.endpoint.wait_idle()).await.unwrap();
    }
}

async fn echo_once(link: Arc<dyn Link>) {
    let Ok((send, recv)) = link.accept_bi().await else {
        return;
    };
    let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(recv));
    if let Ok(Some(frame)) = reader.next().await {
        let _ = writer.write_one(frame::encode(frame.kind, &frame.payload)).await;
    }
    link.closed().await;
}

/// Loads a node's certificate from a development CA.
pub fn node_tls(folder: &Path, peer: PeerId, cluster: &str) -> ClusterTls {
    let files = DevCa::open(folder).unwrap().node(peer, cluster).unwrap();
    ClusterTls::load(&files.ca, &files.cert, &files.key, cluster).unwrap()
}

pub fn node(folder: &Path, peer: PeerId, cluster: &str) -> Arc<ClusterEndpoint> {
    Arc::new(ClusterEndpoint::bind(local(), &node_tls(folder, peer, cluster)).unwrap())
}

/// Both ends of a new connection between two nodes of cluster `dev`, and their endpoints.
pub struct Nodes {
    pub one: Arc<ClusterEndpoint>,
    _two: Arc<ClusterEndpoint>,
    pub from_one: ClusterConnection,
    pub at_two: ClusterConnection,
    _folder: TempDir,
}

impl Nodes {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (
            node(folder.path(), EDGE_1, "dev"),
            node(folder.path(), CORE_2, "dev"),
        );
        let accept = async { two.accept().await.unwrap().finish(PATIENCE).await.unwrap() };
        let (from_one, at_two) = tokio::join!(one.connect(two.local_addr().unwrap(), CORE_2), accept);
        Self {
            from_one: from_one.unwrap(),
            at_two,
            one,
            _two: two,
            _folder: folder,
        }
    }

    /// A lane of kind 7: the ends of one and of two.
    pub async fn lane(&self) -> ((LaneWriter, LaneReader), (LaneWriter, LaneReader)) {
        let (opened, accepted) = tokio::join!(self.from_one.open_lane(7), self.at_two.accept_lane());
        let (kind, writer, reader) = accepted.unwrap();
        assert_eq!(kind, 7);
        (opened.unwrap(), (writer, reader))
    }
}
