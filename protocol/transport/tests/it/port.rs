//! A port with several workers: clients are divided among them, and stay with theirs wherever they move.

use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;
use throng_protocol::frame;
use throng_transport::dev_ca::DevCa;
use throng_transport::{
    BindError, ClientEndpoint, ConnectError, FrameReader, FrameWriter, Limits, Link, LinkClosed,
    ServerEndpoint, ServerPort, ServerTls, Trust,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::{PATIENCE, local};

/// A port whose workers take everybody and echo frames; who took a client is told.
struct Port {
    addr: SocketAddr,
    endpoints: Vec<Arc<ServerEndpoint>>,
    taken: mpsc::Receiver<(usize, Arc<dyn Link>)>,
    trust: Trust,
    tls: ServerTls,
    _folder: TempDir,
}

impl Port {
    fn start(workers: usize, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = DevCa::open(folder.path()).unwrap().server("edge", &[]).unwrap();
        let tls = ServerTls::load(&files.cert, &files.key).unwrap();
        let port = ServerPort::bind(local(), &tls, limits, workers).unwrap();
        let (addr, (tell, taken)) = (port.local_addr(), mpsc::channel(64));
        let workers = port.into_workers().into_iter().enumerate();
        let endpoints = workers.map(|(number, worker)| {
            let endpoint = Arc::new(worker.listen().unwrap());
            tokio::spawn(take(number, Arc::clone(&endpoint), tell.clone()));
            endpoint
        });
        Self {
            addr,
            endpoints: endpoints.collect(),
            taken,
            trust: Trust::ca_file(&files.ca).unwrap(),
            tls,
            _folder: folder,
        }
    }

    /// A client on a socket of its own, and which worker took it.
    async fn client(&mut self) -> (Client, usize, Arc<dyn Link>) {
        let endpoint = ClientEndpoint::new(&self.trust).unwrap();
        let link = endpoint.connect(self.addr, "localhost").await.unwrap();
        let (send, recv) = link.open_bi().await.unwrap();
        let client = Client {
            endpoint,
            writer: FrameWriter::new(send),
            reader: FrameReader::new(recv),
            link,
        };
        let (worker, server) = timeout(PATIENCE, self.taken.recv()).await.unwrap().unwrap();
        (client, worker, server)
    }
}

async fn take(worker: usize, endpoint: Arc<ServerEndpoint>, tell: mpsc::Sender<(usize, Arc<dyn Link>)>) {
    while let Some(handshake) = endpoint.accept().await {
        let tell = tell.clone();
        tokio::spawn(async move {
            let Ok(link) = handshake.finish(PATIENCE).await else {
                return;
            };
            tell.send((worker, Arc::clone(&link))).await.unwrap();
            let Ok((send, recv)) = link.accept_bi().await else {
                return;
            };
            let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(recv));
            while let Ok(Some(frame)) = reader.next().await {
                let echo = frame::encode(frame.kind, &frame.payload);
                if writer.write_one(echo).await.is_err() {
                    return;
                }
            }
        });
    }
}

struct Client {
    endpoint: ClientEndpoint,
    writer: FrameWriter,
    reader: FrameReader,
    link: Arc<dyn Link>,
}

impl Client {
    async fn is_echoed(&mut self, payload: &[u8]) {
        self.writer.write_one(frame::encode(9, payload)).await.unwrap();
        let back = timeout(PATIENCE, self.reader.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(back.payload, payload);
    }
}

#[tokio::test]
async fn clients_that_move_stay_with_their_workers() {
    let mut port = Port::start(4, Limits::default());
    let mut clients = Vec::new();
    for _ in 0..24 {
        clients.push(port.client().await);
    }
    let mut of_each = [0; 4];
    for (_, worker, _) in &clients {
        of_each[*worker] += 1;
    }
    assert!(
        of_each.iter().filter(|clients| **clients > 0).count() > 1,
        "one worker has all clients: {of_each:?}"
    );
    // With each move a client's packets come to its worker's socket in one of four cases only.
    for round in 0_u8..4 {
        for (client, _, server) in &mut clients {
            let moved = client.endpoint.rebind().unwrap();
            client.is_echoed(&[round; 100]).await;
            assert_eq!(server.remote_address().port(), moved.port());
        }
    }
    assert_eq!(port.endpoints[0].open_connections(), clients.len());
    let counts = port.endpoints[0].handed();
    assert!(counts.handed > 0 && counts.lost == 0, "{counts:?}");
}

#[tokio::test]
async fn the_limits_are_those_of_the_port() {
    let limits = Limits {
        connections_max: 3,
        ..Limits::default()
    };
    let mut port = Port::start(3, limits);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(port.client().await);
    }
    let addr = port.addr;
    let refused = ConnectError::Closed {
        addr,
        reason: LinkClosed::Refused,
    };
    // Whichever worker they come to.
    for _ in 0..8 {
        let client = ClientEndpoint::new(&port.trust).unwrap();
        assert_eq!(client.connect(addr, "localhost").await.unwrap_err(), refused);
    }
    let (client, ..) = clients.pop().unwrap();
    client.link.close(0, "");
    client.endpoint.wait_idle().await;
    drop(client);
    // The server's side of it is over a moment later.
    let again = async {
        loop {
            let client = ClientEndpoint::new(&port.trust).unwrap();
            match client.connect(addr, "localhost").await {
                Ok(_) => return,
                Err(error) => assert_eq!(error, refused),
            }
        }
    };
    timeout(PATIENCE, again).await.unwrap();
    port.endpoints[1].refuse_new();
    clients.truncate(1);
    for _ in 0..8 {
        let client = ClientEndpoint::new(&port.trust).unwrap();
        assert_eq!(client.connect(addr, "localhost").await.unwrap_err(), refused);
    }
    assert!(port.endpoints.iter().all(|endpoint| {
        let counts = endpoint.handshakes();
        counts == port.endpoints[0].handshakes() && counts.refused >= 16
    }));
}

#[tokio::test]
async fn a_port_that_is_served_is_refused_to_others() {
    let port = Port::start(2, Limits::default());
    for workers in 1..4 {
        let error = ServerPort::bind(port.addr, &port.tls, Limits::default(), workers).unwrap_err();
        assert!(
            matches!(error, BindError::InUse { addr } if addr == port.addr),
            "{error}"
        );
    }
}

#[tokio::test]
async fn clients_of_a_process_that_is_gone_are_told_by_whoever_serves_the_port_now() {
    // A process that is killed says nothing: its sockets are gone, and its clients go on.
    let killed = Runtime::new().unwrap();
    let mut port = {
        let _inside = killed.enter();
        Port::start(3, Limits::default())
    };
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(port.client().await);
    }
    killed.shutdown_background();
    let (addr, tls) = (port.addr, &port.tls);
    let freed = async {
        loop {
            match ServerPort::bind(addr, tls, Limits::default(), 3) {
                Ok(port) => return port,
                Err(error) => assert!(matches!(error, BindError::InUse { .. }), "{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    let served = timeout(PATIENCE, freed).await.unwrap();
    let workers = served.into_workers().into_iter();
    let _endpoints: Vec<_> = workers.map(|worker| worker.listen().unwrap()).collect();
    for (client, ..) in &mut clients {
        // Too late for one that has been told already.
        let _ = client.writer.write_one(frame::encode(9, b"hello")).await;
        let closed = timeout(PATIENCE, client.link.closed()).await.unwrap();
        assert_eq!(closed, LinkClosed::Lost("the peer has restarted".to_owned()));
    }
}
