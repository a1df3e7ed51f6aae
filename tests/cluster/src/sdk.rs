//! Clients of a system: the SDK as an application uses it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
    let (mut edges, trust) = reach(cluster)?;
    let first = turn % edges.len();
    edges.rotate_left(first);
    let device = DeviceId::new("crash").context("naming the device")?;
    let token = Arc::new(StaticToken(token(binary, cluster, user)?));
    let config = ClientConfig {
        seed: turn as u64,
        ..ClientConfig::new(edges, trust, token, device)
    };
    Client::connect(config).await.context("connecting")
}

/// Connects a user's devices to a system, one to each of its edges and to no other. Their requests fail
/// when they have no answer after a time.
pub async fn devices(binary: &Binary, cluster: &Path, user: &str, deadline: Duration) -> Result<Vec<Client>> {
    let (edges, trust) = reach(cluster)?;
    let token = Arc::new(StaticToken(token(binary, cluster, user)?));
    let mut clients = Vec::new();
    for (turn, edge) in edges.into_iter().enumerate() {
        let device = DeviceId::new(&format!("device-{turn}")).context("naming the device")?;
        let config = ClientConfig {
            seed: turn as u64,
            request_deadline: deadline,
            ..ClientConfig::new(vec![edge], trust.clone(), token.clone(), device)
        };
        clients.push(Client::connect(config).await.context("connecting")?);
    }
    Ok(clients)
}

/// The edges of a system, at least one, and whose certificates they have.
fn reach(cluster: &Path) -> Result<(Vec<String>, Trust)> {
    let file = std::fs::read(cluster.join("cluster.json")).context("reading cluster.json")?;
    let file: ClusterFile = serde_json::from_slice(&file).context("reading cluster.json")?;
    ensure!(!file.edges.is_empty(), "the system has no edge");
    let trust = Trust::ca_file(Path::new(&file.ca_cert)).context("reading the CA")?;
    Ok((file.edges, trust))
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
