//! Certificates and keys from PEM files, and the rustls configurations made from them.
//!
//! TLS 1.3 with ring only, the provider passed explicitly; no early data anywhere. Every error
//! names the file and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::socket::ResetSecret;
use crate::tls_session::ServerCrypto;

/// Why certificates or keys are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; check the path and the rights of this user")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no certificate.
    #[error("{path} holds no certificate; a PEM file with BEGIN CERTIFICATE is needed")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no private key.
    #[error("{path} holds no private key; a PEM file with BEGIN PRIVATE KEY is needed")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate is not within its validity.
    #[error("the certificate in {path} is valid from {from} to {until}; renew it, or set the clock")]
    NotValidNow {
        /// The file.
        path: PathBuf,
        /// Start of its validity.
        from: String,
        /// End of its validity.
        until: String,
    },
    /// The key is of another certificate, or of a kind that is not supported.
    #[error("the key in {key} does not serve the certificate in {cert}: {reason}; renew both together")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls said.
        reason: String,
    },
    /// The CA's certificate cannot serve as an anchor of trust.
    #[error("the certificate in {path} cannot serve as a CA: {reason}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What rustls said.
        reason: String,
    },
    /// A node's own certificate does not name a node of its cluster.
    #[error("{path}: {reason}; issue a node certificate for this cluster")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with its names.
        reason: String,
    },
    /// TLS could not be configured; not a matter of files.
    #[error("TLS cannot be configured: {0}")]
    Config(String),
}

/// A certificate chain and its key, as loaded.
#[derive(Debug)]
pub(crate) struct Identity {
    cert_path: PathBuf,
    key_path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(crate) fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = load_certificates(cert)?;
        check_validity(cert, &chain[0])?;
        let pem = read(key)?;
        let der =
            PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NoKey { path: key.to_owned() })?;
        Ok(Self {
            cert_path: cert.to_owned(),
            key_path: key.to_owned(),
            chain,
            key: der,
        })
    }

    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    pub(crate) fn cert_path(&self) -> &Path {
        &self.cert_path
    }

    /// A secret that stays the same as long as the key does, and says nothing about it.
    pub(crate) fn reset_secret(&self) -> ResetSecret {
        ResetSecret::new(self.key.secret_der())
    }

    fn pair_error(&self, error: &rustls::Error) -> TlsError {
        TlsError::Pair {
            cert: self.cert_path.clone(),
            key: self.key_path.clone(),
            reason: error.to_string(),
        }
    }
}

/// The certificates of a PEM file; at least one.
pub(crate) fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let missing = || TlsError::NoCertificate {
        path: path.to_owned(),
    };
    let pem = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| missing())?;
    if chain.is_empty() {
        Err(missing())
    } else {
        Ok(chain)
    }
}

pub(crate) fn load_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::Ca {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

/// For clients: the server's certificate only, tickets without state.
pub(crate) fn tcp_config(identity: &Identity, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(config_error)?
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| identity.pair_error(&error))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // Sealed tickets cost no memory here, spare a reconnecting crowd the signatures, and rule out
    // early data, which rustls offers with stored sessions only.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(config_error)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// [`tcp_config`] for clients over QUIC.
pub(crate) fn server_config(identity: &Identity, alpn: &[&[u8]]) -> Result<ServerCrypto, TlsError> {
    let config = Arc::new(tcp_config(identity, alpn)?);
    let quinn = QuicServerConfig::try_from(Arc::clone(&config)).map_err(config_error)?;
    Ok(ServerCrypto::new(quinn, config))
}

/// For clients of the client wire.
pub(crate) fn client_config(roots: RootCertStore, alpn: &[&[u8]]) -> Result<QuicClientConfig, TlsError> {
    let mut config = client_builder(roots)?.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    QuicClientConfig::try_from(config).map_err(config_error)
}

/// Both sides of mutual TLS. Nothing is resumed, so that every connection checks certificates anew.
pub(crate) fn mutual_configs(
    identity: &Identity,
    roots: RootCertStore,
    alpn: &[u8],
) -> Result<(QuicServerConfig, QuicClientConfig), TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider())
        .build()
        .map_err(config_error)?;
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(config_error)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| identity.pair_error(&error))?;
    server.alpn_protocols = vec![alpn.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = client_builder(roots)?
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| identity.pair_error(&error))?;
    client.alpn_protocols = vec![alpn.to_vec()];
    client.resumption = Resumption::disabled();
    Ok((
        QuicServerConfig::try_from(server).map_err(config_error)?,
        QuicClientConfig::try_from(client).map_err(config_error)?,
    ))
}

type ClientBuilder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn client_builder(roots: RootCertStore) -> Result<ClientBuilder, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(config_error)?
        .with_root_certificates(roots))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Whether a certificate is signed by a CA and valid now, as a server's.
pub(crate) fn is_signed_by(leaf: &CertificateDer<'_>, ca: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    let (Ok(()), Ok(parsed)) = (roots.add(ca.clone()), ParsedCertificate::try_from(leaf)) else {
        return false;
    };
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], UnixTime::now(), algorithms).is_ok()
}

fn check_validity(path: &Path, certificate: &CertificateDer<'_>) -> Result<(), TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::NoCertificate {
        path: path.to_owned(),
    })?;
    let validity = parsed.validity();
    if validity.is_valid() {
        return Ok(());
    }
    Err(TlsError::NotValidNow {
        path: path.to_owned(),
        from: validity.not_before.to_string(),
        until: validity.not_after.to_string(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn config_error(error: impl std::fmt::Display) -> TlsError {
    TlsError::Config(error.to_string())
}
