//! A certificate authority for development and tests, in one folder.
//!
//! `ca.pem` and `ca.key` are made once; leaf certificates (P-256, at most 14 days, so that browsers
//! accept them by their hash) are reused while they have two days left, and renewed before that. It
//! refuses to be a production CA: its key lies in the clear beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use throng_protocol::cluster::PeerId;
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use crate::cluster::{check_cluster_name, node_name};
use crate::tls;

/// Validity of leaf certificates, all of it: browsers accept no more by hash.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(14 * DAY);
/// A leaf with less than this left is renewed: a development cluster runs over a weekend.
pub const LEAF_LEFT_MIN: Duration = Duration::from_secs(2 * DAY);
/// Validity of the CA.
const CA_VALIDITY: Duration = Duration::from_secs(5 * 365 * DAY);
/// A CA with less than this left is made anew, and with it all leaves.
const CA_LEFT_MIN: Duration = Duration::from_secs(30 * DAY);
/// How far a certificate's validity begins in the past, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(300);
const DAY: u64 = 24 * 3_600;

const CA_NAME: &str = "throng development CA";
/// What every server certificate is for.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why development certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DevCaError {
    /// A file or folder could not be read or written.
    #[error("cannot use {path}: {source}; check the rights of this user on that folder")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the CA is damaged, or its certificate and key are not of each other.
    #[error("{path} is not usable: {reason}; remove the folder's ca.pem and ca.key to start anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A name cannot stand in a certificate.
    #[error("no certificate for {name}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafFiles {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key, readable by its owner only.
    pub key: PathBuf,
    /// Whether it was made or renewed by this call.
    pub fresh: bool,
}

/// A development CA in a folder.
#[derive(Debug)]
pub struct DevCa {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// The CA's certificate, by which its leaves are known.
    certificate: CertificateDer<'static>,
}

impl DevCa {
    /// Opens the CA of a folder, creating folder and CA if they are missing. One process at a time.
    pub fn open(folder: &Path) -> Result<Self, DevCaError> {
        fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
        let (cert, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        if let Some(certificate) = read_certificate(&cert)?
            && seconds_left(&certificate) > CA_LEFT_MIN.as_secs()
        {
            let key_pem = fs::read_to_string(&key).map_err(|source| io_error(&key, source))?;
            let damaged = |reason: String| DevCaError::Damaged {
                path: key.clone(),
                reason,
            };
            let pair = KeyPair::from_pem(&key_pem).map_err(|error| damaged(error.to_string()))?;
            if !is_of_key(&certificate, &pair) {
                return Err(damaged("the key is not that of ca.pem".to_owned()));
            }
            return Ok(Self {
                folder: folder.to_owned(),
                issuer: Issuer::new(ca_params(), pair),
                certificate,
            });
        }
        let pair = generate(CA_NAME)?;
        let made = ca_params()
            .self_signed(&pair)
            .map_err(|error| name_error(CA_NAME, &error))?;
        write_private(&key, &pair.serialize_pem())?;
        write_public(&cert, &made.pem())?;
        let certificate = made.der().clone();
        Ok(Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(ca_params(), pair),
            certificate,
        })
    }

