//! Kicks while a trace is played: who, when, and what came of it.
//!
//! A kick strikes a member who has sends in flight, at places of the trace that the seed chose.
//! The member stays out until both devices know, and others have gone on behind the fence; then it
//! joins again, and what was refused is sent once more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use throng_client::{ChannelId, Client, Code, RequestError, UserId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::fences::Kick;
use super::members::Member;
use super::record::{KickLine, Record, now_us};
use super::stage::Stage;
use crate::cli::failure::Failure;
use crate::cli::sdk;

/// Members who are kicked in turn. Each has two devices that watch every channel, so that more would
/// measure fan-out instead of fences.
const MEMBERS_MAX: usize = 24;

/// Kicks under way at once: members leave and come back while others are just being kicked.
const AT_ONCE: usize = 4;

/// Messages of others that go on behind a fence before its user comes back.
const BEHIND: usize = 20;

/// How long they are waited for: senders may all be waiting for the kicked member.
const BEHIND_WAIT: Duration = Duration::from_millis(300);

/// How long a member with sends in flight is looked for before one without is kicked.
const INFLIGHT_WAIT: Duration = Duration::from_secs(2);

/// What kicking came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Kicks by user, in order.
    pub kicks: BTreeMap<String, Vec<Kick>>,
    /// Kicks that found sends of the user in flight.
    pub inflight: u64,
    /// Kicks that were answered before every shard had the fence.
    pub pending: u64,
}

/// The places of the kicks, ascending, between 5 % and 95 % of the trace.
pub fn places(kicks: usize, messages: usize, seed: u64) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x6b1c_6b1c);
    let (first, last) = (messages / 20, (messages - messages / 20).max(messages / 20 + 1));
    let mut places: Vec<usize> = (0..kicks).map(|_| random.random_range(first..last)).collect();
    places.sort_unstable();
    places
}

/// Chooses who is kicked: users of the trace by seed, the more likely the more they say, so that they
/// have sends in flight; never the founder, who kicks.
pub fn members(users: &BTreeMap<String, usize>, founder: &str, kicks: usize, seed: u64) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x0bad_5eed);
    let mut weighted: Vec<(f64, &String)> = users
        .iter()
        .filter(|(user, _)| user.as_str() != founder)
        .map(|(user, messages)| {
            let draw: f64 = random.random_range(f64::EPSILON..1.0);
            (draw.powf(1.0 / *messages as f64), user)
        })
        .collect();
    weighted.sort_by(|a, b| b.0.total_cmp(&a.0));
    weighted.truncate(MEMBERS_MAX.min(kicks));
    weighted.into_iter().map(|(_, user)| user.clone()).collect()
}

/// Kicks at the given places; ends when all is done or nobody can be kicked.
pub async fn run(
    stage: Arc<Stage>,
    founder: Client,
    places: Vec<usize>,
    seed: u64,
    record: Option<Arc<Record>>,
) -> Result<Outcome, Failure> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x0ff0_0ff0);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way: JoinSet<Result<Done, Failure>> = JoinSet::new();
    let mut outcome = Outcome::default();
    for place in places {
        stage.kick_gate.open_past(place);
        if !stage.acked_at_least(place).await {
            break;
        }
        let Ok(permit) = room.clone().acquire_owned().await else {
            break;
        };
        let Some(member) = choose(&stage, &mut random).await else {
            continue;
        };
        member.kicked();
        let (stage, founder, record) = (stage.clone(), founder.clone(), record.clone());
        under_way.spawn(async move {
            let done = kick(&stage, &founder, &member, record.as_deref()).await;
            drop(permit);
            done
        });
        while let Some(done) = under_way.try_join_next() {
            outcome.take(done)?;
        }
    }
    stage.kick_gate.open_all();
    while let Some(done) = under_way.join_next().await {
        outcome.take(done)?;
    }
    Ok(outcome)
}

/// A member with sends in flight, or any if there is none for a while.
async fn choose(stage: &Stage, random: &mut StdRng) -> Option<Arc<Member>> {
    let mut answered = stage.answered();
    let deadline = tokio::time::Instant::now() + INFLIGHT_WAIT;
    loop {
        let inside = stage.members.values().filter(|member| member.is_admitted());
        let busy = inside.filter(|member| !stage.inflight_of(&member.user).is_empty());
        if let Some(member) = busy.choose(random) {
            return Some(member.clone());
        }
        let more = tokio::time::timeout_at(deadline, answered.changed()).await;
        if !matches!(more, Ok(Ok(()))) {
            let inside = stage.members.values().filter(|member| member.is_admitted());
            return inside.choose(random).cloned();
        }
    }
}

struct Done {
    kick: Kick,
    inflight: bool,
    pending: bool,
}

