//! `DIR/cluster.json`: how tools find a running cluster. Holds the app's secret, so its mode is 0600.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// The name of the file in DIR.
pub const NAME: &str = "cluster.json";

/// The file. The fields and their names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// Where clients connect, `host:port`.
    pub edges: Vec<String>,
    /// The HTTP Server API at one of the core nodes; absent where none is known.
    pub server_api: Option<String>,
    /// The CA that clients and tools trust, PEM.
    pub ca_cert: PathBuf,
    /// The app whose tokens tools make.
    pub app_id: String,
    /// Its secret.
    pub app_secret: String,
    /// Its key of the Server API, if one was made for this file.
    #[serde(default)]
    pub api_key: Option<String>,
    /// The cluster's name.
    pub cluster: String,
    /// Folder of the certificates that tools of operators use on the cluster wire.
    pub tls: PathBuf,
    /// Every process.
    pub nodes: Vec<NodeRecord>,
}

/// One process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// `core-1`, `edge-1`, …
    pub id: String,
    /// What it does.
    pub roles: Vec<String>,
    /// Its process; `null` when somebody else started it.
    pub pid: Option<u32>,
    /// Where it listens (UDP).
    pub addr: SocketAddr,
    /// Loopback HTTP for health and metrics.
    pub observe: Option<SocketAddr>,
    /// The Server API, of core nodes.
    #[serde(default)]
    pub server_api: Option<String>,
    /// Its data folder.
    pub dir: Option<PathBuf>,
}

impl NodeRecord {
    /// The number behind `core-`, for core nodes.
    pub fn core_id(&self) -> Option<u64> {
        self.id.strip_prefix("core-")?.parse().ok()
    }
}

impl ClusterFile {
    /// Reads the file of a cluster.
    pub fn read(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Failure::no_cluster(dir)),
            Err(error) => return Err(Failure::io("reading", &path, &error)),
        };
        serde_json::from_str(&text).map_err(|error| {
            Failure::new(
                format!("the file is not a cluster file: {error}"),
                path.display().to_string(),
                "stop `throng up` and start it again on this folder; it writes the file anew",
            )
        })
    }

    /// Replaces the file as one step, readable by this user alone.
    pub fn write(&self, dir: &Path) -> Result<(), Failure> {
        let path = dir.join(NAME);
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        write_private(&path, &text).map_err(|error| Failure::io("writing", &path, &error))
    }

    /// The core nodes, by number.
    pub fn cores(&self) -> impl Iterator<Item = (u64, &NodeRecord)> {
        self.nodes
            .iter()
            .filter_map(|node| node.core_id().map(|id| (id, node)))
    }
}

/// Writes a file of mode 0600 so that a reader sees the old one or the new one, never a part.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sample() -> ClusterFile {
        let addr = SocketAddr::from(([127, 0, 0, 1], 7443));
        ClusterFile {
            edges: vec![addr.to_string()],
            server_api: None,
            ca_cert: "tls/ca.pem".into(),
            app_id: "demo".to_owned(),
            app_secret: "secret".to_owned(),
            api_key: None,
            cluster: "throng".to_owned(),
            tls: "tls".into(),
            nodes: vec![NodeRecord {
                id: "core-2".to_owned(),
                roles: vec!["message".to_owned()],
                pid: Some(7),
                addr,
                observe: None,
                server_api: None,
                dir: None,
            }],
        }
    }

    #[test]
    fn the_file_comes_back_as_written_and_is_private() {
        let dir = tempfile::tempdir().expect("a folder");
        sample().write(dir.path()).expect("written");
        sample().write(dir.path()).expect("written over");
        assert_eq!(ClusterFile::read(dir.path()), Ok(sample()));
        let mode = fs::metadata(dir.path().join(NAME))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(sample().cores().map(|(id, _)| id).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn no_cluster_and_a_broken_file_are_told_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(
            ClusterFile::read(dir.path()),
            Err(Failure::no_cluster(dir.path()))
        );
        fs::write(dir.path().join(NAME), "{").expect("written");
        assert!(
            ClusterFile::read(dir.path())
                .expect_err("broken")
                .what
                .starts_with("the file is not")
        );
    }
}
