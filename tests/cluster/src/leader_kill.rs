//! The gap in service when a leader is killed: again and again under load, the leader of a message
//! shard is killed, missed, started again, and catches up.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use throng_protocol::ids::{AppId, ChannelId, GroupId, NodeId};
use throng_protocol::placement::{ClusterMap, NodeInfo, PlacementKey};

use crate::audit;
use crate::figures::Gaps;
use crate::load::{APP, GROUP, Load};
use crate::process::Binary;
use crate::status;
use crate::system::{CORES, Shape, System};
use crate::tell;

/// How long anything that is waited for may take; it takes seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// Users that send, each in every channel.
const USERS: usize = 2;

/// Channels of each message shard.
const CHANNELS_PER_SHARD: usize = 1;

/// Writes acked in every channel before the next kill, at most: its moment.
const MOMENT_MAX: usize = 6;

/// Longest gap of ninety-nine kills in a hundred, in milliseconds: what users are promised.
pub const P99_MS_MAX: u64 = 2_000;

/// The shards and logs of a system as `throng config core` prints it.
const SHAPE: Shape = Shape {
    edges: 2,
    management: 4,
    message: 8,
    snapshot_every: 20_000,
    log_keep: 2_000,
};

/// What is run.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The binary under test.
    pub binary: Binary,
    /// How many kills.
    pub kills: usize,
    /// The seed of every choice.
    pub seed: u64,
    /// Where the system lives while it runs.
    pub dir: PathBuf,
}

/// The report, its fields stable.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Leaders killed.
    pub kills: usize,
    /// Writes acked.
    pub acked: u64,
    /// Acked writes that are not stored where and as they were acked.
    pub lost: u64,
    /// Messages stored or acked twice.
    pub doubled: u64,
    /// From the last ack of a channel of the shard before the kill to the first one after it, the
    /// longest of the shard's channels.
    pub gap_ms: Gaps,
    /// Seconds.
    pub wall_s: f64,
    /// What is wrong, for people.
    pub violations: Vec<String>,
}

impl Report {
    /// Whether everything was done that was asked for, and every promise kept.
    pub fn holds(&self, asked: usize) -> bool {
        self.kills == asked
            && self.acked > 0
            && self.lost + self.doubled == 0
            && self.violations.is_empty()
            && self.gap_ms.p99 <= P99_MS_MAX
    }
}

/// Kills leaders. Fails only where the machine is in the way.
pub async fn run(orders: &Orders) -> Result<Report> {
    let began = Instant::now();
    let mut random = StdRng::seed_from_u64(orders.seed);
    let folder = orders.dir.join("leader-kill");
    let mut system = System::start(&orders.binary, &folder, random.random(), SHAPE).await?;
    let placed = channels(SHAPE, CHANNELS_PER_SHARD)?;
    let names = placed.iter().map(|(_, name)| name.clone()).collect();
    let mut load = Load::start(&orders.binary, &system.cluster(), USERS, names, random.random()).await?;
    let mut report = Report {
        seed: orders.seed,
        ..Report::default()
    };
    let mut gaps = Vec::new();
    for kill in 1..=orders.kills {
        match one(&mut system, &load, &placed, &mut random).await {
            Ok((shard, gap)) => {
                tell(format_args!("kill {kill}, shard {shard}: {} ms", gap.as_millis()));
                gaps.push(gap);
                report.kills += 1;
            }
            Err(error) => {
                report.violations.push(format!("kill {kill}: {error:#}"));
                break;
            }
        }
    }
    if let Err(unanswered) = load.finish(PATIENCE).await {
        report.violations.push(unanswered);
    }
    let (told, doubled) = load.ledger.take_violations();
    let audited = audit::exports(system.binary(), &system.cluster(), &load)?;
    report.acked = load.ledger.total();
    report.lost = audited.lost;
    report.doubled = doubled + audited.doubled;
    report
        .violations
        .extend(told.into_iter().chain(audited.violations));
    report.gap_ms = Gaps::of(&gaps);
    report.wall_s = began.elapsed().as_secs_f64();
    drop(system);
    if report.violations.is_empty() {
        std::fs::remove_dir_all(&folder).context("removing the system's folder")?;
    } else {
        tell(format_args!("what the nodes left is in {}", folder.display()));
    }
    Ok(report)
}

