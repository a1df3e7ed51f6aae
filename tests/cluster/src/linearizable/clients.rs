//! The users of a round: each with a device at either edge, sending, reading, leaving and coming back
//! all at once, while the one who made the group kicks the others.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use throng_client::{
    Anchor, ChannelId, Class, Client, ClientMessageId, Code, Direction, Entry, GroupId, RequestError, Seq,
    UserId,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::recorder::Recorder;
use super::recording::{Answer, Ask, Stored, UserIndex};
use crate::ledger::{Acked, Ledger};
use crate::load::GROUP;
use crate::process::Binary;
use crate::sdk;

/// How long the SDK tries; then the outcome is unknown. Less than an election takes with a node to wait
/// for, so that some outcomes are, and more than most faults last.
const DEADLINE: Duration = Duration::from_secs(3);

/// Times a message of unknown outcome is sent again under its key.
const SENDS_AGAIN: usize = 3;

/// Times a user tries to come back at once; the next refusal for being no member is another occasion.
const JOINS_AGAIN: usize = 3;

/// Shortest time between two messages of a user in a channel, and between two reads of a user, by seed:
/// as many operations as a checker can put in order, and many open at any moment.
const SEND_PACE_MS: std::ops::Range<u64> = 20..40;
const READ_PACE_MS: std::ops::Range<u64> = 15..30;

/// Time between two kicks, and between two times that a user leaves without being told to.
const KICK_PACE_MS: std::ops::Range<u64> = 150..350;
const LEAVE_PACE_MS: std::ops::Range<u64> = 900..2_000;

/// Entries of a page.
const PAGE: u32 = 20;

