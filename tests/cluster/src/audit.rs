//! Promises against what is stored: every acked write once, where it was acked, as it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use throng_raft_store::inspect::Replica;

use crate::ledger::{Acked, Ledger};
use crate::load::{GROUP, Load};
use crate::logs::Held;
use crate::process::Binary;
use crate::system::blocking;

/// Violations named one by one.
const NAMED_MAX: usize = 20;

/// What became of acked writes.
#[derive(Debug, Default)]
pub struct Audited {
    /// Not stored where they were acked.
    pub lost: u64,
    /// Stored more than once.
    pub doubled: u64,
    /// For people; the first of it.
    pub violations: Vec<String>,
}

impl Audited {
    fn name(&mut self, text: String) {
        if self.violations.len() < NAMED_MAX {
            self.violations.push(text);
        }
    }

    fn lost(&mut self, text: String) {
        self.lost += 1;
        self.name(text);
    }
}

/// One line of `throng export`, as far as it is audited.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Line {
    /// Its position.
    pub seq: u64,
    /// Its time stamp.
    pub ts: u64,
    /// What it is.
    pub kind: String,
    /// Who sent it.
    pub sender: Option<String>,
    /// The sender's key.
    pub client_id: Option<u64>,
    /// SHA-256 of the body, in hexadecimal digits.
    pub hash: Option<String>,
}

/// Audits every channel of a load against what a quorum has.
pub fn exports(binary: &Binary, cluster: &Path, load: &Load) -> Result<Audited> {
    let mut audited = Audited::default();
    for (channel, name) in load.channels.iter().enumerate() {
        let lines = export(binary, cluster, name)?;
        channel_log(&mut audited, name, &load.ledger.of(channel), &lines);
    }
    Ok(audited)
}

/// The log of a channel of [`GROUP`] as `throng export` reads it from a quorum.
pub fn export(binary: &Binary, cluster: &Path, channel: &str) -> Result<Vec<Line>> {
    let cluster = cluster.display().to_string();
    let args = [
        "export",
        "--cluster",
        &cluster,
        "--group",
        GROUP,
        "--channel",
        channel,
    ];
    let output = blocking(|| binary.run(args))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`throng export` of {channel}: {said}");
    let text = String::from_utf8(output.stdout).context("reading an export")?;
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().context("reading an export")
}

/// Compares one channel's log with its acks.
fn channel_log(audited: &mut Audited, name: &str, acked: &BTreeMap<u64, Acked>, lines: &[Line]) {
    let mut seen = BTreeSet::new();
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut seq, mut ts) = (0, 0);
    for line in lines.iter().filter(|line| line.kind == "message") {
        if line.seq != seq + 1 || line.ts <= ts {
            audited.name(format!(
                "{name}: entry {} of {} stands behind entry {seq} of {ts}",
                line.seq, line.ts
            ));
        }
        (seq, ts) = (line.seq, line.ts);
        let sender = line.sender.as_deref().unwrap_or_default();
        let client_id = line.client_id.unwrap_or_default();
        if !seen.insert((sender, client_id)) {
            audited.doubled += 1;
            audited.name(format!("{name}: message {client_id} of {sender} is stored twice"));
        }
        // A user sends one message after the other, under ascending keys.
        let before = newest.insert(sender, client_id);
        if before.is_some_and(|before| before > client_id) {
            audited.name(format!(
                "{name}: message {client_id} of {sender} stands behind {before:?}"
            ));
        }
    }
    let stored: BTreeMap<u64, &Line> = lines
        .iter()
        .filter(|line| line.kind == "message")
        .map(|line| (line.seq, line))
        .collect();
    for ack in acked.values() {
        match stored.get(&ack.seq) {
            None => audited.lost(format!("{name}: {ack:?} is not stored")),
            Some(line) if !is_of(line, ack) => {
                audited.lost(format!("{name}: {ack:?} is stored as {line:?}"));
            }
            Some(_) => {}
        }
    }
}

fn is_of(line: &Line, ack: &Acked) -> bool {
    let hash = ack
        .hash
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let sender = format!("user-{}", ack.sender);
    line.ts == ack.ts
        && line.client_id == Some(ack.client_id)
        && line.sender.as_deref() == Some(sender.as_str())
        && line.hash.as_deref() == Some(hash.as_str())
}

