//! A cluster started by hand: `throng core` and `throng gateway` processes from the printed
//! examples, on free ports.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::disk::Disk;
use crate::process::{Binary, Running};

/// How long a node may take to say that it serves.
const READY: Duration = Duration::from_secs(60);

/// Processes started by hand, and the folder tools find them by.
#[derive(Debug)]
pub struct Nodes {
    /// Core nodes, by number from 1.
    pub cores: Vec<Running>,
    /// Edges, by number from 1.
    pub edges: Vec<Running>,
    binary: Binary,
    dir: PathBuf,
}

impl Nodes {
    /// Starts three core nodes and some edges below a folder, core nodes under the disks given, and
    /// adopts them as a cluster.
    pub fn start(binary: &Binary, dir: &Path, edges: usize, disks: &[Disk]) -> Result<Self> {
        let mut text = [example(binary, "core")?, example(binary, "gateway")?];
        let ports = free_ports(3 + 3 + 2 + 2 + 3)?;
        let used = [
            "127.0.0.1:7101",
            "127.0.0.1:7102",
            "127.0.0.1:7103",
            "127.0.0.1:7201",
            "127.0.0.1:7202",
        ];
        let used = used
            .into_iter()
            .chain(["127.0.0.1:7203", "127.0.0.1:7443", "127.0.0.1:7444"]);
        let used = used.chain(["127.0.0.1:7301", "127.0.0.1:7302"]);
        let used = used.chain(["127.0.0.1:7401", "127.0.0.1:7402", "127.0.0.1:7403"]);
        for (example, port) in used.zip(&ports) {
            text = text.map(|text| text.replace(example, &port.to_string()));
        }
        let data = dir.join("throng-data").display().to_string();
        let text = text.map(|text| text.replace("throng-data", &data));
        for (name, text) in ["core.toml", "gateway.toml"].into_iter().zip(&text) {
            fs::write(dir.join(name), text).context("writing a configuration")?;
        }
        let mut nodes = Self {
            cores: Vec::new(),
            edges: Vec::new(),
            binary: binary.clone(),
            dir: dir.to_owned(),
        };
        for id in 1..=3 {
            let core = nodes.spawn_core(id, disks.get(id - 1))?;
            nodes.cores.push(core);
        }
        for id in 1..=edges {
            let edge = nodes.command("gateway", id, None);
            nodes.edges.push(edge?);
        }
        for node in nodes.cores.iter_mut().chain(&mut nodes.edges) {
            node.wait_for_line("ready", READY)?;
        }
        nodes.adopt(&ports[..3], &ports[6..6 + edges], &data)?;
        Ok(nodes)
    }

    /// Starts one core node; it is not waited for.
    pub fn spawn_core(&self, id: usize, disk: Option<&Disk>) -> Result<Running> {
        self.command("core", id, disk)
    }

    /// The folder with `cluster.json`.
    pub fn cluster(&self) -> PathBuf {
        self.dir.join("cluster")
    }

    fn command(&self, kind: &str, id: usize, disk: Option<&Disk>) -> Result<Running> {
        let mut command = Command::new(self.binary.path());
        command
            .arg(kind)
            .arg("--config")
            .arg(self.dir.join(format!("{kind}.toml")));
        command.args(["--id", &id.to_string()]);
        if let Some(disk) = disk {
            disk.preload(&mut command);
        }
        Running::start(&mut command)
    }

    fn adopt(&self, cores: &[SocketAddr], edges: &[SocketAddr], data: &str) -> Result<()> {
        let mut args = vec![
            "ctl".to_owned(),
            "adopt".to_owned(),
            "--cluster".to_owned(),
            self.cluster().display().to_string(),
        ];
        args.extend(["--tls".to_owned(), format!("{data}/tls")]);
        for (place, core) in cores.iter().enumerate() {
            args.extend(["--core".to_owned(), format!("{}={core}", place + 1)]);
        }
        for edge in edges {
            args.extend(["--edge".to_owned(), edge.to_string()]);
        }
        let output = self.binary.run(&args)?;
        ensure!(
            output.status.success(),
            "adopting failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

fn example(binary: &Binary, kind: &str) -> Result<String> {
    let output = binary.run(["config", kind])?;
    ensure!(output.status.success(), "no example of {kind}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Addresses on loopback that nothing uses now.
pub fn free_ports(count: usize) -> Result<Vec<SocketAddr>> {
    let mut sockets = Vec::new();
    let mut ports = Vec::new();
    while ports.len() < count {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("binding")?;
        let addr = socket.local_addr().context("asking for the port")?;
        if std::net::TcpListener::bind(addr).is_ok() {
            ports.push(addr);
        }
        sockets.push(socket);
    }
    Ok(ports)
}
