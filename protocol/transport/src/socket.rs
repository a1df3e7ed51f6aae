//! UDP sockets and the endpoint under every kind of connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig, Runtime, TokioRuntime};
use rand::RngCore;
use ring::hmac;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::settings::RESET_INTERVAL;
use crate::unproven::{BoundedSocket, Unproven};

/// Bytes the kernel may hold per socket and direction: bursts of a whole fan-out wait there. The
/// kernel grants less if `net.core.rmem_max` or `wmem_max` is lower.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// Bytes of a connection id: enough that random ids never meet.
pub(crate) const CID_BYTES: usize = 8;

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("UDP {addr} is in use by another process; stop it or choose another port")]
    InUse {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The address is not of this machine, or the system refuses it.
    #[error("cannot listen on UDP {addr}: {source}")]
    Io {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    pub(crate) fn new(addr: SocketAddr, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            Self::InUse { addr }
        } else {
            Self::Io { addr, source }
        }
    }
}

/// A bound UDP socket; `[::]` takes IPv4 as well.
pub(crate) fn bind(addr: SocketAddr) -> Result<UdpSocket, BindError> {
    open(addr, false).map_err(|source| BindError::new(addr, source))
}

fn open(addr: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Sockets on one address, among which the system divides the peers. The first is bound alone, so that an
/// address that is another's is refused, as if there were one socket.
pub(crate) fn bind_many(addr: SocketAddr, sockets: usize) -> Result<Vec<UdpSocket>, BindError> {
    let first = bind(addr)?;
    let addr = local_addr(&first)?;
    let failed = |source| BindError::new(addr, source);
    if sockets > 1 {
        SockRef::from(&first).set_reuse_port(true).map_err(failed)?;
    }
    let mut bound = vec![first];
    while bound.len() < sockets {
        bound.push(open(addr, true).map_err(failed)?);
    }
    Ok(bound)
}

/// A socket on a free port of all addresses, IPv6 included where the machine has it.
pub(crate) fn bind_any() -> Result<UdpSocket, BindError> {
    bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)).or_else(|_| bind(unspecified()))
}

/// What stateless resets are made of: the same in every process that loads the same key.
#[derive(Clone)]
pub(crate) struct ResetSecret(Arc<hmac::Key>);

impl ResetSecret {
    pub(crate) fn new(private_key: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, private_key);
        let derived = hmac::sign(&root, b"throng stateless reset");
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())))
    }

    /// The key for one address: endpoints that share a private key must not answer for each
    /// other, or whoever sees a connection's id could have the wrong one end it. (Those that also
    /// listen on the same address of different machines do; each should have a key of its own.)
    fn at(&self, addr: SocketAddr) -> hmac::Key {
        let derived = hmac::sign(&self.0, addr.to_string().as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
    }
}

/// An endpoint of a server, which keeps its bound towards addresses without a proof.
pub(crate) fn server_endpoint(
    socket: UdpSocket,
    secret: &ResetSecret,
    server: quinn::ServerConfig,
    unproven: &Arc<Unproven>,
) -> Result<quinn::Endpoint, BindError> {
    let addr = local_addr(&socket)?;
    let failed = |source| BindError::new(addr, source);
    let socket = TokioRuntime.wrap_udp_socket(socket).map_err(failed)?;
    let socket = Arc::new(BoundedSocket::new(socket, Arc::clone(unproven)));
    let config = config(Some(secret), addr);
    quinn::Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(TokioRuntime))
        .map_err(failed)
}

/// An endpoint over a socket. With a secret, the peers of an earlier process at the same address
/// are told at once that their connections are gone, instead of noticing it by silence.
pub(crate) fn endpoint(
    socket: UdpSocket,
    secret: Option<&ResetSecret>,
    server: Option<quinn::ServerConfig>,
) -> Result<quinn::Endpoint, BindError> {
    let addr = local_addr(&socket)?;
    quinn::Endpoint::new(config(secret, addr), server, socket, Arc::new(TokioRuntime))
        .map_err(|source| BindError::new(addr, source))
}

/// The settings of an endpoint on a socket.
pub(crate) fn config_at(socket: &UdpSocket, secret: &ResetSecret) -> Result<EndpointConfig, BindError> {
    Ok(config(Some(secret), local_addr(socket)?))
}

fn local_addr(socket: &UdpSocket) -> Result<SocketAddr, BindError> {
    socket
        .local_addr()
        .map_err(|source| BindError::new(unspecified(), source))
}

fn config(secret: Option<&ResetSecret>, addr: SocketAddr) -> EndpointConfig {
    let mut config = match secret {
        Some(secret) => EndpointConfig::new(Arc::new(secret.at(addr))),
        None => EndpointConfig::default(),
    };
    // A restarted edge tells thousands of clients that it is new; quinn's default of one in 20 ms would
    // leave most of them waiting. A reset is smaller than the packet it answers, so it amplifies nothing.
    config.min_reset_interval(RESET_INTERVAL);
    // quinn's own generator drops packets of connections of an earlier process unanswered.
    config.cid_generator(|| Box::new(RandomCids));
    config
}

/// Stands for an address in errors where the socket's own is not known.
pub(crate) fn unspecified() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)
}

/// The address without the mapping that a dual-stack socket gives IPv4 peers.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// An id of a connection that says nothing.
pub(crate) fn random_id() -> ConnectionId {
    let mut bytes = [0; CID_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    ConnectionId::new(&bytes)
}

struct RandomCids;

impl ConnectionIdGenerator for RandomCids {
    fn generate_cid(&mut self) -> ConnectionId {
        random_id()
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
