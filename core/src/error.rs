//! Why a node does not start. Each says what happened, where, and what to do next.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use throng_protocol::cluster::PeerId;
use throng_raft_store::OpenError;
use throng_transport::{BindError, TlsError};

/// Why a core node does not start.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The settings contradict each other.
    #[error("the configuration cannot work: {0}")]
    Config(String),
    /// Another process listens there.
    #[error("{address} is in use: another process listens there; stop it or choose another address")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate is another node's.
    #[error(
        "the certificate is that of {found:?}, but this is core node {expected}; give each node its own certificate"
    )]
    OtherIdentity {
        /// The id of the configuration.
        expected: u64,
        /// Who the certificate names.
        found: PeerId,
    },
    /// Another process uses the data folder.
    #[error("{path} is locked: another node runs on this folder; stop it or choose another folder")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A newer build has written the data.
    #[error(
        "{path} has format {found}, this build knows up to {known}; run the build that wrote it or a newer one"
    )]
    NewerFormat {
        /// The folder.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this build knows.
        known: u32,
    },
    /// The disk has no room.
    #[error("the disk of {path} is full; free space and start again")]
    DiskFull {
        /// The folder.
        path: PathBuf,
    },
    /// The store cannot be opened for another reason.
    #[error("the store in {path} cannot be opened: {reason}")]
    Store {
        /// The folder.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// A shard's Raft group does not start.
    #[error("shard {shard} cannot be started: {reason}")]
    Shard {
        /// The shard.
        shard: u32,
        /// What it said.
        reason: String,
    },
}

impl CoreError {
    /// Why the store in a data folder cannot be opened.
    pub(crate) fn store(data: &Path, error: OpenError) -> Self {
        let path = data.to_owned();
        match error {
            OpenError::Locked { .. } => Self::Locked { path },
            OpenError::NewerFormat { found, known, .. } => Self::NewerFormat { path, found, known },
            OpenError::Io { error, .. } if is_full(&error) => Self::DiskFull { path },
            error => Self::Store {
                path,
                reason: error.to_string(),
            },
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl From<BindError> for CoreError {
    fn from(error: BindError) -> Self {
        match error {
            BindError::InUse { addr } => Self::AddressInUse { address: addr },
            BindError::Io { addr, source } => Self::Listen {
                address: addr,
                reason: source.to_string(),
            },
        }
    }
}
