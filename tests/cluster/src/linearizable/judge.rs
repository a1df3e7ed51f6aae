//! Judges a recorded round: whether its faults happened while something was under way, and whether one
//! order explains every answer of each channel. It knows nothing but the recording.

use std::collections::BTreeMap;

use throng_lin::{ChannelHistory, Entry, Operation, Outcome, STEPS_MAX, Timed, User, Verdict, check_within};

use super::recording::{Answer, Ask, Asked, Kill, Recording, Stored, UserIndex};

/// Longer than this, in microseconds, an operation may have been tried more than once: by its client
/// on another connection, or by its edge at another node. An edge waits longer than this (25 ms at
/// least) before it asks again for what may have been carried out.
const RETRIED_US: u64 = 20_000;

/// Fewer sends and reads done in a channel, and fewer joins, say nothing.
const SENDS_MIN: usize = 40;
const READS_MIN: usize = 20;
const JOINS_MIN: usize = 2;

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Everything has an order, under the faults it was meant to have.
    Linearizable,
    /// There is no order.
    Violated(String),
    /// Nobody knows whether there is one. No pass.
    Unknown(String),
    /// What was to be shown did not happen. No pass.
    Faultless(String),
}

/// What happened under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Leaders that were killed and replaced.
    pub kills: u64,
    /// Those with operations of their channels in flight.
    pub kills_in_flight: u64,
    /// Operations that were in flight at kills.
    pub operations_in_flight: u64,
    /// Kicks that were done.
    pub kicks: u64,
    /// Those whose user had a send or a read in flight.
    pub kicks_in_flight: u64,
}

/// Counts the faults that happened.
pub fn faults(recording: &Recording) -> Faults {
    let mut faults = Faults::default();
    for kill in recording.kills.iter().filter(|kill| was_replaced(kill)) {
        let struck = |asked: &&Asked| {
            let channel = asked.ask.channel();
            let led = kill.led.iter().any(|led| channel == Some(led.channel));
            led && is_open(asked, kill.at_us) && is_open(asked, kill.gone_us)
        };
        let open = recording.asked.iter().filter(struck).count() as u64;
        faults.kills += 1;
        faults.kills_in_flight += u64::from(open > 0);
        faults.operations_in_flight += open;
    }
    for kick in &recording.asked {
        let (Ask::Kick { user }, Answer::Kicked { .. }, Some(to_us)) = (&kick.ask, &kick.answer, kick.to_us)
        else {
            continue;
        };
        let busy = |asked: &Asked| {
            asked.user == *user && asked.ask.channel().is_some() && overlaps(asked, kick.from_us, to_us)
        };
        faults.kicks += 1;
        faults.kicks_in_flight += u64::from(recording.asked.iter().any(busy));
    }
    faults
}

/// Whether the node led when it was killed: then its shards have a newer term behind it.
fn was_replaced(kill: &Kill) -> bool {
    !kill.led.is_empty() && kill.led.iter().all(|led| led.term_after > led.term)
}

/// Whether it was asked and had no answer at a moment.
fn is_open(asked: &Asked, at_us: u64) -> bool {
    overlaps(asked, at_us, at_us)
}

fn overlaps(asked: &Asked, from_us: u64, to_us: u64) -> bool {
    asked.from_us <= to_us && asked.to_us.is_none_or(|answered| answered >= from_us)
}

/// Judges a round.
pub fn judge(recording: &Recording) -> Judgement {
    judge_within(recording, STEPS_MAX)
}

/// Judges a round; the search for the order of a channel may take so many steps.
pub fn judge_within(recording: &Recording, steps: u64) -> Judgement {
    if let Some(why) = &recording.head.stopped {
        return Judgement::Faultless(format!("the round did not come to its end: {why}"));
    }
    if let Some(why) = recording.asked.iter().find_map(refused_for_good) {
        return Judgement::Violated(why);
    }
    let mut unknown = None;
    for channel in 0..recording.logs.len() {
        let name = &recording.head.channels[channel];
        if let Err(why) = whole(recording, channel) {
            return Judgement::Violated(format!("{name}: {why}"));
        }
        match check_within(&history(recording, channel), steps) {
            Verdict::Linearizable => {}
            Verdict::Violated(why) => return Judgement::Violated(format!("{name}: {why}")),
            Verdict::Unknown(why) => unknown = Some(format!("{name}: {why}")),
        }
    }
    if let Some(why) = unknown {
        return Judgement::Unknown(why);
    }
    match missing(recording) {
        Some(why) => Judgement::Faultless(why),
        None => Judgement::Linearizable,
    }
}

/// A final refusal other than that somebody is no member: nobody is muted, every key is used once, and
/// everything named exists.
fn refused_for_good(asked: &Asked) -> Option<String> {
    let Answer::Refused { code } = asked.answer else {
        return None;
    };
    Some(format!(
        "`{}` of user {} at {} was refused for good with {code}",
        asked.ask.name(),
        asked.user,
        asked.from_us
    ))
}

/// What did not happen that a round is to show.
fn missing(recording: &Recording) -> Option<String> {
    let faults = faults(recording);
    if faults.kills_in_flight == 0 {
        return Some("no leader was killed with operations of its channels in flight".to_owned());
    }
    if faults.kicks_in_flight == 0 {
        return Some("nobody was kicked with operations in flight".to_owned());
    }
    let done = |kind: &str, channel: Option<usize>| {
        let all = recording.asked.iter().filter(|asked| {
            asked.ask.name() == kind && asked.ask.channel() == channel && asked.answer.name() == "done"
        });
        all.count()
    };
    for (channel, name) in recording.head.channels.iter().enumerate() {
        for (kind, least) in [("send", SENDS_MIN), ("read", READS_MIN)] {
            let count = done(kind, Some(channel));
            if count < least {
                return Some(format!(
                    "{name}: {count} operations `{kind}` were done, fewer than {least}"
                ));
            }
        }
    }
    let joins = done("join", None);
    (joins < JOINS_MIN).then(|| format!("{joins} joins were done, fewer than {JOINS_MIN}"))
}

