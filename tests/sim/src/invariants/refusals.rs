//! What is refused for good has a reason in what happened: nobody is told that they are no member
//! who certainly are one, that they are muted who never were, or that a key is taken which is not.

use super::fences::causes;
use super::roles;
use super::{Invariant, Violation};
use crate::changes::{Changing, Deed};
use crate::history::{Answer, Ask, Channel, FenceKind, Group, User};
use crate::run::{Asked, Run};
use crate::world;
use throng_protocol::code::Code;

pub const INVARIANT: Invariant = Invariant {
    name: "refusals",
    clause: "GR-4.2-M5",
    check,
};

/// `muted` of the client wire.
const MUTED: u16 = 307;

fn check(run: &Run) -> Result<(), Violation> {
    for asked in run.ops.values() {
        for (_, event, answer) in &asked.answers {
            let Answer::Refused { code, .. } = *answer else {
                continue;
            };
            if let Err(why) = reason(run, asked, code) {
                let text = format!("{} was refused {:?} with {code}: {why}", asked.client, asked.ask);
                return Err(Violation::at(*event, text));
            }
        }
    }
    Ok(())
}

fn reason(run: &Run, asked: &Asked, code: u16) -> Result<(), &'static str> {
    let user = asked.client.user();
    let (group, target) = match asked.ask {
        Ask::Send { channel, .. }
        | Ask::Change { channel, .. }
        | Ask::Subscribe { channel, .. }
        | Ask::Page { channel, .. } => (channel.group(), user),
        Ask::Kick { group, user } | Ask::Mute { group, user, .. } | Ask::Assign { group, user, .. } => {
            (group, user)
        }
        Ask::Permit { group, .. } => (group, user),
        Ask::Join { group } | Ask::Leave { group } => (group, user),
    };
    if code == MUTED {
        let muted = causes(run, group, user, FenceKind::Mute);
        let muted = muted.iter().any(|mute| mute.at_us <= asked.answered_us());
        return if muted { Ok(()) } else { Err("there was no mute") };
    }
    if let Ask::Change { channel, change, .. } = asked.ask {
        match Code::from_number(code) {
            Some(Code::Forbidden) if may(user, &change) => return Err("they may"),
            Some(Code::Forbidden) if roles::certainly(run, group, user, asked.span()) => {
                return Err("they have a role that lets them");
            }
            Some(Code::TargetGone) if !was_ended(run, channel, &change, asked) => {
                return Err("nobody has recalled or deleted it");
            }
            Some(Code::Forbidden | Code::TargetGone) => return Ok(()),
            Some(Code::TargetUnknown) => return Err("the message is there"),
            Some(Code::ExpansionFull) => return Err("the message has few keys"),
            _ => {}
        }
    }
    match Code::from_number(code) {
        Some(Code::NotMember) if certainly_member(run, group, target, asked) => {
            Err("they were a member all the time")
        }
        Some(Code::IdempotencyConflict) if !key_was_used(run, asked) => Err("no other message has that key"),
        Some(Code::GroupUnknown | Code::ChannelUnknown | Code::RoleUnknown) => Err("it exists"),
        Some(Code::RetryTooOld) => Err("it is not old"),
        Some(
            Code::Forbidden
            | Code::InvalidField
            | Code::OutOfOrder
            | Code::MalformedFrame
            | Code::MessageTooLarge,
        ) => Err("nothing was wrong with it"),
        _ => Ok(()),
    }
}

/// Whether the user was a member from the question to the answer, however what overlaps is ordered.
fn certainly_member(run: &Run, group: Group, user: User, asked: &Asked) -> bool {
    let ends = [FenceKind::Kick, FenceKind::Left].map(|kind| causes(run, group, user, kind));
    let ends: Vec<&Asked> = ends
        .into_iter()
        .flatten()
        .filter(|end| end.at_us <= asked.answered_us())
        .collect();
    let joined = run.ops.values().filter(|join| {
        join.ask == Ask::Join { group }
            && join.client.user() == user
            && matches!(join.answer(), Some(Answer::Done))
            && join.answered_us() < asked.at_us
    });
    // A join that began after every end had been answered, and was answered before the question.
    joined
        .max_by_key(|join| join.at_us)
        .is_some_and(|join| ends.iter().all(|end| end.ends_us() < join.at_us))
}

