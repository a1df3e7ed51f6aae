//! TLS over TCP, for peers: what a client of theirs would use, with the certificates of the run.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Both directions of a connection.
pub type Stream = TlsStream<TcpStream>;

/// Makes connections that trust one CA.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl Tls {
    pub fn new(ca: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).context("reading the CA")? {
            roots.add(certificate.context("reading the CA")?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Without Nagle's delay, as every client of a live system is.
    pub async fn tcp(addr: SocketAddr) -> Result<TcpStream> {
        let stream = TcpStream::connect(addr)
            .await
            .with_context(|| format!("connecting to {addr}"))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub async fn over(&self, stream: TcpStream) -> Result<Stream> {
        let name = ServerName::try_from("localhost").context("the server's name")?;
        self.0.connect(name, stream).await.context("the TLS handshake")
    }
}
