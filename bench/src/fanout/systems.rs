//! The systems that are compared: how each is started, found and ended.

use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use throng_transport::dev_ca::{DevCa, LeafFiles};

use super::load::Target;
use super::machine;

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server may take to end before it is killed: the time `up` drains in, and some more.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// Between two looks at something that another process does.
const LOOK: Duration = Duration::from_millis(20);

/// A system that fans out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Throng,
    Quinn,
    /// quinn whose clients acknowledge as rarely as an edge's.
    QuinnFewAcks,
    MosquittoQos0,
    MosquittoQos1,
    Nats,
    Centrifugo,
}

/// Every peer, by the name it has on the command line.
const PEERS: [Kind; 6] = [
    Kind::Quinn,
    Kind::QuinnFewAcks,
    Kind::MosquittoQos0,
    Kind::MosquittoQos1,
    Kind::Nats,
    Kind::Centrifugo,
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throng => "throng",
            Self::Quinn => "quinn",
            Self::QuinnFewAcks => "quinn-few-acks",
            Self::MosquittoQos0 => "mosquitto-qos0",
            Self::MosquittoQos1 => "mosquitto-qos1",
            Self::Nats => "nats",
            Self::Centrifugo => "centrifugo",
        })
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = PEERS.iter().find(|kind| kind.to_string() == text);
        let names: Vec<String> = PEERS.iter().map(Self::to_string).collect();
        found
            .copied()
            .ok_or_else(|| anyhow!("no peer is called `{text}`; there are {}", names.join(", ")))
    }
}

impl Kind {
    /// The program of the system, if this machine has it; why not, otherwise.
    pub fn program(self, throng: &Path) -> Result<PathBuf, String> {
        match self {
            Self::Throng if throng.is_file() => Ok(throng.to_owned()),
            Self::Throng => Err(format!("there is no {}; build it first", throng.display())),
            Self::Quinn | Self::QuinnFewAcks => std::env::current_exe().map_err(|error| error.to_string()),
            Self::MosquittoQos0 | Self::MosquittoQos1 => found("mosquitto"),
            Self::Nats => found("nats-server"),
            Self::Centrifugo => found("centrifugo"),
        }
    }
}

/// Looks along PATH, where Debian puts daemons, and where Go puts programs.
fn found(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let go = std::env::home_dir().map(|home| home.join("go/bin"));
    let mut places = folders.chain(go).map(|folder| folder.join(name));
    places
        .find(|place| place.is_file())
        .ok_or_else(|| format!("{name} is not installed"))
}

/// A running system, in a folder of its own. Ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    child: Child,
    folder: tempfile::TempDir,
    target: Target,
}

impl Server {
    /// Starts a system on certain processors and waits until it answers.
    pub fn start(kind: Kind, program: &Path, cpus: &[usize]) -> Result<Self> {
        let folder = tempfile::tempdir().context("making a folder")?;
        let addr = free_addr(kind)?;
        let ca = DevCa::open(&folder.path().join("tls"))?;
        let leaf = ca.server("server", &[])?;
        let (command, target) = command(kind, program, folder.path(), addr, &leaf)?;
        let child = machine::on(cpus, || spawn(command, folder.path()))?;
        let mut server = Self {
            kind,
            child,
            folder,
            target,
        };
        server.await_start(addr)?;
        Ok(server)
    }

    /// Where a load finds it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The core nodes, of a system that has any.
    pub fn cores(&self) -> Result<Vec<u32>> {
        match self.kind {
            Kind::Throng => Ok(self.parts()?.1),
            _ => Ok(Vec::new()),
        }
    }

    /// The edges and the core nodes of throng.
    pub fn parts(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let Target::Throng { cluster } = &self.target else {
            bail!("{} has neither edges nor core nodes", self.kind);
        };
        let nodes = nodes(cluster)?;
        let of = |core| {
            let of_role = nodes
                .iter()
                .filter(move |node| node.roles.iter().any(|role| role == "edge") != core);
            of_role.filter_map(|node| node.pid).collect()
        };
        Ok((of(false), of(true)))
    }

    /// Every process that serves. Not the one that watches over throng's nodes, which does nothing.
    pub fn pids(&self) -> Result<Vec<u32>> {
        match &self.target {
            Target::Throng { cluster } => {
                let nodes = nodes(cluster)?;
                Ok(nodes.iter().filter_map(|node| node.pid).collect())
            }
            _ => Ok(vec![self.child.id()]),
        }
    }