impl Outcome {
    fn take(&mut self, done: Result<Result<Done, Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
        let died = |error| Failure::new(format!("a kick died: {error}"), "replay", "report it");
        let done = done.map_err(died)??;
        self.inflight += u64::from(done.inflight);
        self.pending += u64::from(done.pending);
        self.kicks
            .entry(done.kick.user.clone())
            .or_default()
            .push(done.kick);
        Ok(())
    }

    /// How many kicks were done.
    pub fn count(&self) -> u64 {
        self.kicks.values().map(|kicks| kicks.len() as u64).sum()
    }
}

/// One kick and the return.
async fn kick(
    stage: &Stage,
    founder: &Client,
    member: &Arc<Member>,
    record: Option<&Record>,
) -> Result<Done, Failure> {
    let refused = |what: &str, error: &RequestError| sdk::refused(what, &member.user, error);
    member.standing().await;
    let user = UserId::new(&member.user).map_err(|error| {
        Failure::usage(
            error.to_string(),
            member.user.clone(),
            "give a trace with names that are valid",
        )
    })?;
    let inflight = stage.inflight_of(&member.user);
    let asked_us = now_us();
    let fenced = match founder.kick(&stage.group, &user).await {
        Ok(fenced) => (fenced.version, fenced.pending.is_empty()),
        // The group is older than this replay and another user's: its operator kicks.
        Err(error) if error.code == Some(Code::Forbidden) => {
            let fenced = stage
                .admin
                .kick(&stage.app, stage.group.as_str(), &member.user)
                .await?;
            (fenced.version, fenced.pending.is_empty())
        }
        Err(error) => return Err(refused("a member cannot be kicked", &error)),
    };
    let (version, done) = fenced;
    let done_us = now_us();
    let out = async {
        member.told().await;
        let mut answered = stage.answered();
        let enough = *answered.borrow() + BEHIND;
        let _ = tokio::time::timeout(BEHIND_WAIT, answered.wait_for(|answered| *answered >= enough)).await;
    };
    if tokio::time::timeout(stage.patience, out).await.is_err() {
        return Err(Failure::new(
            format!("{} was kicked, and its devices were not told", member.user),
            "replay",
            "look into the edges' logs",
        ));
    }
    member.quiet().await;
    let known = stage.heads();
    let (joined_us, back_us) = (stage.now_us(), now_us());
    let joined = member.devices[0].join(&stage.group).await;
    joined.map_err(|error| refused("a kicked member cannot join again", &error))?;
    member.let_in();
    member.standing().await;
    member.back();
    if let Some(record) = record {
        record.kick(&KickLine {
            user: &member.user,
            version,
            inflight: inflight.len(),
            done,
            asked_us,
            done_us,
            back_us,
        })?;
    }
    Ok(Done {
        kick: Kick {
            user: member.user.clone(),
            version,
            joined_us,
            known,
        },
        inflight: !inflight.is_empty(),
        pending: !done,
    })
}

/// The places of all fences, as the committed logs have them.
pub async fn exported(stage: &Stage) -> Result<super::fences::Places, Failure> {
    let read = |channel: ChannelId| async move {
        let fences = stage
            .admin
            .fences(&stage.app, stage.group.as_str(), channel.as_str())
            .await?;
        let places = fences
            .into_iter()
            .map(|fence| (fence.version, fence.after.0))
            .collect();
        Ok::<_, Failure>((channel, places))
    };
    let mut all = stream::iter(stage.trace.channels())
        .map(read)
        .buffer_unordered(AT_ONCE);
    let mut places = super::fences::Places::new();
    while let Some(one) = all.next().await {
        let (channel, fences) = one?;
        places.insert(channel, fences);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> BTreeMap<String, usize> {
        (0..100).map(|n| (format!("u{n:02}"), n + 1)).collect()
    }

    #[test]
    fn places_follow_the_seed_and_stay_inside_the_trace() {
        assert_eq!(places(50, 1_000, 3), places(50, 1_000, 3));
        assert_ne!(places(50, 1_000, 3), places(50, 1_000, 4));
        assert!(places(50, 1_000, 3).iter().all(|place| (50..950).contains(place)));
        assert!(places(50, 1_000, 3).is_sorted());
        assert_eq!(places(2, 1, 3).len(), 2);
    }

    #[test]
    fn who_talks_more_is_kicked_sooner_and_the_founder_never() {
        let chosen = members(&users(), "u99", 200, 1);
        assert_eq!(chosen.len(), MEMBERS_MAX);
        assert!(!chosen.contains(&"u99".to_owned()));
        assert_eq!(chosen, members(&users(), "u99", 200, 1));
        let talkers = (0..50).map(|seed| {
            let chosen = members(&users(), "u99", 200, seed);
            chosen.iter().filter(|user| user.as_str() >= "u50").count()
        });
        assert!(talkers.sum::<usize>() > 50 * MEMBERS_MAX / 2);
        assert_eq!(members(&users(), "u99", 3, 1).len(), 3);
    }
}
