//! What operators see of an edge over HTTP, on a loopback address: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::shared::Shared;
use crate::workers::Workers;

struct Observed {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    registry: Registry,
}

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    stop: CancellationToken,
) {
    let registry = shared.metrics.registry();
    let observed = Arc::new(Observed {
        shared,
        workers,
        registry,
    });
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(observed);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the HTTP endpoints have stopped");
    }
}

async fn readyz(State(observed): State<Arc<Observed>>) -> Response {
    match unready(&observed.shared) {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// Why an edge is not ready for clients.
pub(crate) fn unready(shared: &Shared) -> Option<&'static str> {
    if shared.drain.borrow().is_some() {
        return Some("the edge is draining");
    }
    let unknown = shared.upstream.current_map().is_none();
    unknown.then_some("no core node has told the cluster's map yet")
}

async fn metrics(State(observed): State<Arc<Observed>>) -> Response {
    observed.shared.channels.observe();
    let counted = &observed.shared.metrics;
    counted.observe_handshakes(&observed.workers.handshakes());
    counted.observe_handed(&observed.workers.handed());
    counted.observe_delivered(observed.workers.delivered());
    match metrics::render(&observed.registry) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
