//! A worker behind the [`Carrier`] trait.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quinn_proto::{Endpoint, EndpointConfig, ServerConfig};

use super::batch::Outlet;
use super::connection::{Connection, Handle};
use super::driver::Driver;
use super::link::WorkerLink;
use super::{Core, Seat, Shared, now, wait};
use crate::carrier::{Carrier, ConnectFailure, Established, Incoming};
use crate::link::LinkClosed;
use crate::quic::established;
use crate::socket::{BindError, canonical};
use crate::unproven::{Unproven, Watch};

/// A worker that listens. Dropping it refuses whoever knocks; links that are open go on.
pub(crate) struct WorkerCarrier {
    shared: Arc<Shared>,
    addr: SocketAddr,
    port_open: Arc<AtomicUsize>,
}

impl std::fmt::Debug for WorkerCarrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerCarrier")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl WorkerCarrier {
    /// Listens on a bound socket, in a task of the runtime this is called in, at a seat of the socket's
    /// port; `port_open` counts the connections of all workers there.
    pub fn listen(
        socket: std::net::UdpSocket,
        mut config: EndpointConfig,
        server: ServerConfig,
        seat: Seat,
        port_open: Arc<AtomicUsize>,
    ) -> io::Result<Self> {
        let addr = socket.local_addr()?;
        let outlet = Outlet::new(socket)?;
        let ids = seat.clone();
        config.cid_generator(move || ids.ids());
        let larger_packets = !outlet.udp.may_fragment();
        let endpoint = Endpoint::new(Arc::new(config), Some(Arc::new(server)), larger_packets, None);
        let shared = Arc::new(Shared {
            core: parking_lot::Mutex::new(Core::new(endpoint, Arc::clone(&port_open))),
            ready: seat.ready(),
            unproven: Arc::new(Unproven::default()),
            seat,
        });
        tokio::spawn(Driver::new(Arc::clone(&shared), outlet));
        Ok(Self {
            shared,
            addr,
            port_open,
        })
    }

    /// Other settings for connections that begin from now on.
    pub fn set_server_config(&self, server: ServerConfig) {
        let mut core = self.shared.core.lock();
        core.endpoint.set_server_config(Some(Arc::new(server)));
    }
}

impl Drop for WorkerCarrier {
    fn drop(&mut self) {
        let mut core = self.shared.core.lock();
        core.abandoned = true;
        core.turn_away();
        drop(core);
        self.shared.ready.call();
    }
}

impl Carrier for WorkerCarrier {
    fn connect<'a>(
        &'a self,
        _: SocketAddr,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Established, ConnectFailure>> {
        let reason = "this endpoint only listens".to_owned();
        Box::pin(std::future::ready(Err(ConnectFailure::Start(reason))))
    }

    fn accept(&self) -> BoxFuture<'_, Option<Box<dyn Incoming>>> {
        Box::pin(poll_fn(|context| {
            let mut core = self.shared.core.lock();
            if let Some(incoming) = core.incoming.pop_front() {
                let shared = Arc::clone(&self.shared);
                let incoming = Some(incoming);
                return Poll::Ready(Some(
                    Box::new(WorkerIncoming { shared, incoming }) as Box<dyn Incoming>
                ));
            }
            if core.closed.is_some() || core.lost {
                return Poll::Ready(None);
            }
            wait(&mut core.acceptors, context);
            Poll::Pending
        }))
    }

    fn open_links(&self) -> usize {
        self.port_open.load(Ordering::Relaxed)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn rebind(&self) -> Result<SocketAddr, BindError> {
        let reason = io::Error::new(
            io::ErrorKind::Unsupported,
            "an endpoint that listens does not move",
        );
        Err(BindError::new(self.addr, reason))
    }

    fn close(&self, code: u32, reason: &str) {
        let reason = Bytes::copy_from_slice(reason.as_bytes());
        self.shared.core.lock().close(now(), code, &reason);
        self.shared.ready.call();
    }

    fn wait_idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(poll_fn(|context| {
            let mut core = self.shared.core.lock();
            if core.open == 0 {
                return Poll::Ready(());
            }
            wait(&mut core.idlers, context);
            Poll::Pending
        }))
    }
}

