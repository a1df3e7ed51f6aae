//! How openraft is configured, and why each figure is what it is.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy};
use throng_planted::planted;

/// How fast a shard notices a dead leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardTiming {
    /// Time between beats of a node, of which each so many carry the heartbeats of its shards' groups.
    pub heartbeat: Duration,
    /// The shortest election timeout.
    pub election_min: Duration,
    /// The longest election timeout. It is also the leader's lease: fail-over takes about this
    /// plus a random part of the range.
    pub election_max: Duration,
    /// Entries between snapshots.
    pub snapshot_every: u64,
    /// Entries kept behind a snapshot, for followers that are a little late.
    pub log_keep: u64,
}

/// A group that is wedged while its node beats is noticed by the lack of its heartbeats.
const BEATS_PER_HEARTBEAT_MAX: u32 = 3;

impl Default for ShardTiming {
    fn default() -> Self {
        Self {
            // At least two beats fit into the shortest election timeout, so one lost packet has no
            // group look for a leader; every beat is a wake-up of every node.
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(800),
            // A snapshot only notes that the state is durable; its cost is the purge behind it.
            // 20,000 entries of 300 bytes are 6 MB of log per shard.
            snapshot_every: 20_000,
            // A follower that was away for a few seconds catches up from the log, not by snapshot.
            log_keep: 2_000,
        }
    }
}

impl ShardTiming {
    /// What openraft measures ticks and timeouts of calls by. The heartbeats themselves are sent by the
    /// node, for all its shards at once; whoever runs a group without a node has this as their interval.
    fn interval_ms(self) -> u64 {
        let interval = (2 * self.heartbeat)
            .min(self.election_min * 3 / 4)
            .max(self.heartbeat);
        millis(interval)
    }

    /// Beats between two heartbeats of a group: as many as let two heartbeats fit into a lease, so that one
    /// that is late neither costs a leader its lease nor has followers grant votes.
    pub fn beats_per_heartbeat(self) -> u32 {
        let fit = millis(self.election_max) / (2 * millis(self.heartbeat).max(1));
        u32::try_from(fit)
            .unwrap_or(u32::MAX)
            .clamp(1, BEATS_PER_HEARTBEAT_MAX)
    }

    /// How long a leader may be silent before its followers look at what is due: longer than between
    /// two beats, and short enough that a node that asks once a beat has them look again no
    /// later than a tick behind the shortest election timeout.
    pub fn patience(self) -> Duration {
        self.election_min.saturating_sub(self.heartbeat + self.tick())
    }

    /// How often a shard looks at what is due: openraft's own part of its interval, 13 of 64.
    pub fn tick(self) -> Duration {
        Duration::from_millis((self.interval_ms() * 13 / 64).max(1))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The configuration of one shard's Raft.
pub fn raft_config(timing: ShardTiming) -> Result<Arc<Config>, ConfigError> {
    let config = Config {
        cluster_name: "throng".to_owned(),
        heartbeat_interval: timing.interval_ms(),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        // A node that was cut off asks before it raises the term, and so disturbs no leader.
        enable_pre_vote: Some(true),
        // With the default, a leader restarted after a kill resumes its term without its unflushed
        // tail, reuses log ids for other entries, and acknowledged writes are lost.
        enable_leader_restore: Some(planted!("leader_restore")),
        // A log that went backwards is a broken disk, never something to follow.
        allow_log_reversion: Some(false),
        // Entries of one append: 512 of 300 bytes stay well below a megabyte, and the log reader
        // bounds the bytes.
        max_payload_entries: 512,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timing.snapshot_every),
        max_in_snapshot_log_to_keep: timing.log_keep,
        // Purges are range deletes; one per some hundred entries is cheaper than one per entry. Not
        // more than come between two snapshots, or some would wait for a later one.
        purge_batch_size: timing.snapshot_every.clamp(1, 256),
        // The time for a whole snapshot over the network, not for a chunk: gigabytes take minutes.
        install_snapshot_timeout: 300_000,
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_timing_is_accepted_and_never_restores_a_leader() {
        let config = raft_config(ShardTiming::default()).unwrap();
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
    }

    #[test]
    fn an_election_timeout_below_the_heartbeat_is_refused() {
        let timing = ShardTiming {
            heartbeat: Duration::from_millis(500),
            ..ShardTiming::default()
        };
        assert!(raft_config(timing).is_err());
    }
}
