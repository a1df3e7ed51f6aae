//! The Server API at a core node, and the keys that back ends use it with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use throng_core::BackEnds;
use throng_protocol::cluster::{Answer, Request};
use throng_protocol::ids::AppId;
use throng_server_api::{Cluster, Key};
use throng_transport::tcp::{TcpPort, TcpTls};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::config::TlsFiles;
use super::failure::Failure;
use super::tls;

/// Between two attempts to take a port over.
const TAKE_OVER_PAUSE: Duration = Duration::from_millis(50);

/// The id of the key that `up` makes.
pub const KEY_OF_UP: &str = "up";

/// A new key for the back end of an app.
pub fn new_key(app: &str, kid: &str) -> Result<Key, Failure> {
    let app = AppId::new(app).map_err(|error| {
        Failure::usage(
            format!("{app:?} is no name of an app: {error}"),
            "the app",
            "choose another",
        )
    })?;
    Ok(Key::random(app, kid))
}

/// What answers requests of back ends.
#[derive(Debug)]
struct OfNode(BackEnds);

impl Cluster for OfNode {
    fn ask(&self, request: Request) -> BoxFuture<'_, Answer> {
        async move { self.0.ask(&request).await }.boxed()
    }
}

/// A Server API that is served.
#[derive(Debug)]
pub struct Serving {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    /// Takes no more requests and waits for those under way, a moment.
    pub async fn stop(self) {
        self.stop.cancel();
        // It fails only where it panicked, which the panic has told.
        let _ = self.task.await;
    }
}

/// Listens at an address, which a predecessor may hold for a moment still.
pub async fn listen(files: &TlsFiles, addr: SocketAddr, take_over: Duration) -> Result<TcpPort, Failure> {
    let (cert, key) = tls::public(files)?;
    let tls = TcpTls::load(&cert, &key).map_err(|error| tls::failure(&error))?;
    let until = Instant::now() + take_over;
    loop {
        match TcpPort::bind(addr, tls.clone()).await {
            Ok(port) => return Ok(port),
            Err(_) if Instant::now() < until => sleep(TAKE_OVER_PAUSE).await,
            Err(error) => {
                let next = "free the port, or give the node another `server_api`";
                return Err(Failure::new(error.to_string(), addr.to_string(), next));
            }
        }
    }
}

/// Serves back ends at a port.
pub fn serve(port: TcpPort, back_ends: BackEnds) -> Serving {
    let stop = CancellationToken::new();
    let cluster = Arc::new(OfNode(back_ends));
    let task = tokio::spawn(throng_server_api::serve(port, cluster, stop.clone()));
    Serving { stop, task }
}
