//! What clients were promised: every acked write, and when each channel was last served.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

/// A channel of the load, by place.
pub type ChannelIndex = usize;

/// An acked write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// Who sent it, by place.
    pub sender: usize,
    /// Its key.
    pub client_id: u64,
    /// Its position.
    pub seq: u64,
    /// Its time stamp.
    pub ts: u64,
    /// SHA-256 of the body.
    pub hash: [u8; 32],
}

/// Acks as they come.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
    acked: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    channels: Vec<Channel>,
    violations: Vec<String>,
    doubled: u64,
}

#[derive(Debug, Default)]
struct Channel {
    number: Option<u64>,
    acked: BTreeMap<u64, Acked>,
    keys: BTreeSet<(usize, u64)>,
    at: Vec<Instant>,
}

impl Ledger {
    /// An empty ledger of so many channels.
    pub fn new(channels: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                channels: (0..channels).map(|_| Channel::default()).collect(),
                violations: Vec::new(),
                doubled: 0,
            }),
            acked: watch::Sender::new(0),
        }
    }

    /// Notes an ack. Two for one position, or two positions for one key, are violations.
    pub fn ack(&self, channel: ChannelIndex, number: u64, acked: Acked) {
        let mut inner = self.inner.lock();
        let known = &mut inner.channels[channel];
        known.number = Some(number);
        known.at.push(Instant::now());
        let mut told = Vec::new();
        if let Some(before) = known.acked.insert(acked.seq, acked) {
            told.push(format!(
                "channel {channel}: position {} was acked for {} and for {}",
                acked.seq, before.client_id, acked.client_id
            ));
        }
        if !known.keys.insert((acked.sender, acked.client_id)) {
            told.push(format!(
                "channel {channel}: message {} was acked twice",
                acked.client_id
            ));
        }
        inner.doubled += told.len() as u64;
        inner.violations.extend(told);
        drop(inner);
        self.acked.send_modify(|acked| *acked += 1);
    }

    /// Notes something that must not be.
    pub fn violation(&self, text: String) {
        self.inner.lock().violations.push(text);
        self.acked.send_modify(|_| {});
    }

    /// What was noted that must not be, and how much of it was a write acked twice; taken once.
    pub fn take_violations(&self) -> (Vec<String>, u64) {
        let mut inner = self.inner.lock();
        (
            std::mem::take(&mut inner.violations),
            std::mem::take(&mut inner.doubled),
        )
    }

    /// Acks so far, of all channels.
    pub fn total(&self) -> u64 {
        *self.acked.borrow()
    }

    /// The number of each channel, where one was acked.
    pub fn numbers(&self) -> Vec<Option<u64>> {
        self.inner
            .lock()
            .channels
            .iter()
            .map(|channel| channel.number)
            .collect()
    }

    /// The acked writes of a channel, by position.
    pub fn of(&self, channel: ChannelIndex) -> BTreeMap<u64, Acked> {
        self.inner.lock().channels[channel].acked.clone()
    }

    /// Waits until so many writes more have been acked in each of these channels.
    pub async fn more(
        &self,
        channels: &[ChannelIndex],
        count: usize,
        patience: Duration,
    ) -> Result<(), String> {
        let lengths = || -> Vec<usize> {
            let inner = self.inner.lock();
            channels
                .iter()
                .map(|channel| inner.channels[*channel].at.len())
                .collect()
        };
        let mut acked = self.acked.subscribe();
        let before = lengths();
        let all = || {
            lengths()
                .iter()
                .zip(&before)
                .all(|(now, before)| now - before >= count)
        };
        let served = async {
            while !all() {
                if acked.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(patience, served).await.is_ok() {
            return Ok(());
        }
        let silent = lengths().into_iter().zip(&before).zip(channels);
        let silent = silent.filter(|((now, before), _)| now - *before < count);
        let silent: Vec<ChannelIndex> = silent.map(|(_, channel)| *channel).collect();
        Err(format!("channels {silent:?} were not served within {patience:?}"))
    }

    /// Waits until so many writes more have been acked in every channel.
    pub async fn all_more(&self, count: usize, patience: Duration) -> Result<(), String> {
        let channels: Vec<ChannelIndex> = (0..self.numbers().len()).collect();
        self.more(&channels, count, patience).await
    }

    /// The longest time without an ack of a channel, from the last ack before `from` on.
    pub fn longest_silence(&self, channel: ChannelIndex, from: Instant) -> Duration {
        let inner = self.inner.lock();
        longest_silence(&inner.channels[channel].at, from)
    }
}

fn longest_silence(acks: &[Instant], from: Instant) -> Duration {
    let first = acks.partition_point(|at| *at < from).saturating_sub(1);
    let gaps = acks[first..].windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(client_id: u64, seq: u64) -> Acked {
        Acked {
            sender: 0,
            client_id,
            seq,
            ts: seq,
            hash: [0; 32],
        }
    }

    #[test]
    fn a_position_or_a_message_that_is_acked_twice_is_a_violation() {
        let ledger = Ledger::new(2);
        ledger.ack(0, 9, acked(1, 1));
        ledger.ack(1, 10, acked(1, 1));
        assert_eq!(ledger.take_violations(), (vec![], 0));
        ledger.ack(0, 9, acked(2, 1));
        ledger.ack(0, 9, acked(1, 3));
        let (violations, doubled) = ledger.take_violations();
        assert_eq!(doubled, 2);
        assert!(
            violations[0].contains("position 1 was acked for 1 and for 2"),
            "{violations:?}"
        );
        assert!(
            violations[1].contains("message 1 was acked twice"),
            "{violations:?}"
        );
        assert_eq!((ledger.total(), ledger.numbers()), (4, vec![Some(9), Some(10)]));
    }

    #[tokio::test]
    async fn acks_are_awaited_per_channel_and_silent_channels_named() {
        let ledger = std::sync::Arc::new(Ledger::new(2));
        let writer = std::sync::Arc::clone(&ledger);
        let waiting = tokio::spawn(async move { ledger.more(&[0], 2, Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        writer.ack(0, 9, acked(1, 1));
        writer.ack(1, 10, acked(1, 1));
        writer.ack(0, 9, acked(2, 2));
        assert_eq!(waiting.await.expect("runs"), Ok(()));
        let silent = writer.more(&[0, 1], 1, Duration::from_millis(1)).await;
        assert!(silent.expect_err("silent").contains("channels [0, 1]"));
    }

    #[test]
    fn a_silence_begins_with_the_last_ack_before() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let acks = [at(0), at(500), at(510), at(1_700), at(1_710)];
        assert_eq!(longest_silence(&acks, at(505)), Duration::from_millis(1_190));
        assert_eq!(longest_silence(&acks, at(600)), Duration::from_millis(1_190));
        assert_eq!(longest_silence(&acks, at(1_705)), Duration::from_millis(10));
        assert_eq!(longest_silence(&acks, at(1_711)), Duration::ZERO);
    }
}