/// Audits the closed stores: every acked write is held by a majority of the replicas, in the state at
/// its position or in the log behind the state.
pub fn replicas(nodes: &[Vec<Replica>], ledger: &Ledger) -> Result<Audited> {
    let numbers = ledger.numbers();
    let known: Vec<u64> = numbers.iter().copied().flatten().collect();
    let mut held: BTreeMap<u64, Vec<Held>> = BTreeMap::new();
    for replica in nodes.iter().flatten() {
        for (channel, of) in Held::of(replica, &known)? {
            held.entry(channel).or_default().push(of);
        }
    }
    let mut audited = Audited::default();
    for (channel, number) in numbers.iter().enumerate() {
        let Some(number) = number else { continue };
        let replicas = held.get(number).map(Vec::as_slice).unwrap_or_default();
        for ack in ledger.of(channel).values() {
            let count = replicas.iter().filter(|held| holds(held, ack)).count();
            if count * 2 <= nodes.len() {
                audited.lost(format!(
                    "channel {channel}: {ack:?} is held by {count} of {} replicas",
                    nodes.len()
                ));
            }
        }
    }
    Ok(audited)
}

fn holds(held: &Held, ack: &Acked) -> bool {
    let matches = |key: u64, body: &[u8]| key == ack.client_id && Sha256::digest(body)[..] == ack.hash;
    match held.placed.get(&ack.seq) {
        Some((key, body)) => matches(*key, body),
        None => {
            let mut same = held.logged.range((ack.client_id, bytes::Bytes::new())..);
            same.next().is_some_and(|(key, body)| matches(*key, body))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(client_id: u64, seq: u64) -> Acked {
        Acked {
            sender: 0,
            client_id,
            seq,
            ts: seq * 10,
            hash: Sha256::digest(client_id.to_be_bytes()).into(),
        }
    }

    fn line(client_id: u64, seq: u64) -> Line {
        let hash = Sha256::digest(client_id.to_be_bytes());
        Line {
            seq,
            ts: seq * 10,
            kind: "message".to_owned(),
            sender: Some("user-0".to_owned()),
            client_id: Some(client_id),
            hash: Some(hash.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    fn audit(acked: &[Acked], lines: &[Line]) -> Audited {
        let acked = acked.iter().map(|ack| (ack.seq, *ack)).collect();
        let mut audited = Audited::default();
        channel_log(&mut audited, "c", &acked, lines);
        audited
    }

    #[test]
    fn a_log_with_every_ack_and_one_that_is_not_acked_is_sound() {
        let audited = audit(&[ack(1, 1), ack(3, 3)], &[line(1, 1), line(2, 2), line(3, 3)]);
        assert_eq!((audited.lost, audited.doubled), (0, 0));
        assert_eq!(audited.violations, Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_loss_is_found() {
        assert_eq!(audit(&[ack(1, 1)], &[]).lost, 1);
        let mut other_body = line(1, 1);
        other_body.hash = line(2, 1).hash;
        let mut other_time = line(1, 1);
        other_time.ts += 1;
        let mut other_sender = line(1, 1);
        other_sender.sender = Some("user-1".to_owned());
        for stored in [line(2, 1), other_body, other_time, other_sender] {
            assert_eq!(
                audit(&[ack(1, 1)], std::slice::from_ref(&stored)).lost,
                1,
                "{stored:?}"
            );
        }
    }

    #[test]
    fn doubles_holes_and_a_wrong_order_are_found() {
        let doubled = audit(&[], &[line(1, 1), line(1, 2)]);
        assert_eq!(doubled.doubled, 1);
        assert!(!audit(&[], &[line(1, 1), line(2, 3)]).violations.is_empty());
        assert!(!audit(&[], &[line(2, 1), line(1, 2)]).violations.is_empty());
    }

    #[test]
    fn a_write_is_held_in_the_state_at_its_position_or_in_the_log() {
        let body = bytes::Bytes::copy_from_slice(&7_u64.to_be_bytes());
        let mut held = Held::default();
        assert!(!holds(&held, &ack(7, 1)));
        held.logged.insert((7, body.clone()));
        assert!(holds(&held, &ack(7, 1)));
        held.placed.insert(1, (6, body.clone()));
        assert!(!holds(&held, &ack(7, 1)), "another message has its position");
        held.placed.insert(1, (7, body));
        assert!(holds(&held, &ack(7, 1)));
    }
}
