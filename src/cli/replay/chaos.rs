//! Faults on purpose: which, how many, when; and whether each found sends in flight.
//!
//! A fault fires when a place of the trace has been acked that the seed chose between 5 % and 95 %.
//! Sending waits at that place until the system is whole again after the fault before, so that
//! every fault meets a system in traffic.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use throng_protocol::ids::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::report::Chaos;
use super::stage::Stage;
use crate::cli::admin::Admin;
use crate::cli::cluster_file::{ClusterFile, NodeRecord};
use crate::cli::failure::Failure;

/// Between two looks at a system that is not whole yet; a restart takes seconds.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Between two attempts to hit something; a client reconnects in about this time.
const STRIKE_AGAIN: Duration = Duration::from_millis(20);

/// How long a frozen client reads nothing: long enough to fall behind a hot ring at full rate.
const FREEZE: Duration = Duration::from_secs(3);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL of the core node that leads a message shard.
    LeaderKill,
    /// SIGKILL of an edge.
    EdgeKill,
    /// SIGKILL of all replicas of a shard at once.
    CoreRestart,
    /// A client's connection ends without a word.
    ClientDrop,
    /// A client's address changes.
    ClientRebind,
    /// A client reads nothing for a while.
    ClientFreeze,
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::LeaderKill, "leader-kill"),
    (Kind::EdgeKill, "edge-kill"),
    (Kind::CoreRestart, "core-restart"),
    (Kind::ClientDrop, "client-drop"),
    (Kind::ClientRebind, "client-rebind"),
    (Kind::ClientFreeze, "client-freeze"),
];

impl Kind {
    fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, name)| name)
    }

    fn kills_a_process(self) -> bool {
        matches!(self, Self::LeaderKill | Self::EdgeKill | Self::CoreRestart)
    }
}

/// `KIND=COUNT` of `--chaos`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    kind: Kind,
    count: u64,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = KINDS.map(|(_, name)| name).join(", ");
        let (name, count) = text
            .split_once('=')
            .ok_or_else(|| format!("KIND=COUNT, KIND one of {names}"))?;
        let kind = KINDS
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(kind, _)| *kind);
        let kind = kind.ok_or_else(|| format!("`{name}` is none of {names}"))?;
        let count = count.parse().map_err(|_| format!("`{count}` is not a count"))?;
        Ok(Self { kind, count })
    }
}

/// When what happens: places of the trace, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    faults: Vec<(usize, Kind)>,
    asked: BTreeMap<Kind, u64>,
}

impl Plan {
    /// Chooses places between 5 % and 95 % of the trace.
    pub fn new(orders: &[Order], messages: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0xc4a0_5000);
        let (first, last) = (messages / 20, (messages - messages / 20).max(messages / 20 + 1));
        let mut faults = Vec::new();
        let mut asked = BTreeMap::new();
        for order in orders {
            *asked.entry(order.kind).or_default() += order.count;
            for _ in 0..order.count {
                faults.push((random.random_range(first..last), order.kind));
            }
        }
        faults.sort_unstable();
        Self { faults, asked }
    }

    /// The places, for the gate of the senders.
    pub fn places(&self) -> Vec<usize> {
        self.faults.iter().map(|(place, _)| *place).collect()
    }
}

/// Does what the plan says; ends when all is done or the replay is over.
pub async fn run(stage: Arc<Stage>, plan: Plan, seed: u64) -> Result<BTreeMap<String, Chaos>, Failure> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x00fa_0175);
    let mut results: BTreeMap<Kind, Chaos> = plan
        .asked
        .iter()
        .map(|(kind, asked)| {
            (
                *kind,
                Chaos {
                    asked: *asked,
                    ..Chaos::default()
                },
            )
        })
        .collect();
    let mut recoveries = Vec::new();
    for (place, kind) in &plan.faults {
        if kind.kills_a_process() {
            whole(&stage).await?;
        }
        stage.gate.open_past(*place);
        if !stage.acked_at_least(*place).await {
            break;
        }
        let Some(inflight) = hit(&stage, *kind, &mut random).await? else {
            continue;
        };
        let started = Instant::now();
        let result = results.entry(*kind).or_default();
        result.done += 1;
        result.inflight_hit += u64::from(!inflight.is_empty());
        let stage = stage.clone();
        let kind = *kind;
        recoveries.push(tokio::spawn(async move {
            stage.all_acked(&inflight).await;
            (kind, started.elapsed())
        }));
    }
    stage.gate.open_all();
    for recovery in recoveries {
        if let Ok((kind, took)) = recovery.await {
            let result = results.entry(kind).or_default();
            result.recovered_ms_max = result.recovered_ms_max.max(took.as_millis() as u64);
        }
    }
    Ok(results
        .into_iter()
        .map(|(kind, result)| (kind.name().to_owned(), result))
        .collect())
}

/// Strikes until something was hit, with traffic going on; gives what was in flight.
async fn hit(stage: &Stage, kind: Kind, random: &mut StdRng) -> Result<Option<Vec<usize>>, Failure> {
    let deadline = Instant::now() + stage.patience;
    while Instant::now() < deadline {
        let inflight = stage.inflight();
        if strike(stage, kind, random).await? {
            return Ok(Some(inflight));
        }
        // The client chosen was between two connections, or nothing was in flight: let more be sent.
        let answered = *stage.answered().borrow();
        if answered == stage.trace.lines.len() {
            break;
        }
        stage.gate.open_past(answered);
        tokio::time::sleep(STRIKE_AGAIN).await;
    }
    Ok(None)
}

