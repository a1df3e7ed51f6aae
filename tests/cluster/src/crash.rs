//! Crash rounds: a whole system under load, a fault in each round, everything killed at its end, and
//! the logs of all replicas compared with each other and with what clients were promised.
//!
//! A system lives for several rounds, so that every one begins with what the ones before it left; one
//! that has broken a promise is not used again.

mod fault;
pub(crate) mod strike;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;
use serde::Serialize;
use throng_protocol::ids::ShardId;

pub use self::fault::{Fault, plan};
use self::strike::{Strike, Struck};
use crate::audit;
use crate::figures::Gaps;
use crate::ledger::ChannelIndex;
use crate::load::Load;
use crate::logs;
use crate::process::Binary;
use crate::system::{Shape, System};
use crate::tell;

/// How long anything that is waited for may take; it takes seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// Rounds of one system: every kind of fault once. More would make its logs longer than they can be
/// compared after every round.
const ROUNDS_EACH: usize = Fault::ALL.len();

/// Users that send, each in every channel.
const USERS: usize = 4;

/// Channels, two on each message shard on average.
const CHANNELS: usize = 4;

/// Writes acked before a fault, at most: its moment.
const MOMENT_MAX: usize = 8;

/// Small logs: snapshots and purges happen in every round, and a node that was away for a moment
/// needs one.
const SHAPE: Shape = Shape {
    edges: 2,
    management: 1,
    message: 2,
    snapshot_every: 150,
    log_keep: 50,
};

/// What is run.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The binary under test.
    pub binary: Binary,
    /// How many rounds.
    pub rounds: usize,
    /// The seed of every choice.
    pub seed: u64,
    /// Kinds of faults.
    pub faults: Vec<Fault>,
    /// Where systems live while they run.
    pub dir: PathBuf,
}

/// The report, its fields stable.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Rounds done.
    pub rounds: usize,
    /// Rounds in which a promise was broken.
    pub failed_rounds: usize,
    /// Rounds by kind of fault.
    pub faults: BTreeMap<&'static str, u64>,
    /// Processes killed, those at the end of every round included.
    pub kills: u64,
    /// Processes stopped and continued.
    pub pauses: u64,
    /// Nodes cut off and networks in rough weather.
    pub partitions: u64,
    /// Disks held.
    pub held_disks: u64,
    /// Packets that were lost on purpose.
    pub packets_lost: u64,
    /// Writes acked.
    pub acked: u64,
    /// Acked writes that are not stored where and as they were acked.
    pub lost: u64,
    /// Messages stored or acked twice.
    pub doubled: u64,
    /// Pairs of logs compared.
    pub logs_compared: u64,
    /// Pairs of entries compared.
    pub entries_compared: u64,
    /// Pairs of states of one entry compared.
    pub states_compared: u64,
    /// Logs that begin behind a snapshot.
    pub logs_purged: u64,
    /// Entries and states that differ and must not.
    pub divergent: u64,
    /// Terms beyond each shard's first in which entries were logged.
    pub leader_changes: u64,
    /// The longest time a channel was not served in a round, from its fault to its recovery.
    pub gap_ms: Gaps,
    /// Seconds.
    pub wall_s: f64,
    /// What is wrong, for people.
    pub violations: Vec<String>,
}

impl Report {
    /// Whether everything was done that was asked for, and every promise kept.
    pub fn holds(&self, asked: usize) -> bool {
        self.rounds == asked
            && self.violations.is_empty()
            && self.lost + self.doubled + self.divergent == 0
            && self.acked > 0
            && self.entries_compared > 0
            && self.states_compared > 0
            && self.leader_changes > 0
    }
}

