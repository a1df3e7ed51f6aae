//! What operators see of a node over HTTP, on a loopback address: `/healthz`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use throng_raft_store::NodeStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::metrics;

struct Observed {
    core: Arc<Core>,
    store: NodeStore,
    registry: Registry,
}

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, core: Arc<Core>, store: NodeStore, stop: CancellationToken) {
    let registry = core.metrics().registry();
    let observed = Arc::new(Observed {
        core,
        store,
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

/// Listens for [`serve`].
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn readyz(State(observed): State<Arc<Observed>>) -> Response {
    let reasons = unready(&observed.core);
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

/// Why a node is not ready to serve; empty if it is.
pub(crate) fn unready(core: &Core) -> Vec<String> {
    let mut reasons = Vec::new();
    if core.draining.is_cancelled() {
        reasons.push("the node is draining".to_owned());
    }
    if core.cluster().is_err() {
        reasons.push("the cluster has no map yet".to_owned());
    }
    for (shard, reason) in &core.damaged {
        reasons.push(format!("shard {shard} cannot be opened: {reason}"));
    }
    for replica in core.replicas() {
        let shard = replica.shard();
        if let Some(failure) = replica.failure() {
            reasons.push(format!("shard {shard} has stopped: {failure}"));
        } else if replica.handle().leadership().leader.is_none() {
            reasons.push(format!("shard {shard} has no leader"));
        }
    }
    reasons
}

async fn metrics(State(observed): State<Arc<Observed>>) -> Response {
    let Observed {
        core,
        store,
        registry,
    } = &*observed;
    let figures: Vec<_> = core.replicas().map(|replica| replica.figures()).collect();
    core.metrics().observe(&figures);
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let counted = store.metrics();
    core.metrics()
        .store_commits
        .set(gauge(counted.commits.load(Ordering::Relaxed)));
    core.metrics()
        .store_batches
        .set(gauge(counted.batches.load(Ordering::Relaxed)));
    core.metrics()
        .store_bytes
        .set(gauge(counted.bytes.load(Ordering::Relaxed)));
    match metrics::render(registry) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
