//! What `up` keeps in DIR: the format, the lock, the ports, the app and its secret, the
//! certificates. Written once; starting again on DIR finds everything as it was.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::cluster_file::write_private;
use crate::cli::failure::Failure;
use crate::cli::server_api::{self, KEY_OF_UP};

/// The format of DIR this build writes.
pub const FORMAT: u32 = 1;

const LAYOUT: &str = "layout.json";

/// A held DIR; the lock ends with it.
#[derive(Debug)]
pub struct Held {
    /// The folder, absolute.
    pub dir: PathBuf,
    /// The plan.
    pub layout: Layout,
    _lock: File,
}

/// Which processes DIR runs, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    format: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The app tools use.
    pub app_id: String,
    /// Its secret, hexadecimal.
    pub app_secret: String,
    /// Its key of the Server API; absent in a folder of an older build.
    #[serde(default)]
    pub api_key: Option<String>,
    /// The cluster has been given that key: from then on who removes it is an operator.
    #[serde(default)]
    pub api_key_given: bool,
    /// Core nodes, by number from 1.
    pub cores: Vec<Process>,
    /// Edges, by number from 1.
    pub edges: Vec<Process>,
}

/// The addresses of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// UDP.
    pub addr: SocketAddr,
    /// Loopback HTTP.
    pub observe: SocketAddr,
    /// HTTPS of the Server API, of core nodes; absent in a folder of an older build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_api: Option<SocketAddr>,
}

impl Process {
    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        [self.addr, self.observe].into_iter().chain(self.server_api)
    }
}

/// Opens DIR for one `up`: creates it, or finds what an earlier one left.
pub fn hold(dir: &Path, cores: usize, edges: usize, fresh: bool) -> Result<Held, Failure> {
    fs::create_dir_all(dir).map_err(|error| Failure::io("making the folder", dir, &error))?;
    let dir = dir
        .canonicalize()
        .map_err(|error| Failure::io("finding the folder", dir, &error))?;
    let lock = lock(&dir)?;
    if fresh {
        clear(&dir)?;
    }
    let layout = match read(&dir)? {
        Some(layout) => grown(layout, &dir, cores, edges)?,
        None => created(&dir, cores, edges)?,
    };
    Ok(Held {
        dir,
        layout,
        _lock: lock,
    })
}

fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Failure::io("opening the lock", &path, &error))?;
    match file.try_lock() {
        Ok(()) => {
            // The pid is a help for people; the lock itself is the file's.
            let note = file
                .set_len(0)
                .and_then(|()| writeln!(file, "{}", std::process::id()));
            note.map_err(|error| Failure::io("writing the lock", &path, &error))?;
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => Err(Failure::locked(dir)),
        Err(fs::TryLockError::Error(error)) => Err(Failure::io("locking", &path, &error)),
    }
}

/// Removes what `up` made, and nothing else: DIR may be a folder given by mistake.
fn clear(dir: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(dir).map_err(|error| Failure::io("reading the folder", dir, &error))?;
    let mut ours = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = ["tls", "logs", LAYOUT, "cluster.json"].contains(&name.as_str())
            || ["core-", "edge-", "relay-"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
        match name.as_str() {
            "lock" => {}
            _ if known => ours.push(entry.path()),
            _ => {
                return Err(Failure::usage(
                    format!("--fresh empties the folder, and `{name}` in it is not throng's"),
                    dir.display().to_string(),
                    "name a folder of its own, or remove that file yourself",
                ));
            }
        }
    }
    for path in ours {
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(|error| Failure::io("removing", &path, &error))?;
    }
    Ok(())
}

fn read(dir: &Path) -> Result<Option<Layout>, Failure> {
    let path = dir.join(LAYOUT);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::io("reading", &path, &error)),
    };
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let broken = |error: serde_json::Error| {
        let next = "restore the file from a backup, or start anew with --fresh";
        Failure::new(
            format!("the layout cannot be read: {error}"),
            path.display().to_string(),
            next,
        )
    };
    // The format first: a later one may have any other shape.
    let found: Format = serde_json::from_str(&text).map_err(broken)?;
    if found.format > FORMAT {
        return Err(Failure::newer_format(dir, found.format, FORMAT));
    }
    serde_json::from_str(&text).map(Some).map_err(broken)
}

/// An existing DIR: core nodes stay as they are, edges may be added.
fn grown(mut layout: Layout, dir: &Path, cores: usize, edges: usize) -> Result<Layout, Failure> {
    if cores != layout.cores.len() {
        return Err(Failure::usage(
            format!("this cluster has {} core nodes, not {cores}", layout.cores.len()),
            dir.display().to_string(),
            format!(
                "give --core-nodes {}, or start anew with --fresh",
                layout.cores.len()
            ),
        ));
    }
    layout.edges.truncate(edges);
    while layout.edges.len() < edges {
        layout.edges.push(process(&layout)?);
    }
    with_server_api(&mut layout)?;
    store(dir, &layout)?;
    Ok(layout)
}

/// Gives the app a key of the Server API, and core nodes the port of it, where there are none yet.
fn with_server_api(layout: &mut Layout) -> Result<(), Failure> {
    if layout.api_key.is_none() {
        layout.api_key = Some(server_api::new_key(&layout.app_id, KEY_OF_UP)?.reveal());
    }
    for place in 0..layout.cores.len() {
        if layout.cores[place].server_api.is_none() {
            layout.cores[place].server_api = Some(process(layout)?.addr);
        }
    }
    Ok(())
}