    fn await_start(&mut self, addr: SocketAddr) -> Result<()> {
        let until = Instant::now() + START_TIMEOUT;
        while !self.answers(addr) {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("{} ended as it started, {status}: {log}", self.kind);
            }
            ensure!(Instant::now() < until, "{} does not start", self.kind);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Whether it can be connected to; clients of QUIC try until it can.
    fn answers(&self, addr: SocketAddr) -> bool {
        match &self.target {
            Target::Throng { cluster } => nodes(cluster).is_ok_and(|nodes| !nodes.is_empty()),
            Target::Quinn { .. } => UdpSocket::bind(addr).is_err(),
            Target::Mqtt { .. } | Target::Nats { .. } | Target::Centrifugo { .. } => {
                TcpStream::connect(addr).is_ok()
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `up` ends its nodes when its stdin closes.
        drop(self.child.stdin.take());
        let until = Instant::now() + END_TIMEOUT;
        let throng = self.kind == Kind::Throng;
        while throng && Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free at the moment.
fn free_addr(kind: Kind) -> Result<SocketAddr> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(match kind {
        Kind::Throng | Kind::Quinn | Kind::QuinnFewAcks => UdpSocket::bind(any)?.local_addr()?,
        Kind::MosquittoQos0 | Kind::MosquittoQos1 | Kind::Nats | Kind::Centrifugo => {
            TcpListener::bind(any)?.local_addr()?
        }
    })
}

fn command(
    kind: Kind,
    program: &Path,
    folder: &Path,
    addr: SocketAddr,
    leaf: &LeafFiles,
) -> Result<(Command, Target)> {
    let mut command = Command::new(program);
    let ca = leaf.ca.clone();
    let target = match kind {
        Kind::Throng => {
            let cluster = folder.join("cluster");
            command.args(["up", "--supervised", "--dir"]).arg(&cluster);
            Target::Throng { cluster }
        }
        Kind::Quinn | Kind::QuinnFewAcks => {
            command.args(["bare-quinn", "--listen", &addr.to_string(), "--cert"]);
            command.arg(&leaf.cert).arg("--key").arg(&leaf.key);
            if kind == Kind::QuinnFewAcks {
                command.arg("--few-acks");
            }
            Target::Quinn { addr, ca }
        }
        Kind::MosquittoQos0 | Kind::MosquittoQos1 => {
            let config = configured(
                include_str!("../../peers/mosquitto.conf"),
                folder,
                addr,
                leaf,
                "conf",
            )?;
            command.arg("-c").arg(config);
            let qos = u8::from(kind == Kind::MosquittoQos1);
            Target::Mqtt { addr, ca, qos }
        }
        Kind::Nats => {
            let config = configured(include_str!("../../peers/nats.conf"), folder, addr, leaf, "conf")?;
            command.arg("-c").arg(config);
            Target::Nats { addr, ca }
        }
        Kind::Centrifugo => {
            let config = configured(
                include_str!("../../peers/centrifugo.json"),
                folder,
                addr,
                leaf,
                "json",
            )?;
            command.arg("--config").arg(config);
            Target::Centrifugo { addr, ca }
        }
    };
    Ok((command, target))
}

/// Writes a peer's configuration for this run.
fn configured(
    template: &str,
    folder: &Path,
    addr: SocketAddr,
    leaf: &LeafFiles,
    ending: &str,
) -> Result<PathBuf> {
    let path = folder.join(format!("server.{ending}"));
    let filled = template
        .replace("{port}", &addr.port().to_string())
        .replace("{cert}", &leaf.cert.display().to_string())
        .replace("{key}", &leaf.key.display().to_string());
    std::fs::write(&path, filled).context("writing the server's configuration")?;
    Ok(path)
}

fn spawn(mut command: Command, folder: &Path) -> Result<Child> {
    let log = std::fs::File::create(folder.join("log"))?;
    let child = command
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    child.context("starting the server")
}

/// A node, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Node {
    roles: Vec<String>,
    pid: Option<u32>,
}

/// The nodes of a cluster.
fn nodes(cluster: &Path) -> Result<Vec<Node>> {
    #[derive(Deserialize)]
    struct File {
        nodes: Vec<Node>,
    }
    let file = std::fs::read(cluster.join("cluster.json")).context("reading cluster.json")?;
    let file: File = serde_json::from_slice(&file)?;
    Ok(file.nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_known_by_their_names_and_others_are_refused() {
        for peer in PEERS {
            assert_eq!(peer.to_string().parse::<Kind>().unwrap(), peer);
            assert_eq!(serde_json::to_string(&peer).unwrap(), format!("\"{peer}\""));
        }
        assert!("throng".parse::<Kind>().is_err(), "it is no peer of its own");
    }

    #[test]
    fn an_absent_program_says_what_is_missing() {
        let reason = Kind::Throng.program(Path::new("/nowhere/throng")).unwrap_err();
        assert!(reason.contains("/nowhere/throng"));
        assert!(found("no-such-server").unwrap_err().contains("no-such-server"));
    }
}
