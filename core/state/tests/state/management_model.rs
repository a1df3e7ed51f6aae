//! The management plane against plain maps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use throng_protocol::cluster::{Anchor, Direction, Fence, FenceKind, Permissions};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Seq, UserNumber};
use throng_protocol::placement::Plane;
use throng_state::command::MessageCommand;
use throng_state::query::{self, PageWanted, Standing};
use throng_state::record::{GroupRecord, read};
use throng_state::testing::MapView;
use throng_state::{Command, Reply, keys};

use crate::support::*;

const GROUPS: [&str; 2] = ["g", "gg"];
const CHANNELS: [&str; 3] = ["c", "cc", "d"];
const USERS: std::ops::Range<u64> = 1..5;

#[derive(Debug, Clone)]
enum Op {
    CreateGroup(&'static str, u64),
    CreateChannel(&'static str, &'static str, Option<u64>),
    Join(&'static str, u64),
    JoinAll(&'static str, Vec<u64>),
    Leave(&'static str, u64),
    Kick(&'static str, u64, Option<u64>),
    Mute(&'static str, u64, u64, Option<u64>),
    Register(u64),
    AddRange,
    AddRangeAgain,
    Send { times: usize, limit: usize },
    Ack,
}

fn op() -> impl Strategy<Value = Op> {
    let group = || prop::sample::select(GROUPS.to_vec());
    let channel = || prop::sample::select(CHANNELS.to_vec());
    let by = || prop::option::weighted(0.5, USERS);
    prop_oneof![
        2 => (group(), USERS).prop_map(|(group, user)| Op::CreateGroup(group, user)),
        3 => (group(), channel(), by()).prop_map(|(group, name, by)| Op::CreateChannel(group, name, by)),
        4 => (group(), USERS).prop_map(|(group, user)| Op::Join(group, user)),
        2 => (group(), prop::collection::vec(USERS, 0..4)).prop_map(|(group, users)| Op::JoinAll(group, users)),
        3 => (group(), USERS).prop_map(|(group, user)| Op::Leave(group, user)),
        4 => (group(), USERS, by()).prop_map(|(group, user, by)| Op::Kick(group, user, by)),
        4 => (group(), USERS, 0..3_u64, by()).prop_map(|(group, user, until, by)| Op::Mute(group, user, until, by)),
        3 => (1..12_u64).prop_map(Op::Register),
        1 => Just(Op::AddRange),
        1 => Just(Op::AddRangeAgain),
        1 => (1..3_usize, 1..4_usize).prop_map(|(times, limit)| Op::Send { times, limit }),
        1 => Just(Op::Ack),
    ]
}

#[derive(Debug, Default)]
struct Group {
    creator: u64,
    version: u64,
    members: BTreeMap<u64, u64>,
    channels: BTreeMap<&'static str, ChannelNumber>,
    /// The last fence of each user, and until when the user is muted.
    fenced: BTreeMap<u64, (u64, u64)>,
    /// The version that answers a kick again, for users kicked and not back.
    kicked: BTreeMap<u64, u64>,
    /// The version that last changed a user's mute.
    muted: BTreeMap<u64, u64>,
    /// All fences that the message shard must come to know, ascending.
    fences: Vec<Fence>,
    /// The version of the last fence before the group's first channel.
    floor: u64,
}

/// A management shard, a meta shard to lease from, a message shard to tell, and what they must hold.
struct World {
    management: MapView,
    meta: MapView,
    message: MapView,
    groups: BTreeMap<&'static str, Group>,
    users: BTreeMap<u64, UserNumber>,
    issued: BTreeSet<ChannelNumber>,
    last_range: Option<(u64, u64)>,
}

impl World {
    fn new() -> Self {
        Self {
            management: MapView::new(Plane::Management),
            meta: MapView::new(Plane::Meta),
            message: MapView::new(Plane::Message),
            groups: BTreeMap::new(),
            users: BTreeMap::new(),
            issued: BTreeSet::new(),
            last_range: None,
        }
    }

    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::CreateGroup(name, user) => self.create_group(name, user),
            Op::CreateChannel(group, name, user) => self.create_channel(group, name, user),
            Op::JoinAll(group, ref users) => self.join_all(group, users),
            Op::Join(group, user) => self.change(group, user, true),
            Op::Leave(group, user) => self.change(group, user, false),
            Op::Kick(group, user, by) => self.kick(group, user, by),
            Op::Mute(group, user, until, by) => self.mute(group, user, until, by),
            Op::Register(name) => self.register(name),
            Op::AddRange => {
                let request = query::number_stock(&self.management)
                    .expect("readable")
                    .next_request;
                let Reply::Leased { start, end } = self.meta.reply(&lease(MANAGEMENT.0, 3, request)) else {
                    return Err(TestCaseError::fail("no lease"));
                };
                self.management.reply(&add_range(start, end));
                self.last_range = Some((start, end));
                Ok(())
            }
            Op::AddRangeAgain => {
                if let Some((start, end)) = self.last_range {
                    prop_assert_eq!(self.management.run(&add_range(start, end)), (Reply::Done, vec![]));
                }
                Ok(())
            }
            Op::Send { times, limit } => self.send(times, limit),
            Op::Ack => {
                let through = query::inbox_position(&self.message, MANAGEMENT).expect("readable");
                let reply = self.management.reply(&acked(through));
                prop_assert_eq!(reply, Reply::OutboxAcked { through });
                Ok(())
            }
        }
    }

    fn create_group(&mut self, name: &'static str, user: u64) -> Result<(), TestCaseError> {
        let reply = self.management.reply(&create_group(name, user));
        match self.groups.get(name) {
            Some(group) if group.creator == user => {
                prop_assert_eq!(
                    reply,
                    Reply::Group {
                        version: group.version,
                        created: false
                    }
                );
            }
            Some(_) => prop_assert!(is_refused(&reply, Code::AlreadyExists), "{:?}", reply),
            None => {
                prop_assert_eq!(
                    reply,
                    Reply::Group {
                        version: 1,
                        created: true
                    }
                );
                let members = BTreeMap::from([(user, 1)]);
                let group = Group {
                    creator: user,
                    version: 1,
                    members,
                    ..Group::default()
                };
                self.groups.insert(name, group);
            }
        }
        Ok(())
    }

    fn create_channel(
        &mut self,
        name: &'static str,
        channel: &'static str,
        by: Option<u64>,
    ) -> Result<(), TestCaseError> {
        let reply = self.management.reply(&create_channel_by(name, channel, by));
        let Some(group) = self.groups.get_mut(name) else {
            prop_assert!(is_refused(&reply, Code::GroupUnknown), "{:?}", reply);
            return Ok(());
        };
        if by.is_some_and(|user| !group.members.contains_key(&user)) {
            prop_assert!(is_refused(&reply, Code::NotMember), "{:?}", reply);
            return Ok(());
        }
        let Reply::Channel { info, created } = reply else {
            return Err(TestCaseError::fail(format!("{reply:?}")));
        };
        prop_assert_eq!((info.group.as_str(), info.channel.as_str()), (name, channel));
        match group.channels.get(channel) {
            Some(number) => prop_assert_eq!((*number, false), (info.number, created)),
            None => {
                prop_assert!(created);
                prop_assert!(
                    self.issued.insert(info.number),
                    "number {} was issued twice",
                    info.number
                );
                group.version += 1;
                if group.channels.is_empty() {
                    group.floor = group
                        .fenced
                        .values()
                        .map(|(version, _)| *version)
                        .max()
                        .unwrap_or(0);
                }
                group.channels.insert(channel, info.number);
            }
        }
        Ok(())
    }

    fn change(&mut self, name: &'static str, user: u64, member: bool) -> Result<(), TestCaseError> {
        let command = if member {
            join(name, user)
        } else {
            leave(name, user)
        };
        let reply = self.management.reply(&command);
        let Some(group) = self.groups.get_mut(name) else {
            prop_assert!(is_refused(&reply, Code::GroupUnknown), "{:?}", reply);
            return Ok(());
        };
        let changed = group.members.contains_key(&user) != member;
        if changed {
            group.version += 1;
        }
        if changed && member {
            group.members.insert(user, group.version);
            group.kicked.remove(&user);
        } else if changed {
            group.members.remove(&user);
            group.fence(user, FenceKind::Left);
        }
        prop_assert_eq!(
            reply,
            Reply::Membership {
                version: group.version,
                changed
            }
        );
        Ok(())
    }

    fn join_all(&mut self, name: &'static str, users: &[u64]) -> Result<(), TestCaseError> {
        let reply = self.management.reply(&join_all(name, users));
        let Some(group) = self.groups.get_mut(name) else {
            prop_assert!(is_refused(&reply, Code::GroupUnknown), "{:?}", reply);
            return Ok(());
        };
        let mut joined = 0;
        for user in users {
            if !group.members.contains_key(user) {
                group.version += 1;
                group.members.insert(*user, group.version);
                group.kicked.remove(user);
                joined += 1;
            }
        }
        prop_assert_eq!(reply, Reply::Joined { joined });
        let listed = query::members(
            &self.management,
            &app(),
            &crate::support::group(name),
            UserNumber(0),
            100,
        );
        let listed: Vec<(UserNumber, u64)> = listed
            .expect("readable")
            .iter()
            .map(|member| (member.number, member.since))
            .collect();
        let held: Vec<(UserNumber, u64)> = group
            .members
            .iter()
            .map(|(user, since)| (UserNumber(*user), *since))
            .collect();
        prop_assert_eq!(listed, held);
        Ok(())
    }

    fn kick(&mut self, name: &'static str, user: u64, by: Option<u64>) -> Result<(), TestCaseError> {
        let reply = self.management.reply(&kick(name, user, by));
        let group = match self.permitted(name, user, by) {
            Ok(group) => group,
            Err(code) => {
                prop_assert!(is_refused(&reply, code), "{:?} instead of {:?}", reply, code);
                return Ok(());
            }
        };
        if group.members.remove(&user).is_some() {
            group.version += 1;
            group.fence(user, FenceKind::Kick);
            group.kicked.insert(user, group.version);
            prop_assert_eq!(fenced(&reply), Some((group.version, true)));
        } else if let Some(version) = group.kicked.get(&user) {
            prop_assert_eq!(fenced(&reply), Some((*version, false)));
        } else {
            prop_assert!(is_refused(&reply, Code::NotMember), "{:?}", reply);
        }
        Ok(())
    }

    fn mute(
        &mut self,
        name: &'static str,
        user: u64,
        until: u64,
        by: Option<u64>,
    ) -> Result<(), TestCaseError> {
        let reply = self.management.reply(&mute(name, user, until, by));
        let group = match self.permitted(name, user, by) {
            Ok(group) => group,
            Err(code) => {
                prop_assert!(is_refused(&reply, code), "{:?} instead of {:?}", reply, code);
                return Ok(());
            }
        };
        if !group.members.contains_key(&user) {
            prop_assert!(is_refused(&reply, Code::NotMember), "{:?}", reply);
        } else if group.fenced.get(&user).map_or(0, |(_, until)| *until) == until {
            let version = group.muted.get(&user).copied().unwrap_or(group.version);
            prop_assert_eq!(fenced(&reply), Some((version, false)));
        } else {
            group.version += 1;
            group.muted.insert(user, group.version);
            if until != 0 {
                group.fence(user, FenceKind::Mute);
            }
            group.fenced.entry(user).or_default().1 = until;
            prop_assert_eq!(fenced(&reply), Some((group.version, true)));
        }
        Ok(())
    }

    /// The group if `by` may take a right from `user` in it.
    fn permitted(&mut self, name: &str, user: u64, by: Option<u64>) -> Result<&mut Group, Code> {
        let group = self.groups.get_mut(name).ok_or(Code::GroupUnknown)?;
        if by.is_some_and(|by| !group.members.contains_key(&by)) {
            return Err(Code::NotMember);
        }
        if by.is_some_and(|by| by != group.creator) || user == group.creator {
            return Err(Code::Forbidden);
        }
        Ok(group)
    }

    /// The message shard knows the fences of each group with channels, all of them and in order.
    fn check_fences(&self) -> Result<(), TestCaseError> {
        for group in self.groups.values() {
            let Some(number) = group.channels.values().next() else {
                continue;
            };
            let wanted = PageWanted {
                fences: true,
                ..entries_at(Anchor::Seq(Seq(0)), Direction::After, 1, 1)
            };
            let page = query::page(&self.message, *number, &wanted)
                .expect("readable")
                .expect("open");
            let found: Vec<Fence> = page
                .fences
                .iter()
                .map(|at| Fence {
                    version: at.version,
                    number: at.number,
                    kind: at.kind,
                })
                .collect();
            let told: Vec<Fence> = group
                .fences
                .iter()
                .filter(|fence| fence.version > group.floor)
                .copied()
                .collect();
            prop_assert_eq!(&found, &told);
            let last = told.last().map_or(group.floor, |fence| fence.version);
            prop_assert_eq!(page.fenced, last);
        }
        Ok(())
    }

    fn register(&mut self, name: u64) -> Result<(), TestCaseError> {
        let left = query::number_stock(&self.management).expect("readable").left;
        match (self.management.reply(&register(name)), self.users.get(&name)) {
            (Reply::User(number), Some(known)) => prop_assert_eq!(number, *known),
            (Reply::User(number), None) => {
                prop_assert!(
                    self.users.values().all(|other| *other != number),
                    "{} is issued twice",
                    number
                );
                self.users.insert(name, number);
            }
            (Reply::NumbersExhausted, None) => prop_assert_eq!(left, 0),
            (reply, known) => prop_assert!(false, "{:?} for {:?}", reply, known),
        }
        Ok(())
    }

    /// Sends what is pending, each record several times, as a leader that lost an answer does.
    fn send(&mut self, times: usize, limit: usize) -> Result<(), TestCaseError> {
        let pending = query::outbox_pending(&self.management, MESSAGE, 0, limit).expect("readable");
        for _ in 0..times {
            for record in &pending {
                let (number, delivery) = (record.number, record.delivery.clone());
                let command = MessageCommand::Deliver {
                    source: MANAGEMENT,
                    number,
                    delivery,
                };
                prop_assert_eq!(self.message.reply(&Command::Message(command)), Reply::Done);
            }
        }
        Ok(())
    }

    /// What the records say is what the model says.
    fn check(&self) -> Result<(), TestCaseError> {
        for (name, model) in &self.groups {
            let id = group(name);
            let record: GroupRecord = read(&self.management, &keys::group(&app(), &id))
                .expect("readable")
                .expect("kept");
            prop_assert_eq!(record.version, model.version);
            prop_assert_eq!(record.members, model.members.len() as u64);
            prop_assert_eq!(record.channels, model.channels.len() as u32);
            for number in USERS {
                let standing =
                    query::standing(&self.management, &app(), &id, UserNumber(number)).expect("readable");
                let version = model.version;
                let expected = match model.members.get(&number) {
                    Some(since) => {
                        let (fenced, muted_until) = model.fenced.get(&number).copied().unwrap_or_default();
                        Standing::Member {
                            version,
                            since: *since,
                            name: user(number),
                            fenced,
                            muted_until,
                            permissions: match number == model.creator {
                                true => Permissions::ALL,
                                false => Permissions::EVERYONE,
                            },
                        }
                    }
                    None => Standing::NotMember { version },
                };
                prop_assert_eq!(standing, expected);
            }
            for name in CHANNELS {
                let found =
                    query::channel_by_name(&self.management, &app(), &id, &channel(name)).expect("readable");
                prop_assert_eq!(found.map(|info| info.number), model.channels.get(name).copied());
            }
        }
        Ok(())
    }
}

impl Group {
    /// The fence of the current version.
    fn fence(&mut self, user: u64, kind: FenceKind) {
        let version = self.version;
        self.fenced.entry(user).or_default().0 = version;
        self.fences.push(Fence {
            version,
            number: UserNumber(user),
            kind,
        });
    }
}

/// The version of a fence, and whether the command made it.
fn fenced(reply: &Reply) -> Option<(u64, bool)> {
    match reply {
        Reply::Fenced { version, changed, .. } => Some((*version, *changed)),
        _ => None,
    }
}

fn is_refused(reply: &Reply, expected: Code) -> bool {
    matches!(reply, Reply::Refused { code, .. } if *code == expected)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn groups_members_channels_and_numbers_are_those_of_plain_maps(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in &ops {
            world.step(op)?;
        }
        world.check()?;
        world.send(1, usize::MAX)?;
        for number in &world.issued {
            prop_assert!(query::channel(&world.message, *number).expect("readable").is_some(), "{} is not open", number);
        }
        world.check_fences()?;
        world.step(&Op::Ack)?;
        prop_assert_eq!(query::outbox_pending(&world.management, MESSAGE, 0, 100).expect("readable"), vec![]);
    }
}
