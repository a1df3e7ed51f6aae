//! The wire between nodes: mutual TLS, identities from certificates, lanes.
//!
//! A node has one UDP socket on which it listens and from which it connects. Who a peer is comes
//! from its certificate: exactly one DNS name `core-<id>`, `edge-<id>` or `admin` under
//! `<cluster>.throng.internal`. After the TLS handshake one exchange of hellos settles the version;
//! only then does either side get the connection. What lanes carry is not known here.

mod connection;
mod endpoint;
mod error;
mod hello;
mod identity;
mod lane;

pub use connection::ClusterConnection;
pub use endpoint::{CLUSTER_VERSIONS, ClusterEndpoint, ClusterHandshake, ClusterTls};
pub use error::{AcceptError, ClusterConnectError};
pub use identity::{check_cluster_name, node_name};
pub use lane::{CONTROL_LANE, LaneReadError, LaneReader, LaneWriteError, LaneWriter};

pub(crate) use identity::dns_names;
pub(crate) use lane::Chunks;
