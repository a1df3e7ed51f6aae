//! QUIC and TLS under the throng protocol: endpoints, links, streams, framing, RPC between nodes.
//!
//! The home of quinn, rustls and rcgen: no signature names a type of theirs, so that the carrier can be
//! exchanged (`bare` apart, which `throng-bench` compares with). It moves bytes and knows who is at the other end. It refuses to know messages,
//! sessions, shards and retries of requests.
//!
//! ```text
//!   clients ──► ClientEndpoint ══ throng/1 ══► ServerEndpoint ──► Link
//!                                                              FrameReader / FrameWriter
//!   nodes   ──► ClusterEndpoint ═ throng-cluster/1, mutual TLS ═ ClusterEndpoint
//!               ClusterPool ──► RpcClient ──► lane ──► serve_rpc
//! ```
//!
//! Endpoints stand on a [`Carrier`], which is quinn's unless another is given.

mod ack_frequency;
mod admission;
#[cfg(feature = "bare")]
pub mod bare;
pub mod carrier;
pub mod client;
pub mod cluster;
pub mod dev_ca;
pub mod framing;
pub mod link;
mod networks;
pub mod pool;
mod quic;
pub mod rpc;
pub mod server;
pub mod settings;
mod socket;
pub mod tcp;
pub mod tls;
mod tls_session;
mod unproven;
mod worker;

pub use admission::HandshakeCounts;
pub use carrier::{Carrier, ConnectFailure, Established, Incoming};
pub use client::{ClientEndpoint, ConnectError, Trust};
pub use cluster::{
    AcceptError, ClusterConnectError, ClusterConnection, ClusterEndpoint, ClusterHandshake, ClusterTls,
};
pub use framing::{FrameReadError, FrameReader, FrameWriter, Step};
pub use link::{Link, LinkClosed, LinkStats, ReadError, RecvHalf, SendHalf, WriteError};
pub use networks::NETWORKS_MAX;
pub use pool::{ClusterPool, PoolError};
pub use rpc::{RpcClient, RpcError, serve_rpc};
pub use server::{Handshake, HandshakeError, PortWorker, ServerEndpoint, ServerPort, ServerTls, WORKERS_MAX};
pub use settings::{Limits, NetworkLimits};
pub use socket::BindError;
pub use tls::TlsError;
pub use unproven::AMPLIFICATION_MAX;
pub use worker::HandedCounts;