/// A peer that knocks at a worker.
struct WorkerIncoming {
    shared: Arc<Shared>,
    /// `None` once it was decided what becomes of it.
    incoming: Option<quinn_proto::Incoming>,
}

impl std::fmt::Debug for WorkerIncoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerIncoming")
            .field("incoming", &self.incoming)
            .finish_non_exhaustive()
    }
}

impl WorkerIncoming {
    /// Does something with it, once.
    fn decide(&mut self, what: impl FnOnce(&mut Core, quinn_proto::Incoming)) {
        if let Some(incoming) = self.incoming.take() {
            what(&mut self.shared.core.lock(), incoming);
            self.shared.ready.call();
        }
    }
}

impl Drop for WorkerIncoming {
    fn drop(&mut self) {
        self.decide(Core::refuse);
    }
}

impl Incoming for WorkerIncoming {
    fn remote_address(&self) -> SocketAddr {
        let from = self.incoming.as_ref().map(quinn_proto::Incoming::remote_address);
        from.map_or_else(crate::socket::unspecified, canonical)
    }

    fn is_validated(&self) -> bool {
        let incoming = self.incoming.as_ref();
        incoming.is_some_and(quinn_proto::Incoming::remote_address_validated)
    }

    fn accept(mut self: Box<Self>) -> Option<BoxFuture<'static, Result<Established, LinkClosed>>> {
        let incoming = self.incoming.take()?;
        let shared = Arc::clone(&self.shared);
        let from = incoming.remote_address();
        let watch = (!incoming.remote_address_validated()).then(|| shared.unproven.watch(from));
        let connection = shared.accept(incoming)?;
        let handle = Handle::new(connection);
        Some(Box::pin(finish(handle, watch)))
    }

    fn refuse(mut self: Box<Self>) {
        self.decide(Core::refuse);
    }

    fn ignore(mut self: Box<Self>) {
        self.decide(|core, incoming| core.endpoint.ignore(incoming));
    }

    fn retry(mut self: Box<Self>) {
        self.decide(|core, incoming| {
            let mut content = Vec::new();
            match core.endpoint.retry(incoming, &mut content) {
                Ok(transmit) => core.answers.push_back((transmit, content)),
                Err(error) => core.refuse(error.into_incoming()),
            }
        });
    }
}

impl Shared {
    /// Begins a handshake; `None` if what came was none.
    fn accept(&self, incoming: quinn_proto::Incoming) -> Option<Arc<Connection>> {
        let (now, mut content) = (now(), Vec::new());
        let mut core = self.core.lock();
        if core.lost {
            core.endpoint.ignore(incoming);
            return None;
        }
        match core.endpoint.accept(incoming, now, &mut content, None) {
            Ok((key, quic)) => {
                let connection = Connection::new(key, quic, Arc::clone(&self.ready));
                core.insert(key, Arc::clone(&connection));
                if let Some((code, reason)) = core.closed.clone() {
                    connection.close(now, code, reason);
                }
                drop(core);
                connection.touch();
                Some(connection)
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    core.answers.push_back((transmit, content));
                    drop(core);
                    self.ready.call();
                }
                None
            }
        }
    }
}

/// Waits for the end of a handshake.
async fn finish(handle: Handle, watch: Option<Watch>) -> Result<Established, LinkClosed> {
    poll_fn(|context| handle.poll_connected(context)).await?;
    if let Some(watch) = watch {
        watch.proved();
    }
    let (data, identity) = {
        let state = handle.state();
        let session = state.quic.crypto_session();
        (session.handshake_data(), session.peer_identity())
    };
    let link = Arc::new(WorkerLink::new(handle));
    Ok(established(link, data, identity))
}
