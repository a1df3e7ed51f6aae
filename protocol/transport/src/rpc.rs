//! Requests and answers over a lane: pipelined, out of order, bounded.
//!
//! A request is `u64 correlation (big endian) · payload`, its answer `u64 correlation · u8 status ·
//! payload`. Nothing is retried and a lost lane fails every call: whether a request took effect is
//! the caller's question.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};

use crate::cluster::Chunks;
use crate::cluster::{LaneReadError, LaneReader, LaneWriteError, LaneWriter};
use crate::settings::CLUSTER_FRAME_BYTES_MAX;

/// Calls of one client that may wait for an answer; further ones wait for their turn. Bounds what a
/// slow peer can pile up.
pub const RPC_IN_FLIGHT_MAX: usize = 4_096;
/// Requests that wait for the writer; it takes all of them with one call.
const QUEUE_MAX: usize = 1_024;
/// Bytes after which a batch is written though more is queued.
const BATCH_BYTES: usize = 1024 * 1024;
/// Bytes of a correlation id.
const ID_BYTES: usize = 8;
/// Status of an answer: the handler's payload follows.
const ANSWERED: u8 = 0;
/// Status of an answer: the handler made none that can be sent.
const FAILED: u8 = 1;
/// Largest payload of a request or an answer.
pub const RPC_PAYLOAD_BYTES_MAX: usize = CLUSTER_FRAME_BYTES_MAX - ID_BYTES - 1;

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The lane or its connection ended; the request may have been carried out.
    #[error("the connection was lost")]
    Lost,
    /// No answer in time; the request may have been carried out.
    #[error("no answer in time")]
    Timeout,
    /// The peer's handler panicked, or its answer is over [`RPC_PAYLOAD_BYTES_MAX`].
    #[error("the peer failed to answer; its log says why")]
    Failed,
    /// The request is over [`RPC_PAYLOAD_BYTES_MAX`]; nothing was sent.
    #[error("a request of {0} bytes is over the limit of {RPC_PAYLOAD_BYTES_MAX}")]
    TooLarge(usize),
}

/// The calling end of a lane. Clones share it.
#[derive(Clone)]
pub struct RpcClient {
    shared: Arc<Shared>,
    /// Ends both tasks with the last clone.
    _tasks: Arc<JoinSet<()>>,
}

impl fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcClient")
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// Who waits for which answer.
type Waiting = HashMap<u64, oneshot::Sender<Result<Bytes, RpcError>>>;

struct Shared {
    queue: mpsc::Sender<(u64, Bytes)>,
    permits: Semaphore,
    next: AtomicU64,
    /// `None` once the lane is lost.
    waiting: Mutex<Option<Waiting>>,
}

impl Shared {
    fn lose(&self) {
        // Dropping the senders wakes every caller.
        self.waiting.lock().take();
        self.permits.close();
    }
}

impl RpcClient {
    /// Calls over a lane. Spawns its reader and its writer, which end with the last clone or the
    /// lane. Must be called inside a tokio runtime.
    pub fn new(writer: LaneWriter, reader: LaneReader) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        let shared = Arc::new(Shared {
            queue,
            permits: Semaphore::new(RPC_IN_FLIGHT_MAX),
            next: AtomicU64::new(0),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(write_requests(shared.clone(), writer, queued));
        tasks.spawn(read_answers(shared.clone(), reader));
        Self {
            shared,
            _tasks: Arc::new(tasks),
        }
    }

    /// Sends a request and waits for its answer. Many calls may wait at once; beyond
    /// [`RPC_IN_FLIGHT_MAX`] they wait for their turn, within the same timeout. Cancel-safe: an
    /// abandoned call's answer is thrown away.
    pub async fn call(&self, payload: Bytes, timeout: Duration) -> Result<Bytes, RpcError> {
        if payload.len() > RPC_PAYLOAD_BYTES_MAX {
            return Err(RpcError::TooLarge(payload.len()));
        }
        match tokio::time::timeout(timeout, self.call_patiently(payload)).await {
            Ok(result) => result,
            Err(_) => Err(RpcError::Timeout),
        }
    }

    async fn call_patiently(&self, payload: Bytes) -> Result<Bytes, RpcError> {
        let shared = &*self.shared;
        let _permit = shared.permits.acquire().await.map_err(|_| RpcError::Lost)?;
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        shared
            .waiting
            .lock()
            .as_mut()
            .ok_or(RpcError::Lost)?
            .insert(id, answer);
        let _forget = Forget { shared, id };
        shared
            .queue
            .send((id, payload))
            .await
            .map_err(|_| RpcError::Lost)?;
        answered.await.unwrap_or(Err(RpcError::Lost))
    }

    /// Whether the lane is lost: every further call fails.
    pub fn is_lost(&self) -> bool {
        self.shared.permits.is_closed()
    }
}

/// Removes a call's entry when the call ends, however it ends.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.shared.waiting.lock().as_mut() {
            waiting.remove(&self.id);
        }
    }
}

