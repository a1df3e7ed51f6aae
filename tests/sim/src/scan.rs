//! Reading what every replica holds on disk when a run is over.

use std::hash::Hasher;

use throng_protocol::ids::{ChannelNumber, ShardId};
use throng_raft_store::inspect;
use throng_state::keys;
use throng_state::record::{EntryRecord, LogRecord, Record, TailRecord};

use crate::cluster::Core;
use crate::history::{BodyHash, Channel, Seen, StableHasher, User};
use crate::logs::{ChannelLog, FinalLogs, Replica, Stored};

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
        fences: Vec::new(),
    })
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
    let mut entries = Vec::new();
    for (key, value) in &found.state {
        let Some(seq) = keys::entry_seq(key).filter(|seq| *key == keys::entry(number, *seq)) else {
            continue;
        };
        let entry = EntryRecord::decode(key, value).map_err(|error| error.to_string())?;
        let sender = User::named(&entry.sender)
            .ok_or_else(|| format!("a message of {}, who is not of this world", entry.sender))?;
        entries.push(Stored {
            seen: Seen {
                seq,
                ts: entry.ts,
                sender,
                key: entry.client_message_id,
                hash: BodyHash::of(&entry.body),
            },
            index: 0,
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
