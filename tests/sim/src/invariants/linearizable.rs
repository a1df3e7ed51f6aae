//! There is one order of everything that was asked of a channel that explains every answer: each send,
//! read, join, leave and kick took effect at one moment between its question and its answer.
//!
//! The search is another package's; here histories are only translated. A search that comes to no end
//! is no pass.

use throng_lin::{ChannelHistory, Entry, Operation, Outcome, Timed, Verdict};
use throng_protocol::code::Code;

use super::{Invariant, Violation, log};
use crate::history::{Answer, Ask, Channel, Seen, User};
use crate::run::{Asked, Run};
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "linearizable",
    clause: "SE-5.1-M7",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for channel in world::channels() {
        let history = history(run, channel)?;
        if history.operations.is_empty() {
            continue;
        }
        match throng_lin::check(&history) {
            Verdict::Linearizable => {}
            Verdict::Violated(why) => return Err(Violation::in_logs(format!("{channel}: {why}"))),
            Verdict::Unknown(why) => {
                return Err(Violation::in_logs(format!(
                    "{channel} could not be judged: {why}"
                )));
            }
        }
    }
    Ok(())
}

/// What happened to a channel.
fn history(run: &Run, channel: Channel) -> Result<ChannelHistory, Violation> {
    let log = log(run, channel)?;
    let mut operations = Vec::new();
    for asked in run.ops.values() {
        let Some(timed) = timed(asked, channel) else {
            continue;
        };
        operations.extend(again(asked, &timed));
        operations.push(timed);
    }
    Ok(ChannelHistory {
        log: log.entries.iter().map(|stored| entry(stored.seen)).collect(),
        operations,
        // Whether users are members before the first answer that says so is not part of a history.
        ..ChannelHistory::default()
    })
}

/// What attempts of an operation may do that are carried out behind its answer.
fn again(asked: &Asked, timed: &Timed) -> Vec<Timed> {
    if asked.ends_us() == asked.answered_us() {
        return Vec::new();
    }
    timed.again()
}

fn user(user: User) -> throng_lin::User {
    throng_lin::User(user.0.into())
}

fn entry(seen: Seen) -> Entry {
    Entry {
        user: user(seen.sender),
        key: seen.key.0,
        body: seen.hash.0,
    }
}

/// An operation as far as it concerns a channel.
fn timed(asked: &Asked, channel: Channel) -> Option<Timed> {
    let who = user(asked.client.user());
    let operation = match asked.ask {
        Ask::Send {
            channel: to,
            key,
            hash,
        } if to == channel => Operation::Send {
            entry: Entry {
                user: who,
                key: key.0,
                body: hash.0,
            },
            outcome: outcome(asked, |answer| match answer {
                Answer::Acked { seq, .. } => Some(seq.0),
                _ => None,
            }),
        },
        Ask::Change {
            channel: to,
            key,
            change,
        } if to == channel => Operation::Send {
            entry: Entry {
                user: who,
                key: key.0,
                body: change.identity().0,
            },
            outcome: outcome(asked, |answer| match answer {
                Answer::Acked { seq, .. } => Some(seq.0),
                _ => None,
            }),
        },
        Ask::Page { channel: of, .. } if of == channel => Operation::Read {
            user: Some(who),
            outcome: outcome(asked, |answer| match answer {
                Answer::Page(page) => {
                    let shown = page.entries.iter().map(|seen| (seen.seq.0, entry(*seen)));
                    Some((page.head.0, shown.collect()))
                }
                _ => None,
            }),
        },
        Ask::Join { group } if group == channel.group() => Operation::Join {
            user: who,
            outcome: outcome(asked, done),
        },
        Ask::Leave { group } if group == channel.group() => Operation::Leave {
            user: who,
            outcome: outcome(asked, done),
        },
        Ask::Kick { group, user: whom } if group == channel.group() => Operation::Kick {
            user: user(whom),
            outcome: outcome(asked, |answer| match answer {
                // Channels beyond those named may be any.
                Answer::Fenced { pending, more, .. } => Some(*more == 0 && !pending.contains(&channel)),
                _ => None,
            }),
        },
        _ => return None,
    };
    Some(Timed {
        start: asked.at_us,
        end: asked.answered_us(),
        operation,
    })
}

fn done(answer: &Answer) -> Option<()> {
    matches!(answer, Answer::Done).then_some(())
}

fn outcome<T>(asked: &Asked, done: impl Fn(&Answer) -> Option<T>) -> Outcome<T> {
    match asked.answer() {
        None | Some(Answer::Refused { unknown: true, .. }) => Outcome::Unknown,
        Some(Answer::Refused { code, .. }) if Code::from_number(*code) == Some(Code::NotMember) => {
            Outcome::NotMember
        }
        Some(answer) => done(answer).map_or(Outcome::Refused, Outcome::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{C0, D0, D1, D2, NOT_MEMBER, Story, seen};
    use super::*;
    use crate::history::{Anchor, Direction, Group};
    use throng_protocol::ids::Seq;

    fn page(story: &mut Story, head: u64) {
        let shown: Vec<Seen> = (1..=head).map(|seq| seen(D1.user(), seq)).collect();
        story.page(D2, (Anchor::Seq(Seq(0)), Direction::After), (0, head, &shown));
    }

    #[test]
    fn a_read_behind_an_ack_shows_it() {
        for (head, fine) in [(1, true), (0, false)] {
            let mut story = Story::new();
            story.logged(&[seen(D1.user(), 1)]);
            story.sent(D1, 1);
            page(&mut story, head);
            assert_eq!(story.judged(INVARIANT).is_ok(), fine, "{head}");
        }
    }

    #[test]
    fn a_lost_ack_and_a_message_that_nobody_sent_have_no_order() {
        let mut story = Story::new();
        story.sent(D1, 1);
        assert!(story.judged(INVARIANT).is_err());
        let mut story = Story::new();
        story.logged(&[seen(D1.user(), 1)]);
        page(&mut story, 1);
        assert!(story.judged(INVARIANT).is_err());
    }

    #[test]
    fn a_send_acked_behind_a_kick_that_was_done_has_no_order() {
        for (pending, fine) in [(vec![], false), (vec![C0], true)] {
            let mut story = Story::new();
            story.logged(&[seen(D1.user(), 1)]);
            let ask = Ask::Kick {
                group: Group(0),
                user: D1.user(),
            };
            let op = story.ask(D0, ask);
            let fenced = Answer::Fenced {
                version: 2,
                pending,
                more: 0,
            };
            story.answer(D0, op, fenced);
            story.sent(D1, 1);
            assert_eq!(story.judged(INVARIANT).is_ok(), fine);
        }
    }

    #[test]
    fn a_member_who_is_refused_has_no_order() {
        let mut story = Story::new();
        story.join(D1);
        let op = story.send(D1, 1);
        story.refused(D1, op, NOT_MEMBER, false);
        assert!(story.judged(INVARIANT).is_err());
    }
}
