//! One client: what it does, and how it takes answers.

use std::collections::{BTreeMap, VecDeque};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use throng_protocol::code::Code;
use throng_protocol::ids::{ClientMessageId, Epoch, Position, Seq, Ts};

use super::known::Known;
use super::{Numbers, Step, body, may_succeed_later};
use crate::changes::{Changing, Deed};
use crate::history::{
    Anchor, Answer, Ask, BodyHash, Channel, Client, Direction, From, Group, Op, Seen, Sub, User, What,
};
use crate::rng;
use crate::world;

/// Requests of a client without an answer: a burst of a lively person, and room for retries.
const IN_FLIGHT_MAX: usize = 6;
/// Steps of a burst.
const BURST: std::ops::RangeInclusive<u32> = 3..=9;
/// Between two steps of a burst.
const STEP_US: std::ops::RangeInclusive<u64> = 4_000..=40_000;
/// Between two bursts.
const PAUSE_US: std::ops::RangeInclusive<u64> = 200_000..=800_000;
/// Before something refused for now is tried again.
const RETRY_US: std::ops::RangeInclusive<u64> = 30_000..=300_000;
/// How long somebody who was removed stays away, trying in vain now and then.
const AWAY_US: std::ops::RangeInclusive<u64> = 200_000..=1_500_000;
/// How long a mute lasts.
const MUTE_MS: std::ops::RangeInclusive<u64> = 300..=2_500;
/// How long a client stands still.
const FREEZE_MS: std::ops::RangeInclusive<u64> = 50..=1_500;

/// What a client knows of one of its subscriptions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Following {
    pub channel: Channel,
    /// Everything up to here came; `None` before it began.
    pub reached: Option<Position>,
}

/// One client of the workload.
#[derive(Debug)]
pub(super) struct Player {
    pub client: Client,
    rng: StdRng,
    due_us: u64,
    burst: u32,
    pub in_flight: BTreeMap<Op, Ask>,
    pub following: BTreeMap<Sub, Following>,
    /// What is to be tried again, and when.
    pub again: VecDeque<(u64, Step)>,
    /// Groups the client knows or believes itself to be out of, and when it wants to come back.
    pub out: BTreeMap<Group, u64>,
    /// The newest place it held in each channel.
    held: BTreeMap<Channel, Position>,
    /// Channels to be followed from what the local store holds, after a restart.
    restarted: Vec<Channel>,
    pub spoken: Vec<Channel>,
}

impl Player {
    pub fn new(seed: u64, client: Client) -> Self {
        let mut rng = rng::stream(seed, &format!("client {client}"));
        let joins = world::groups().filter(|_| client.user() != world::CREATOR);
        Self {
            client,
            due_us: rng.random_range(0..100_000),
            burst: 0,
            in_flight: BTreeMap::new(),
            following: BTreeMap::new(),
            again: VecDeque::new(),
            out: joins.map(|group| (group, 0)).collect(),
            held: BTreeMap::new(),
            restarted: Vec::new(),
            spoken: Vec::new(),
            rng,
        }
    }

    /// What was put off and is due.
    pub fn due_again(&mut self, now_us: u64, numbers: &mut Numbers<'_>) -> Option<Step> {
        let place = self.again.iter().position(|(due_us, _)| *due_us <= now_us)?;
        let (_, step) = self.again.remove(place)?;
        match step {
            Step::Ask(_, ask) => Some(self.ask(numbers, ask)),
            other => Some(other),
        }
    }

    pub fn ask(&mut self, numbers: &mut Numbers<'_>, ask: Ask) -> Step {
        let op = numbers.op();
        self.in_flight.insert(op, ask);
        if let Ask::Subscribe { sub, channel, .. } = ask {
            let reached = None;
            self.following.insert(sub, Following { channel, reached });
        }
        Step::Ask(op, ask)
    }

