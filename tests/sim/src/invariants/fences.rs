//! When a user was certainly out of a group, or silenced: what the invariants about fences share.
//!
//! An operation takes effect at a moment between its question and its answer that nobody sees. So
//! each fence is given the earliest moment at which it can have taken effect, and each return the
//! earliest moment at which it can have been asked for: between them the user is out for certain.

use std::collections::BTreeMap;

use throng_protocol::ids::{Seq, Ts};

use crate::history::{Answer, Ask, Channel, FenceKind, Group, User};
use crate::logs::{ChannelLog, Fence};
use crate::run::{Asked, Run};

/// A fence in the log of a channel's shard, with what is known of its cause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub fence: Fence,
    /// Behind which entry of the channel it lies.
    pub place: Seq,
    /// The earliest moment at which a return may have been asked for; the end of time if never.
    pub back_us: u64,
}

impl Placed {
    /// Whether it ends a membership.
    pub fn ends_membership(&self) -> bool {
        matches!(self.fence.kind, FenceKind::Kick | FenceKind::Left)
    }
}

/// The fences of a channel's group as its shard has them.
pub(super) fn placed(run: &Run, channel: Channel, log: &ChannelLog) -> Vec<Placed> {
    let Some(table) = run.logs.fences(channel) else {
        return Vec::new();
    };
    let group = channel.group();
    let mut earlier: BTreeMap<(User, FenceKind), u64> = BTreeMap::new();
    let mut found = Vec::new();
    for fence in &table.fences {
        let before_us = earlier.entry((fence.user, fence.kind)).or_default();
        let from_us = asked_for(run, group, fence, *before_us);
        *before_us = from_us;
        found.push(Placed {
            fence: *fence,
            place: log.place(fence.index),
            back_us: back(run, group, fence.user, from_us),
        });
    }
    found
}

/// The earliest moment at which a fence can have taken effect: when it was asked for, if an answer
/// names it, and otherwise not before the earliest that may still have been under way at `after_us`,
/// when the fence before it was asked for. One question may make two fences: it is tried again, and
/// the user was back in between.
fn asked_for(run: &Run, group: Group, fence: &Fence, after_us: u64) -> u64 {
    let causes = causes(run, group, fence.user, fence.kind);
    let named = causes.iter().find(
        |asked| matches!(asked.answer(), Some(Answer::Fenced { version, .. }) if *version == fence.version),
    );
    let earliest = || causes.iter().find(|asked| asked.ends_us() >= after_us);
    let cause = named.or_else(earliest);
    cause.map_or(0, |asked| asked.at_us.max(after_us))
}

/// The operations that may have caused a fence of a user, in the order they were asked for.
pub(super) fn causes(run: &Run, group: Group, user: User, kind: FenceKind) -> Vec<&Asked> {
    let caused = |asked: &&Asked| match (asked.ask, kind) {
        (
            Ask::Kick {
                group: of,
                user: whom,
            },
            FenceKind::Kick,
        ) => (of, whom) == (group, user),
        (Ask::Leave { group: of }, FenceKind::Left) => (of, asked.client.user()) == (group, user),
        (
            Ask::Mute {
                group: of,
                user: whom,
                until_ms,
            },
            FenceKind::Mute,
        ) => (of, whom) == (group, user) && until_ms > 0,
        (
            Ask::Assign {
                group: of,
                user: whom,
                has: false,
            },
            FenceKind::Rights,
        ) => (of, whom) == (group, user),
        _ => false,
    };
    let mut causes: Vec<&Asked> = run
        .ops
        .values()
        .filter(caused)
        .filter(|asked| asked.may_have_happened())
        .collect();
    causes.sort_by_key(|asked| asked.at_us);
    causes
}

/// The earliest moment at which a join was asked for that can have taken effect after `from_us`.
fn back(run: &Run, group: Group, user: User, from_us: u64) -> u64 {
    let joins = run.ops.values().filter(|asked| {
        asked.ask == Ask::Join { group } && asked.client.user() == user && asked.may_have_happened()
    });
    let can_undo = joins.filter(|join| join.ends_us() >= from_us);
    can_undo
        .map(|join| join.at_us.max(from_us))
        .min()
        .unwrap_or(u64::MAX)
}

/// When somebody first saw each entry of a channel, or its sender was told of it.
pub(super) fn first_seen(run: &Run, channel: Channel) -> BTreeMap<Seq, (u64, usize)> {
    let mut first: BTreeMap<Seq, (u64, usize)> = BTreeMap::new();
    let mut take = |seq: Seq, at_us: u64, event: usize| {
        let known = first.entry(seq).or_insert((at_us, event));
        *known = (*known).min((at_us, event));
    };
    for sighting in run.sightings().filter(|sighting| sighting.channel == channel) {
        take(sighting.entry.seq, sighting.at_us, sighting.event);
    }
    for ((of, _, _), _, asked) in run.sends() {
        for (at_us, event, answer) in &asked.answers {
            if let (true, Answer::Acked { seq, .. }) = (of == channel, answer) {
                take(*seq, *at_us, *event);
            }
        }
    }
    first
}

/// A silence as its answer promised it, by one shard's fence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub user: User,
    /// The fence's Raft index.
    pub index: u64,
    /// Until which time of the log.
    pub until: Ts,
    /// Another word about the user may have taken effect from here on.
    pub next_us: u64,
}

/// The silences of a channel's group.
pub(super) fn silences(run: &Run, channel: Channel) -> Vec<Silence> {
    let Some(table) = run.logs.fences(channel) else {
        return Vec::new();
    };
    let group = channel.group();
    let mutes: Vec<(User, u64, &Asked)> = run
        .ops
        .values()
        .filter_map(|asked| match asked.ask {
            Ask::Mute {
                group: of,
                user,
                until_ms,
            } if of == group => Some((user, until_ms, asked)),
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    for (user, until_ms, asked) in &mutes {
        let Some(Answer::Fenced { version, .. }) = asked.answer() else {
            continue;
        };
        let fence = table.fences.iter().find(|fence| fence.version == *version);
        if let (Some(fence), true) = (fence, *until_ms > 0) {
            let others = mutes.iter().filter(|(whom, _, other)| {
                whom == user
                    && other.op != asked.op
                    && other.may_have_happened()
                    && other.ends_us() >= asked.at_us
            });
            found.push(Silence {
                user: *user,
                index: fence.index,
                until: Ts::from_millis(*until_ms),
                next_us: others.map(|(_, _, other)| other.at_us).min().unwrap_or(u64::MAX),
            });
        }
    }
    found
}
