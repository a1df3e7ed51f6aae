//! Where the certificates of a process come from: files, or the development CA of this machine.

use std::fs::File;
use std::path::{Path, PathBuf};

use throng_protocol::cluster::PeerId;
use throng_protocol::ids::{EdgeId, NodeId};
use throng_transport::TlsError;
use throng_transport::dev_ca::{DevCa, DevCaError};

use super::config::TlsFiles;
use super::failure::Failure;

/// Certificate, key and the CA they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The CA.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Makes a development CA with a certificate for every process of a cluster and for its operator.
pub fn development_ca(dir: &Path, cluster: &str, cores: usize, edges: usize) -> Result<(), Failure> {
    with_ca(dir, |ca| {
        for id in 1..=cores as u64 {
            ca.node(PeerId::Core(NodeId(id)), cluster)?;
        }
        for id in 1..=edges as u64 {
            ca.node(PeerId::Edge(EdgeId(id)), cluster)?;
        }
        ca.node(PeerId::Admin, cluster)?;
        ca.server("public", &[]).map(drop)
    })
}

/// The certificate of a node on the cluster wire.
pub fn node(tls: &TlsFiles, peer: PeerId, cluster: &str) -> Result<Files, Failure> {
    if let Some(dir) = &tls.development_ca {
        let mut files = None;
        with_ca(dir, |ca| {
            // The operator's too, so that tools work beside nodes started by hand.
            ca.node(PeerId::Admin, cluster)?;
            let leaf = ca.node(peer, cluster)?;
            files = Some(Files {
                ca: leaf.ca,
                cert: leaf.cert,
                key: leaf.key,
            });
            Ok(())
        })?;
        return files.ok_or_else(|| Failure::certificate(dir, "the development CA gave none"));
    }
    let [ca, cert, key] =
        [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)].map(|(key, path)| named(key, path));
    Ok(Files {
        ca: ca?,
        cert: cert?,
        key: key?,
    })
}

/// The certificate clients see.
pub fn public(tls: &TlsFiles) -> Result<(PathBuf, PathBuf), Failure> {
    if let Some(dir) = &tls.development_ca {
        let mut files = None;
        with_ca(dir, |ca| {
            let leaf = ca.server("public", &[])?;
            files = Some((leaf.cert, leaf.key));
            Ok(())
        })?;
        return files.ok_or_else(|| Failure::certificate(dir, "the development CA gave none"));
    }
    Ok((
        named("client_cert", &tls.client_cert)?,
        named("client_key", &tls.client_key)?,
    ))
}

/// The operator's certificate in the folder of a development CA.
pub fn admin_files(dir: &Path) -> Files {
    Files {
        ca: dir.join("ca.pem"),
        cert: dir.join("admin.pem"),
        key: dir.join("admin.key"),
    }
}

/// A TLS error for people.
pub fn failure(error: &TlsError) -> Failure {
    let path = match error {
        TlsError::Read { path, .. } | TlsError::NoCertificate { path } | TlsError::NoKey { path } => {
            path.clone()
        }
        other => {
            return Failure::new(
                other.to_string(),
                "TLS",
                "renew the certificate and its key together",
            );
        }
    };
    Failure::certificate(&path, error)
}

fn named(key: &str, path: &Option<PathBuf>) -> Result<PathBuf, Failure> {
    path.clone().ok_or_else(|| {
        let what = format!("`tls.{key}` is not set, and neither is `tls.development_ca`");
        Failure::usage(
            what,
            "the configuration",
            "name the file, or a folder for a development CA",
        )
    })
}

/// Opens the CA of a folder while nobody else does: processes started side by side share it.
fn with_ca(dir: &Path, issue: impl FnOnce(&DevCa) -> Result<(), DevCaError>) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|error| Failure::io("making the folder", dir, &error))?;
    let path = dir.join("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let lock = lock.map_err(|error| Failure::io("opening the lock", &path, &error))?;
    lock.lock()
        .map_err(|error| Failure::io("locking", &path, &error))?;
    let issued = DevCa::open(dir).and_then(|ca| issue(&ca));
    issued.map_err(|error| Failure::certificate(dir, error))
}
