//! A shard that fences, a feed of it that loses and reopens, and sessions by old and new grants.

use proptest::prelude::*;
use throng_protocol::cluster::FenceKind;

use super::fences::{ask, end, rights, table};
use super::*;

/// Users of the model; a session's is its number modulo this.
const USERS: u64 = 3;

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    /// The group changes: a user is kicked, or muted, and may come back.
    Fence {
        user: u64,
        mute: bool,
    },
    /// The feed goes on; by chance a batch of entries gets lost on the way.
    Feed {
        count: usize,
        lose: bool,
    },
    /// The feed goes on elsewhere, at a replica that has applied less.
    Reopen {
        lag: usize,
    },
    /// An answer to an earlier follow: the feed goes on at the end of the log, whatever is held.
    Late,
    Subscribe {
        session: u64,
        behind: u64,
        fresh: bool,
    },
    Take {
        session: u64,
        budget: usize,
    },
    /// A page for a session that is behind the ring: read now, used after other things happened.
    ReadPage(u64),
    UsePage,
    ReadGap,
    UseGap,
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..5u64;
    prop_oneof![
        4 => (1..4u64).prop_map(Step::Append),
        2 => (0..USERS, prop_oneof![3 => Just(false), 1 => Just(true)])
            .prop_map(|(user, mute)| Step::Fence { user, mute }),
        5 => (1..5usize, prop_oneof![5 => Just(false), 1 => Just(true)])
            .prop_map(|(count, lose)| Step::Feed { count, lose }),
        1 => (0..4usize).prop_map(|lag| Step::Reopen { lag }),
        1 => Just(Step::Late),
        3 => (session.clone(), 0..9u64, any::<bool>())
            .prop_map(|(session, behind, fresh)| Step::Subscribe { session, behind, fresh }),
        5 => (session.clone(), 0..400usize).prop_map(|(session, budget)| Step::Take { session, budget }),
        2 => session.prop_map(Step::ReadPage),
        2 => Just(Step::UsePage),
        2 => Just(Step::ReadGap),
        2 => Just(Step::UseGap),
    ]
}

/// One thing in the order a shard applied it.
#[derive(Debug, Clone, Copy)]
enum Applied {
    Entry,
    Fence(Fence),
}

#[derive(Debug, Clone, Copy)]
struct Held {
    rights: Rights,
    seq: u64,
}

#[derive(Debug, Clone, Copy)]
struct Read {
    from: u64,
    to: u64,
    fenced: u64,
}

/// A shard, a feed of it, and what each session must and must not get.
struct World {
    fanout: ChannelFanout,
    applied: Vec<Applied>,
    /// How much of it the feed has told.
    fed: usize,
    version: u64,
    grants: [Rights; USERS as usize],
    sessions: BTreeMap<u64, Held>,
    ended: BTreeMap<u64, u64>,
    /// The feed is to be followed anew.
    lost: bool,
    gap: Option<u64>,
    gap_page: Option<Read>,
    page: Option<(u64, Read)>,
}

impl World {
    fn new() -> Self {
        Self {
            fanout: opened(0, SMALL),
            applied: Vec::new(),
            fed: 0,
            version: 1,
            grants: [0, 1, 2].map(|number| rights(UserNumber(number), 1, 0)),
            sessions: BTreeMap::new(),
            ended: BTreeMap::new(),
            lost: false,
            gap: None,
            gap_page: None,
            page: None,
        }
    }

    fn head(&self, upto: usize) -> u64 {
        let entries = self.applied[..upto]
            .iter()
            .filter(|a| matches!(a, Applied::Entry));
        entries.count() as u64
    }

    /// The fences, with their places.
    fn fences(&self, upto: usize) -> Vec<(Fence, u64)> {
        let mut seq = 0;
        let mut fences = Vec::new();
        for applied in &self.applied[..upto] {
            match applied {
                Applied::Entry => seq += 1,
                Applied::Fence(fence) => fences.push((*fence, seq)),
            }
        }
        fences
    }

    fn log(&self) -> u64 {
        self.head(self.applied.len())
    }

    fn last_fence(&self) -> u64 {
        self.fences(self.applied.len())
            .last()
            .map_or(0, |(fence, _)| fence.version)
    }

    /// Up to where a right reaches.
    fn cap(&self, rights: Rights) -> Option<u64> {
        let fences = self.fences(self.applied.len()).into_iter();
        let mut ending = fences.filter(|(fence, _)| {
            fence.kind.ends_reading() && fence.number == rights.number && fence.version > rights.version
        });
        ending.next().map(|(_, after)| after)
    }