async fn write_requests(
    shared: Arc<Shared>,
    mut writer: LaneWriter,
    mut queued: mpsc::Receiver<(u64, Bytes)>,
) {
    while let Some(first) = queued.recv().await {
        // Whoever else is about to ask at this moment does so first, and shares the packet.
        task::yield_now().await;
        let mut chunks = Chunks::default();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some((id, payload)) = next {
            // A request nobody waits for any more need not be sent.
            let wanted = shared
                .waiting
                .lock()
                .as_ref()
                .is_some_and(|waiting| waiting.contains_key(&id));
            if wanted {
                bytes += payload.len();
                chunks
                    .push(&id.to_be_bytes(), &payload)
                    .expect("invariant: `call` has checked the size");
            }
            next = if bytes < BATCH_BYTES {
                queued.try_recv().ok()
            } else {
                None
            };
        }
        if writer.write_chunks(chunks).await.is_err() {
            break;
        }
    }
    shared.lose();
}

async fn read_answers(shared: Arc<Shared>, mut reader: LaneReader) {
    while let Ok(Some(mut frame)) = reader.next().await {
        if frame.len() <= ID_BYTES {
            tracing::warn!(
                bytes = frame.len(),
                "an answer without correlation id and status ends the lane"
            );
            break;
        }
        let (id, status) = (frame.get_u64(), frame.get_u8());
        let mut waiting = shared.waiting.lock();
        // No entry: the caller has given up.
        if let Some(answer) = waiting.as_mut().and_then(|waiting| waiting.remove(&id)) {
            let _ = answer.send(if status == ANSWERED {
                Ok(frame)
            } else {
                Err(RpcError::Failed)
            });
        }
    }
    shared.lose();
}

/// Why serving a lane ended before the caller finished it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// No further request could be read.
    #[error(transparent)]
    Read(#[from] LaneReadError),
    /// An answer could not be written.
    #[error(transparent)]
    Write(#[from] LaneWriteError),
    /// A request without a correlation id.
    #[error("a request of {0} bytes has no correlation id")]
    Malformed(usize),
}

/// Answers the requests of a lane until the caller finishes it. At most `max_concurrent` handlers
/// run at once, each in a task; beyond that requests wait unread, which holds the caller back.
/// Handlers are cancelled when the lane ends or this future is dropped. The caller of a handler
/// that panics is told [`RpcError::Failed`].
pub async fn serve_rpc<H, F>(
    mut writer: LaneWriter,
    mut reader: LaneReader,
    handler: H,
    max_concurrent: usize,
) -> Result<(), ServeError>
where
    H: Fn(Bytes) -> F,
    F: Future<Output = Bytes> + Send + 'static,
{
    let mut running = Running::default();
    let mut reading = true;
    loop {
        tokio::select! {
            frame = reader.next(), if reading && running.tasks.len() < max_concurrent.max(1) => match frame? {
                Some(mut frame) if frame.len() >= ID_BYTES => {
                    let id = frame.get_u64();
                    running.start(id, handler(frame));
                }
                Some(frame) => return Err(ServeError::Malformed(frame.len())),
                None => reading = false,
            },
            Some(first) = running.tasks.join_next_with_id() => {
                // Answers that are being made at this moment share the packet.
                task::yield_now().await;
                let mut chunks = Chunks::default();
                let (mut bytes, mut next) = (0, Some(first));
                while let Some(done) = next {
                    bytes += running.answer(done, &mut chunks)?;
                    next = if bytes < BATCH_BYTES { running.tasks.try_join_next_with_id() } else { None };
                }
                writer.write_chunks(chunks).await?;
            }
            else => {
                writer.finish();
                return Ok(());
            }
        }
    }
}

/// The handlers at work.
#[derive(Default)]
struct Running {
    tasks: JoinSet<Bytes>,
    /// Whose answer a task makes; a task that panicked cannot say.
    ids: HashMap<task::Id, u64>,
}

impl Running {
    fn start(&mut self, id: u64, answer: impl Future<Output = Bytes> + Send + 'static) {
        let task = self.tasks.spawn(answer);
        self.ids.insert(task.id(), id);
    }

    /// Adds a finished handler's answer to a batch and returns its size.
    fn answer(
        &mut self,
        done: Result<(task::Id, Bytes), JoinError>,
        chunks: &mut Chunks,
    ) -> Result<usize, LaneWriteError> {
        let (task, answer) = match done {
            Ok((task, answer)) => (task, Ok(answer)),
            Err(error) => (error.id(), Err(error.to_string())),
        };
        let Some(id) = self.ids.remove(&task) else {
            return Ok(0);
        };
        let answer = match answer {
            Ok(answer) if answer.len() > RPC_PAYLOAD_BYTES_MAX => Err(format!("{} bytes", answer.len())),
            answer => answer,
        };
        let mut head = [ANSWERED; ID_BYTES + 1];
        head[..ID_BYTES].copy_from_slice(&id.to_be_bytes());
        let answer = answer.unwrap_or_else(|reason| {
            tracing::error!(reason, "a handler of requests panicked or answered too much");
            head[ID_BYTES] = FAILED;
            Bytes::new()
        });
        chunks.push(&head, &answer)?;
        Ok(answer.len())
    }
}
