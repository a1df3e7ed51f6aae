//! Clients of a system: the SDK as an application uses it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use throng_client::{Client, ClientConfig, DeviceId, StaticToken, Trust};

use crate::process::Binary;
use crate::system::blocking;

/// What clients need of `cluster.json`.
#[derive(Debug, Deserialize)]
struct ClusterFile {
    edges: Vec<String>,
    ca_cert: String,
}

/// Connects a user to a system, to one of its edges by turn.
pub async fn connect(binary: &Binary, cluster: &Path, user: &str, turn: usize) -> Result<Client> {
    let file = std::fs::read(cluster.join("cluster.json")).context("reading cluster.json")?;
    let file: ClusterFile = serde_json::from_slice(&file).context("reading cluster.json")?;
    let mut edges = file.edges;
    ensure!(!edges.is_empty(), "the system has no edge");
    let first = turn % edges.len();
    edges.rotate_left(first);
    let trust = Trust::ca_file(Path::new(&file.ca_cert)).context("reading the CA")?;
    let token = token(binary, cluster, user)?;
    let device = DeviceId::new("crash").context("naming the device")?;
    let config = ClientConfig {
        seed: turn as u64,
        ..ClientConfig::new(edges, trust, Arc::new(StaticToken(token)), device)
    };
    Client::connect(config).await.context("connecting")
}

fn token(binary: &Binary, cluster: &Path, user: &str) -> Result<String> {
    let cluster = cluster.display().to_string();
    let output = blocking(|| binary.run(["token", "--cluster", &cluster, "--user", user]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "no token: {said}");
    Ok(String::from_utf8(output.stdout)
        .context("reading the token")?
        .trim()
        .to_owned())
}
