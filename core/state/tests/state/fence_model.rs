//! Fences among entries against a model that writes everything down in one line: which appends pass,
//! where each fence lies, what feeds and pages tell of it, while old fences fold into the floor.

use std::collections::BTreeMap;

use proptest::prelude::*;
use throng_protocol::cluster::{Anchor, Direction, Fence, FenceKind, FenceTable, Fenced, GrantClaims};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Epoch, Seq, UserNumber};
use throng_state::Reply;
use throng_state::command::AppendMessage;
use throng_state::limits::Bounds;
use throng_state::query::{self, FeedPosition, FeedStep, PageWanted, Right};
use throng_state::testing::MapView;

use crate::support::*;

const CHANNELS: usize = 2;
const USERS: std::ops::Range<u64> = 1..4;

#[derive(Debug, Clone)]
enum Op {
    /// A fence whose version is so far above the last one; 0 for one that comes again or late.
    Fence { user: u64, kind: FenceKind, ahead: u64 },
    /// A message under a grant whose version is so far below the next one, and that was made behind
    /// the user's last fence or behind one that is still to come.
    Append {
        channel: usize,
        user: u64,
        behind: u64,
        early: bool,
    },
    /// Opens a feed of a channel a part of its log before the end.
    Open {
        channel: usize,
        part: prop::sample::Index,
    },
    /// Lets a feed tell so many things.
    Tell { channel: usize, steps: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop::sample::select(vec![FenceKind::Kick, FenceKind::Left, FenceKind::Mute]);
    prop_oneof![
        3 => (USERS, kind, 0..4_u64).prop_map(|(user, kind, ahead)| Op::Fence { user, kind, ahead }),
        6 => (0..CHANNELS, USERS, 0..6_u64, prop::bool::weighted(0.1))
            .prop_map(|(channel, user, behind, early)| Op::Append { channel, user, behind, early }),
        1 => (0..CHANNELS, any::<prop::sample::Index>()).prop_map(|(channel, part)| Op::Open { channel, part }),
        2 => (0..CHANNELS, 1..4_usize).prop_map(|(channel, steps)| Op::Tell { channel, steps }),
    ]
}

/// A fence, and its place in each channel.
#[derive(Debug, Clone, Copy)]
struct Placed {
    fence: Fence,
    places: [u64; CHANNELS],
}

/// What a feed tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Entry(u64),
    Fence(u64, Fence),
}

struct World {
    shard: MapView,
    heads: [u64; CHANNELS],
    fences: Vec<Placed>,
    sent: u64,
    feeds: [Option<FeedPosition>; CHANNELS],
}

impl World {
    fn new(fences_per_group: u64) -> Self {
        Self {
            shard: MapView {
                bounds: Bounds { fences_per_group },
                ..message_shard(CHANNELS as u64)
            },
            heads: [0; CHANNELS],
            fences: Vec::new(),
            sent: 0,
            feeds: [None; CHANNELS],
        }
    }

    fn last(&self) -> u64 {
        self.fences.last().map_or(0, |placed| placed.fence.version)
    }

    /// The fences that are not folded.
    fn kept(&self) -> &[Placed] {
        let bound = self.shard.bounds.fences_per_group as usize;
        &self.fences[self.fences.len().saturating_sub(bound)..]
    }

    fn floor(&self) -> u64 {
        let folded = self.fences.len() - self.kept().len();
        folded
            .checked_sub(1)
            .map_or(0, |last| self.fences[last].fence.version)
    }

