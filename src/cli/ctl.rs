//! `throng ctl`: operate a cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use serde::Serialize;
use throng_protocol::ids::{ChannelId, NodeId};

use super::admin::{Admin, Fencing};
use super::cluster_file::{ClusterFile, NodeRecord};
use super::failure::{Exit, Failure};
use super::{server_api, tell};

/// What can be done.
#[derive(Debug, Clone, Subcommand)]
pub enum CtlCommand {
    /// Show every node's shards: leader, term, log, applied, and why one has stopped
    Status {
        /// Folder of a running cluster
        #[arg(long)]
        cluster: PathBuf,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Remove a member from a group: nothing of theirs is taken and nothing reaches them any more
    Kick {
        /// Folder of a running cluster
        #[arg(long)]
        cluster: PathBuf,
        /// The group
        #[arg(long)]
        group: String,
        /// The member
        #[arg(long)]
        user: String,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Let a member of a group send nothing for a while
    Mute {
        /// Folder of a running cluster
        #[arg(long)]
        cluster: PathBuf,
        /// The group
        #[arg(long)]
        group: String,
        /// The member
        #[arg(long)]
        user: String,
        /// For how long; 0 ends a mute
        #[arg(long)]
        seconds: u64,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Keys that back ends of an app use the Server API with
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Write cluster.json for nodes that were started by hand, and register an app with them
    Adopt {
        /// Where to write cluster.json; made if absent
        #[arg(long)]
        cluster: PathBuf,
        /// The cluster's name, as in the nodes' configuration
        #[arg(long, default_value = "throng")]
        name: String,
        /// Folder of the development CA the nodes use
        #[arg(long, default_value = "throng-data/tls")]
        tls: PathBuf,
        /// A core node, `id=host:port`; give all of them
        #[arg(long = "core", required = true)]
        cores: Vec<String>,
        /// An edge, `host:port`; give all of them
        #[arg(long = "edge", required = true)]
        edges: Vec<SocketAddr>,
        /// The app to register
        #[arg(long, default_value = "demo")]
        app: String,
    },
}

/// What can be done with keys of the Server API. To rotate one, add a new one, give it to the back end, and
/// remove the old one.
#[derive(Debug, Clone, Subcommand)]
pub enum ApiKeyCommand {
    /// Make a key and print it: it is shown this once only
    Add {
        /// Folder of a running cluster
        #[arg(long)]
        cluster: PathBuf,
        /// Its id among the keys of the app: letters, digits, - and _
        id: String,
    },
    /// Remove a key; requests with it are refused within moments
    Remove {
        /// Folder of a running cluster
        #[arg(long)]
        cluster: PathBuf,
        /// Its id
        id: String,
    },
    /// Show the ids of all keys
    List {
        /// Folder of a running cluster
        #[arg(long)]
        cluster: PathBuf,
    },
}

async fn api_key(command: ApiKeyCommand) -> Result<Exit, Failure> {
    let (ApiKeyCommand::Add { cluster, .. }
    | ApiKeyCommand::Remove { cluster, .. }
    | ApiKeyCommand::List { cluster }) = &command;
    let file = ClusterFile::read(cluster)?;
    let admin = Admin::connect(&file).await?;
    let keys = admin.api_keys(&file.app_id).await?;
    let known = |id: &str| keys.iter().any(|key| key.kid == id);
    match &command {
        ApiKeyCommand::Add { id, .. } => {
            if known(id) {
                return Err(Failure::usage(
                    format!("the app has a key {id:?}"),
                    "the id",
                    "choose another, or remove that one first",
                ));
            }
            let key = server_api::new_key(&file.app_id, id)?;
            admin.add_api_key(&file.app_id, key.kept()).await?;
            tell::say(key.reveal());
        }
        ApiKeyCommand::Remove { id, .. } => {
            if !known(id) {
                return Err(Failure::usage(
                    format!("the app has no key {id:?}"),
                    "the id",
                    "`throng ctl api-key list` shows them",
                ));
            }
            admin.remove_api_key(&file.app_id, id).await?;
        }
        ApiKeyCommand::List { .. } => keys.iter().for_each(|key| tell::say(&key.kid)),
    }
    Ok(Exit::Holds)
}

/// Does it.
pub async fn run(command: CtlCommand) -> Result<Exit, Failure> {
    match command {
        CtlCommand::Status { cluster, json } => status(&cluster, json).await,
        CtlCommand::ApiKey(command) => api_key(command).await,
        CtlCommand::Kick {
            cluster,
            group,
            user,
            json,
        } => {
            let file = ClusterFile::read(&cluster)?;
            let admin = Admin::connect(&file).await?;
            let fencing = admin.kick(&file.app_id, &group, &user).await?;
            Ok(told(&format!("{user} is out of {group}"), &fencing, json))
        }
        CtlCommand::Mute {
            cluster,
            group,
            user,
            seconds,
            json,
        } => {
            let file = ClusterFile::read(&cluster)?;
            let admin = Admin::connect(&file).await?;
            let until_ms = until_ms(seconds);
            let fencing = admin.mute(&file.app_id, &group, &user, until_ms).await?;
            let what = match seconds {
                0 => format!("{user} may send in {group} again"),
                _ => format!("{user} may not send in {group} for {seconds} s"),
            };
            Ok(told(&what, &fencing, json))
        }
        CtlCommand::Adopt {
            cluster,
            name,
            tls,
            cores,
            edges,
            app,
        } => {
            let file = adopted(&name, &tls, &cores, &edges, &app)?;
            let admin = Admin::connect(&file).await?;
            admin
                .put_app(&file.app_id, super::token::KEY_ID, file.app_secret.as_bytes())
                .await?;
            std::fs::create_dir_all(&cluster)
                .map_err(|error| Failure::io("making the folder", &cluster, &error))?;
            file.write(&cluster)?;
            tell::say(format_args!(
                "{} says how to reach {} core nodes and {} edges",
                cluster.join(super::cluster_file::NAME).display(),
                cores.len(),
                edges.len()
            ));
            Ok(Exit::Holds)
        }
    }
}

/// A moment some seconds from now, Unix milliseconds; 0 for no seconds.
fn until_ms(seconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match seconds {
        0 => 0,
        _ => (now.as_millis() as u64).saturating_add(seconds.saturating_mul(1_000)),
    }
}

#[derive(Debug, Serialize)]
struct FencingLine<'a> {
    version: u64,
    done: bool,
    pending: Vec<&'a str>,
    more: u32,
}

/// Says what a kick or mute came to. One that some shard has not taken yet is no failure: the shard
/// takes it as soon as it has a quorum, and sequences nothing before.
fn told(what: &str, fencing: &Fencing, json: bool) -> Exit {
    let pending: Vec<&str> = fencing.pending.iter().map(ChannelId::as_str).collect();
    let done = pending.is_empty() && fencing.more == 0;
    if json {
        let line = FencingLine {
            version: fencing.version,
            done,
            pending,
            more: fencing.more,
        };
        tell::say(serde_json::to_string(&line).unwrap_or_default());
    } else if done {
        tell::say(format_args!("{what}, in every channel"));
    } else {
        tell::say(format_args!(
            "{what}; channels whose shard has not heard of it yet: {} and {} more. It holds there once the shard has a quorum",
            pending.join(", "),
            fencing.more
        ));
    }
    Exit::Holds
}

fn adopted(
    name: &str,
    tls: &Path,
    cores: &[String],
    edges: &[SocketAddr],
    app: &str,
) -> Result<ClusterFile, Failure> {
    let tls = tls
        .canonicalize()
        .map_err(|error| Failure::io("finding the development CA", tls, &error))?;
    let record = |id: String, role: &str, addr| NodeRecord {
        id,
        roles: vec![role.to_owned()],
        pid: None,
        addr,
        observe: None,
        server_api: None,
        dir: None,
    };
    let mut nodes = Vec::new();
    for core in cores {
        let parsed = core
            .split_once('=')
            .and_then(|(id, addr)| Some((id.parse::<u64>().ok()?, addr.parse().ok()?)));
        let (id, addr) = parsed.ok_or_else(|| {
            Failure::usage(
                "a core node is named as id=host:port",
                format!("--core {core}"),
                "write --core 1=127.0.0.1:7101",
            )
        })?;
        nodes.push(record(format!("core-{id}"), "core", addr));
    }
    for (place, edge) in edges.iter().enumerate() {
        nodes.push(record(format!("edge-{}", place + 1), "edge", *edge));
    }
    let secret: [u8; 32] = rand::random();
    Ok(ClusterFile {
        edges: edges.iter().map(ToString::to_string).collect(),
        server_api: None,
        ca_cert: tls.join("ca.pem"),
        app_id: app.to_owned(),
        app_secret: secret.iter().map(|byte| format!("{byte:02x}")).collect(),
        api_key: None,
        cluster: name.to_owned(),
        tls,
        nodes,
    })
}

#[derive(Debug, Serialize)]
struct ShardLine {
    node: u64,
    shard: u32,
    leader: Option<u64>,
    term: u64,
    last_log: u64,
    applied: u64,
    failed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    unreachable: Vec<String>,
    shards: Vec<ShardLine>,
}

async fn status(dir: &Path, json: bool) -> Result<Exit, Failure> {
    let file = ClusterFile::read(dir)?;
    let admin = Admin::connect(&file).await?;
    let mut status = Status {
        unreachable: Vec::new(),
        shards: Vec::new(),
    };
    for (id, node) in file.cores() {
        match admin.status(NodeId(id)).await {
            Ok(answer) => status
                .shards
                .extend(answer.shards.into_iter().map(|shard| ShardLine {
                    node: id,
                    shard: shard.shard.0,
                    leader: shard.leader.map(|leader| leader.0),
                    term: shard.term,
                    last_log: shard.last_log,
                    applied: shard.applied,
                    failed: shard.failed,
                })),
            Err(_) => status.unreachable.push(format!("{} ({})", node.id, node.addr)),
        }
    }
    if json {
        tell::say(serde_json::to_string(&status).unwrap_or_default());
    } else {
        for line in &status.shards {
            let leader = line
                .leader
                .map_or_else(|| "none".to_owned(), |leader| leader.to_string());
            let failed = line
                .failed
                .as_ref()
                .map_or_else(String::new, |why| format!(" STOPPED: {why}"));
            tell::say(format_args!(
                "core-{} shard {:<4} leader {leader:<5} term {:<5} log {:<9} applied {}{failed}",
                line.node, line.shard, line.term, line.last_log, line.applied
            ));
        }
        for node in &status.unreachable {
            tell::say(format_args!("{node} does not answer"));
        }
    }
    let whole = status.unreachable.is_empty()
        && status
            .shards
            .iter()
            .all(|line| line.leader.is_some() && line.failed.is_none());
    Ok(if whole { Exit::Holds } else { Exit::Broken })
}