/// One kill: returns the shard and the gap.
async fn one(
    system: &mut System,
    load: &Load,
    placed: &[(u32, String)],
    random: &mut StdRng,
) -> Result<(u32, Duration)> {
    let status = status::await_whole(system.binary(), &system.cluster(), PATIENCE)?;
    let silent = |silent: String| anyhow!(silent);
    load.served(random.random_range(1..=MOMENT_MAX), PATIENCE)
        .await
        .map_err(silent)?;
    let shard = placed.choose(random).map_or(0, |(shard, _)| *shard);
    let leader = status
        .leader(shard)
        .ok_or_else(|| anyhow!("shard {shard} has no leader"))? as usize;
    let of_shard: Vec<usize> = (0..placed.len())
        .filter(|place| placed[*place].0 == shard)
        .collect();
    let at = Instant::now();
    system.kill_core(leader)?;
    // Acks that were on their way come after the kill; service is back when several have come.
    load.served(USERS * 4, PATIENCE).await.map_err(silent)?;
    let gaps = of_shard
        .iter()
        .map(|channel| load.ledger.longest_silence(*channel, at));
    let gap = gaps.max().unwrap_or_default();
    system.spawn_core(leader)?;
    system.await_core(leader)?;
    Ok((shard, gap))
}

/// Names of channels so that each message shard of a shape has as many, with their shards: what the
/// map of a new cluster says.
pub(crate) fn channels(shape: Shape, per_shard: usize) -> Result<Vec<(u32, String)>> {
    let nodes = (1..=CORES as u64).map(|id| NodeInfo {
        id: NodeId(id),
        address: String::new(),
    });
    let map = ClusterMap::initial(nodes.collect(), shape.management, shape.message, CORES);
    let (app, group) = (AppId::new(APP)?, GroupId::new(GROUP)?);
    let mut placed: Vec<(u32, String)> = Vec::new();
    for n in 0.. {
        if placed.len() == shape.message as usize * per_shard {
            break;
        }
        let name = format!("channel-{n}");
        let channel = ChannelId::new(&name)?;
        let shard = map.shard_of(PlacementKey::Channel(&app, &group, &channel));
        let shard = shard
            .map(|shard| shard.id.0)
            .context("a shard for every channel")?;
        if placed.iter().filter(|(other, _)| *other == shard).count() < per_shard {
            placed.push((shard, name));
        }
    }
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_shard_has_as_many_channels() {
        let mut shards: Vec<u32> = channels(SHAPE, CHANNELS_PER_SHARD)
            .expect("placed")
            .into_iter()
            .map(|(shard, _)| shard)
            .collect();
        shards.sort_unstable();
        assert_eq!(shards, (101..=108).collect::<Vec<u32>>());
    }

    #[test]
    fn a_report_holds_only_within_the_promised_gap_and_without_a_loss() {
        let report = || Report {
            kills: 2,
            acked: 5,
            gap_ms: Gaps {
                count: 2,
                median: 900,
                p99: P99_MS_MAX,
                max: 2_500,
            },
            ..Report::default()
        };
        assert!(report().holds(2));
        assert!(!report().holds(3));
        let broken: [fn(&mut Report); 5] = [
            |r| r.gap_ms.p99 += 1,
            |r| r.lost = 1,
            |r| r.doubled = 1,
            |r| r.acked = 0,
            |r| r.violations.push("it".to_owned()),
        ];
        for (case, breakage) in broken.iter().enumerate() {
            let mut report = report();
            breakage(&mut report);
            assert!(!report.holds(2), "case {case}");
        }
    }
}
