//! Which writes a replica holds: those of its state, and those its log has behind it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use throng_protocol::cluster::{Anchor, Direction};
use throng_protocol::ids::{ChannelNumber, Seq};
use throng_protocol::limits::PAGE_ENTRIES_MAX;
use throng_raft_store::inspect::{EntryKind, Replica};
use throng_state::command::{Command, MessageCommand};
use throng_state::query::{self, PageWanted};
use throng_state::{View, ViewError};

/// Bytes of a page; there is no frame it must fit into.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The writes of one channel that a replica holds.
#[derive(Debug, Default)]
pub struct Held {
    /// Those of the state: the key of the message at each position.
    pub placed: BTreeMap<u64, (u64, Bytes)>,
    /// Those of the log behind the state: keys and bodies, which have no position yet.
    pub logged: BTreeSet<(u64, Bytes)>,
}

impl Held {
    /// What a replica holds of some channels; those it does not know are not among them.
    pub fn of(replica: &Replica, channels: &[u64]) -> Result<BTreeMap<u64, Self>> {
        let mut all: BTreeMap<u64, Self> = BTreeMap::new();
        let view = Records(&replica.state);
        for number in channels {
            if let Some(held) = Self::placed(&view, ChannelNumber(*number))? {
                all.insert(*number, held);
            }
        }
        let applied = replica.applied.map_or(0, |at| at.index);
        let commands = replica
            .log
            .iter()
            .filter(|entry| entry.kind == EntryKind::Command);
        for entry in commands.filter(|entry| entry.at.index > applied) {
            let command = Command::decode(&entry.payload);
            let command = command.map_err(|error| anyhow!("{entry:?} is no command: {error}"))?;
            if let Command::Message(MessageCommand::Append(append)) = command {
                let held = all.entry(append.channel.0).or_default();
                held.logged.insert((append.client_message_id.0, append.body));
            }
        }
        Ok(all)
    }

    fn placed(view: &dyn View, channel: ChannelNumber) -> Result<Option<Self>> {
        let mut held = Self::default();
        let mut position = Seq(0);
        loop {
            let wanted = PageWanted {
                anchor: Anchor::Seq(position),
                direction: Direction::After,
                limit: PAGE_ENTRIES_MAX,
                bytes_target: PAGE_BYTES,
                fences: false,
            };
            let page = query::page(view, channel, &wanted)
                .with_context(|| format!("reading channel {}", channel.0))?;
            let Some(page) = page else { return Ok(None) };
            let Some(last) = page.entries.last() else {
                return Ok(Some(held));
            };
            position = last.seq;
            for entry in page.entries {
                held.placed
                    .insert(entry.seq.0, (entry.client_message_id.0, entry.body));
            }
        }
    }
}

/// Records in key order, as a state machine reads them.
struct Records<'a>(&'a [(Bytes, Bytes)]);

impl Records<'_> {
    fn range(&self, from: &[u8], to: &[u8]) -> &[(Bytes, Bytes)] {
        let place = |key: &[u8]| self.0.partition_point(|(known, _)| known[..] < *key);
        let (from, to) = (place(from), place(to));
        self.0.get(from..to).unwrap_or_default()
    }
}

impl View for Records<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        let found = self.0.binary_search_by(|(known, _)| known[..].cmp(key));
        Ok(found.ok().map(|place| self.0[place].1.clone()))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        Ok(self.range(from, to).iter().take(limit).cloned().collect())
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        Ok(self.range(from, to).iter().rev().take(limit).cloned().collect())
    }
}
