//! When a user certainly had a role that lets change messages of others, and when certainly not: what the
//! invariants about permissions share.
//!
//! A change of roles takes effect between its question and its answer. So a user certainly has no role behind
//! the answer of what took it, until the question of what may give it again; and certainly has one the other way
//! round.

use crate::history::{Answer, Ask, Group, User};
use crate::run::{Asked, Run};

/// The moments of two kinds of operations of which one undoes the other.
struct Switch<'a> {
    on: Vec<&'a Asked>,
    off: Vec<&'a Asked>,
}

impl Switch<'_> {
    /// Whether it was certainly on (or off) all the time, if it is so from the beginning or not.
    fn is(&self, on: bool, at_first: bool, (from_us, to_us): (u64, u64)) -> bool {
        let (makes, ends) = match on {
            true => (&self.on, &self.off),
            false => (&self.off, &self.on),
        };
        let undisturbed = |since_us: u64| {
            let harmless = |end: &&Asked| ends_us(end) < since_us || end.at_us > to_us;
            ends.iter().all(harmless)
        };
        let done = |asked: &&&Asked| is_done(asked, on) && asked.answered_us() < from_us;
        (at_first && undisturbed(0)) || makes.iter().filter(done).any(|asked| undisturbed(asked.at_us))
    }
}

/// Whether an answer says that it holds: a gain holds when it is made, a loss when every shard knows it.
fn is_done(asked: &Asked, gain: bool) -> bool {
    matches!(asked.answer(), Some(Answer::Fenced { pending, more, .. }) if gain || (pending.is_empty() && *more == 0))
}

/// When it can no longer be carried out. The back end repeats nothing by itself.
fn ends_us(asked: &Asked) -> u64 {
    match (asked.ask, asked.answer()) {
        (Ask::Assign { .. } | Ask::Permit { .. }, Some(Answer::Refused { unknown: true, .. })) => u64::MAX,
        (Ask::Assign { .. } | Ask::Permit { .. }, _) => asked.answered_us(),
        _ => asked.ends_us(),
    }
}

fn of(run: &Run, is: impl Fn(Ask, User) -> bool) -> Vec<&Asked> {
    run.ops
        .values()
        .filter(|asked| asked.may_have_happened() && is(asked.ask, asked.client.user()))
        .collect()
}

/// Whether a member has the role.
fn assigned(run: &Run, group: Group, user: User) -> Switch<'_> {
    let mine = (group, user);
    Switch {
        on: of(
            run,
            |ask, _| matches!(ask, Ask::Assign { group, user, has: true } if (group, user) == mine),
        ),
        off: of(run, |ask, asker| match ask {
            Ask::Assign {
                group,
                user,
                has: false,
            }
            | Ask::Kick { group, user } => (group, user) == mine,
            Ask::Leave { group } => (group, asker) == mine,
            _ => false,
        }),
    }
}

/// Whether the role lets do anything.
fn permitted(run: &Run, group: Group) -> Switch<'_> {
    let put = |wanted: bool| {
        of(
            run,
            |ask, _| matches!(ask, Ask::Permit { group: of, may } if of == group && may == wanted),
        )
    };
    Switch {
        on: put(true),
        off: put(false),
    }
}

/// Whether a user certainly could not change messages of others by a role at any moment of a span.
pub(super) fn certainly_not(run: &Run, group: Group, user: User, span: (u64, u64)) -> bool {
    assigned(run, group, user).is(false, true, span) || permitted(run, group).is(false, false, span)
}

/// Whether a user certainly could all the time.
pub(super) fn certainly(run: &Run, group: Group, user: User, span: (u64, u64)) -> bool {
    assigned(run, group, user).is(true, false, span) && permitted(run, group).is(true, true, span)
}

#[cfg(test)]
mod tests {
    use super::super::story::{D0, D1, D2, Story};
    use super::*;
    use crate::changes::Deed;
    use crate::invariants::change_rights;
    use crate::world;

    const GROUP: Group = Group(0);

    fn assign(story: &mut Story, has: bool) {
        let user = D1.user();
        story.governed(Ask::Assign {
            group: GROUP,
            user,
            has,
        });
    }

    /// User 1 has the role.
    fn given() -> Story {
        let mut story = Story::new();
        assign(&mut story, true);
        story
    }

    fn permit(story: &mut Story, may: bool) {
        story.governed(Ask::Permit { group: GROUP, may });
    }

    /// Whether user 1 is found guilty of a change to a message of another, made at the end of a story.
    fn is_found(mut story: Story) -> bool {
        let owner = world::users()
            .find(|user| *user != D1.user())
            .unwrap_or(D0.user());
        story.changed(D1, 5, (owner, 1), Deed::Recall);
        story.judged(change_rights::INVARIANT).is_err()
    }

    #[test]
    fn a_role_lets_do_from_when_it_is_asked_for_until_its_loss_is_answered() {
        assert!(is_found(Story::new()));
        assert!(!is_found(given()));
        let taken = || {
            let mut story = given();
            assign(&mut story, false);
            story
        };
        assert!(is_found(taken()));
        let mut again = taken();
        assign(&mut again, true);
        assert!(!is_found(again));
        let emptied = || {
            let mut story = given();
            permit(&mut story, false);
            story
        };
        assert!(is_found(emptied()));
        let mut refilled = emptied();
        permit(&mut refilled, true);
        assert!(!is_found(refilled));
        let mut kicked = given();
        kicked.kicked(D1.user(), 9);
        kicked.join(D2);
        assert!(is_found(kicked));
        let mut left = given();
        left.leave(D2);
        // A leave is answered before every shard knows of it.
        assert!(!is_found(left));
    }

    #[test]
    fn what_is_unknown_or_pending_takes_nothing_for_certain() {
        let mut unknown = Story::new();
        assign(&mut unknown, true);
        let op = unknown.ask(
            D0,
            Ask::Assign {
                group: GROUP,
                user: D1.user(),
                has: false,
            },
        );
        unknown.refused(D0, op, 0, true);
        assert!(!is_found(unknown));
        let mut maybe = Story::new();
        let op = maybe.ask(
            D0,
            Ask::Assign {
                group: GROUP,
                user: D1.user(),
                has: true,
            },
        );
        maybe.refused(D0, op, 0, true);
        assign(&mut maybe, false);
        // The gift may arrive behind the loss.
        assert!(!is_found(maybe));
    }

    #[test]
    fn who_certainly_has_it_is_not_refused() {
        type Step = fn(&mut Story);
        let steps: [(Step, bool); 5] = [
            (|_| (), false),
            (|story| assign(story, true), true),
            (|story| permit(story, false), false),
            (|story| permit(story, true), true),
            (|story| story.leave(D2), false),
        ];
        for upto in 0..steps.len() {
            let mut story = Story::new();
            steps[..=upto].iter().for_each(|(step, _)| step(&mut story));
            let run = story.run();
            let certain = certainly(&run, GROUP, D1.user(), (u64::MAX - 1, u64::MAX));
            assert_eq!(certain, steps[upto].1, "{upto}");
        }
    }
}