    fn run(&mut self, step: &Step) {
        let mut effects = Vec::new();
        match *step {
            Step::Append(count) => self.applied.extend((0..count).map(|_| Applied::Entry)),
            Step::Fence { user, mute } => self.fence(user, mute),
            Step::Feed { count, lose } => self.feed(count, lose, &mut effects),
            Step::Reopen { lag } => self.reopen(lag, &mut effects),
            Step::Late => self.open(self.applied.len(), self.log(), &mut effects),
            Step::Subscribe {
                session,
                behind,
                fresh,
            } => self.subscribe(session, behind, fresh, &mut effects),
            Step::Take { session, budget } => self.take(session, budget),
            Step::ReadPage(session) => {
                if let Some((_, from)) = self.fanout.behind(seat(session)) {
                    self.page = Some((session, self.read(from.0)));
                }
            }
            Step::UsePage => self.use_page(),
            Step::ReadGap => {
                if let Some(from) = self.gap.take() {
                    self.gap_page = Some(self.read(from));
                }
            }
            Step::UseGap => {
                if let Some(Read { from, to, fenced }) = self.gap_page.take() {
                    let entries = entries(from + 1..=to);
                    self.fanout
                        .on_page(EPOCH, Seq(from), &entries, fenced, &mut effects);
                }
            }
        }
        for effect in effects {
            match effect {
                Effect::Refetch { from } => {
                    assert!(self.gap.replace(from.0).is_none() && self.gap_page.is_none());
                }
                Effect::Follow { position } => {
                    assert_eq!(Some(position), self.fanout.position());
                    self.lost = true;
                }
                Effect::News { .. } | Effect::Wake { .. } | Effect::Unfollow => {}
            }
        }
    }

    /// A page as the shard's leader has it now.
    fn read(&self, from: u64) -> Read {
        Read {
            from,
            to: (from + 3).min(self.log()),
            fenced: self.last_fence(),
        }
    }

    fn fence(&mut self, user: u64, mute: bool) {
        self.version += 1;
        let kind = if mute { FenceKind::Mute } else { FenceKind::Kick };
        self.applied.push(Applied::Fence(Fence {
            version: self.version,
            number: UserNumber(user),
            kind,
        }));
    }

    fn feed(&mut self, count: usize, lose: bool, effects: &mut Vec<Effect>) {
        let upto = (self.fed + count).min(self.applied.len());
        let mut seq = self.head(self.fed);
        for applied in &self.applied[self.fed..upto] {
            match applied {
                Applied::Entry => {
                    seq += 1;
                    if !lose {
                        self.fanout
                            .on_batch(EPOCH, Seq(seq - 1), &entries(seq..=seq), effects);
                    }
                }
                Applied::Fence(fence) => self.fanout.on_fence(Seq(seq), *fence, effects),
            }
        }
        self.fed = upto;
    }

    fn reopen(&mut self, lag: usize, effects: &mut Vec<Effect>) {
        let from = self.fanout.position().expect("open").seq.0;
        // A replica opens a feed once it has applied what the edge holds.
        let mut state = self.applied.len();
        while state > 0 && state + lag > self.applied.len() && self.head(state - 1) >= from {
            state -= 1;
        }
        self.open(state, from, effects);
        self.lost = false;
    }

    /// A feed opens behind `from`, at a replica that has applied so much.
    fn open(&mut self, state: usize, from: u64, effects: &mut Vec<Effect>) {
        let known = self.fences(state).into_iter().filter(|(_, after)| *after <= from);
        let known: Vec<(Fence, u64)> = known.collect();
        let last = known.last().map_or(0, |(fence, _)| fence.version);
        let mut fenced = BTreeMap::new();
        for (fence, after) in known.iter().filter(|(fence, _)| fence.kind.ends_reading()) {
            fenced.insert(fence.number, (fence.number, fence.version, *after));
        }
        let fenced: Vec<_> = fenced.into_values().collect();
        let head = Seq(self.head(state));
        self.fanout
            .on_opened(EPOCH, Seq(from), head, &table(0, last, &fenced), effects);
        let mut seq = 0;
        let fed = self.applied.iter().take_while(|applied| match applied {
            Applied::Entry => {
                seq += 1;
                seq <= from
            }
            Applied::Fence(fence) => fence.version <= last,
        });
        self.fed = fed.count();
    }

