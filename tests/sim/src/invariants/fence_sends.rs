//! No message of a user who is out of the group gets a seq behind the fence.
//!
//! Two views of it: by the order of the shard's log, where the fence has its place; and by time,
//! where nothing sent after a kick was answered as done, and before a return was asked for, is acked.

use super::fences::{causes, first_seen, placed};
use super::{Invariant, Violation, log};
use crate::history::{Answer, Ask, FenceKind};
use crate::run::Run;
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "fence_sends",
    clause: "RI-4.3-M2",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for channel in world::channels() {
        let log = log(run, channel)?;
        let seen = first_seen(run, channel);
        for placed in placed(run, channel, log)
            .iter()
            .filter(|placed| placed.ends_membership())
        {
            for stored in log.behind(placed.place) {
                let Some((at_us, event)) = seen.get(&stored.seen.seq) else {
                    continue;
                };
                if stored.seen.sender == placed.fence.user && *at_us < placed.back_us {
                    let text = format!("{:?} of {channel} lies behind {placed:?}", stored.seen);
                    return Err(Violation::at(*event, text));
                }
            }
        }
    }
    acked_while_out(run)
}

fn acked_while_out(run: &Run) -> Result<(), Violation> {
    for ((channel, user, _), _, send) in run.sends() {
        let Some(Answer::Acked { repeat: false, .. }) = send.answer() else {
            continue;
        };
        let group = channel.group();
        for kick in causes(run, group, user, FenceKind::Kick) {
            let done =
                matches!(kick.answer(), Some(Answer::Fenced { pending, more: 0, .. }) if pending.is_empty());
            let returned = run.ops.values().any(|join| {
                join.ask == Ask::Join { group }
                    && join.client.user() == user
                    && join.may_have_happened()
                    && join.ends_us() >= kick.at_us
                    && join.at_us <= send.answered_us()
            });
            if done && kick.answered_us() < send.at_us && !returned {
                let text = format!("{user} was kicked by {:?} and {:?} was acked", kick.op, send.ask);
                return Err(Violation::at(send.event, text));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D0, D1, D2, NOT_MEMBER, Story, seen};
    use super::*;
    use crate::history::User;

    /// User 1 sends entry 1, is kicked behind it, and entry 2 is `sender`'s.
    fn kicked(sender: crate::history::Client, rejoined: bool) -> Story {
        let mut story = Story::new();
        story.join(D1);
        story.sent(D1, 1);
        story.kicked(User(1), 4);
        story.fence(User(1), FenceKind::Kick, 4, 1);
        if rejoined {
            story.join(D2);
        }
        story.sent(sender, 2);
        story.logged(&[seen(User(1), 1), seen(sender.user(), 2)]);
        story
    }

    #[test]
    fn others_and_those_who_came_back_may_send() {
        assert_eq!(kicked(D0, false).judged(INVARIANT), Ok(()));
        assert_eq!(kicked(D1, true).judged(INVARIANT), Ok(()));
    }

    #[test]
    fn a_message_of_a_kicked_user_is_found_from_any_device() {
        assert!(kicked(D1, false).judged(INVARIANT).is_err());
        assert!(kicked(D2, false).judged(INVARIANT).is_err());
    }

    #[test]
    fn a_message_that_was_on_its_way_is_judged_by_its_place() {
        for (place, fine) in [(1, true), (0, false)] {
            let mut story = Story::new();
            let on_its_way = story.send(D1, 1);
            story.kicked(User(1), 4);
            story.acked(D1, on_its_way, 1, false);
            story.fence(User(1), FenceKind::Kick, 4, place);
            story.logged(&[seen(User(1), 1)]);
            assert_eq!(story.judged(INVARIANT).is_ok(), fine);
        }
    }

    #[test]
    fn a_repeat_of_what_was_acked_before_and_a_refusal_are_fine() {
        let mut story = kicked(D0, false);
        let again = story.send(D1, 1);
        story.acked(D1, again, 1, true);
        let refused = story.send(D1, 9);
        story.refused(D1, refused, NOT_MEMBER, false);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn who_left_is_out_as_well() {
        for (rejoined, fine) in [(false, false), (true, true)] {
            let mut story = Story::new();
            story.leave(D1);
            story.fence(User(1), FenceKind::Left, 3, 0);
            if rejoined {
                story.join(D1);
            }
            story.sent(D2, 1);
            story.logged(&[seen(User(1), 1)]);
            assert_eq!(story.judged(INVARIANT).is_ok(), fine);
        }
    }
}