/// All users of a round.
#[derive(Debug)]
pub struct Clients {
    /// What was acked.
    pub ledger: Arc<Ledger>,
    /// What was asked and answered.
    pub recorder: Arc<Recorder>,
    users: Vec<User>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Clients {
    /// Makes the group and its channels, lets everybody join, and begins.
    pub async fn start(
        binary: &Binary,
        cluster: &Path,
        users: usize,
        channels: &[String],
        seed: u64,
    ) -> Result<Self> {
        let group = GroupId::new(GROUP).context("naming the group")?;
        let names = channels.iter().map(|name| ChannelId::new(name));
        let names: Arc<[ChannelId]> = names.collect::<Result<_, _>>().context("naming a channel")?;
        let mut clients = Self {
            ledger: Arc::new(Ledger::new(channels.len())),
            recorder: Arc::new(Recorder::new()),
            users: Vec::new(),
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
        };
        for number in 0..users {
            let devices = sdk::devices(binary, cluster, &name(number), DEADLINE).await?;
            let user = User {
                number,
                devices: devices.into(),
                group: group.clone(),
                channels: Arc::clone(&names),
                ledger: Arc::clone(&clients.ledger),
                recorder: Arc::clone(&clients.recorder),
                out: Arc::default(),
            };
            if number == 0 {
                user.found().await?;
            } else {
                let joined = user.join(number).await;
                ensure!(joined == Answer::Done, "user {number} cannot join: {joined:?}");
            }
            clients.users.push(user);
        }
        clients.begin(seed)?;
        Ok(clients)
    }

    fn begin(&mut self, seed: u64) -> Result<()> {
        let others = (1..self.users.len()).map(|number| UserId::new(&name(number)));
        let others: Vec<UserId> = others.collect::<Result<_, _>>().context("naming a user")?;
        let mut random = StdRng::seed_from_u64(seed);
        for user in self.users.clone() {
            for channel in 0..user.channels.len() {
                let sending = user
                    .clone()
                    .send_on(channel, random.random(), self.stop.subscribe());
                self.tasks.spawn(sending);
            }
            let reading = user.clone().read_on(random.random(), self.stop.subscribe());
            self.tasks.spawn(reading);
            if user.number == 0 {
                let kicking = user.kick_on(others.clone(), random.random(), self.stop.subscribe());
                self.tasks.spawn(kicking);
            } else {
                let moving = user.come_and_go(random.random(), self.stop.subscribe());
                self.tasks.spawn(moving);
            }
        }
        Ok(())
    }

    /// Ends what is asked; everything under way is answered first. Returns what is wrong with that.
    pub async fn finish(&mut self, patience: Duration) -> Result<(), String> {
        self.stop.send_replace(true);
        let answered = async { while self.tasks.join_next().await.is_some() {} };
        let answered = tokio::time::timeout(patience, answered).await;
        self.tasks.abort_all();
        for client in self.users.iter().flat_map(|user| user.devices.iter()) {
            client.close().await;
        }
        answered.map_err(|_| format!("operations have no answer after {patience:?}"))
    }
}

/// The name of a user.
fn name(number: UserIndex) -> String {
    format!("user-{number}")
}

/// The user of a name.
pub fn user_of(name: &str) -> Option<UserIndex> {
    name.strip_prefix("user-")?.parse().ok()
}

/// What is recorded of a body, given its SHA-256.
pub fn short(hash: [u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// One user; clones are the same one.
#[derive(Debug, Clone)]
struct User {
    number: UserIndex,
    /// One at each edge.
    devices: Arc<[Client]>,
    group: GroupId,
    channels: Arc<[ChannelId]>,
    ledger: Arc<Ledger>,
    recorder: Arc<Recorder>,
    /// Told when somebody was refused for being no member.
    out: Arc<Notify>,
}

impl User {
    async fn found(&self) -> Result<()> {
        let client = &self.devices[0];
        client
            .create_group(&self.group)
            .await
            .context("making the group")?;
        for channel in self.channels.iter() {
            let made = client.create_channel(&self.group, channel).await;
            made.context("making a channel")?;
        }
        Ok(())
    }

    /// The device at an edge, by turn, and that edge.
    fn device(&self, turn: usize) -> (usize, &Client) {
        let edge = turn % self.devices.len();
        (edge, &self.devices[edge])
    }

    async fn ask(&self, edge: usize, ask: Ask, answer: impl Future<Output = Answer>) -> Answer {
        let answer = self.recorder.ask(self.number, edge, ask, answer).await;
        if answer == Answer::NotMember {
            self.out.notify_one();
        }
        answer
    }

    async fn join(&self, turn: usize) -> Answer {
        let (edge, client) = self.device(turn);
        let asking = async { done(client.join(&self.group).await) };
        self.ask(edge, Ask::Join, asking).await
    }

    async fn leave(&self, turn: usize) -> Answer {
        let (edge, client) = self.device(turn);
        let asking = async { done(client.leave(&self.group).await) };
        self.ask(edge, Ask::Leave, asking).await
    }

    async fn kick(&self, turn: usize, number: UserIndex, user: &UserId) -> Answer {
        let (edge, client) = self.device(turn);
        let asking = async {
            match client.kick(&self.group, user).await {
                Ok(fenced) => Answer::Kicked {
                    pending: fenced
                        .pending
                        .iter()
                        .map(|channel| channel.as_str().to_owned())
                        .collect(),
                    more: fenced.more,
                },
                Err(error) => refusal(&error),
            }
        };
        self.ask(edge, Ask::Kick { user: number }, asking).await
    }

    /// Reads the page behind an entry, or the newest one.
    async fn read(&self, turn: usize, channel: usize, behind: Option<u64>) -> Answer {
        let (edge, client) = self.device(turn);
        let (anchor, direction) = match behind {
            Some(seq) => (Anchor::Seq(Seq(seq)), Direction::After),
            None => (Anchor::Seq(Seq(0)), Direction::Before),
        };
        let asking = async {
            let name = &self.channels[channel];
            match client.history(&self.group, name, anchor, direction, PAGE).await {
                Ok(page) => Answer::Page {
                    head: page.head.0,
                    shown: page.entries.iter().map(shown).collect(),
                },
                Err(error) => refusal(&error),
            }
        };
        self.ask(edge, Ask::Read { channel, behind }, asking).await
    }

    async fn send(&self, turn: usize, channel: usize, key: u64) -> Answer {
        let body = format!("message {key:x} of user {}", self.number).into_bytes();
        let hash: [u8; 32] = Sha256::digest(&body).into();
        let ask = Ask::Send {
            channel,
            key,
            body: short(hash),
        };
        let (edge, client) = self.device(turn);
        let asking = async {
            let name = &self.channels[channel];
            let id = ClientMessageId(key);
            match client.send_with_id(&self.group, name, id, body).await {
                Ok(ack) => {
                    let acked = Acked {
                        sender: self.number,
                        client_id: key,
                        seq: ack.seq.0,
                        ts: ack.ts.0,
                        hash,
                    };
                    self.ledger.ack(channel, ack.channel.0, acked);
                    Answer::Sent { seq: ack.seq.0 }
                }
                Err(error) => refusal(&error),
            }
        };
        self.ask(edge, ask, asking).await
    }

    /// Sends one message after the other, and again what may have been stored or not, through the other
    /// edge.
    async fn send_on(self, channel: usize, seed: u64, stop: watch::Receiver<bool>) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pace = pace(random.random_range(SEND_PACE_MS));
        for message in 1.. {
            if over(&mut pace, &stop).await {
                return;
            }
            let key = (self.number as u64) << 48 | (channel as u64) << 40 | message;
            let turn = random.random_range(0..self.devices.len());
            for attempt in 0..=SENDS_AGAIN {
                let answer = self.send(turn + attempt, channel, key).await;
                if !matches!(answer, Answer::Unknown { .. }) || *stop.borrow() {
                    break;
                }
            }
        }
    }

    /// Reads the end of a log, or a page from anywhere.
    async fn read_on(self, seed: u64, stop: watch::Receiver<bool>) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pace = pace(random.random_range(READ_PACE_MS));
        let mut heads = vec![0; self.channels.len()];
        while !over(&mut pace, &stop).await {
            let channel = random.random_range(0..self.channels.len());
            let from = random.random_range(0..=heads[channel]);
            let behind = random.random_ratio(1, 4).then_some(from);
            let turn = random.random_range(0..self.devices.len());
            if let Answer::Page { head, .. } = self.read(turn, channel, behind).await {
                heads[channel] = head;
            }
        }
    }

    /// Leaves now and then, and joins again, also after every refusal.
    async fn come_and_go(self, seed: u64, mut stop: watch::Receiver<bool>) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pace = pace(random.random_range(LEAVE_PACE_MS));
        pace.tick().await;
        loop {
            let turn = random.random_range(0..self.devices.len());
            let leaves = tokio::select! {
                _ = stop.changed() => return,
                () = self.out.notified() => false,
                _ = pace.tick() => true,
            };
            if leaves {
                self.leave(turn).await;
            }
            for attempt in 1..=JOINS_AGAIN {
                if *stop.borrow() || self.join(turn + attempt).await == Answer::Done {
                    break;
                }
            }
        }
    }