    fn subscribe(&mut self, session: u64, behind: u64, fresh: bool, effects: &mut Vec<Effect>) {
        let user = session % USERS;
        let place = usize::try_from(user).expect("small");
        let mut fences = self.fences(self.applied.len()).into_iter();
        let fenced = fences.rfind(|(fence, _)| fence.number == UserNumber(user));
        let now = rights(
            UserNumber(user),
            self.version,
            fenced.map_or(0, |(fence, _)| fence.version),
        );
        if fresh {
            self.grants[place] = now;
        }
        for by in [self.grants[place], now] {
            let position = at(self.log().saturating_sub(behind));
            let ask = Ask {
                log: Some(at(self.log())),
                ..ask(seat(session), by, position)
            };
            match self.fanout.enter(ask, effects) {
                Ok(begun) => {
                    self.begun(session, by, begun);
                    return;
                }
                Err(SubscribeError::Stale) => {
                    assert!(self.cap(by).is_some(), "only a fence makes a grant stale");
                    self.grants[place] = now;
                }
                Err(SubscribeError::NotTold) => {
                    assert!(by.fenced > self.fanout.told());
                    return;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        panic!("a fresh grant is not stale");
    }

    fn begun(&mut self, session: u64, by: Rights, begun: Subscription) {
        let seq = begun.position.seq.0;
        for (fence, after) in self.fences(self.applied.len()) {
            if fence.kind.ends_reading() && fence.number == by.number && fence.version <= by.version {
                assert!(seq >= after, "begins before the fence it was readmitted behind");
            }
        }
        self.sessions.insert(session, Held { rights: by, seq });
        self.ended.remove(&session);
    }

    fn got(&mut self, session: u64, seq: u64) {
        let held = self.sessions[&session];
        assert_eq!(seq, held.seq + 1, "every entry once and in order");
        let cap = self.cap(held.rights);
        assert!(
            cap.is_none_or(|cap| seq <= cap),
            "{seq} lies behind a fence at {cap:?}"
        );
        self.sessions.insert(session, Held { seq, ..held });
    }

    fn take(&mut self, session: u64, budget: usize) {
        match self.fanout.get(seat(session), budget) {
            Take::Chunk(chunk) => {
                for (_, seqs) in decoded(&chunk.frames) {
                    seqs.into_iter().for_each(|seq| self.got(session, seq));
                }
            }
            take @ Take::Ended(_) => {
                assert_eq!(self.ended.insert(session, end(take).position.seq.0), None);
                assert!(self.fanout.unsubscribe(0, seat(session)));
            }
            Take::Behind { .. } | Take::Nothing => {}
        }
    }

    fn use_page(&mut self) {
        let Some((session, Read { from, to, fenced })) = self.page.take() else {
            return;
        };
        if let Advance::To(upto) = self
            .fanout
            .advance(seat(session), EPOCH, Seq(from), Seq(to), fenced)
        {
            (from + 1..=upto.0).for_each(|seq| self.got(session, seq));
        }
    }

    /// What was lost last shows only in the head that is asked for.
    fn look(&mut self) {
        let mut effects = Vec::new();
        self.fanout.on_head(EPOCH, Seq(self.log()), &mut effects);
        if let Some(Effect::Refetch { from }) = effects.pop() {
            assert!(self.gap.replace(from.0).is_none() && self.gap_page.is_none());
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            if self.lost {
                self.run(&Step::Reopen { lag: 0 });
            }
            self.run(&Step::Feed {
                count: 9,
                lose: false,
            });
            self.look();
            self.run(&Step::ReadGap);
            self.run(&Step::UseGap);
            for session in 0..5 {
                self.run(&Step::UsePage);
                self.run(&Step::ReadPage(session));
                self.run(&Step::UsePage);
                self.run(&Step::Take { session, budget: 400 });
            }
        }
    }

    fn check(&self) {
        for (session, held) in &self.sessions {
            match self.cap(held.rights) {
                Some(cap) => {
                    assert_eq!(self.ended.get(session), Some(&cap), "it is told where it ends");
                    // One that began behind the fence before it was told got nothing at all.
                    assert!(held.seq >= cap, "everything before the fence: {held:?} of {cap}");
                }
                None => assert_eq!((held.seq, self.ended.get(session)), (self.log(), None)),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_behind_a_fence_reaches_an_older_grant_and_everything_before_it_does(
        steps in proptest::collection::vec(step(), 1..150)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.settle();
        world.check();
    }
}
