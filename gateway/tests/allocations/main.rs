//! What a delivery allocates at an edge: nothing that bare quinn would not for the same packet, and
//! nothing that its own carrier would not with nobody to fan out for.
//!
//! The edge, or a server that only writes, has a thread of its own, whose allocations are counted while
//! messages go out one by one. Counted for two audiences, the difference is what a delivery allocates;
//! what a message allocates, whoever gets it, cancels out.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "the edge's other tests use more of it")]
#[path = "../edge/client.rs"]
mod client;
#[path = "../edge/rights.rs"]
mod rights;
#[expect(dead_code, reason = "the edge's other tests use more of it")]
#[path = "../edge/stand_in.rs"]
mod stand_in;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use throng_transport::dev_ca::DevCa;
use throng_transport::settings::CLIENT_ACK_DATAGRAMS;
use throng_transport::{
    BindError, ClientEndpoint, FrameWriter, Limits, Link, ServerEndpoint, ServerTls, Trust,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::stand_in::Edge;

/// Audiences, the difference of which is counted.
const AUDIENCES: [usize; 2] = [10, 40];
/// Messages before those that count: lanes are opened, buffers have grown.
const WARM_UP: u64 = 50;
/// Messages that count.
const MESSAGES: u64 = 200;
const CHANNEL: u64 = 7;
const BODY: [u8; 256] = [b'x'; 256];
/// Allocations a delivery that are not of deliveries: timers that fire meanwhile, tables that grow.
const NOISE: f64 = 0.25;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// What a server did while messages went out.
#[derive(Clone, Copy)]
struct Counted {
    allocations: u64,
    /// Datagrams that its clients sent: how many acknowledgements there are is the clients' affair, and
    /// more of them come when the machine is busy.
    received: u64,
}

/// The clients' ends of links.
type Links = Arc<Mutex<Vec<Arc<dyn Link>>>>;

fn sent_by(links: &Links) -> Vec<u64> {
    let links = links.lock();
    links.iter().map(|link| link.stats().packets_sent).collect()
}

/// Waits until each client has sent something since. After so many datagrams a client acknowledges at once:
/// the next message then finds nothing on its way, as in a quiet channel, and never what the scheduler left
/// there.
async fn acknowledged(links: &Links, since: &mut [u64]) {
    // Without an allocation: how often it looks is chance.
    let all_have = |since: &[u64]| {
        let links = links.lock();
        links
            .iter()
            .zip(since)
            .all(|(link, since)| link.stats().packets_sent > *since)
    };
    while !all_have(since) {
        tokio::task::yield_now().await;
    }
    let links = links.lock();
    for (link, since) in links.iter().zip(since) {
        *since = link.stats().packets_sent;
    }
}

/// Counts on this thread while `send` sends each message and everybody gets it.
fn counted(
    runtime: &Runtime,
    audience: usize,
    taken: &mut mpsc::Receiver<()>,
    links: &Links,
    mut send: impl FnMut(u64),
) -> Counted {
    let mut all = |messages: std::ops::Range<u64>| {
        runtime.block_on(async {
            let mut since = sent_by(links);
            for message in messages {
                send(message);
                for _ in 0..audience {
                    taken.recv().await.unwrap();
                }
                if message.is_multiple_of(u64::from(CLIENT_ACK_DATAGRAMS)) {
                    acknowledged(links, &mut since).await;
                }
            }
        });
    };
    all(1..1 + WARM_UP);
    let before: u64 = sent_by(links).iter().sum();
    let info = allocation_counter::measure(|| all(1 + WARM_UP..1 + WARM_UP + MESSAGES));
    Counted {
        allocations: info.count_total,
        received: sent_by(links).iter().sum::<u64>() - before,
    }
}

/// Runs clients on a thread of their own; they end with it.
fn beside<F: Future<Output = ()> + 'static>(clients: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || runtime().block_on(clients()));
}

