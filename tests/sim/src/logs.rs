//! What every replica of every shard held at the end of a run: the truth that histories are
//! compared with. Filled from the durable planes of the nodes' disks and their live states once the
//! run is over; read by the invariants alone.

use throng_protocol::ids::{Epoch, Seq, ShardId, Ts};

use crate::changes::Shown;
use crate::dumps::Dump;
use crate::history::{Channel, FenceKind, Group, Seen, User};

/// An entry of a log and the index of the Raft entry that made it one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The entry.
    pub seen: Seen,
    /// Its kind, target, version and hole; the content is not read.
    pub shown: Shown,
    /// Its Raft index in the shard.
    pub index: u64,
}

/// A channel's log on one replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelLog {
    /// Which channel.
    pub channel: Channel,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The last entry, as the log's tail record says.
    pub head: Seq,
    /// The last time stamp, as the log's tail record says.
    pub last_ts: Ts,
    /// The entries as stored, ascending by key.
    pub entries: Vec<Stored>,
}

impl ChannelLog {
    /// The entry at `seq`.
    #[must_use]
    pub fn at(&self, seq: Seq) -> Option<&Stored> {
        let place = self
            .entries
            .binary_search_by_key(&seq, |stored| stored.seen.seq)
            .ok()?;
        self.entries.get(place)
    }

    /// Entries behind `seq`.
    #[must_use]
    pub fn behind(&self, seq: Seq) -> &[Stored] {
        let start = self.entries.partition_point(|stored| stored.seen.seq <= seq);
        &self.entries[start..]
    }

    /// The last entry with at most `ts`; 0 if there is none.
    #[must_use]
    pub fn until(&self, ts: Ts) -> Seq {
        let behind = self.entries.partition_point(|stored| stored.seen.ts <= ts);
        behind
            .checked_sub(1)
            .map_or(Seq(0), |last| self.entries[last].seen.seq)
    }

    /// The place of what was applied at `index`: behind the last entry with a smaller one.
    #[must_use]
    pub fn place(&self, index: u64) -> Seq {
        let behind = self.entries.partition_point(|stored| stored.index < index);
        behind
            .checked_sub(1)
            .map_or(Seq(0), |last| self.entries[last].seen.seq)
    }
}

/// A fence on one replica of a message shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fence {
    /// The version of the group's management state that made it.
    pub version: u64,
    /// Whom it is for.
    pub user: User,
    /// What it does.
    pub kind: FenceKind,
    /// The Raft index in the shard at which it was applied.
    pub index: u64,
}

/// A group's fences on one replica of a message shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupFences {
    /// Which group.
    pub group: Group,
    /// Grants below this version are void.
    pub floor: u64,
    /// The version of the last fence or floor that came.
    pub last: u64,
    /// The fences that are kept, ascending by version.
    pub fences: Vec<Fence>,
}

/// One replica of one shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replica {
    /// On which node.
    pub node: u8,
    /// Of which shard.
    pub shard: ShardId,
    /// The last entry it has applied.
    pub applied: u64,
    /// A hash over all its records.
    pub records: u64,
    /// Its channels.
    pub channels: Vec<ChannelLog>,
    /// Its fences, a table per group.
    pub fences: Vec<GroupFences>,
}

/// All replicas at the end.
#[derive(Clone, Default, Debug)]
pub struct FinalLogs {
    /// The replicas, in any order.
    pub replicas: Vec<Replica>,
    /// What was durable at each crash of a node and at the end, in the order of time.
    pub dumps: Vec<Dump>,
}

impl FinalLogs {
    /// The log of a channel on the replica that has applied most.
    #[must_use]
    pub fn log(&self, channel: Channel) -> Option<&ChannelLog> {
        self.copies(channel)
            .max_by_key(|(replica, _)| replica.applied)
            .map(|(_, log)| log)
    }

    /// Every replica's log of a channel.
    pub fn copies(&self, channel: Channel) -> impl Iterator<Item = (&Replica, &ChannelLog)> {
        self.replicas.iter().flat_map(move |replica| {
            let logs = replica.channels.iter().filter(move |log| log.channel == channel);
            logs.map(move |log| (replica, log))
        })
    }

    /// The fences of the group of `channel` on the shard of `channel`, on the replica that has
    /// applied most.
    #[must_use]
    pub fn fences(&self, channel: Channel) -> Option<&GroupFences> {
        let (replica, _) = self.copies(channel).max_by_key(|(replica, _)| replica.applied)?;
        replica
            .fences
            .iter()
            .find(|fences| fences.group == channel.group())
    }
}
