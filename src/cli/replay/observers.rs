//! Clients that watch: some stay, some come and go, some join late.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use throng_client::{ChannelId, Client, Delivery, EntryKind, From, Position, Seq, Subscription, Timeline};
use tokio::time::Instant;

use super::audit::{Delivered, Watched};
use super::changes;
use super::record::{DeliveryLine, JoinLine, Record, hash, now_us, write_line};
use super::senders::histogram;
use super::stage::Stage;
use super::trace::Line;
use crate::cli::failure::Failure;
use crate::cli::sdk::{self, Sdk};

/// How an observer behaves. Places are counts of answered messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// There from the first message to the last.
    Stays,
    /// Away between two places; comes back with the positions it had.
    ComesAndGoes(usize, usize),
    /// Joins at a place.
    JoinsLate(usize),
}

/// Chooses the habits of all observers by seed: seven in ten stay, two come and go, one is late.
pub fn habits(observers: usize, messages: usize, seed: u64) -> Vec<Habit> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x0b5e_2e25);
    (0..observers)
        .map(|observer| match observer % 10 {
            0..=6 => Habit::Stays,
            7 | 8 => {
                let away = random.random_range(messages / 10..=messages / 2);
                Habit::ComesAndGoes(away, away + random.random_range(messages / 20..=messages / 3))
            }
            _ => Habit::JoinsLate(random.random_range(messages / 10..=messages * 4 / 5)),
        })
        .collect()
}

/// What an observer saw.
#[derive(Debug)]
pub struct Seen {
    /// By channel.
    pub channels: BTreeMap<ChannelId, Watched>,
    /// How often a connection was replaced and its session resumed.
    pub resumes: u64,
    /// First attempt to delivery in microseconds, while it was there the whole time.
    pub times: Histogram<u64>,
    /// Channels that were still behind when patience ended.
    pub behind: u64,
    /// If messages are changed: what it holds of each channel, by deliveries alone.
    pub timelines: BTreeMap<ChannelId, Timeline>,
    /// What it held when it went away, brought up to date at the end by asking what had changed.
    pub refreshed: BTreeMap<ChannelId, Timeline>,
}

/// One observer at work.
struct Observer {
    name: String,
    device: String,
    habit: Habit,
    stage: Arc<Stage>,
    record: Option<(Arc<Record>, BufWriter<File>)>,
    /// The place of a message in the trace, by its `n`.
    place_of: Arc<BTreeMap<u64, usize>>,
    seen: Seen,
}

/// Watches until everything has come or patience ends. `joined` is told once the first
/// subscriptions stand (for late ones at once).
pub async fn watch(
    stage: Arc<Stage>,
    sdk: Arc<Sdk>,
    name: String,
    habit: Habit,
    record: Option<Arc<Record>>,
    place_of: Arc<BTreeMap<u64, usize>>,
    joined: tokio::sync::oneshot::Sender<()>,
) -> Result<Seen, Failure> {
    let record = match record {
        Some(record) => Some((record.clone(), record.client(&name)?)),
        None => None,
    };
    let seen = Seen {
        channels: BTreeMap::new(),
        resumes: 0,
        times: histogram(),
        behind: 0,
        timelines: BTreeMap::new(),
        refreshed: BTreeMap::new(),
    };
    let device = format!("{name}-device");
    let mut observer = Observer {
        name,
        device,
        habit,
        stage,
        record,
        place_of,
        seen,
    };
    let (mut joined, mut from) = (Some(joined), None);
    if let Habit::JoinsLate(place) = habit {
        joined.take().map(|joined| joined.send(()));
        observer.stage.acked_at_least(place).await;
    }
    loop {
        let client = sdk.connect(&observer.name, &observer.device).await?;
        let subscriptions = observer.subscribe(&client, from.as_ref()).await?;
        joined.take().map(|joined| joined.send(()));
        let leave_at = match (habit, &from) {
            (Habit::ComesAndGoes(away, _), None) => Some(away),
            _ => None,
        };
        let positions = observer.drink(subscriptions, leave_at).await?;
        observer.seen.resumes += sdk::resumes(&client);
        if positions.is_none() {
            observer.refresh(&client).await?;
        }
        client.close().await;
        match (habit, positions) {
            (Habit::ComesAndGoes(_, back), Some(positions)) => {
                observer.seen.refreshed = observer.seen.timelines.clone();
                observer.seen.resumes += 1;
                from = Some(positions);
                observer.stage.acked_at_least(back).await;
            }
            _ => break,
        }
    }
    if let Some((record, out)) = &mut observer.record {
        record.written(out.flush())?;
    }
    Ok(observer.seen)
}

type Positions = BTreeMap<ChannelId, Position>;

impl Observer {
    async fn subscribe(
        &mut self,
        client: &Client,
        from: Option<&Positions>,
    ) -> Result<SelectAll<Subscription>, Failure> {
        let mut all = SelectAll::new();
        for channel in self.stage.trace.channels() {
            let start = match from.and_then(|positions| positions.get(&channel)) {
                Some(position) => From::Position(*position),
                None => From::Head,
            };
            let subscription = client
                .subscribe(&self.stage.group, &channel, start)
                .await
                .map_err(|error| {
                    sdk::refused(
                        &format!("{} cannot subscribe", self.name),
                        channel.as_str(),
                        &error,
                    )
                })?;
            if !self.seen.channels.contains_key(&channel) {
                let from_seq = subscription.start().seq.0;
                self.seen.channels.insert(
                    channel.clone(),
                    Watched {
                        from_seq,
                        ..Watched::default()
                    },
                );
                if let Some((record, _)) = &self.record {
                    record.join(&JoinLine {
                        client: &self.name,
                        ch: channel.as_str(),
                        from_seq,
                    })?;
                }
            }
            all.push(subscription);
        }
        Ok(all)
    }

