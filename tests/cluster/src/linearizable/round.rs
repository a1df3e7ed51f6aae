//! One round: a system of its own, users that do what they do, a leader killed in the middle of it and
//! started again, another fault, and what is left in the end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::clients::{Clients, user_of};
use super::recording::{Fault, Head, Kill, Led, Recording, Stored};
use crate::audit::{self, Line};
use crate::crash;
use crate::crash::strike::{Strike, Struck};
use crate::leader_kill;
use crate::process::Binary;
use crate::status::{self, Status};
use crate::system::{Shape, System};

/// How long anything that is waited for may take; it takes seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// Users; one made the group and kicks the others.
const USERS: usize = 4;

/// A channel on each message shard. Small logs, so that a node that comes back may need a snapshot.
const SHAPE: Shape = Shape {
    edges: 2,
    management: 1,
    message: 2,
    snapshot_every: 150,
    log_keep: 50,
};
const CHANNELS_PER_SHARD: usize = 1;

/// Writes acked in every channel before a fault and behind the last: its moment.
const MOMENT: std::ops::Range<usize> = 15..30;

/// Operations of a channel in flight when its leader is killed, at least.
const IN_FLIGHT: usize = 3;

/// What else may happen, once in a round; nothing, as often as each.
const OTHERS: [Option<crash::Fault>; 7] = [
    None,
    Some(crash::Fault::KillTwo),
    Some(crash::Fault::Pause),
    Some(crash::Fault::Partition),
    Some(crash::Fault::OneWay),
    Some(crash::Fault::Rough),
    Some(crash::Fault::HeldDisk),
];

/// Does a round. What was recorded is returned in any case once the system runs.
pub async fn round(binary: &Binary, folder: &Path, seed: u64) -> Result<Recording> {
    let mut random = StdRng::seed_from_u64(seed);
    let placed = leader_kill::channels(SHAPE, CHANNELS_PER_SHARD)?;
    let channels: Vec<String> = placed.iter().map(|(_, name)| name.clone()).collect();
    let mut system = System::start(binary, folder, random.random(), SHAPE).await?;
    let clients = Clients::start(binary, &system.cluster(), USERS, &channels, random.random()).await?;
    let mut round = Round {
        system: &mut system,
        clients,
        placed,
        random,
        recording: Recording {
            head: Head {
                seed,
                users: USERS,
                channels,
                stopped: None,
            },
            ..Recording::default()
        },
    };
    let stopped = round.all().await.err();
    round.recording.head.stopped = stopped.map(|error| format!("{error:#}"));
    Ok(round.recording)
}

/// A round under way.
struct Round<'a> {
    system: &'a mut System,
    clients: Clients,
    /// The channels with their shards.
    placed: Vec<(u32, String)>,
    random: StdRng,
    recording: Recording,
}

