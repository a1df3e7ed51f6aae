//! A finished run, prepared for the invariants: the history with what belongs together put together.

use std::collections::BTreeMap;

use throng_protocol::ids::{ClientMessageId, Epoch, Position, Seq};

use crate::changes::{GONE, Shown};
use crate::history::{
    Answer, Ask, BodyHash, Channel, Client, From, History, Host, Op, Page, Seen, Start, Sub, User, What,
};
use crate::logs::FinalLogs;

/// Longer than this an operation may have been tried more than once: by its client on another
/// connection, or by its edge at another node, which it waits for by 25 ms at least.
const RETRIED_US: u64 = 20_000;

/// How long after its answer an attempt of an operation may still be carried out: a proposal waits for
/// as long as its leader is cut off, and is committed with the next one's first entry.
const LATE_US: u64 = 5_000_000;

/// An operation with its answer.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which.
    pub op: Op,
    /// Who asked.
    pub client: Client,
    /// When, in microseconds.
    pub at_us: u64,
    /// The place of the question in the history.
    pub event: usize,
    /// What.
    pub ask: Ask,
    /// The answers with their times and places in the history: one, in a history without fault.
    pub answers: Vec<(u64, usize, Answer)>,
}

impl Asked {
    /// The first answer.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        self.answers.first().map(|(_, _, answer)| answer)
    }

    /// When the first answer came; never is the end of time.
    #[must_use]
    pub fn answered_us(&self) -> u64 {
        self.answers.first().map_or(u64::MAX, |(at_us, _, _)| *at_us)
    }

    /// When it can no longer be carried out; never is the end of time, as for what is open. What took
    /// long may have been tried more than once, and an attempt that hangs at a node, or in a log that
    /// is not committed yet, is carried out after another one was answered.
    #[must_use]
    pub fn ends_us(&self) -> u64 {
        match self.answer() {
            Some(Answer::Refused { unknown: true, .. }) => u64::MAX,
            _ if self.answered_us().saturating_sub(self.at_us) < RETRIED_US => self.answered_us(),
            _ => self.answered_us().saturating_add(LATE_US),
        }
    }

    /// From the question to the first answer.
    #[must_use]
    pub fn span(&self) -> (u64, u64) {
        (self.at_us, self.answered_us())
    }

    /// Whether it may have been carried out: it was, or nobody knows.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        !matches!(self.answer(), Some(Answer::Refused { unknown: false, .. }))
    }
}

/// An entry handed to an application.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// When, in microseconds.
    pub at_us: u64,
    /// Its place in the history.
    pub event: usize,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The entry before it, as the client was told.
    pub prev: Seq,
    /// The entry.
    pub entry: Seen,
    /// How it is shown.
    pub shown: Shown,
    /// Over which edge.
    pub edge: u8,
    /// Over which connection of its client.
    pub connection: u32,
}

/// How a stretch of deliveries ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The run was over.
    Open,
    /// The application gave it up.
    Dropped,
    /// The cluster ended it.
    Ended {
        /// Why.
        code: u16,
    },
    /// It went on behind another position.
    Reset {
        /// Which position it had.
        from: Position,
    },
}

/// Deliveries that have to follow each other without a gap: a subscription from its start, or from a
/// reset, to its end or its next reset.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Of which subscription.
    pub sub: Sub,
    /// Whose.
    pub client: Client,
    /// Of which channel.
    pub channel: Channel,
    /// What was asked for; `None` behind a reset.
    pub from: Option<From>,
    /// Why it begins where it does; `None` behind a reset.
    pub start: Option<Start>,
    /// When it was asked for, in microseconds.
    pub asked_us: u64,
    /// When it began, in microseconds.
    pub began_us: u64,
    /// The place of its beginning in the history.
    pub event: usize,
    /// Behind which position.
    pub at: Position,
    /// The entries.
    pub deliveries: Vec<Delivery>,
    /// How it ended.
    pub end: End,
    /// When, in microseconds.
    pub ended_us: u64,
}

impl Stretch {
    /// Everything up to here was delivered.
    #[must_use]
    pub fn reached(&self) -> Position {
        self.deliveries.last().map_or(self.at, |last| Position {
            epoch: last.epoch,
            seq: last.entry.seq,
        })
    }
}

/// An entry somebody saw.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// When it was seen, in microseconds.
    pub at_us: u64,
    /// The place in the history.
    pub event: usize,
    /// By whom.
    pub client: Client,
    /// In which channel's log.
    pub channel: Channel,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The entry.
    pub entry: Seen,
    /// How it is shown.
    pub shown: Shown,
}