    /// Takes deliveries until everything has come, patience ends (`None`), or it is time to go
    /// (the positions held).
    async fn drink(
        &mut self,
        mut all: SelectAll<Subscription>,
        leave_at: Option<usize>,
    ) -> Result<Option<Positions>, Failure> {
        let stage = self.stage.clone();
        let (mut finished, mut answered) = (stage.finished(), stage.answered());
        let mut deadline: Option<Instant> = None;
        loop {
            let heads = finished.borrow().clone();
            if let Some(heads) = &heads {
                let behind = self.behind(heads);
                deadline = deadline.or_else(|| Some(Instant::now() + stage.patience));
                if behind == 0 || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    self.seen.behind = behind;
                    return Ok(None);
                }
            }
            let leaving = async {
                match leave_at {
                    Some(place) => drop(answered.wait_for(|answered| *answered >= place).await),
                    None => std::future::pending().await,
                }
            };
            let patience = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = leaving => return Ok(Some(all.iter().map(|one| (one.channel().clone(), one.position())).collect())),
                delivery = all.next() => match delivery {
                    Some(delivery) => self.take(&delivery)?,
                    None => return Err(Failure::new(format!("{}'s session ended", self.name), "replay", "look into the edge's log")),
                },
                _ = finished.changed(), if heads.is_none() => {}
                () = patience => {}
            }
        }
    }

    /// Brings what it held when it went away up to date.
    async fn refresh(&mut self, client: &Client) -> Result<(), Failure> {
        let heads = self.stage.heads();
        for (channel, timeline) in &mut self.seen.refreshed {
            let head = heads.get(channel).copied().unwrap_or_default();
            changes::refresh(&self.stage, client, channel, timeline, head).await?;
        }
        Ok(())
    }

    fn behind(&self, heads: &BTreeMap<ChannelId, u64>) -> u64 {
        let is_behind = |(channel, watched): (&ChannelId, &Watched)| {
            heads.get(channel).is_some_and(|head| watched.last() < *head)
        };
        self.seen
            .channels
            .iter()
            .filter(|entry| is_behind(*entry))
            .count() as u64
    }

    fn take(&mut self, delivery: &Delivery) -> Result<(), Failure> {
        let channel = &delivery.channel;
        let place = self.place_of.get(&delivery.client_message_id.0).copied();
        let line = place.map(|place| &self.stage.trace.lines[place]);
        if let (Some(place), Habit::Stays) = (place, self.habit)
            && let Some(took) = self.stage.elapsed_us(place)
        {
            self.seen.times.saturating_record(took.max(1));
        }
        let delivered = delivered(delivery, line);
        if self.stage.changes.any() {
            let timeline = self.seen.timelines.entry(channel.clone());
            let timeline = timeline.or_insert_with(|| Timeline::new(delivery.epoch));
            let mut entry = delivery.entry();
            // Not as a part of the frame it came in, which would be kept as long.
            entry.body = bytes::Bytes::copy_from_slice(&entry.body);
            timeline.deliver(delivery.epoch, delivery.prev, &[entry]);
        }
        if let Some(watched) = self.seen.channels.get_mut(channel) {
            watched.delivered.push(delivered);
        }
        let Some((record, out)) = &mut self.record else {
            return Ok(());
        };
        record.written(write_delivery(out, &self.name, &self.device, delivery))
    }
}

/// A delivery as the audit sees it, against the line of the trace that it claims to be.
pub fn delivered(delivery: &Delivery, line: Option<&Line>) -> Delivered {
    // What changes have made of a message is judged apart.
    let changed = delivery.kind != EntryKind::Message.number() || delivery.version != Seq(0);
    let as_sent = line.is_some_and(|line| {
        let body = changed || line.body() == delivery.body;
        line.u == delivery.sender.as_str() && line.ch == delivery.channel && body
    });
    let intact = as_sent || delivery.kind != EntryKind::Message.number();
    Delivered {
        seq: delivery.seq.0,
        client_id: delivery.client_message_id.0,
        intact,
    }
}

/// Records a delivery.
pub fn write_delivery(
    out: &mut impl Write,
    client: &str,
    device: &str,
    delivery: &Delivery,
) -> std::io::Result<()> {
    let line = DeliveryLine {
        client,
        device,
        edge: &delivery.edge,
        conn: u64::from(delivery.connection),
        ch: delivery.channel.as_str(),
        seq: delivery.seq.0,
        prev: delivery.prev.0,
        ts: delivery.ts.0,
        id: &delivery.id.to_string(),
        sender: delivery.sender.as_str(),
        client_id: delivery.client_message_id.0,
        len: delivery.body.len(),
        hash: &hash(&delivery.body),
        t_us: now_us(),
    };
    write_line(out, &line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn habits_follow_the_seed_and_stay_inside_the_trace() {
        let habits_of = |seed| habits(100, 1_000, seed);
        assert_eq!(habits_of(1), habits_of(1));
        assert_ne!(habits_of(1), habits_of(2));
        let stay = habits_of(1)
            .iter()
            .filter(|habit| **habit == Habit::Stays)
            .count();
        assert_eq!(stay, 70);
        for habit in habits_of(3) {
            match habit {
                Habit::ComesAndGoes(away, back) => assert!(100 <= away && away < back && back <= 834),
                Habit::JoinsLate(place) => assert!((100..=800).contains(&place)),
                Habit::Stays => {}
            }
        }
    }
}