/// One fault; `false` if there was nothing to hit.
async fn strike(stage: &Stage, kind: Kind, random: &mut StdRng) -> Result<bool, Failure> {
    match kind {
        Kind::LeaderKill => {
            let file = ClusterFile::read(&stage.dir)?;
            let Some(leader) = a_leader(&file, &stage.admin, random).await else {
                return Ok(false);
            };
            kill(&[&leader])
        }
        Kind::EdgeKill => {
            let file = ClusterFile::read(&stage.dir)?;
            let edges: Vec<&NodeRecord> = file
                .nodes
                .iter()
                .filter(|node| node.core_id().is_none())
                .collect();
            edges.choose(random).map_or(Ok(false), |edge| kill(&[*edge]))
        }
        Kind::CoreRestart => {
            // Every core node holds a replica of every shard while there are three of them.
            let file = ClusterFile::read(&stage.dir)?;
            let cores: Vec<&NodeRecord> = file.cores().map(|(_, node)| node).collect();
            kill(&cores)
        }
        Kind::ClientDrop => match stage.sender_in_flight(random) {
            Some(client) => Ok(client.drop_connection().await.is_some()),
            None => Ok(false),
        },
        Kind::ClientRebind => match stage.sender_in_flight(random) {
            Some(client) => Ok(client.rebind().await.is_ok()),
            None => Ok(false),
        },
        Kind::ClientFreeze => match stage.sender_in_flight(random).cloned() {
            Some(client) => {
                tokio::spawn(async move { client.pause_reading(FREEZE).await });
                Ok(true)
            }
            None => Ok(false),
        },
    }
}

/// The node that leads one of the message shards.
async fn a_leader(file: &ClusterFile, admin: &Admin, random: &mut StdRng) -> Option<NodeRecord> {
    for (id, _) in file.cores() {
        let Ok(status) = admin.status(NodeId(id)).await else {
            continue;
        };
        let leaders: Vec<NodeId> = status
            .shards
            .iter()
            .filter(|shard| shard.shard.0 > 100)
            .filter_map(|shard| shard.leader)
            .collect();
        let leader = leaders.choose(random)?;
        return file
            .cores()
            .find(|(id, _)| *id == leader.0)
            .map(|(_, node)| node.clone());
    }
    None
}

fn kill(nodes: &[&NodeRecord]) -> Result<bool, Failure> {
    for node in nodes {
        let pid = node
            .pid
            .and_then(|pid| Pid::from_raw(pid as i32))
            .ok_or_else(|| {
                Failure::new(
                    format!(
                        "{} was not started by `throng up`, so it cannot be killed and started again",
                        node.id
                    ),
                    "--chaos",
                    "leave kills out, or run against `throng up`",
                )
            })?;
        kill_process(pid, Signal::KILL).map_err(|error| {
            Failure::new(
                format!("{} cannot be killed: {error}", node.id),
                format!("pid {}", pid.as_raw_nonzero()),
                "try again",
            )
        })?;
    }
    Ok(true)
}

/// Waits until every process answers and every shard has a leader.
async fn whole(stage: &Stage) -> Result<(), Failure> {
    let deadline = Instant::now() + stage.patience;
    loop {
        let file = ClusterFile::read(&stage.dir)?;
        match not_ready(&file).await {
            None => return Ok(()),
            Some(node) if Instant::now() > deadline => {
                return Err(Failure::new(
                    format!("{node} was not ready again within {} s", stage.patience.as_secs()),
                    stage.dir.join("logs").display().to_string(),
                    "look into its log",
                ));
            }
            Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

async fn not_ready(file: &ClusterFile) -> Option<String> {
    for node in &file.nodes {
        let Some(observe) = node.observe else { continue };
        let asked = async {
            let mut stream = TcpStream::connect(observe).await?;
            stream
                .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await?;
            let mut status = [0; 12];
            stream.read_exact(&mut status).await?;
            std::io::Result::Ok(&status == b"HTTP/1.1 200")
        };
        let ready = tokio::time::timeout(Duration::from_secs(2), asked).await;
        if !matches!(ready, Ok(Ok(true))) {
            return Some(node.id.clone());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_a_kind_and_a_count() {
        assert_eq!(
            "leader-kill=5".parse(),
            Ok(Order {
                kind: Kind::LeaderKill,
                count: 5
            })
        );
        assert!("leader-kill".parse::<Order>().is_err());
        assert!(
            "leader-hug=1"
                .parse::<Order>()
                .expect_err("unknown")
                .contains("leader-kill")
        );
        assert!("edge-kill=many".parse::<Order>().is_err());
    }

    #[test]
    fn faults_fall_between_5_and_95_percent_by_seed() {
        let orders = [
            Order {
                kind: Kind::LeaderKill,
                count: 50,
            },
            Order {
                kind: Kind::ClientDrop,
                count: 50,
            },
        ];
        let plan = Plan::new(&orders, 1_000, 7);
        assert_eq!(plan, Plan::new(&orders, 1_000, 7));
        assert_ne!(plan, Plan::new(&orders, 1_000, 8));
        assert_eq!(plan.faults.len(), 100);
        assert!(plan.places().iter().all(|place| (50..950).contains(place)));
        assert!(plan.places().is_sorted());
    }
}