/// A key of a sender in a channel.
pub type Key = (Channel, User, ClientMessageId);

/// A finished run.
#[derive(Debug)]
pub struct Run {
    /// What happened.
    pub history: History,
    /// What every replica held at the end.
    pub logs: FinalLogs,
    /// The operations, by number.
    pub ops: BTreeMap<Op, Asked>,
    /// The stretches, in the order of their beginnings.
    pub stretches: Vec<Stretch>,
    /// When the faults had stopped, in microseconds.
    pub liveness_us: u64,
    /// What does not fit together in the history itself: an answer to nothing, a delivery to nobody.
    pub torn: Vec<(usize, String)>,
}

impl Run {
    /// Puts together what belongs together.
    #[must_use]
    pub fn new(history: History, logs: FinalLogs) -> Self {
        let (mut history, mut logs) = (history, logs);
        name_what_is_gone(&mut history, &mut logs);
        let mut reading = Reading::default();
        for (event, at) in history.events().iter().enumerate() {
            reading.take(event, at.at_us, at.host, &at.what);
        }
        Self {
            ops: reading.ops,
            stretches: reading.stretches,
            liveness_us: reading.liveness_us.unwrap_or(u64::MAX),
            torn: reading.torn,
            history,
            logs,
        }
    }

    /// All sends and changes with their keys and what tells their entries.
    pub fn sends(&self) -> impl Iterator<Item = (Key, BodyHash, &Asked)> {
        self.ops.values().filter_map(|asked| match asked.ask {
            Ask::Send { channel, key, hash } => Some(((channel, asked.client.user(), key), hash, asked)),
            Ask::Change { channel, key, change } => {
                Some(((channel, asked.client.user(), key), change.identity(), asked))
            }
            _ => None,
        })
    }

    /// All pages, with their questions.
    pub fn pages(&self) -> impl Iterator<Item = (&Asked, Channel, &Page)> {
        self.ops
            .values()
            .filter_map(|asked| match (asked.ask, asked.answer()) {
                (Ask::Page { channel, .. }, Some(Answer::Page(page))) => Some((asked, channel, page)),
                _ => None,
            })
    }

    /// Every entry anybody saw, by delivery or in a page.
    pub fn sightings(&self) -> impl Iterator<Item = Sighting> {
        let delivered = self.stretches.iter().flat_map(|stretch| {
            stretch.deliveries.iter().map(|delivery| Sighting {
                at_us: delivery.at_us,
                event: delivery.event,
                client: stretch.client,
                channel: stretch.channel,
                epoch: delivery.epoch,
                entry: delivery.entry,
                shown: delivery.shown,
            })
        });
        let read = self.pages().flat_map(|(asked, channel, page)| {
            page.entries
                .iter()
                .zip(&page.shown)
                .map(move |(entry, shown)| Sighting {
                    at_us: asked.answered_us(),
                    event: asked.answers.first().map_or(asked.event, |(_, event, _)| *event),
                    client: asked.client,
                    channel,
                    epoch: page.epoch,
                    entry: *entry,
                    shown: *shown,
                })
        });
        delivered.chain(read)
    }
}

/// Gives entries of which nothing is left the hash of the body they were sent with: that of the send under their
/// key that was acked, or of the first.
fn name_what_is_gone(history: &mut History, logs: &mut FinalLogs) {
    let mut asked: BTreeMap<Op, (Key, BodyHash)> = BTreeMap::new();
    let (mut acked, mut sent): (BTreeMap<Key, BodyHash>, BTreeMap<Key, BodyHash>) = Default::default();
    for event in history.events() {
        match (&event.what, event.host) {
            (What::Asked(op, Ask::Send { channel, key, hash }), Host::Client(client)) => {
                let key = (*channel, client.user(), *key);
                asked.insert(*op, (key, *hash));
                sent.entry(key).or_insert(*hash);
            }
            (What::Answered(op, Answer::Acked { .. }), _) => {
                if let Some((key, hash)) = asked.get(op) {
                    acked.entry(*key).or_insert(*hash);
                }
            }
            _ => {}
        }
    }
    let name = |channel: Channel, seen: &mut Seen| {
        let key = (channel, seen.sender, seen.key);
        if seen.hash == GONE
            && let Some(hash) = acked.get(&key).or_else(|| sent.get(&key))
        {
            seen.hash = *hash;
        }
    };
    history.name(name);
    for replica in &mut logs.replicas {
        for log in &mut replica.channels {
            let channel = log.channel;
            log.entries
                .iter_mut()
                .for_each(|stored| name(channel, &mut stored.seen));
        }
    }
}

