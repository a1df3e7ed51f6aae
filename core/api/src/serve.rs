//! Connections of back ends: bounded in number and in time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use throng_transport::tcp::{TcpHandshake, TcpPort};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::ApiError;
use crate::limits::{
    BUFFER_BYTES, CONNECTIONS_MAX, GOODBYE, HANDSHAKE_TIMEOUT, HEAD_TIMEOUT, REQUEST_TIMEOUT, RETRY_AFTER_S,
    WRITE_TIMEOUT,
};
use crate::patient::Patient;
use crate::{Cluster, router};

/// Serves a port until `stop`, and then what is under way for a moment.
pub async fn serve(port: TcpPort, cluster: Arc<dyn Cluster>, stop: CancellationToken) {
    let router = router(cluster).layer(middleware::from_fn(in_time));
    let (room, connections) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
    while let Some((handshake, place)) = next(&port, &room, &stop).await {
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(handshake, router, stop).await;
            drop(place);
        });
    }
    // New connections are refused from here on, not left to wait.
    drop(port);
    connections.close();
    let _ = timeout(GOODBYE, connections.wait()).await;
}

/// The next connection and its place among those there may be; `None` when the node stops.
async fn next(
    port: &TcpPort,
    room: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpHandshake, OwnedSemaphorePermit)> {
    loop {
        let accepted = async {
            // Whoever finds no room waits in the socket's queue. The semaphore is never closed.
            let place = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((port.accept().await?, place))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => return None,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            // A client that is gone again, which holds nobody else up.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // No file descriptor left, say: in a moment there may be one.
                tracing::warn!(%error, "a connection to the Server API was not accepted");
                tokio::select! {
                    () = sleep(Duration::from_secs(RETRY_AFTER_S)) => {}
                    () = stop.cancelled() => return None,
                }
            }
        }
    }
}

async fn connection(handshake: TcpHandshake, router: Router, stop: CancellationToken) {
    let from = handshake.remote_address();
    let finished = tokio::select! {
        finished = timeout(HANDSHAKE_TIMEOUT, handshake.finish()) => finished,
        () = stop.cancelled() => return,
    };
    let link = match finished {
        Ok(Ok(link)) => Patient::new(link, WRITE_TIMEOUT),
        Ok(Err(error)) => return tracing::debug!(%from, %error, "a handshake of the Server API failed"),
        Err(_) => return tracing::debug!(%from, "a handshake of the Server API took too long"),
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(BUFFER_BYTES)
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(link), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%from, %error, "a connection to the Server API ended");
    }
}

/// Answers in time, whatever a handler waits for: the cluster, or a body that trickles.
async fn in_time(request: Request, next: Next) -> Response {
    match timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::too_slow().into_response(),
    }
}