/// Whether somebody may do this to the message, whatever has become of it.
fn may(user: User, change: &Changing) -> bool {
    user == world::CREATOR
        || match change.deed {
            Deed::Modify | Deed::Recall => user == change.owner,
            Deed::Delete => false,
            Deed::Set(_) | Deed::Unset(_) => true,
        }
}

/// Whether the message may have been recalled or deleted when the question was answered.
fn was_ended(run: &Run, channel: Channel, change: &Changing, asked: &Asked) -> bool {
    run.ops.values().any(|other| match other.ask {
        Ask::Change {
            channel: of,
            change: end,
            ..
        } => {
            of == channel
                && end.target == change.target
                && end.deed.ends()
                && other.may_have_happened()
                && other.at_us <= asked.answered_us()
        }
        _ => false,
    })
}

fn key_was_used(run: &Run, asked: &Asked) -> bool {
    let (channel, key, hash) = match asked.ask {
        Ask::Send { channel, key, hash } => (channel, key, hash),
        Ask::Change { channel, key, change } => (channel, key, change.identity()),
        _ => return false,
    };
    let user = asked.client.user();
    run.sends().any(|(of, other, send)| {
        of == (channel, user, key) && other != hash && send.at_us <= asked.answered_us()
    })
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, D2, NOT_MEMBER, Story, UNAVAILABLE};
    use super::*;

    fn refused(story: &mut Story, code: u16) {
        let op = story.send(D1, 7);
        story.refused(D1, op, code, false);
    }

    #[test]
    fn not_member_needs_a_kick_or_a_leave_since_the_join() {
        let mut stranger = Story::new();
        refused(&mut stranger, NOT_MEMBER);
        assert_eq!(stranger.judged(INVARIANT), Ok(()));
        let mut member = Story::new();
        member.join(D1);
        refused(&mut member, NOT_MEMBER);
        assert!(member.judged(INVARIANT).is_err());
        let mut kicked = Story::new();
        kicked.join(D1);
        kicked.kicked(User(1), 3);
        refused(&mut kicked, NOT_MEMBER);
        assert_eq!(kicked.judged(INVARIANT), Ok(()));
        let mut back = Story::new();
        back.kicked(User(1), 3);
        back.join(D2);
        refused(&mut back, NOT_MEMBER);
        assert!(back.judged(INVARIANT).is_err());
    }

    #[test]
    fn a_conflict_needs_another_message_of_the_key() {
        let mut none = Story::new();
        refused(&mut none, 401);
        assert!(none.judged(INVARIANT).is_err());
        let mut other = Story::new();
        other.send_body(D2, 7, 70);
        refused(&mut other, 401);
        assert_eq!(other.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn muted_needs_a_mute_and_unavailable_needs_nothing() {
        let mut never = Story::new();
        refused(&mut never, MUTED);
        assert!(never.judged(INVARIANT).is_err());
        let mut muted = Story::new();
        muted.muted(User(1), 9_000, 3);
        refused(&mut muted, MUTED);
        assert_eq!(muted.judged(INVARIANT), Ok(()));
        let mut unavailable = Story::new();
        refused(&mut unavailable, UNAVAILABLE);
        assert_eq!(unavailable.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn what_exists_is_never_unknown_and_nothing_is_too_old() {
        for code in [300, 301, 303, 308, 105, 402] {
            let mut story = Story::new();
            refused(&mut story, code);
            assert!(story.judged(INVARIANT).is_err(), "{code}");
        }
    }
}
