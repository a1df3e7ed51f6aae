//! How each fault is done.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::PATIENCE;
use super::fault::Fault;
use crate::ledger::Ledger;
use crate::proxy::{Party, Weather};
use crate::status::Status;
use crate::system::{CORES, System};

/// Milliseconds for which a leader is stopped: longer than an election takes.
const PAUSE_MS: std::ops::Range<u64> = 1_500..3_500;

/// Milliseconds for which a node is cut off: most outlast an election, some end in the middle of it.
const CUT_MS: std::ops::Range<u64> = 500..4_000;

/// Milliseconds of rough weather.
const ROUGH_MS: std::ops::Range<u64> = 1_500..3_500;

/// Milliseconds after which a starting node is killed: some before it has opened its store, some
/// when it serves.
const STARTING_MS: std::ops::Range<u64> = 0..400;

/// Milliseconds after which a node that catches up is killed.
const CATCHING_UP_MS: std::ops::Range<u64> = 0..300;

/// Milliseconds between two kills that belong together.
const APART_MS: std::ops::Range<u64> = 0..100;

/// Milliseconds for which a leader's disk does not sync before it is killed: less than followers stand
/// by a silent leader, and enough for many writes that it alone has not stored.
const HELD_MS: std::ops::Range<u64> = 150..700;

/// Writes per channel a node misses before it must catch up by snapshot.
const MISSED: usize = 60;

/// What was done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Struck {
    /// Processes killed.
    pub kills: u64,
    /// Processes stopped and continued.
    pub pauses: u64,
    /// Nodes cut off, in one direction or both, and networks in rough weather.
    pub partitions: u64,
    /// Disks held.
    pub held: u64,
}

/// A system in the middle of a round.
pub struct Strike<'a> {
    pub system: &'a mut System,
    pub ledger: &'a Ledger,
    pub random: &'a mut StdRng,
    pub struck: Struck,
}

impl Strike<'_> {
    /// Does a fault. Every node runs afterwards or is on its way; the network is calm.
    pub async fn strike(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillOne => self.kill_one().await?,
            Fault::KillTwo => self.kill_two().await?,
            Fault::KillAll => {
                for id in 1..=CORES {
                    self.kill(id)?;
                }
            }
            Fault::KillStarting => self.kill_starting().await?,
            Fault::KillCatchingUp => self.kill_catching_up().await?,
            Fault::Pause => self.pause().await?,
            Fault::Partition => self.partition().await?,
            Fault::OneWay => self.one_way().await?,
            Fault::Rough => self.rough().await?,
            Fault::HeldDisk => self.held_disk().await?,
        }
        self.system.net.calm();
        for id in (1..=CORES)
            .filter(|id| !self.system.runs(*id))
            .collect::<Vec<_>>()
        {
            self.system.spawn_core(id)?;
        }
        Ok(())
    }

    async fn kill_one(&mut self) -> Result<()> {
        let id = self.any();
        self.kill(id)?;
        if self.random.random() {
            // The others go on without it first.
            self.others_serve(1).await?;
        }
        Ok(())
    }

    async fn kill_two(&mut self) -> Result<()> {
        let mut ids: Vec<usize> = (1..=CORES).collect();
        ids.shuffle(self.random);
        self.kill(ids[0])?;
        self.wait(APART_MS).await;
        self.kill(ids[1])?;
        self.wait(APART_MS).await;
        Ok(())
    }

    async fn kill_starting(&mut self) -> Result<()> {
        let id = self.any();
        self.kill(id)?;
        for _ in 0..self.random.random_range(1..4) {
            self.system.spawn_core(id)?;
            self.wait(STARTING_MS).await;
            self.kill(id)?;
        }
        Ok(())
    }

    async fn kill_catching_up(&mut self) -> Result<()> {
        let id = self.any();
        self.kill(id)?;
        self.others_serve(MISSED).await?;
        self.system.spawn_core(id)?;
        self.system.await_core(id)?;
        self.wait(CATCHING_UP_MS).await;
        self.kill(id)
    }

    async fn pause(&mut self) -> Result<()> {
        let id = self.leader()?;
        self.system.pause_core(id)?;
        self.struck.pauses += 1;
        self.wait(PAUSE_MS).await;
        if self.random.random_ratio(1, 4) {
            return self.kill(id);
        }
        self.system.resume_core(id)
    }

    async fn partition(&mut self) -> Result<()> {
        let id = self.leader()?;
        let from_edges = self.random.random();
        for (from, to) in self.around(id) {
            let of_edges = matches!((from, to), (Party::Edge(_), _) | (_, Party::Edge(_)));
            if from_edges || !of_edges {
                self.system.net.set(from, to, Weather::CUT);
            }
        }
        self.struck.partitions += 1;
        self.wait(CUT_MS).await;
        if self.random.random_ratio(1, 4) {
            self.kill(id)?;
        }
        Ok(())
    }

    async fn one_way(&mut self) -> Result<()> {
        let (id, heard): (usize, bool) = (self.leader()?, self.random.random());
        for (from, to) in self.around(id) {
            if (from == Party::Core(id)) != heard {
                self.system.net.set(from, to, Weather::CUT);
            }
        }
        self.struck.partitions += 1;
        self.wait(CUT_MS).await;
        Ok(())
    }

    async fn rough(&mut self) -> Result<()> {
        let weather = Weather {
            cut: false,
            loss: self.random.random_range(20..150),
            twice: self.random.random_range(0..50),
            delay: Duration::from_millis(self.random.random_range(0..20)),
            jitter: Duration::from_millis(self.random.random_range(0..60)),
        };
        for id in 1..=CORES {
            for (from, to) in self.around(id) {
                self.system.net.set(from, to, weather);
            }
        }
        self.struck.partitions += 1;
        let id = self.any();
        self.wait(ROUGH_MS).await;
        self.kill(id)
    }

    async fn held_disk(&mut self) -> Result<()> {
        let id = self.leader()?;
        self.system.disks[id - 1].hold()?;
        self.struck.held += 1;
        self.wait(HELD_MS).await;
        self.kill(id)?;
        self.system.disks[id - 1].release()?;
        // At once: it is back before the others miss it.
        self.system.spawn_core(id)
    }

    fn kill(&mut self, id: usize) -> Result<()> {
        self.struck.kills += 1;
        self.system.kill_core(id)
    }

    fn any(&mut self) -> usize {
        self.random.random_range(1..=CORES)
    }

    /// The node that leads some message shard, or any if there is none at the moment.
    fn leader(&mut self) -> Result<usize> {
        let status = Status::ask(self.system.binary(), &self.system.cluster())?;
        let shards: Vec<u32> = status.shards.iter().map(|replica| replica.shard).collect();
        let leader = shards.choose(self.random).and_then(|shard| status.leader(*shard));
        Ok(leader.map_or_else(|| self.any(), |id| id as usize))
    }

    /// Every direction between a node and everybody else.
    fn around(&self, id: usize) -> Vec<(Party, Party)> {
        let cores = (1..=CORES).filter(|other| *other != id).map(Party::Core);
        let edges = (1..=self.system.edges()).map(Party::Edge);
        let me = Party::Core(id);
        cores
            .chain(edges)
            .flat_map(|other| [(me, other), (other, me)])
            .collect()
    }

    async fn others_serve(&self, count: usize) -> Result<()> {
        let served = self.ledger.all_more(count, PATIENCE).await;
        served
            .map_err(|silent| anyhow::anyhow!(silent))
            .context("with one node of three killed")
    }

    async fn wait(&mut self, ms: std::ops::Range<u64>) {
        let ms = self.random.random_range(ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
