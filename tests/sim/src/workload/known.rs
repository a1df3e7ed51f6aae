//! What the clients of a run know together. No client of a real system knows what others learnt,
//! but tests of a system may: a position that one edge told is asked for at another.

use std::collections::{BTreeMap, VecDeque};

use throng_protocol::ids::{ClientMessageId, Epoch, Seq};

use crate::changes::GONE;
use crate::history::{Answer, Ask, Channel, Event, Host, Op, Seen, User, What};

/// Entries and keys remembered, the newest.
const REMEMBERED: usize = 32;

/// What was learnt so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    asked: BTreeMap<Op, (User, Ask)>,
    /// The newest entries anybody was shown.
    entries: BTreeMap<Channel, VecDeque<(Epoch, Seen)>>,
    /// The newest keys each user's devices have sent.
    keys: BTreeMap<User, VecDeque<(Channel, ClientMessageId)>>,
    heads: BTreeMap<Channel, Seq>,
    now_ms: u64,
    acked: u64,
}

impl Known {
    pub fn observe(&mut self, event: &Event) {
        match (&event.what, event.host) {
            (What::Asked(op, ask), Host::Client(client)) => {
                self.asked.insert(*op, (client.user(), *ask));
                if let Ask::Send { channel, key, .. } | Ask::Change { channel, key, .. } = *ask {
                    remember(self.keys.entry(client.user()).or_default(), (channel, key));
                }
            }
            (What::Answered(op, answer), _) => self.answered(*op, answer),
            _ => {}
        }
    }

    fn answered(&mut self, op: Op, answer: &Answer) {
        let Some((user, ask)) = self.asked.remove(&op) else {
            return;
        };
        match (ask, answer) {
            (Ask::Send { channel, key, hash }, Answer::Acked { epoch, seq, ts, .. }) => {
                self.acked += 1;
                let (seq, ts) = (*seq, *ts);
                let head = self.heads.entry(channel).or_default();
                *head = seq.max(*head);
                self.now_ms = self.now_ms.max(ts.millis());
                let sender = user;
                let seen = Seen {
                    seq,
                    ts,
                    sender,
                    key,
                    hash,
                };
                remember(self.entries.entry(channel).or_default(), (*epoch, seen));
            }
            (Ask::Change { channel, .. }, Answer::Acked { seq, ts, .. }) => {
                self.acked += 1;
                let head = self.heads.entry(channel).or_default();
                *head = (*seq).max(*head);
                self.now_ms = self.now_ms.max(ts.millis());
            }
            (Ask::Page { channel, .. }, Answer::Page(page)) => {
                let first = page.entries.iter().zip(&page.shown);
                let first = first
                    .filter(|(seen, shown)| shown.kind == 1 && seen.hash != GONE)
                    .map(|(seen, _)| seen);
                if let Some(first) = first.take(1).next() {
                    remember(self.entries.entry(channel).or_default(), (page.epoch, *first));
                }
            }
            _ => {}
        }
    }

    /// Entries of a channel that somebody was shown.
    pub fn entries(&self, channel: Channel) -> Vec<(Epoch, Seen)> {
        self.entries
            .get(&channel)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// Keys under which a user has sent.
    pub fn keys(&self, user: User) -> Vec<(Channel, ClientMessageId)> {
        self.keys.get(&user).into_iter().flatten().copied().collect()
    }

    /// The last entry of a channel that was acked.
    pub fn head(&self, channel: Channel) -> Seq {
        self.heads.get(&channel).copied().unwrap_or_default()
    }

    /// The newest time of any log.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub fn acked(&self) -> u64 {
        self.acked
    }
}

fn remember<T>(queue: &mut VecDeque<T>, item: T) {
    queue.push_back(item);
    if queue.len() > REMEMBERED {
        queue.pop_front();
    }
}