    /// Kicks one of the others after the other.
    async fn kick_on(self, others: Vec<UserId>, seed: u64, stop: watch::Receiver<bool>) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pace = pace(random.random_range(KICK_PACE_MS));
        while !over(&mut pace, &stop).await {
            let turn = random.random_range(0..self.devices.len());
            let whom = random.random_range(0..others.len());
            self.kick(turn, whom + 1, &others[whom]).await;
        }
    }
}

fn pace(ms: u64) -> Interval {
    let mut pace = interval(Duration::from_millis(ms));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Waits for the next turn; tells whether there is none.
async fn over(pace: &mut Interval, stop: &watch::Receiver<bool>) -> bool {
    pace.tick().await;
    *stop.borrow()
}

fn shown(entry: &Entry) -> Stored {
    Stored {
        seq: entry.seq.0,
        user: user_of(entry.sender.as_str()),
        key: entry.client_message_id.0,
        body: short(Sha256::digest(&entry.body).into()),
    }
}

fn done(answer: Result<(), RequestError>) -> Answer {
    match answer {
        Ok(()) => Answer::Done,
        Err(error) => refusal(&error),
    }
}

/// What an error says of what was done: nothing, only if the cluster itself refused for good and no
/// attempt was left without an answer.
fn refusal(error: &RequestError) -> Answer {
    if error.outcome_unknown || error.class != Class::Fatal || error.number == 0 {
        return Answer::Unknown {
            text: error.text.clone(),
        };
    }
    match error.code {
        Some(Code::NotMember) => Answer::NotMember,
        _ => Answer::Refused { code: error.number },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_cluster_refused_for_good_was_not_done() {
        let error = |code: Option<Code>, class, outcome_unknown| RequestError {
            code,
            number: code.map_or(0, Code::number),
            class,
            text: "it".to_owned(),
            outcome_unknown,
        };
        let unknown = Answer::Unknown {
            text: "it".to_owned(),
        };
        let member = Some(Code::NotMember);
        assert_eq!(refusal(&error(member, Class::Fatal, false)), Answer::NotMember);
        assert_eq!(refusal(&error(member, Class::Fatal, true)), unknown);
        let forbidden = Some(Code::Forbidden);
        let refused = Answer::Refused {
            code: Code::Forbidden.number(),
        };
        assert_eq!(refusal(&error(forbidden, Class::Fatal, false)), refused);
        assert_eq!(
            refusal(&error(Some(Code::Unavailable), Class::Retryable, false)),
            unknown
        );
        // The client was closed while it waited.
        assert_eq!(refusal(&error(None, Class::Fatal, false)), unknown);
    }

    #[test]
    fn names_are_read_back() {
        assert_eq!(user_of(&name(4)), Some(4));
        assert_eq!(user_of("stranger"), None);
    }
}