fn created(dir: &Path, cores: usize, edges: usize) -> Result<Layout, Failure> {
    let secret: [u8; 32] = rand::random();
    let mut layout = Layout {
        format: FORMAT,
        cluster: "throng".to_owned(),
        app_id: "demo".to_owned(),
        app_secret: secret.iter().map(|byte| format!("{byte:02x}")).collect(),
        api_key: None,
        api_key_given: false,
        cores: Vec::new(),
        edges: Vec::new(),
    };
    for _ in 0..cores {
        layout.cores.push(process(&layout)?);
    }
    for _ in 0..edges {
        layout.edges.push(process(&layout)?);
    }
    with_server_api(&mut layout)?;
    store(dir, &layout)?;
    Ok(layout)
}

/// Remembers that the cluster has the key of the Server API.
pub fn key_is_given(held: &Held) -> Result<(), Failure> {
    let layout = Layout {
        api_key_given: true,
        ..held.layout.clone()
    };
    store(&held.dir, &layout)
}

fn store(dir: &Path, layout: &Layout) -> Result<(), Failure> {
    let path = dir.join(LAYOUT);
    let text = serde_json::to_vec_pretty(layout).unwrap_or_default();
    write_private(&path, &text).map_err(|error| Failure::io("writing", &path, &error))
}

/// Two ports that nothing uses now and that the layout does not name yet.
fn process(layout: &Layout) -> Result<Process, Failure> {
    let taken = |addr: SocketAddr| {
        layout
            .cores
            .iter()
            .chain(&layout.edges)
            .any(|process| process.addresses().any(|taken| taken == addr))
    };
    let mut found = Vec::new();
    let mut sockets = Vec::new();
    while found.len() < 2 {
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
            let addr = socket.local_addr()?;
            // The same number must be free for TCP: observability listens there.
            let tcp = std::net::TcpListener::bind(addr);
            sockets.push(socket);
            Ok(tcp.is_ok().then_some(addr))
        });
        match free {
            Ok(Some(addr)) if !taken(addr) => found.push(addr),
            Ok(_) if sockets.len() < 64 => {}
            Ok(_) => {
                return Err(Failure::new(
                    "no free port was found",
                    "127.0.0.1",
                    "close some programs and try again",
                ));
            }
            Err(error) => {
                return Err(Failure::new(
                    format!("no free port: {error}"),
                    "127.0.0.1",
                    "try again",
                ));
            }
        }
    }
    Ok(Process {
        addr: found[0],
        observe: found[1],
        server_api: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_finds_the_same_ports_and_secret() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = hold(dir.path(), 3, 1, false).expect("held").layout;
        let second = hold(dir.path(), 3, 2, false).expect("held again").layout;
        assert_eq!(
            (&first.cores, &first.app_secret),
            (&second.cores, &second.app_secret)
        );
        assert_eq!(first.edges[0], second.edges[0]);
        assert_eq!(second.edges.len(), 2);
        let mut all: Vec<_> = second
            .cores
            .iter()
            .chain(&second.edges)
            .flat_map(|process| process.addresses().collect::<Vec<_>>())
            .collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 13, "three for each core node, two for each edge");
        assert!(first.api_key.is_some() && first.api_key == second.api_key);
    }

    #[test]
    fn a_folder_of_a_build_without_server_api_gets_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut old = hold(dir.path(), 1, 1, false).expect("held").layout;
        (old.api_key, old.cores[0].server_api) = (None, None);
        store(dir.path(), &old).expect("stored");
        let new = hold(dir.path(), 1, 1, false).expect("held").layout;
        assert_eq!(new.cores[0].addr, old.cores[0].addr);
        assert!(new.api_key.is_some() && new.cores[0].server_api.is_some());
    }

    #[test]
    fn a_folder_in_use_of_a_newer_format_or_of_another_size_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let held = hold(dir.path(), 3, 1, false).expect("held");
        let again = hold(dir.path(), 3, 1, false).expect_err("locked");
        assert_eq!(again, Failure::locked(&held.dir));
        let path = held.dir.clone();
        drop(held);
        assert!(
            hold(&path, 5, 1, false)
                .expect_err("other size")
                .what
                .contains("3 core nodes")
        );
        fs::write(path.join(LAYOUT), r#"{"format": 2, "whatever": 1}"#).expect("written");
        assert_eq!(
            hold(&path, 3, 1, false).expect_err("newer"),
            Failure::newer_format(&path, 2, FORMAT)
        );
    }

    #[test]
    fn fresh_empties_only_what_is_ours() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = hold(dir.path(), 3, 1, false).expect("held").layout;
        let second = hold(dir.path(), 3, 1, true).expect("held").layout;
        assert_ne!(first.app_secret, second.app_secret);
        fs::write(dir.path().join("thesis.txt"), "years of work").expect("written");
        assert!(
            hold(dir.path(), 3, 1, true)
                .expect_err("refused")
                .what
                .contains("thesis.txt")
        );
        assert!(dir.path().join(LAYOUT).exists());
    }
}
