//! A mute holds: behind its fence no message of the user has a time stamp before the mute's end,
//! unless another word about the user came in between. Leaving and coming back changes nothing.

use super::fences::{first_seen, silences};
use super::{Invariant, Violation, log};
use crate::run::Run;
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "mutes",
    clause: "RI-4.3-M3",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for channel in world::channels() {
        let log = log(run, channel)?;
        let seen = first_seen(run, channel);
        for silence in silences(run, channel) {
            for stored in log.behind(log.place(silence.index)) {
                let Some((at_us, event)) = seen.get(&stored.seen.seq) else {
                    continue;
                };
                // A recall and a deletion say nothing.
                let speaks = !matches!(stored.shown.kind, 3 | 4);
                let silenced = speaks && stored.seen.sender == silence.user && stored.seen.ts < silence.until;
                if silenced && *at_us < silence.next_us {
                    let text = format!("{:?} of {channel} lies within {silence:?}", stored.seen);
                    return Err(Violation::at(*event, text));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, D2, Story, seen};
    use super::*;
    use crate::history::{FenceKind, User};

    fn muted(until_ms: u64) -> Story {
        let mut story = Story::new();
        story.sent(D1, 1);
        story.muted(User(1), until_ms, 4);
        story.fence(User(1), FenceKind::Mute, 4, 1);
        story.logged(&[seen(User(1), 1), seen(User(1), 2)]);
        story
    }

    #[test]
    fn a_message_from_the_end_of_the_mute_on_is_fine() {
        let mut story = muted(seen(User(1), 2).ts.millis());
        story.sent(D2, 2);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn a_message_before_the_end_of_the_mute_is_found_from_any_device() {
        let mut story = muted(seen(User(1), 2).ts.millis() + 1);
        story.join(D2);
        story.sent(D2, 2);
        assert!(story.judged(INVARIANT).is_err());
    }

    #[test]
    fn after_an_unmute_may_be_sent() {
        let mut story = muted(9_000);
        story.muted(User(1), 0, 5);
        story.sent(D1, 2);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }
}
