//! quinn's own endpoints, set up as the ones under our links are: what the rest of throng costs is
//! measured against them. For `throng-bench` alone, behind the feature `bare`; the one module whose
//! signatures name quinn.

use std::net::SocketAddr;
use std::sync::Arc;

pub use crate::ack_frequency::Acks;
use crate::client::Trust;
use crate::server::ServerTls;
use crate::settings::{Limits, client_transport};
use crate::socket::{self, BindError};

/// Listens as a server endpoint does, without judging handshakes.
pub fn server(addr: SocketAddr, tls: &ServerTls, acks: Acks) -> Result<quinn::Endpoint, BindError> {
    let tls = tls.with_acks(acks);
    let socket = socket::bind(addr)?;
    socket::server_endpoint(
        socket,
        tls.secret(),
        tls.fresh_config(&Limits::default()),
        &Arc::default(),
    )
}

/// A socket to connect from as a client endpoint does.
pub fn client(trust: &Trust) -> Result<quinn::Endpoint, BindError> {
    let mut endpoint = socket::endpoint(socket::bind_any()?, None, None)?;
    let mut config = quinn::ClientConfig::new(trust.crypto());
    config.transport_config(client_transport(None));
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}