    /// The CA's certificate: what clients and nodes trust.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for servers, `<stem>.pem` and `<stem>.key`: for localhost, 127.0.0.1, ::1 and
    /// the names and addresses given.
    pub fn server(&self, stem: &str, names: &[String]) -> Result<LeafFiles, DevCaError> {
        let mut all: Vec<String> = LOCAL_NAMES.map(str::to_owned).to_vec();
        all.extend(
            names
                .iter()
                .filter(|name| !LOCAL_NAMES.contains(&name.as_str()))
                .cloned(),
        );
        self.leaf(stem, all, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// A certificate for a node of a cluster, `core-1.pem` and `core-1.key` or alike: for its name
    /// in the cluster, as server and as client.
    pub fn node(&self, peer: PeerId, cluster: &str) -> Result<LeafFiles, DevCaError> {
        let name = node_name(peer, cluster);
        check_cluster_name(cluster).map_err(|reason| DevCaError::Name {
            name: name.clone(),
            reason,
        })?;
        let stem = name.split('.').next().unwrap_or_default().to_owned();
        let usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.leaf(&stem, vec![name], usages)
    }

    fn leaf(
        &self,
        stem: &str,
        names: Vec<String>,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<LeafFiles, DevCaError> {
        let mut files = LeafFiles {
            ca: self.ca_file(),
            cert: self.folder.join(format!("{stem}.pem")),
            key: self.folder.join(format!("{stem}.key")),
            fresh: false,
        };
        let first = names.first().map(String::as_str).unwrap_or_default().to_owned();
        let mut params = CertificateParams::new(names).map_err(|error| name_error(&first, &error))?;
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, stem);
        params.extended_key_usages = usages;
        if !self.is_usable(&files, &params.subject_alt_names)? {
            self.issue(&files, params, unix_now() - BACKDATED.as_secs())?;
            files.fresh = true;
        }
        Ok(files)
    }

    fn issue(&self, files: &LeafFiles, mut params: CertificateParams, from: u64) -> Result<(), DevCaError> {
        set_validity(&mut params, from, LEAF_VALIDITY);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let name = files.cert.display().to_string();
        let pair = generate(&name)?;
        let made = params
            .signed_by(&pair, &self.issuer)
            .map_err(|error| name_error(&name, &error))?;
        write_private(&files.key, &pair.serialize_pem())?;
        write_public(&files.cert, &made.pem())
    }

    /// Whether a leaf exists with its key, is of this CA, has time left, and names what is asked.
    fn is_usable(&self, files: &LeafFiles, names: &[SanType]) -> Result<bool, DevCaError> {
        // A damaged leaf is made anew, unlike a damaged CA, whose loss invalidates all others.
        let Ok(Some(certificate)) = read_certificate(&files.cert) else {
            return Ok(false);
        };
        let key = match fs::read_to_string(&files.key) {
            Ok(pem) => KeyPair::from_pem(&pem).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(io_error(&files.key, source)),
        };
        let of_key = key.is_some_and(|key| is_of_key(&certificate, &key));
        let lasting = seconds_left(&certificate) >= LEAF_LEFT_MIN.as_secs();
        Ok(of_key && lasting && self.has_signed(&certificate) && covers(&certificate, names))
    }

    fn has_signed(&self, leaf: &CertificateDer<'_>) -> bool {
        tls::is_signed_by(leaf, &self.certificate)
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    // No intermediate CAs: a leaked leaf key can sign nothing.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, unix_now() - BACKDATED.as_secs(), CA_VALIDITY);
    params
}

fn generate(name: &str) -> Result<KeyPair, DevCaError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| name_error(name, &error))
}

/// The first certificate of a file; `None` if there is no such file.
fn read_certificate(path: &Path) -> Result<Option<CertificateDer<'static>>, DevCaError> {
    let pem = match fs::read(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error(path, source)),
    };
    let damaged = |reason: String| DevCaError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|error| damaged(error.to_string()))?;
    X509Certificate::from_der(&certificate).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(certificate))
}

/// Seconds until a certificate ends; 0 if it has, or is not valid yet.
fn seconds_left(certificate: &CertificateDer<'_>) -> u64 {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return 0;
    };
    let left = parsed.validity().time_to_expiration();
    left.and_then(|left| u64::try_from(left.whole_seconds()).ok())
        .unwrap_or(0)
}

fn is_of_key(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data == key.public_key_raw())
}

/// Whether a certificate has all names asked for; more do no harm.
fn covers(certificate: &CertificateDer<'_>, names: &[SanType]) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let Ok(Some(held)) = parsed.subject_alternative_name() else {
        return false;
    };
    names.iter().all(|name| {
        held.value.general_names.iter().any(|held| match (name, held) {
            (SanType::DnsName(name), GeneralName::DNSName(held)) => name.as_str() == *held,
            (SanType::IpAddress(IpAddr::V4(ip)), GeneralName::IPAddress(held)) => ip.octets() == *held,
            (SanType::IpAddress(IpAddr::V6(ip)), GeneralName::IPAddress(held)) => ip.octets() == *held,
            _ => false,
        })
    })
}

/// Writes a private key, readable by its owner only from the first byte on.
fn write_private(path: &Path, pem: &str) -> Result<(), DevCaError> {
    write_file(path, pem, 0o600)
}