#[derive(Default)]
struct Reading {
    ops: BTreeMap<Op, Asked>,
    stretches: Vec<Stretch>,
    /// The current stretch of each subscription.
    current: BTreeMap<Sub, usize>,
    liveness_us: Option<u64>,
    torn: Vec<(usize, String)>,
}

impl Reading {
    fn take(&mut self, event: usize, at_us: u64, host: Host, what: &What) {
        match what {
            What::Asked(op, ask) => {
                let Host::Client(client) = host else {
                    return self.torn(event, format!("{host:?} asks for something"));
                };
                let asked = Asked {
                    op: *op,
                    client,
                    at_us,
                    event,
                    ask: *ask,
                    answers: Vec::new(),
                };
                if self.ops.insert(*op, asked).is_some() {
                    self.torn(event, format!("{op:?} is asked for twice"));
                }
            }
            What::Answered(op, answer) => self.answer(event, at_us, *op, answer),
            What::Delivered {
                sub,
                epoch,
                prev,
                entry,
                shown,
                edge,
                connection,
            } => {
                let delivery = Delivery {
                    at_us,
                    event,
                    epoch: *epoch,
                    prev: *prev,
                    entry: *entry,
                    shown: *shown,
                    edge: *edge,
                    connection: *connection,
                };
                match self.stretch(*sub) {
                    Some(stretch) if stretch.end == End::Open => stretch.deliveries.push(delivery),
                    _ => self.torn(event, format!("{sub:?} delivers and is not open")),
                }
            }
            What::Reset { sub, from, to } => self.reset(event, at_us, *sub, (*from, *to)),
            What::Ended { sub, code } => self.end(event, at_us, *sub, End::Ended { code: *code }),
            What::Dropped { sub } => self.end(event, at_us, *sub, End::Dropped),
            What::Phase(crate::history::Phase::Liveness) => self.liveness_us = Some(at_us),
            _ => {}
        }
    }

    fn answer(&mut self, event: usize, at_us: u64, op: Op, answer: &Answer) {
        let Some(asked) = self.ops.get_mut(&op) else {
            return self.torn(event, format!("{op:?} is answered and was not asked for"));
        };
        asked.answers.push((at_us, event, answer.clone()));
        if let (Ask::Subscribe { sub, channel, from }, Answer::Subscribed { start, at, .. }) =
            (asked.ask, answer)
        {
            let stretch = Stretch {
                sub,
                client: asked.client,
                channel,
                from: Some(from),
                start: Some(*start),
                asked_us: asked.at_us,
                began_us: at_us,
                event,
                at: *at,
                deliveries: Vec::new(),
                end: End::Open,
                ended_us: u64::MAX,
            };
            if self.current.insert(sub, self.stretches.len()).is_some() {
                self.torn(event, format!("{sub:?} begins twice"));
            }
            self.stretches.push(stretch);
        }
    }

    fn stretch(&mut self, sub: Sub) -> Option<&mut Stretch> {
        self.current
            .get(&sub)
            .and_then(|place| self.stretches.get_mut(*place))
    }

    fn end(&mut self, event: usize, at_us: u64, sub: Sub, end: End) {
        match self.stretch(sub) {
            Some(stretch) if stretch.end == End::Open => {
                stretch.end = end;
                stretch.ended_us = at_us;
            }
            _ => self.torn(event, format!("{sub:?} ends and is not open")),
        }
    }

    fn reset(&mut self, event: usize, at_us: u64, sub: Sub, (from, to): (Position, Position)) {
        self.end(event, at_us, sub, End::Reset { from });
        let Some(before) = self.stretch(sub).cloned() else {
            return;
        };
        let after = Stretch {
            from: None,
            start: None,
            asked_us: at_us,
            began_us: at_us,
            event,
            at: to,
            deliveries: Vec::new(),
            end: End::Open,
            ended_us: u64::MAX,
            ..before
        };
        self.current.insert(sub, self.stretches.len());
        self.stretches.push(after);
    }

    fn torn(&mut self, event: usize, why: String) {
        self.torn.push((event, why));
    }
}
