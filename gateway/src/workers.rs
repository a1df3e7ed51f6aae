//! Who serves clients: one worker here, or several, each on a thread of its own.
//!
//! ```text
//!  port ─┬─ thread 0: socket ── its connections ── their sessions ── their rounds
//!        ├─ thread 1: socket ── …
//!        └─ …                             feeds, requests to the core: the edge's own runtime
//! ```
//!
//! A client's datagrams, its session and what is written to it belong to one worker for as long as it is
//! connected, wherever it moves. What a message needs once, whoever gets it, is the edge's: whoever reads its
//! feed tells each worker once that there is something to take, and the worker goes through its own sessions,
//! whose places no other worker writes to, and hands them its own copies of the frames. Knows threads, and refuses to know messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use prometheus_client::metrics::gauge::Gauge;
use throng_fanout::WorkerNumber;
use throng_transport::{HandedCounts, HandshakeCounts, PortWorker, ServerEndpoint, ServerPort};
use tokio::runtime::Builder;
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::GatewayError;
use crate::limits::FAREWELL;
use crate::listener;
use crate::session::Rounds;
use crate::shared::Shared;

/// What the clients of a worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Which one of the edge's.
    pub number: WorkerNumber,
    /// Serves what is delivered to them.
    pub rounds: Rounds,
    /// How many they are.
    pub connections: Gauge,
    /// What they were sent.
    pub delivered: Delivered,
}

/// What a worker has written to live lanes. Counted by each for itself, and added up when somebody asks:
/// a delivery touches nothing that other threads write to as often.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Delivered {
    pub fn add(&self, frames: usize, bytes: u64) {
        self.frames.fetch_add(frames as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a worker serves clients with.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub shared: Arc<Shared>,
    /// The tasks of all clients.
    pub clients: TaskTracker,
    pub stop: CancellationToken,
    pub handshake_timeout: Duration,
}

impl Serving {
    fn worker(&self, number: WorkerNumber, of: usize) -> Arc<Worker> {
        Arc::new(Worker {
            number,
            rounds: Rounds::new(number, of == 1),
            connections: self.shared.metrics.connections_of(number.0),
            delivered: Delivered::default(),
        })
    }

    /// Serves an endpoint until it is closed; deliveries end with `stop`.
    async fn serve(self, worker: Arc<Worker>, endpoint: Arc<ServerEndpoint>) {
        let delivering = Arc::clone(&worker);
        tokio::spawn(
            self.stop
                .run_until_cancelled_owned(async move { delivering.rounds.run().await }),
        );
        listener::run(
            self.shared,
            worker,
            endpoint,
            self.handshake_timeout,
            self.clients,
        )
        .await;
    }
}

/// The workers of an edge.
#[derive(Debug)]
pub(crate) struct Workers {
    endpoints: Vec<Arc<ServerEndpoint>>,
    workers: Vec<Arc<Worker>>,
}

impl Workers {
    /// One worker in the runtime this is called in.
    pub fn here(endpoint: ServerEndpoint, serving: Serving) -> Self {
        let (worker, endpoint) = (serving.worker(WorkerNumber(0), 1), Arc::new(endpoint));
        tokio::spawn(serving.serve(Arc::clone(&worker), Arc::clone(&endpoint)));
        Self {
            endpoints: vec![endpoint],
            workers: vec![worker],
        }
    }

    /// A thread for each worker of a port. They end when the workers are closed.
    pub fn on_threads(port: ServerPort, serving: &Serving) -> Result<Self, GatewayError> {
        let mut workers = Self {
            endpoints: Vec::new(),
            workers: Vec::new(),
        };
        let parts = port.into_workers();
        let of = parts.len();
        for (number, part) in (0..).map(WorkerNumber).zip(parts) {
            let worker = serving.worker(number, of);
            workers.workers.push(Arc::clone(&worker));
            match start(number, part, worker, serving.clone()) {
                Ok(endpoint) => workers.endpoints.push(endpoint),
                Err(error) => {
                    workers.close(0, "the edge does not start");
                    return Err(error);
                }
            }
        }
        Ok(workers)
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// Takes nobody new.
    pub fn refuse_new(&self) {
        self.endpoints.iter().for_each(|endpoint| endpoint.refuse_new());
    }

    /// What became of first packets: the workers of a port count together.
    pub fn handshakes(&self) -> HandshakeCounts {
        let first = self.endpoints.first();
        first.map_or_else(HandshakeCounts::default, |endpoint| endpoint.handshakes())
    }

    /// Frames and bytes written to live lanes.
    pub fn delivered(&self) -> (u64, u64) {
        let each = self.workers.iter().map(|worker| &worker.delivered);
        each.fold((0, 0), |(frames, bytes), of_worker| {
            (
                frames + of_worker.frames.load(Ordering::Relaxed),
                bytes + of_worker.bytes.load(Ordering::Relaxed),
            )
        })
    }

    /// Datagrams that came to another worker than their client's; counted together as well.
    pub fn handed(&self) -> HandedCounts {
        let first = self.endpoints.first();
        first.map_or_else(HandedCounts::default, |endpoint| endpoint.handed())
    }

    /// Closes all connections.
    pub fn close(&self, code: u32, reason: &str) {
        self.endpoints
            .iter()
            .for_each(|endpoint| endpoint.close(code, reason));
    }

    /// Waits until all connections are gone.
    pub async fn wait_idle(&self) {
        for endpoint in &self.endpoints {
            endpoint.wait_idle().await;
        }
    }
}

fn start(
    number: WorkerNumber,
    part: PortWorker,
    worker: Arc<Worker>,
    serving: Serving,
) -> Result<Arc<ServerEndpoint>, GatewayError> {
    let (tell, told) = mpsc::channel();
    let name = format!("throng-worker-{}", number.0);
    std::thread::Builder::new()
        .name(name)
        .spawn(move || run(part, worker, serving, &tell))
        .map_err(|error| GatewayError::Worker(error.to_string()))?;
    let ended = |_| GatewayError::Worker("it ended at its start".to_owned());
    told.recv().map_err(ended)?
}

/// The life of a worker's thread.
fn run(
    part: PortWorker,
    worker: Arc<Worker>,
    serving: Serving,
    tell: &mpsc::Sender<Result<Arc<ServerEndpoint>, GatewayError>>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell.send(Err(GatewayError::Worker(error.to_string())))),
    };
    runtime.block_on(async {
        let endpoint = match part.listen() {
            Ok(endpoint) => Arc::new(endpoint),
            Err(error) => return drop(tell.send(Err(error.into()))),
        };
        if tell.send(Ok(Arc::clone(&endpoint))).is_err() {
            return;
        }
        serving.serve(worker, Arc::clone(&endpoint)).await;
        // Clients are still told that it is over.
        let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
    });
}
