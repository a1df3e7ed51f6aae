//! Takes clients in for a worker. Accepting waits for nobody: each handshake and each client has a task.

use std::sync::Arc;

use throng_transport::server::Handshake;
use throng_transport::{Link, ServerEndpoint};
use tokio::time::Duration;
use tokio_util::task::TaskTracker;

use crate::session;
use crate::shared::Shared;
use crate::workers::Worker;

/// Takes clients in until the endpoint is closed.
pub(crate) async fn run(
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    endpoint: Arc<ServerEndpoint>,
    handshake_timeout: Duration,
    clients: TaskTracker,
) {
    while let Some(handshake) = endpoint.accept().await {
        clients.spawn(serve(
            Arc::clone(&shared),
            Arc::clone(&worker),
            handshake,
            handshake_timeout,
        ));
    }
}

async fn serve(shared: Arc<Shared>, worker: Arc<Worker>, handshake: Handshake, timeout: Duration) {
    let from = handshake.remote_address();
    let link: Arc<dyn Link> = match handshake.finish(timeout).await {
        Ok(link) => link,
        Err(error) => {
            shared.metrics.handshakes_failed.inc();
            tracing::debug!(%from, %error, "a handshake has failed");
            return;
        }
    };
    let _open = Open::new(&shared, &worker);
    session::run(Arc::clone(&shared), Arc::clone(&worker), link).await;
}

/// Counts an open connection while it lives.
struct Open<'a>(&'a Shared, &'a Worker);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared, worker: &'a Worker) -> Self {
        shared.metrics.connections.inc();
        worker.connections.inc();
        Self(shared, worker)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
        self.1.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_task<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Every connection has one, idle or not.
    #[test]
    fn the_task_of_a_client_stays_small() {
        let bytes = size_of_task(serve);
        assert!(bytes <= 2_048, "{bytes} bytes");
    }
}
