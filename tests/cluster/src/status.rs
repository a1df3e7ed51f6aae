//! What a system says of its shards: `throng ctl status`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::Binary;
use crate::system::blocking;

/// One replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Replica {
    /// The core node.
    pub node: u64,
    /// The shard.
    pub shard: u32,
    /// The leader it knows.
    pub leader: Option<u64>,
    /// Its term.
    pub term: u64,
    /// The last entry of its log.
    pub last_log: u64,
    /// The last entry that was applied.
    pub applied: u64,
}

/// All replicas that answered.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
    /// Nodes that did not.
    pub unreachable: Vec<String>,
    /// The replicas.
    pub shards: Vec<Replica>,
}

impl Status {
    /// Asks all core nodes.
    pub fn ask(binary: &Binary, cluster: &Path) -> Result<Self> {
        let cluster = cluster.display().to_string();
        let output = blocking(|| binary.run(["ctl", "status", "--cluster", &cluster, "--json"]))?;
        // Exit code 1 says that a shard has no leader, and the answer is as complete as any.
        serde_json::from_slice(&output.stdout).with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("`throng ctl status` answered {}: {said}", output.status)
        })
    }

    /// The node that leads a shard: the one of the newest term that says so itself.
    pub fn leader(&self, shard: u32) -> Option<u64> {
        self.lead(shard).map(|(node, _)| node)
    }

    /// The node that leads a shard, and its term.
    pub fn lead(&self, shard: u32) -> Option<(u64, u64)> {
        let leads = |replica: &&Replica| replica.shard == shard && replica.leader == Some(replica.node);
        let newest = self
            .shards
            .iter()
            .filter(leads)
            .max_by_key(|replica| replica.term);
        newest.map(|replica| (replica.node, replica.term))
    }

    /// Whether all nodes answered, every shard has one leader that all its replicas know, and every
    /// replica has applied what `before` says that any had logged.
    pub fn has_caught_up(&self, before: &Self) -> bool {
        let follows = |replica: &Replica| {
            let goal = before.shards.iter().filter(|other| other.shard == replica.shard);
            let goal = goal.map(|other| other.applied).max().unwrap_or(0);
            replica.leader.is_some()
                && replica.leader == self.leader(replica.shard)
                && replica.applied >= goal
        };
        self.unreachable.is_empty() && !self.shards.is_empty() && self.shards.iter().all(follows)
    }
}

/// Asks until a node that came back has what the others had when it did, and every shard a leader.
pub fn await_whole(binary: &Binary, cluster: &Path, patience: Duration) -> Result<Status> {
    let deadline = Instant::now() + patience;
    let mut goal: Option<Status> = None;
    loop {
        let status = Status::ask(binary, cluster)?;
        let before = goal.get_or_insert_with(|| status.clone());
        if status.has_caught_up(before) {
            return Ok(status);
        }
        if Instant::now() > deadline {
            bail!("the system is not whole after {patience:?}: {status:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node: u64, leader: Option<u64>, term: u64, applied: u64) -> Replica {
        Replica {
            node,
            shard: 101,
            leader,
            term,
            last_log: applied,
            applied,
        }
    }

    fn status(shards: Vec<Replica>) -> Status {
        Status {
            unreachable: Vec::new(),
            shards,
        }
    }

    #[test]
    fn the_leader_of_the_newest_term_counts() {
        let deposed = status(vec![
            replica(1, Some(1), 3, 9),
            replica(2, Some(2), 4, 9),
            replica(3, Some(2), 4, 9),
        ]);
        assert_eq!(deposed.leader(101), Some(2));
        assert_eq!(deposed.lead(101), Some((2, 4)));
        assert_eq!(deposed.leader(102), None);
        assert!(!deposed.has_caught_up(&deposed), "node 1 follows nobody else yet");
    }

    #[test]
    fn a_system_is_whole_when_all_have_what_any_had() {
        let before = status(vec![replica(1, Some(1), 3, 9), replica(2, Some(1), 3, 4)]);
        assert!(!before.has_caught_up(&before));
        let after = status(vec![replica(1, Some(1), 3, 12), replica(2, Some(1), 3, 9)]);
        assert!(after.has_caught_up(&before));
        let mut away = after;
        away.unreachable.push("core-3".to_owned());
        assert!(!away.has_caught_up(&before));
    }
}