/// Runs all rounds. Fails only where the machine is in the way; what the system does wrong is in the
/// report.
pub async fn run(orders: &Orders) -> Result<Report> {
    let began = Instant::now();
    let mut run = Run {
        report: Report {
            seed: orders.seed,
            ..Report::default()
        },
        gaps: Vec::new(),
        terms: BTreeMap::new(),
    };
    let plan = plan(&orders.faults, orders.rounds, orders.seed);
    let (mut next, mut number) = (0, 0);
    while next < plan.len() {
        let rounds = &plan[next..plan.len().min(next + ROUNDS_EACH)];
        let folder = orders.dir.join(format!("system-{number}"));
        number += 1;
        next += run.system(orders, &folder, next, rounds).await?;
    }
    let mut report = run.report;
    report.gap_ms = Gaps::of(&run.gaps);
    report.wall_s = began.elapsed().as_secs_f64();
    Ok(report)
}

/// What has been gathered.
struct Run {
    report: Report,
    gaps: Vec<Duration>,
    /// Of the system that runs.
    terms: BTreeMap<ShardId, BTreeSet<u64>>,
}

impl Run {
    /// Rounds of one system; returns how many were done. The folder is left if a promise was broken.
    async fn system(
        &mut self,
        orders: &Orders,
        folder: &Path,
        first: usize,
        rounds: &[Fault],
    ) -> Result<usize> {
        let mut random = fault::of_round(orders.seed, first);
        let mut system = System::start(&orders.binary, folder, random.random(), SHAPE).await?;
        let channels = (0..CHANNELS).map(|n| format!("channel-{n}")).collect();
        let (binary, cluster) = (orders.binary.clone(), system.cluster());
        let mut load = Load::start(&binary, &cluster, USERS, channels, random.random()).await?;
        let mut done = 0;
        let mut broken = false;
        for (place, fault) in rounds.iter().enumerate() {
            let number = first + place;
            let before = self.report.violations.len();
            self.round(&mut system, &load, number, orders.seed, *fault)
                .await?;
            done += 1;
            broken = self.report.violations.len() > before;
            self.tell(number, *fault, broken);
            if broken {
                break;
            }
        }
        if !broken {
            let before = self.report.violations.len();
            self.end(&mut system, &mut load).await?;
            broken = self.report.violations.len() > before;
        }
        self.report.failed_rounds += usize::from(broken);
        self.report.acked += load.ledger.total();
        self.report.packets_lost += system.net.counted().1;
        let terms = std::mem::take(&mut self.terms);
        let changes = terms.values().map(|terms| terms.len().saturating_sub(1) as u64);
        self.report.leader_changes += changes.sum::<u64>();
        drop(system);
        if broken {
            tell(format_args!("what the nodes left is in {}", folder.display()));
        } else {
            std::fs::remove_dir_all(folder).context("removing a system's folder")?;
        }
        Ok(done)
    }

    fn tell(&self, number: usize, fault: Fault, broken: bool) {
        let verdict = if broken { "BROKEN" } else { "sound" };
        let gap = self.gaps.last().map_or(0, Duration::as_millis);
        tell(format_args!(
            "round {number}, {}: {verdict}, longest gap {gap} ms, {} pairs of entries compared so far",
            fault.name(),
            self.report.entries_compared
        ));
    }

    /// One round: traffic, the fault, recovery, and the end of all nodes in the middle of traffic.
    async fn round(
        &mut self,
        system: &mut System,
        load: &Load,
        number: usize,
        seed: u64,
        fault: Fault,
    ) -> Result<()> {
        let mut random = fault::of_round(seed, number);
        self.report.rounds += 1;
        *self.report.faults.entry(fault.name()).or_default() += 1;
        let moment = random.random_range(1..=MOMENT_MAX);
        if let Err(silent) = load.served(moment, PATIENCE).await {
            return self.broken(number, fault, format!("before the fault: {silent}"));
        }
        let at = Instant::now();
        let mut strike = Strike {
            system,
            ledger: &load.ledger,
            random: &mut random,
            struck: Struck::default(),
        };
        let struck = strike.strike(fault).await;
        let Struck {
            kills,
            pauses,
            partitions,
            held,
        } = strike.struck;
        self.report.kills += kills;
        self.report.pauses += pauses;
        self.report.partitions += partitions;
        self.report.held_disks += held;
        let recovered = match struck.and_then(|()| system.await_cores()) {
            Ok(()) => load.served(random.random_range(1..=MOMENT_MAX), PATIENCE).await,
            Err(error) => Err(format!("{error:#}")),
        };
        if let Err(silent) = recovered {
            return self.broken(number, fault, format!("after the fault: {silent}"));
        }
        self.gap(load, at);
        system.kill_all()?;
        self.report.kills += crate::system::CORES as u64;
        self.compare(system, load, number, fault)?;
        for id in 1..=crate::system::CORES {
            system.spawn_core(id)?;
        }
        system.await_cores()
    }