fn of_the_edge(audience: usize) -> Counted {
    let runtime = runtime();
    let edge = Arc::new(runtime.block_on(Edge::with_workers(1)));
    let (ready, mut is_ready) = mpsc::channel(1);
    let (took, mut taken) = mpsc::channel(audience);
    let (edge_of_clients, links) = (Arc::clone(&edge), Links::default());
    let of_clients = Arc::clone(&links);
    beside(move || async move {
        let mut clients = Vec::new();
        for number in 0..audience {
            let mut client = Client::open(&edge_of_clients, &format!("user-{number}")).await;
            client.subscribe(CHANNEL, None).await;
            of_clients.lock().push(Arc::clone(&client.link));
            clients.push(client);
        }
        ready.send(()).await.unwrap();
        let each = clients.into_iter().map(|mut client| {
            let took = took.clone();
            async move {
                // Ends with the receiver of what is told.
                loop {
                    client.delivery().await;
                    if took.send(()).await.is_err() {
                        return;
                    }
                }
            }
        });
        futures_util::future::join_all(each).await;
    });
    runtime.block_on(is_ready.recv()).unwrap();
    counted(&runtime, audience, &mut taken, &links, |message| {
        edge.core.append(CHANNEL, message, Bytes::from_static(&BODY));
    })
}

type Bind = fn(SocketAddr, &ServerTls, Limits) -> Result<ServerEndpoint, BindError>;

fn of_writes(bind: Bind, audience: usize) -> Counted {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let files = DevCa::open(folder.path()).unwrap().server("edge", &[]).unwrap();
    let tls = ServerTls::load(&files.cert, &files.key).unwrap();
    let local = "127.0.0.1:0".parse().unwrap();
    let server = {
        let _inside = runtime.enter();
        bind(local, &tls, Limits::default()).unwrap()
    };
    let addr = server.local_addr().unwrap();
    let (took, mut taken) = mpsc::channel(audience);
    let links = Links::default();
    let of_clients = Arc::clone(&links);
    beside(move || async move {
        let endpoint = ClientEndpoint::new(&Trust::ca_file(&files.ca).unwrap()).unwrap();
        let mut links = Vec::new();
        for _ in 0..audience {
            links.push(endpoint.connect(addr, "localhost").await.unwrap());
        }
        of_clients.lock().clone_from(&links);
        let each = links.iter().map(|link| read(link, took.clone()));
        futures_util::future::join_all(each).await;
    });
    let mut writers: Vec<(Arc<dyn Link>, FrameWriter)> = runtime.block_on(async {
        let mut writers = Vec::new();
        for _ in 0..audience {
            let handshake = server.accept().await.unwrap();
            let link = handshake.finish(Duration::from_secs(20)).await.unwrap();
            let writer = FrameWriter::new(link.open_uni().await.unwrap());
            writers.push((link, writer));
        }
        writers
    });
    counted(&runtime, audience, &mut taken, &links, |_| {
        let frame = Bytes::from_static(&BODY);
        for (_, writer) in &mut writers {
            assert!(writer.try_write(&mut [frame.clone()]).unwrap());
        }
    })
}

/// Tells of every message that a lane brings.
async fn read(link: &Arc<dyn Link>, took: mpsc::Sender<()>) {
    let (mut lane, mut buffer) = (link.accept_uni().await.unwrap(), BytesMut::new());
    while let Ok(true) = lane.read(&mut buffer, BODY.len()).await {
        while buffer.len() >= BODY.len() {
            let _ = buffer.split_to(BODY.len());
            if took.send(()).await.is_err() {
                return;
            }
        }
    }
}

/// What one delivery comes to.
struct Delivery {
    allocations: f64,
    received: f64,
}

impl Delivery {
    fn of(count: impl Fn(usize) -> Counted) -> Self {
        let [few, many] = AUDIENCES.map(count);
        let deliveries = (AUDIENCES[1] - AUDIENCES[0]) as f64 * MESSAGES as f64;
        let each = |few: u64, many: u64| (many as f64 - few as f64) / deliveries;
        Self {
            allocations: each(few.allocations, many.allocations),
            received: each(few.received, many.received),
        }
    }

    /// Allocations beside the one of each datagram that came in.
    fn own(&self) -> f64 {
        self.allocations - self.received
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} with {:.2} datagrams in",
            self.allocations, self.received
        )
    }
}

#[test]
fn a_delivery_allocates_nothing_beyond_its_packets() {
    let edge = Delivery::of(of_the_edge);
    let carrier = Delivery::of(|audience| of_writes(ServerEndpoint::bind, audience));
    let quinn = Delivery::of(|audience| of_writes(ServerEndpoint::bind_quinn, audience));
    let found =
        format!("allocations a delivery: edge {edge}, its carrier alone {carrier}, bare quinn {quinn}");
    eprintln!("{found}");
    assert!(
        carrier.received > 0.2 && carrier.own() > 0.25,
        "a delivery is acknowledged, and what is sent is kept until it is: {found}"
    );
    assert!(edge.own() <= carrier.own() + NOISE, "{found}");
    assert!(edge.own() <= quinn.own(), "{found}");
}