    /// The last fence of a user of those that count.
    fn touched(&self, user: u64, counts: impl Fn(FenceKind) -> bool) -> u64 {
        let of_user = |placed: &&Placed| placed.fence.number.0 == user && counts(placed.fence.kind);
        let last = self.kept().iter().rev().find(of_user);
        last.map_or(0, |placed| placed.fence.version)
    }

    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::Fence { user, kind, ahead } => {
                let version = self.last() + ahead;
                if version > 0 {
                    take(&mut self.shard, fence(version, user, kind));
                }
                if ahead > 0 {
                    let number = UserNumber(user);
                    let fence = Fence {
                        version,
                        number,
                        kind,
                    };
                    let places = self.heads;
                    self.fences.push(Placed { fence, places });
                }
                Ok(())
            }
            Op::Append {
                channel,
                user,
                behind,
                early,
            } => self.append(channel, user, behind, early),
            Op::Open { channel, part } => {
                let from = part.index(self.heads[channel] as usize + 1) as u64;
                self.open(channel, from)
            }
            Op::Tell { channel, steps } => self.tell(channel, steps).map(drop),
        }
    }

    fn append(&mut self, channel: usize, user: u64, behind: u64, early: bool) -> Result<(), TestCaseError> {
        let version = (self.last() + 1).saturating_sub(behind);
        let fenced = if early {
            self.last() + 2
        } else {
            self.touched(user, |_| true).min(version)
        };
        self.sent += 1;
        let message = message(user, self.sent, "x");
        let claims = GrantClaims {
            version,
            fenced,
            ..message.claims
        };
        let right = |touched: u64| {
            if version < self.floor() || touched > version {
                Right::Stale
            } else if fenced > self.last() {
                Right::Early
            } else {
                Right::Held
            }
        };
        let to_read = right(self.touched(user, FenceKind::ends_reading));
        prop_assert_eq!(
            query::right_to_read(&self.shard, &claims).expect("readable"),
            to_read
        );
        let to_send = right(self.touched(user, |_| true));
        let message = AppendMessage {
            channel: ChannelNumber(channel as u64 + 1),
            claims,
            ..message
        };
        match (self.shard.reply(&append(&message)), to_send) {
            (
                Reply::Appended {
                    seq, repeat: false, ..
                },
                Right::Held,
            ) => {
                self.heads[channel] += 1;
                prop_assert_eq!(seq, Seq(self.heads[channel]));
            }
            (Reply::GrantStale, Right::Stale)
            | (
                Reply::Refused {
                    code: Code::Unavailable,
                    ..
                },
                Right::Early,
            ) => {}
            (reply, right) => prop_assert!(false, "{:?}, and the right is {:?}", reply, right),
        }
        Ok(())
    }

    /// What a feed that begins behind `from` now must begin with.
    fn table(&self, channel: usize, from: u64) -> FenceTable {
        let before = |placed: &&Placed| placed.places[channel] <= from;
        let before: Vec<&Placed> = self.kept().iter().filter(before).collect();
        let mut latest = BTreeMap::new();
        for placed in before.iter().filter(|placed| placed.fence.kind.ends_reading()) {
            let Fence { number, version, .. } = placed.fence;
            let after = Seq(placed.places[channel]);
            latest.insert(
                number,
                Fenced {
                    number,
                    version,
                    after,
                },
            );
        }
        let mut fenced: Vec<Fenced> = latest.into_values().collect();
        fenced.sort_by_key(|fenced| fenced.version);
        FenceTable {
            floor: self.floor(),
            last: before.last().map_or(self.floor(), |placed| placed.fence.version),
            fenced,
        }
    }

    fn open(&mut self, channel: usize, from: u64) -> Result<(), TestCaseError> {
        let number = ChannelNumber(channel as u64 + 1);
        let table = query::fence_table(&self.shard, number, Seq(from))
            .expect("readable")
            .expect("open");
        prop_assert_eq!(&table, &self.table(channel, from));
        self.feeds[channel] = Some(FeedPosition {
            epoch: Epoch(1),
            sent: Seq(from),
            fenced: table.last,
        });
        Ok(())
    }

    /// What a feed at a position has to tell, all of it.
    fn owed(&self, channel: usize, at: &FeedPosition) -> Vec<Told> {
        let mut owed = Vec::new();
        let mut fences = self
            .kept()
            .iter()
            .filter(|placed| placed.fence.version > at.fenced)
            .peekable();
        for seq in at.sent.0..=self.heads[channel] {
            if seq > at.sent.0 {
                owed.push(Told::Entry(seq));
            }
            while let Some(placed) = fences.next_if(|placed| placed.places[channel] == seq) {
                owed.push(Told::Fence(seq, placed.fence));
            }
        }
        assert!(
            fences.next().is_none(),
            "a fence lies before the position and was not told"
        );
        owed
    }

    /// Lets a feed tell at most so many things; whether it has told all.
    fn tell(&mut self, channel: usize, steps: usize) -> Result<bool, TestCaseError> {
        let Some(mut at) = self.feeds[channel] else {
            return Ok(true);
        };
        let number = ChannelNumber(channel as u64 + 1);
        for _ in 0..steps {
            let step = query::feed_step(&self.shard, number, &at)
                .expect("readable")
                .expect("open");
            if at.fenced < self.floor() {
                prop_assert_eq!(step, FeedStep::Folded);
                self.open(channel, at.sent.0)?;
                at = self.feeds[channel].expect("opened");
                continue;
            }
            let owed = self.owed(channel, &at);
            match step {
                FeedStep::Nothing => {
                    prop_assert_eq!(owed, vec![]);
                    return Ok(true);
                }
                FeedStep::Fence { after, fence } => {
                    prop_assert_eq!(owed.first(), Some(&Told::Fence(after.0, fence)));
                    at.fenced = fence.version;
                }
                FeedStep::Entries { page, more } => {
                    prop_assert_eq!(page.prev, at.sent);
                    let told: Vec<Told> = page
                        .entries
                        .iter()
                        .map(|entry| Told::Entry(entry.seq.0))
                        .collect();
                    prop_assert_eq!(&owed[..told.len()], &told[..]);
                    prop_assert_eq!(more, owed.len() > told.len());
                    at.sent = page.entries.last().expect("not empty").seq;
                }
                step => prop_assert!(false, "{:?}", step),
            }
            self.feeds[channel] = Some(at);
        }
        Ok(false)
    }

    /// Reads a channel by pages of `limit` in both directions; each kept fence must be told once,
    /// at its place.
    fn check_pages(&self, channel: usize, limit: u32) -> Result<(), TestCaseError> {
        let expected: Vec<(u64, Fence)> = self
            .kept()
            .iter()
            .map(|placed| (placed.places[channel], placed.fence))
            .collect();
        for direction in [Direction::After, Direction::Before] {
            let mut found = Vec::new();
            let mut anchor = match direction {
                Direction::After => Seq(0),
                Direction::Before => Seq(self.heads[channel] + 1),
            };
            loop {
                let wanted = PageWanted {
                    fences: true,
                    ..entries_at(Anchor::Seq(anchor), direction, limit, 1 << 20)
                };
                let number = ChannelNumber(channel as u64 + 1);
                let page = query::page(&self.shard, number, &wanted)
                    .expect("readable")
                    .expect("open");
                prop_assert_eq!(page.fenced, self.last());
                let fences = page.fences.iter().map(|at| {
                    assert_eq!(at.user, user(at.number.0));
                    let (version, number, kind) = (at.version, at.number, at.kind);
                    (
                        at.after.0,
                        Fence {
                            version,
                            number,
                            kind,
                        },
                    )
                });
                found.extend(fences);
                anchor = match (page.entries.as_slice(), direction) {
                    ([], _) => break,
                    ([.., last], Direction::After) => last.seq,
                    ([first, ..], Direction::Before) => first.seq,
                };
            }
            found.sort_by_key(|(_, fence)| fence.version);
            prop_assert_eq!(&found, &expected);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn appends_feeds_and_pages_see_each_fence_at_its_place(
        ops in prop::collection::vec(op(), 1..80),
        bound in 1..6_u64,
        limit in 1..6_u32,
    ) {
        let mut world = World::new(bound);
        for op in &ops {
            world.step(op)?;
        }
        for channel in 0..CHANNELS {
            prop_assert!(world.tell(channel, 4 * ops.len() + 2)?, "a feed comes to no end");
            for from in 0..=world.heads[channel] {
                world.open(channel, from)?;
                prop_assert!(world.tell(channel, 4 * ops.len() + 2)?, "a feed comes to no end");
            }
            world.check_pages(channel, limit)?;
        }
    }
}
