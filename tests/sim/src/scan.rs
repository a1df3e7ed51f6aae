//! Reading what every replica holds on disk when a run is over.

use std::collections::BTreeMap;
use std::hash::Hasher;

use throng_protocol::cluster;
use throng_protocol::ids::{AppId, ChannelNumber, ShardId};
use throng_raft_store::inspect;
use throng_state::keys;
use throng_state::record::{
    ChangedRecord, EntryRecord, FenceRecord, FencesRecord, LogRecord, Record, TailRecord,
};

use crate::changes::{self, Shown};
use crate::cluster::Core;
use crate::history::{BodyHash, Channel, FenceKind, Seen, StableHasher, User};
use crate::logs::{ChannelLog, Fence, FinalLogs, GroupFences, Replica, Stored};
use crate::{token, world};

/// What the disks of all nodes hold.
///
/// # Errors
/// What cannot be read, and on which node.
pub fn logs(cores: &[Core]) -> Result<FinalLogs, String> {
    let mut logs = FinalLogs::default();
    for core in cores {
        let image = core.disk.durable();
        let of_node = |error: String| format!("the disk of node {}: {error}", core.id);
        let shards = inspect::shards(&*image).map_err(|error| of_node(error.to_string()))?;
        for shard in shards {
            let found = inspect::shard(&*image, shard).map_err(|error| of_node(error.to_string()))?;
            found.check().map_err(of_node)?;
            logs.replicas
                .push(replica(core.id, shard, &found).map_err(of_node)?);
        }
    }
    Ok(logs)
}

/// How far the state of each shard is on the disk of each node; of a disk that cannot be read, nothing.
pub fn applied(cores: &[Core]) -> Vec<Vec<(ShardId, u64)>> {
    let of_node = |core: &Core| {
        let image = core.disk.durable();
        let shards = inspect::shards(&*image).unwrap_or_default();
        let applied = shards.into_iter().map(|shard| {
            let found = inspect::shard(&*image, shard).ok();
            let applied = found.and_then(|found| found.applied);
            (shard, applied.map_or(0, |applied| applied.index))
        });
        applied.collect()
    };
    cores.iter().map(of_node).collect()
}

fn replica(node: u8, shard: ShardId, found: &inspect::Replica) -> Result<Replica, String> {
    let mut hasher = StableHasher::default();
    for (key, value) in &found.state {
        hasher.write(key);
        hasher.write(value);
    }
    let mut channels = Vec::new();
    let first = keys::log(ChannelNumber(0));
    let logs = found.state.iter().filter(|(key, _)| key.first() == first.first());
    for (key, value) in logs {
        let log = LogRecord::decode(key, value).map_err(|error| error.to_string())?;
        channels.extend(channel(found, &log)?);
    }
    Ok(Replica {
        node,
        shard,
        applied: found.applied.map_or(0, |applied| applied.index),
        records: hasher.finish(),
        channels,
        fences: fences(found)?,
    })
}

/// The fences of each group that the shard has heard of.
fn fences(found: &inspect::Replica) -> Result<Vec<GroupFences>, String> {
    let app = AppId::new(token::APP).map_err(|error| error.to_string())?;
    let mut tables = Vec::new();
    for group in world::groups() {
        let id = group.id().map_err(|error| error.to_string())?;
        let ends_key = keys::fences(&app, &id);
        let Some((key, value)) = found.state.iter().find(|(key, _)| *key == ends_key) else {
            continue;
        };
        let ends = FencesRecord::decode(key, value).map_err(|error| error.to_string())?;
        let mut fences = Vec::new();
        for (key, value) in &found.state {
            let version = keys::fence_version(key);
            let Some(version) = version.filter(|version| *key == keys::fence(&app, &id, *version)) else {
                continue;
            };
            let record = FenceRecord::decode(key, value).map_err(|error| error.to_string())?;
            let user = User::named(&record.user);
            fences.push(Fence {
                version,
                user: user.ok_or_else(|| format!("a fence for {}, who is not of this world", record.user))?,
                kind: kind(record.kind)?,
                index: record.index,
            });
        }
        tables.push(GroupFences {
            group,
            floor: ends.floor,
            last: ends.last,
            fences,
        });
    }
    Ok(tables)
}

fn kind(kind: cluster::FenceKind) -> Result<FenceKind, String> {
    match kind {
        cluster::FenceKind::Kick => Ok(FenceKind::Kick),
        cluster::FenceKind::Left => Ok(FenceKind::Left),
        cluster::FenceKind::Mute => Ok(FenceKind::Mute),
        cluster::FenceKind::Rights => Ok(FenceKind::Rights),
        other => Err(format!("a fence of a kind that is not known here: {other:?}")),
    }
}

/// A channel's log; `None` for one that is not of the world.
fn channel(found: &inspect::Replica, log: &LogRecord) -> Result<Option<ChannelLog>, String> {
    let Some(channel) = Channel::named(&log.info.channel) else {
        return Ok(None);
    };
    let number = log.info.number;
    let tail_key = keys::tail(number);
    let tail = found.state.iter().find(|(key, _)| *key == tail_key);
    let (key, value) = tail.ok_or_else(|| format!("channel {channel} has no end"))?;
    let tail = TailRecord::decode(key, value).map_err(|error| error.to_string())?;
    let mut changed = BTreeMap::new();
    for (key, value) in &found.state {
        if let Some(seq) = keys::entry_seq(key).filter(|seq| *key == keys::changed(number, *seq)) {
            let record = ChangedRecord::decode(key, value).map_err(|error| error.to_string())?;
            changed.insert(seq, record);
        }
    }
    let mut entries = Vec::new();
    for (key, value) in &found.state {
        let Some(seq) = keys::entry_seq(key).filter(|seq| *key == keys::entry(number, *seq)) else {
            continue;
        };
        let entry = EntryRecord::decode(key, value).map_err(|error| error.to_string())?;
        let sender = User::named(&entry.sender)
            .ok_or_else(|| format!("a message of {}, who is not of this world", entry.sender))?;
        let changed = changed.get(&seq).cloned().unwrap_or_default();
        entries.push(Stored {
            seen: Seen {
                seq,
                ts: entry.ts,
                sender,
                key: entry.client_message_id,
                hash: changes::told_from(
                    entry.kind.number(),
                    entry.target,
                    changed.hole.number(),
                    &entry.body,
                ),
            },
            shown: Shown {
                kind: entry.kind.number(),
                target: entry.target,
                version: changed.version.max(entry.before),
                hole: changed.hole.number(),
                content: BodyHash::default(),
            },
            index: entry.index,
        });
    }
    Ok(Some(ChannelLog {
        channel,
        epoch: log.epoch,
        head: tail.head,
        last_ts: tail.last_ts,
        entries,
    }))
}