fn write_public(path: &Path, pem: &str) -> Result<(), DevCaError> {
    write_file(path, pem, 0o644)
}

/// Writes beside the file and renames, so that no reader meets half of it.
fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), DevCaError> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        // A file left by a crash may have another mode; `create_new` is what sets it.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|source| io_error(path, source))
}

fn unix_now() -> u64 {
    // A clock before 1970 makes certificates that are not valid: TLS says so with the dates.
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(BACKDATED.as_secs(), |now| now.as_secs())
}

/// Sets a validity. rcgen does not re-export the type of its dates; x509-parser makes the same.
fn set_validity(params: &mut CertificateParams, from: u64, validity: Duration) {
    let date = |unix_s: u64| ASN1Time::from_timestamp(i64::try_from(unix_s).unwrap_or(i64::MAX));
    // Fails for dates behind the year 9999 only; the defaults of rcgen then are as good.
    if let (Ok(from), Ok(until)) = (date(from), date(from + validity.as_secs())) {
        params.not_before = from.to_datetime();
        params.not_after = until.to_datetime();
    }
}

fn io_error(path: &Path, source: io::Error) -> DevCaError {
    DevCaError::Io {
        path: path.to_owned(),
        source,
    }
}

fn name_error(name: &str, error: &rcgen::Error) -> DevCaError {
    DevCaError::Name {
        name: name.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use throng_protocol::ids::NodeId;

    #[test]
    fn a_leaf_is_kept_while_it_has_two_days_left_and_renewed_before_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let ca = DevCa::open(folder.path()).unwrap();
        let files = ca.server("edge", &[]).unwrap();
        assert!(files.fresh);
        let ends_in = |days: u64| unix_now() + days * DAY + 60 - LEAF_VALIDITY.as_secs();
        let params = || CertificateParams::new(LOCAL_NAMES.map(str::to_owned).to_vec()).unwrap();
        let issue = |from| {
            let mut params = params();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            ca.issue(&files, params, from).unwrap();
        };
        issue(ends_in(2));
        assert!(!ca.server("edge", &[]).unwrap().fresh);
        issue(ends_in(1));
        assert!(ca.server("edge", &[]).unwrap().fresh);
        assert!(!ca.server("edge", &[]).unwrap().fresh);
    }

    #[test]
    fn a_leaf_is_renewed_for_another_name_another_ca_or_a_lost_key() {
        let folder = tempfile::tempdir().unwrap();
        let ca = DevCa::open(folder.path()).unwrap();
        let files = ca.server("edge", &[]).unwrap();
        assert!(ca.server("edge", &["chat.example".to_owned()]).unwrap().fresh);
        assert!(!ca.server("edge", &["chat.example".to_owned()]).unwrap().fresh);
        fs::remove_file(&files.key).unwrap();
        assert!(ca.server("edge", &[]).unwrap().fresh);
        fs::remove_file(ca.ca_file()).unwrap();
        assert!(
            DevCa::open(folder.path())
                .unwrap()
                .server("edge", &[])
                .unwrap()
                .fresh
        );
    }

    #[test]
    fn a_leaf_lasts_14_days_at_most_and_keys_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let ca = DevCa::open(folder.path()).unwrap();
        let files = ca.node(PeerId::Core(NodeId(1)), "dev").unwrap();
        let certificate = read_certificate(&files.cert).unwrap().unwrap();
        let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
        let validity = parsed.validity();
        let whole = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(u64::try_from(whole).unwrap(), 14 * DAY);
        for key in [&files.key, &folder.path().join("ca.key")] {
            assert_eq!(
                fs::metadata(key).unwrap().permissions().mode() & 0o777,
                0o600,
                "{key:?}"
            );
        }
    }

    #[test]
    fn a_key_of_another_ca_is_reported_and_not_overwritten() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        DevCa::open(one.path()).unwrap();
        DevCa::open(two.path()).unwrap();
        fs::copy(two.path().join("ca.key"), one.path().join("ca.key")).unwrap();
        assert!(matches!(DevCa::open(one.path()), Err(DevCaError::Damaged { .. })));
    }
}
