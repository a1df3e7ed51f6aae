//! quinn's endpoint behind the [`Carrier`] trait.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use quinn::crypto::rustls::HandshakeData;
use rustls_pki_types::CertificateDer;

use super::QuicLink;
use crate::carrier::{Carrier, ConnectFailure, Established, Incoming};
use crate::cluster::dns_names;
use crate::link::{Link, LinkClosed};
use crate::socket::{self, BindError, canonical, unspecified};
use crate::unproven::Unproven;

/// A UDP socket and the connections on it.
#[derive(Debug)]
pub(crate) struct QuicCarrier {
    endpoint: quinn::Endpoint,
    client: Option<quinn::ClientConfig>,
    /// Bounds what is sent to addresses nobody has proved, where strangers may knock.
    unproven: Option<Arc<Unproven>>,
}

impl QuicCarrier {
    /// An endpoint that connects if `client` says how.
    pub fn new(endpoint: quinn::Endpoint, client: Option<quinn::ClientConfig>) -> Self {
        Self {
            endpoint,
            client,
            unproven: None,
        }
    }

    /// An endpoint of a server, on a socket that keeps the bound of `unproven`.
    pub fn listening(endpoint: quinn::Endpoint, unproven: Arc<Unproven>) -> Self {
        Self {
            endpoint,
            client: None,
            unproven: Some(unproven),
        }
    }
}

impl Carrier for QuicCarrier {
    fn connect<'a>(
        &'a self,
        addr: SocketAddr,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Established, ConnectFailure>> {
        Box::pin(async move {
            let start = |reason: String| ConnectFailure::Start(reason);
            let config = self.client.clone();
            let config = config.ok_or_else(|| start("this endpoint only listens".to_owned()))?;
            let connecting = self
                .endpoint
                .connect_with(config, addr, name)
                .map_err(|error| start(error.to_string()))?;
            Ok(of(connecting.await.map_err(LinkClosed::from)?))
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Box<dyn Incoming>>> {
        Box::pin(async move {
            let incoming = self.endpoint.accept().await?;
            let unproven = self.unproven.clone();
            Some(Box::new(QuicIncoming { incoming, unproven }) as Box<dyn Incoming>)
        })
    }

    fn open_links(&self) -> usize {
        self.endpoint.open_connections()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    fn rebind(&self) -> Result<SocketAddr, BindError> {
        let socket = socket::bind_any()?;
        let addr = socket
            .local_addr()
            .map_err(|source| BindError::new(unspecified(), source))?;
        self.endpoint
            .rebind(socket)
            .map_err(|source| BindError::new(addr, source))?;
        Ok(canonical(addr))
    }

    fn close(&self, code: u32, reason: &str) {
        self.endpoint.close(code.into(), reason.as_bytes());
    }

    fn wait_idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.endpoint.wait_idle())
    }
}

#[derive(Debug)]
struct QuicIncoming {
    incoming: quinn::Incoming,
    unproven: Option<Arc<Unproven>>,
}

impl Incoming for QuicIncoming {
    fn remote_address(&self) -> SocketAddr {
        canonical(self.incoming.remote_address())
    }

    fn is_validated(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    fn accept(self: Box<Self>) -> Option<BoxFuture<'static, Result<Established, LinkClosed>>> {
        let Self { incoming, unproven } = *self;
        let unproven = unproven.filter(|_| !incoming.remote_address_validated());
        let watch = unproven.map(|unproven| unproven.watch(incoming.remote_address()));
        let connecting = incoming.accept().ok()?;
        Some(Box::pin(async move {
            let connection = connecting.await?;
            if let Some(watch) = watch {
                watch.proved();
            }
            Ok(of(connection))
        }))
    }

    fn refuse(self: Box<Self>) {
        self.incoming.refuse();
    }

    fn ignore(self: Box<Self>) {
        self.incoming.ignore();
    }

    fn retry(self: Box<Self>) {
        if let Err(error) = self.incoming.retry() {
            error.into_incoming().refuse();
        }
    }
}

fn of(connection: quinn::Connection) -> Established {
    let (data, identity) = (connection.handshake_data(), connection.peer_identity());
    established(Arc::new(QuicLink::new(connection)), data, identity)
}

/// What rustls has learned in a handshake.
pub(crate) fn established(
    link: Arc<dyn Link>,
    data: Option<Box<dyn Any>>,
    identity: Option<Box<dyn Any>>,
) -> Established {
    let protocol = data
        .and_then(|any| any.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_deref().and_then(|chain| chain.first());
    let names = leaf.and_then(|leaf| dns_names(leaf)).unwrap_or_default();
    Established {
        link,
        names,
        protocol,
    }
}
