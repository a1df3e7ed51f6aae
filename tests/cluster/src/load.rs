//! Steady load: some users, each sending in every channel, one message after the other, through the
//! SDK, for as long as the load lasts; everything acked goes into the ledger.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use throng_client::{ChannelId, Class, Client, ClientMessageId, GroupId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::ledger::{Acked, Ledger};
use crate::process::Binary;
use crate::sdk;

/// The group all channels are in.
pub const GROUP: &str = "crash";

/// The app that tools register.
pub const APP: &str = "demo";

/// Shortest time between two messages of a user in a channel: what is measured is what faults do, not
/// how fast the machine is, and logs stay small enough to be compared after every round.
const PACE: Duration = Duration::from_millis(20);

/// Bytes of bodies, from small talk to a long message; some are many times the usual.
const BODY_BYTES: std::ops::Range<usize> = 20..400;
const LONG_BODY_BYTES: usize = 8_000;
const LONG_BODY_EVERY: u64 = 50;

/// The load of a system.
#[derive(Debug)]
pub struct Load {
    /// What was acked.
    pub ledger: Arc<Ledger>,
    /// The channels' names.
    pub channels: Vec<String>,
    clients: Vec<Client>,
    senders: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// Makes the channels and begins to send.
    pub async fn start(
        binary: &Binary,
        cluster: &Path,
        users: usize,
        channels: Vec<String>,
        seed: u64,
    ) -> Result<Self> {
        let group = GroupId::new(GROUP).context("naming the group")?;
        let names: Vec<ChannelId> = channels
            .iter()
            .map(|name| ChannelId::new(name).context("naming a channel"))
            .collect::<Result<_>>()?;
        let mut load = Self {
            ledger: Arc::new(Ledger::new(channels.len())),
            channels,
            clients: Vec::new(),
            senders: JoinSet::new(),
            stop: watch::Sender::new(false),
        };
        for user in 0..users {
            let client = sdk::connect(binary, cluster, &format!("user-{user}"), user).await?;
            if user == 0 {
                client.create_group(&group).await.context("making the group")?;
                for name in &names {
                    client
                        .create_channel(&group, name)
                        .await
                        .context("making a channel")?;
                }
            } else {
                client.join(&group).await.context("joining")?;
            }
            load.clients.push(client);
        }
        for (user, client) in load.clients.iter().enumerate() {
            for (channel, name) in names.iter().enumerate() {
                let sender = Sender {
                    client: client.clone(),
                    user,
                    channel,
                    group: group.clone(),
                    name: name.clone(),
                    ledger: Arc::clone(&load.ledger),
                    random: StdRng::seed_from_u64(seed ^ (user as u64) << 32 ^ channel as u64),
                };
                load.senders.spawn(sender.run(load.stop.subscribe()));
            }
        }
        Ok(load)
    }

    /// Waits until so many writes more have been acked in every channel.
    pub async fn served(&self, count: usize, patience: Duration) -> Result<(), String> {
        self.ledger.all_more(count, patience).await
    }

    /// Ends the load; every send under way is answered first. Returns what is wrong with that.
    pub async fn finish(&mut self, patience: Duration) -> Result<(), String> {
        self.stop.send_replace(true);
        let answered = async { while self.senders.join_next().await.is_some() {} };
        let answered = tokio::time::timeout(patience, answered).await;
        for client in &self.clients {
            client.close().await;
        }
        answered.map_err(|_| format!("{} sends have no answer after {patience:?}", self.senders.len()))
    }
}

/// One user in one channel.
struct Sender {
    client: Client,
    user: usize,
    channel: usize,
    group: GroupId,
    name: ChannelId,
    ledger: Arc<Ledger>,
    random: StdRng,
}

impl Sender {
    async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for message in 1.. {
            if *stop.borrow() {
                return;
            }
            pace.tick().await;
            let client_id = (self.user as u64) << 40 | message;
            let body = self.body(message);
            if !self.send(client_id, &body).await {
                return;
            }
        }
    }

    /// Sends a message until it is acked; tells whether it ever was.
    async fn send(&self, client_id: u64, body: &[u8]) -> bool {
        loop {
            let id = ClientMessageId(client_id);
            let sent = self
                .client
                .send_with_id(&self.group, &self.name, id, body.to_vec());
            match sent.await {
                Ok(ack) => {
                    let acked = Acked {
                        sender: self.user,
                        client_id,
                        seq: ack.seq.0,
                        ts: ack.ts.0,
                        hash: Sha256::digest(body).into(),
                    };
                    self.ledger.ack(self.channel, ack.channel.0, acked);
                    return true;
                }
                Err(error) if error.class == Class::Retryable => {}
                Err(error) => {
                    self.ledger.violation(format!(
                        "user {} may not send in channel {}: {error}",
                        self.user, self.channel
                    ));
                    return false;
                }
            }
        }
    }

    fn body(&mut self, message: u64) -> Vec<u8> {
        let bytes = match message % LONG_BODY_EVERY {
            0 => LONG_BODY_BYTES,
            _ => self.random.random_range(BODY_BYTES),
        };
        let mut body = format!("message {message} of user {} ", self.user).into_bytes();
        body.resize_with(bytes.max(body.len()), || self.random.random_range(b'a'..=b'z'));
        body
    }
}