    fn gap(&mut self, load: &Load, from: Instant) {
        let channels: std::ops::Range<ChannelIndex> = 0..load.channels.len();
        let silences = channels.map(|channel| load.ledger.longest_silence(channel, from));
        self.gaps.extend(silences.max());
    }

    /// Compares what the nodes left with each other and with the ledger.
    fn compare(&mut self, system: &System, load: &Load, number: usize, fault: Fault) -> Result<()> {
        let nodes = crate::system::blocking(|| logs::read(&system.stores()));
        let nodes = match nodes {
            Ok(nodes) => nodes,
            Err(error) => return self.broken(number, fault, format!("a store cannot be read: {error:#}")),
        };
        let compared = logs::compare(&nodes);
        self.report.logs_compared += compared.logs;
        self.report.entries_compared += compared.entries;
        self.report.states_compared += compared.states;
        self.report.logs_purged += compared.purged;
        self.report.divergent += compared.divergent;
        for (shard, terms) in compared.terms {
            self.terms.entry(shard).or_default().extend(terms);
        }
        let (told, doubled) = load.ledger.take_violations();
        let audited = audit::replicas(&nodes, &load.ledger)?;
        self.report.lost += audited.lost;
        self.report.doubled += doubled + audited.doubled;
        let all = compared
            .violations
            .into_iter()
            .chain(told)
            .chain(audited.violations);
        for violation in all {
            self.broken(number, fault, violation)?;
        }
        Ok(())
    }

    /// The end of a system: every send is answered, and what a quorum has is what was acked.
    async fn end(&mut self, system: &mut System, load: &mut Load) -> Result<()> {
        if let Err(unanswered) = load.finish(PATIENCE).await {
            self.report.violations.push(format!("at the end: {unanswered}"));
        }
        let (told, doubled) = load.ledger.take_violations();
        let audited = audit::exports(system.binary(), &system.cluster(), load)?;
        self.report.lost += audited.lost;
        self.report.doubled += doubled + audited.doubled;
        let all = told.into_iter().chain(audited.violations);
        self.report
            .violations
            .extend(all.map(|violation| format!("at the end: {violation}")));
        Ok(())
    }

    fn broken(&mut self, number: usize, fault: Fault, violation: String) -> Result<()> {
        let violation = format!("round {number}, {}: {violation}", fault.name());
        tell(format_args!("{violation}"));
        self.report.violations.push(violation);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            rounds: 3,
            acked: 9,
            entries_compared: 9,
            states_compared: 3,
            leader_changes: 2,
            ..Report::default()
        }
    }

    #[test]
    fn a_report_holds_only_if_everything_was_done_and_nothing_is_wrong() {
        assert!(report().holds(3));
        assert!(!report().holds(4));
        let broken: [fn(&mut Report); 8] = [
            |r| r.lost = 1,
            |r| r.doubled = 1,
            |r| r.divergent = 1,
            |r| r.acked = 0,
            |r| r.entries_compared = 0,
            |r| r.states_compared = 0,
            |r| r.leader_changes = 0,
            |r| r.violations.push("it".to_owned()),
        ];
        for (case, breakage) in broken.iter().enumerate() {
            let mut report = report();
            breakage(&mut report);
            assert!(!report.holds(3), "case {case}");
        }
    }
}