/// Whether the log and every page of it are without holes.
fn whole(recording: &Recording, channel: usize) -> Result<(), String> {
    let log = &recording.logs[channel];
    if let Some((stored, seq)) = log.iter().zip(1..).find(|(stored, seq)| stored.seq != *seq) {
        return Err(format!("entry {} stands at {seq} of the log", stored.seq));
    }
    for asked in &recording.asked {
        let (Ask::Read { channel: of, behind }, Answer::Page { head, shown }) = (&asked.ask, &asked.answer)
        else {
            continue;
        };
        if *of == channel {
            page(*behind, *head, shown)?;
        }
    }
    Ok(())
}

/// Whether a page has no hole and begins behind its anchor; one without an anchor ends with the log.
fn page(behind: Option<u64>, head: u64, shown: &[Stored]) -> Result<(), String> {
    if let Some(hole) = shown.windows(2).find(|pair| pair[0].seq + 1 != pair[1].seq) {
        return Err(format!("a page shows {} behind {}", hole[1].seq, hole[0].seq));
    }
    let (first, last) = (shown.first(), shown.last());
    let (first, last) = (first.map(|first| first.seq), last.map(|last| last.seq));
    let right = match behind {
        Some(anchor) => first == (anchor < head).then_some(anchor + 1),
        None => last == (head > 0).then_some(head),
    };
    right.then_some(()).ok_or_else(|| {
        format!("a page behind {behind:?} of a log that ends at {head} is from {first:?} to {last:?}")
    })
}

/// What happened to a channel.
fn history(recording: &Recording, channel: usize) -> ChannelHistory {
    let mut operations = Vec::new();
    for asked in &recording.asked {
        let Some(timed) = timed(asked, channel, &recording.head.channels[channel]) else {
            continue;
        };
        let took = asked.to_us.map(|to_us| to_us.saturating_sub(asked.from_us));
        if asked.answer.name() == "unknown" || took.is_none_or(|took| took >= RETRIED_US) {
            operations.extend(timed.again());
        }
        operations.extend(nobody_there(&timed));
        operations.push(timed);
    }
    let members = (0..recording.head.users).map(|number| (user(Some(number)), number == 0));
    ChannelHistory {
        log: recording.logs[channel].iter().map(entry).collect(),
        members: members.collect(),
        operations,
    }
}

/// Who cannot leave or be kicked is no member then, as one who cannot read. The one who kicks is a member
/// throughout, so that it is told of the other.
fn nobody_there(timed: &Timed) -> Option<Timed> {
    let refused = |user: &User| Operation::Read {
        user: Some(*user),
        outcome: Outcome::NotMember,
    };
    let operation = match &timed.operation {
        Operation::Leave {
            user,
            outcome: Outcome::NotMember,
        } => refused(user),
        Operation::Kick {
            user,
            outcome: Outcome::NotMember,
        } => refused(user),
        _ => return None,
    };
    Some(Timed {
        operation,
        ..timed.clone()
    })
}

/// A user of the checker's; a stranger is none of the round's.
fn user(number: Option<UserIndex>) -> User {
    User(number.map_or(u64::MAX, |number| number as u64))
}

fn entry(stored: &Stored) -> Entry {
    Entry {
        user: user(stored.user),
        key: stored.key,
        body: stored.body,
    }
}

/// An operation as far as it concerns a channel.
fn timed(asked: &Asked, channel: usize, name: &String) -> Option<Timed> {
    let who = user(Some(asked.user));
    let operation = match asked.ask {
        Ask::Send {
            channel: to,
            key,
            body,
        } if to == channel => Operation::Send {
            entry: Entry { user: who, key, body },
            outcome: outcome(asked, |answer| match answer {
                Answer::Sent { seq } => Some(*seq),
                _ => None,
            }),
        },
        Ask::Read { channel: of, .. } if of == channel => Operation::Read {
            user: Some(who),
            outcome: outcome(asked, |answer| match answer {
                Answer::Page { head, shown } => {
                    let shown: BTreeMap<u64, Entry> =
                        shown.iter().map(|stored| (stored.seq, entry(stored))).collect();
                    Some((*head, shown))
                }
                _ => None,
            }),
        },
        Ask::Send { .. } | Ask::Read { .. } => return None,
        Ask::Join => Operation::Join {
            user: who,
            outcome: outcome(asked, done),
        },
        Ask::Leave => Operation::Leave {
            user: who,
            outcome: outcome(asked, done),
        },
        Ask::Kick { user: whom } => Operation::Kick {
            user: user(Some(whom)),
            outcome: outcome(asked, |answer| match answer {
                // Channels beyond those named may be any.
                Answer::Kicked { pending, more } => Some(*more == 0 && !pending.contains(name)),
                _ => None,
            }),
        },
    };
    Some(Timed {
        start: asked.from_us,
        end: asked.to_us.unwrap_or(u64::MAX),
        operation,
    })
}

fn done(answer: &Answer) -> Option<()> {
    matches!(answer, Answer::Done).then_some(())
}

fn outcome<T>(asked: &Asked, done: impl Fn(&Answer) -> Option<T>) -> Outcome<T> {
    match &asked.answer {
        Answer::NotMember => Outcome::NotMember,
        Answer::Refused { .. } => Outcome::Refused,
        // An answer to another question is as good as none.
        answer => done(answer).map_or(Outcome::Unknown, Outcome::Done),
    }
}

#[cfg(test)]
mod tests;