    pub fn next(&mut self, now_us: u64, known: &mut Known, numbers: &mut Numbers<'_>) -> Step {
        if let Some(step) = self.due_again(now_us, numbers) {
            return step;
        }
        let wake_us = self
            .again
            .iter()
            .map(|(due_us, _)| *due_us)
            .min()
            .unwrap_or(u64::MAX);
        if now_us < self.due_us {
            return Step::Wait(self.due_us.min(wake_us));
        }
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return Step::Wait(wake_us);
        }
        let pause = if self.burst == 0 {
            self.burst = self.rng.random_range(BURST);
            PAUSE_US
        } else {
            self.burst -= 1;
            STEP_US
        };
        self.due_us = now_us + self.rng.random_range(pause);
        self.pick(now_us, known, numbers)
    }

    fn pick(&mut self, now_us: u64, known: &Known, numbers: &mut Numbers<'_>) -> Step {
        let back = self
            .out
            .iter()
            .find(|(_, at_us)| **at_us <= now_us)
            .map(|(group, _)| *group);
        if let Some(group) = back {
            // Not again before its answer; the answer takes the group off the list.
            self.out.insert(group, u64::MAX);
            return self.ask(numbers, Ask::Join { group });
        }
        if self.client.user() == world::CREATOR {
            if self.rng.random_bool(0.16) {
                return self.moderate(known, numbers);
            }
            if self.rng.random_bool(0.12) {
                return self.govern(numbers);
            }
        }
        match self.rng.random_range(0..100) {
            0..12 => self.subscribe(known, numbers),
            12..24 => self.page(known, numbers),
            24..32 => self.repeat(known, numbers),
            96..100 => self.change(known, numbers),
            32..34 => self.unsubscribe().unwrap_or_else(|| self.send(numbers)),
            34..36 => Step::DropConnection,
            36..37 => Step::Freeze {
                ms: self.rng.random_range(FREEZE_MS),
            },
            37..38 => self.restart(),
            38..39 if self.client.user() != world::CREATOR => {
                let group = self.channel().group();
                self.ask(numbers, Ask::Leave { group })
            }
            _ => self.send(numbers),
        }
    }

    /// The first channel is the busiest: a log that grows fast is snapshotted and purged.
    fn channel(&mut self) -> Channel {
        let channels: Vec<Channel> = world::channels().collect();
        if self.rng.random_bool(0.4) {
            return channels[0];
        }
        channels.choose(&mut self.rng).copied().unwrap_or(Channel(0))
    }

    fn send(&mut self, numbers: &mut Numbers<'_>) -> Step {
        let (channel, key) = (self.channel(), ClientMessageId(self.rng.random()));
        self.send_as(numbers, channel, key, 0)
    }

    pub fn last_word(&mut self, numbers: &mut Numbers<'_>, channel: Channel) -> Step {
        let key = ClientMessageId(self.rng.random());
        self.send_as(numbers, channel, key, 0)
    }

    fn send_as(
        &mut self,
        numbers: &mut Numbers<'_>,
        channel: Channel,
        key: ClientMessageId,
        variant: u8,
    ) -> Step {
        let hash = BodyHash::of(&body(key, variant));
        self.ask(numbers, Ask::Send { channel, key, hash })
    }

    /// A key that this device or the user's other one has sent, once more; now and then with another
    /// body.
    fn repeat(&mut self, known: &Known, numbers: &mut Numbers<'_>) -> Step {
        let keys = known.keys(self.client.user());
        let Some((channel, key)) = keys.choose(&mut self.rng).copied() else {
            return self.send(numbers);
        };
        let variant = u8::from(self.rng.random_bool(0.1));
        self.send_as(numbers, channel, key, variant)
    }

    /// A message that somebody was shown is changed; now and then by one who may not.
    fn change(&mut self, known: &Known, numbers: &mut Numbers<'_>) -> Step {
        let channel = self.channel();
        let Some((epoch, seen)) = known.entries(channel).choose(&mut self.rng).copied() else {
            return self.send(numbers);
        };
        let deed = match self.rng.random_range(0..10) {
            0..3 => Deed::Modify,
            3 => Deed::Recall,
            4 => Deed::Delete,
            5..8 => Deed::Set(self.rng.random_range(0..4)),
            _ => Deed::Unset(self.rng.random_range(0..4)),
        };
        let change = Changing {
            target: Position { epoch, seq: seen.seq },
            owner: seen.sender,
            key: seen.key,
            hash: seen.hash,
            deed,
        };
        let key = ClientMessageId(self.rng.random());
        self.ask(numbers, Ask::Change { channel, key, change })
    }

    fn moderate(&mut self, known: &Known, numbers: &mut Numbers<'_>) -> Step {
        let users: Vec<User> = world::users().filter(|user| *user != world::CREATOR).collect();
        let user = users.choose(&mut self.rng).copied().unwrap_or(User(1));
        let group = self.channel().group();
        let until_ms = match self.rng.random_range(0..10) {
            0..6 => return self.ask(numbers, Ask::Kick { group, user }),
            6..9 => known.now_ms() + self.rng.random_range(MUTE_MS),
            _ => 0,
        };
        self.ask(
            numbers,
            Ask::Mute {
                group,
                user,
                until_ms,
            },
        )
    }

    /// A role is given or taken, or changed for all who have it.
    fn govern(&mut self, numbers: &mut Numbers<'_>) -> Step {
        let users: Vec<User> = world::users().filter(|user| *user != world::CREATOR).collect();
        let user = users.choose(&mut self.rng).copied().unwrap_or(User(1));
        let group = self.channel().group();
        let ask = match self.rng.random_range(0..10) {
            0..6 => Ask::Assign {
                group,
                user,
                has: true,
            },
            6..8 => Ask::Assign {
                group,
                user,
                has: false,
            },
            8 => Ask::Permit { group, may: false },
            _ => Ask::Permit { group, may: true },
        };
        self.ask(numbers, ask)
    }

    fn subscribe(&mut self, known: &Known, numbers: &mut Numbers<'_>) -> Step {
        let followed: Vec<Channel> = self
            .following
            .values()
            .map(|following| following.channel)
            .collect();
        let free: Vec<Channel> = world::channels()
            .filter(|channel| !followed.contains(channel))
            .collect();
        let Some(channel) = free.choose(&mut self.rng).copied() else {
            return self.send(numbers);
        };
        let from = self.place(known, channel);
        self.follow(numbers, channel, from)
    }

    pub fn follow(&mut self, numbers: &mut Numbers<'_>, channel: Channel, from: From) -> Step {
        let sub = numbers.sub();
        self.ask(numbers, Ask::Subscribe { sub, channel, from })
    }

    /// Where to follow a channel from.
    fn place(&mut self, known: &Known, channel: Channel) -> From {
        if let Some(restarted) = self.restarted.iter().position(|stored| *stored == channel) {
            self.restarted.remove(restarted);
            return From::Stored;
        }
        let held = self.held.get(&channel).copied();
        let told = known.entries(channel).choose(&mut self.rng).copied();
        match (self.rng.random_range(0..10), held, told) {
            (0..4, Some(position), _) => From::Position(position),
            (0..6, _, Some((epoch, Seen { seq, .. }))) => From::Position(Position { epoch, seq }),
            (6..8, _, Some((_, Seen { ts, .. }))) => From::Ts(self.beside(ts)),
            (8, _, _) => From::Head,
            _ => From::Start,
        }
    }

    /// A time stamp at, just before or just behind one that there is.
    fn beside(&mut self, ts: Ts) -> Ts {
        Ts(ts.0.saturating_add(self.rng.random_range(0..3)).saturating_sub(1))
    }

    fn page(&mut self, known: &Known, numbers: &mut Numbers<'_>) -> Step {
        let channel = self.channel();
        let told = known.entries(channel).choose(&mut self.rng).copied();
        let anchor = match told {
            Some((_, Seen { ts, .. })) if self.rng.random_bool(0.3) => Anchor::Ts(self.beside(ts)),
            Some((_, Seen { seq, .. })) if self.rng.random_bool(0.8) => Anchor::Seq(seq),
            _ => Anchor::Seq(Seq(0)),
        };
        let direction = if self.rng.random_bool(0.5) {
            Direction::After
        } else {
            Direction::Before
        };
        let limit = self.rng.random_range(0..12);
        let ask = Ask::Page {
            channel,
            anchor,
            direction,
            limit,
        };
        self.ask(numbers, ask)
    }

    fn unsubscribe(&mut self) -> Option<Step> {
        let begun = self
            .following
            .iter()
            .filter(|(_, following)| following.reached.is_some());
        let subs: Vec<Sub> = begun.map(|(sub, _)| *sub).collect();
        subs.choose(&mut self.rng).copied().map(Step::Drop)
    }

    fn restart(&mut self) -> Step {
        let begun = self
            .following
            .values()
            .filter(|following| following.reached.is_some());
        self.restarted = begun.map(|following| following.channel).collect();
        Step::Restart
    }

    pub fn observe(&mut self, at_us: u64, what: &What, known: &Known) {
        match what {
            What::Asked(op, ask) => {
                // What a restarted client does by itself is not known yet.
                self.in_flight.entry(*op).or_insert(*ask);
            }
            What::Answered(op, answer) => {
                if let Some(ask) = self.in_flight.remove(op) {
                    self.answered(at_us, ask, answer, known);
                }
            }
            What::Delivered {
                sub, epoch, entry, ..
            } => self.moved(*sub, *epoch, entry.seq),
            What::Reset { sub, to, .. } => self.moved(*sub, to.epoch, to.seq),
            What::Ended { sub, code } => {
                if let Some(following) = self.following.remove(sub)
                    && *code == Code::NotMember.number()
                {
                    self.stay_out(at_us, following.channel.group());
                }
            }
            What::Dropped { sub } => {
                self.following.remove(sub);
            }
            _ => {}
        }
    }

    fn moved(&mut self, sub: Sub, epoch: Epoch, seq: Seq) {
        if let Some(following) = self.following.get_mut(&sub) {
            let position = Position { epoch, seq };
            following.reached = Some(position);
            self.held.insert(following.channel, position);
        }
    }

    fn stay_out(&mut self, at_us: u64, group: Group) {
        if self.client.user() != world::CREATOR {
            let back_us = at_us + self.rng.random_range(AWAY_US);
            self.out.entry(group).or_insert(back_us);
        }
    }

    fn answered(&mut self, at_us: u64, ask: Ask, answer: &Answer, _known: &Known) {
        if let (Ask::Subscribe { sub, .. }, Answer::Subscribed { at, .. }) = (ask, answer) {
            return self.moved(sub, at.epoch, at.seq);
        }
        if let Ask::Subscribe { sub, .. } = ask {
            self.following.remove(&sub);
        }
        match (ask, answer) {
            (Ask::Join { group }, Answer::Done) => {
                self.out.remove(&group);
            }
            (Ask::Join { group }, _) => {
                self.out.insert(group, at_us + self.rng.random_range(RETRY_US));
            }
            (Ask::Leave { group }, Answer::Done) => self.stay_out(at_us, group),
            (
                Ask::Send { channel, .. }
                | Ask::Change { channel, .. }
                | Ask::Subscribe { channel, .. }
                | Ask::Page { channel, .. },
                Answer::Refused { code, unknown: false },
            ) if *code == Code::NotMember.number() => self.stay_out(at_us, channel.group()),
            (
                Ask::Send { .. }
                | Ask::Change { .. }
                | Ask::Kick { .. }
                | Ask::Mute { .. }
                | Ask::Leave { .. },
                answer,
            ) if may_succeed_later(answer) => {
                self.retry(at_us, ask, answer);
            }
            _ => {}
        }
    }

    /// The same once more; if nobody answered, at another edge.
    fn retry(&mut self, at_us: u64, ask: Ask, answer: &Answer) {
        let due_us = at_us + self.rng.random_range(RETRY_US);
        if matches!(answer, Answer::Refused { unknown: true, .. }) && self.rng.random_bool(0.5) {
            self.again.push_back((due_us, Step::DropConnection));
        }
        // The number is given when it is due.
        self.again.push_back((due_us, Step::Ask(Op(0), ask)));
    }
}