impl Round<'_> {
    /// Everything from the first fault to the logs. The operations are recorded whatever happens.
    async fn all(&mut self) -> Result<()> {
        let struck = self.faults().await;
        let finished = self.clients.finish(PATIENCE).await;
        self.recording.asked = self.clients.recorder.take();
        let logs = match struck {
            Ok(()) => self.logs(),
            Err(error) => Err(error),
        };
        // Who cannot be asked for the end has no log to be judged by; the history is kept all the same.
        let none = || vec![Vec::new(); self.placed.len()];
        self.recording.logs = logs.as_ref().map_or_else(|_| none(), Clone::clone);
        logs?;
        finished.map_err(|unanswered| anyhow!(unanswered))
    }

    fn logs(&self) -> Result<Vec<Vec<Stored>>> {
        let (binary, cluster) = (self.system.binary(), self.system.cluster());
        let log = |(_, name): &(u32, String)| stored(&audit::export(binary, &cluster, name)?);
        self.placed.iter().map(log).collect()
    }

    async fn faults(&mut self) -> Result<()> {
        self.served().await.context("before the first fault")?;
        self.kill_leader().await.context("killing a leader")?;
        match OTHERS.choose(&mut self.random).copied().flatten() {
            Some(fault) => self.strike(fault).await.context(fault.name())?,
            None => self.kill_leader().await.context("killing another leader")?,
        }
        self.served().await.context("behind the last fault")
    }

    async fn served(&mut self) -> Result<()> {
        let count = self.random.random_range(MOMENT);
        let served = self.clients.ledger.all_more(count, PATIENCE).await;
        served.map_err(|silent| anyhow!(silent))
    }

    /// Kills the leader of a channel's shard, waits until another one serves, and starts it again.
    async fn kill_leader(&mut self) -> Result<()> {
        let status = self.ask()?;
        let struck = self.random.random_range(0..self.placed.len());
        let shard = self.placed[struck].0;
        let (node, _) = status
            .lead(shard)
            .ok_or_else(|| anyhow!("shard {shard} has no leader"))?;
        let led = (0..self.placed.len()).filter_map(|channel| {
            let (leader, term) = status.lead(self.placed[channel].0)?;
            (leader == node).then_some(Led {
                channel,
                term,
                term_after: term,
            })
        });
        let mut led: Vec<Led> = led.collect();
        self.clients.recorder.busy(struck, IN_FLIGHT, PATIENCE).await?;
        let at_us = self.clients.recorder.now_us();
        self.system.kill_core(node as usize)?;
        let gone_us = self.clients.recorder.now_us();
        self.served().await.context("with one node of three killed")?;
        self.system.spawn_core(node as usize)?;
        self.system.await_core(node as usize)?;
        let whole = status::await_whole(self.system.binary(), &self.system.cluster(), PATIENCE)?;
        for led in &mut led {
            let lead = whole.lead(self.placed[led.channel].0);
            led.term_after = lead.map_or(led.term, |(_, term)| term);
        }
        self.recording.kills.push(Kill {
            node,
            at_us,
            gone_us,
            led,
        });
        Ok(())
    }

    fn ask(&self) -> Result<Status> {
        status::await_whole(self.system.binary(), &self.system.cluster(), PATIENCE)
    }

    /// Another fault, mended.
    async fn strike(&mut self, fault: crash::Fault) -> Result<()> {
        let at_us = self.clients.recorder.now_us();
        let mut strike = Strike {
            system: &mut *self.system,
            ledger: &self.clients.ledger,
            random: &mut self.random,
            struck: Struck::default(),
        };
        strike.strike(fault).await?;
        self.system.await_cores()?;
        self.recording.faults.push(Fault {
            kind: fault.name().to_owned(),
            at_us,
            to_us: self.clients.recorder.now_us(),
        });
        Ok(())
    }
}

/// The messages of an exported log.
fn stored(lines: &[Line]) -> Result<Vec<Stored>> {
    let messages = lines.iter().filter(|line| line.kind == "message");
    let stored = messages.map(|line| {
        let hash = line.hash.as_deref().and_then(|hash| hash.get(..16));
        let body = hash.and_then(|hash| u64::from_str_radix(hash, 16).ok());
        Ok(Stored {
            seq: line.seq,
            user: line.sender.as_deref().and_then(user_of),
            key: line.client_id.context("a message without a key")?,
            body: body.context("a message without a hash")?,
        })
    });
    stored.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linearizable::clients::short;

    #[test]
    fn an_exported_message_is_what_was_recorded_of_it() {
        let mut hash = [7; 32];
        hash[0] = 0xab;
        let line = |kind: &str, seq| Line {
            seq,
            ts: 1,
            kind: kind.to_owned(),
            sender: Some("user-2".to_owned()),
            client_id: Some(9),
            hash: Some(hash.iter().map(|byte| format!("{byte:02x}")).collect()),
        };
        let expected = Stored {
            seq: 1,
            user: Some(2),
            key: 9,
            body: short(hash),
        };
        assert_eq!(
            stored(&[line("message", 1), line("fence", 1)]).expect("read"),
            [expected]
        );
        let mut unknown = line("message", 1);
        unknown.hash = None;
        assert!(stored(&[unknown]).is_err());
    }
}
