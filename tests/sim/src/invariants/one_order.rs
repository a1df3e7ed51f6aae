//! A channel has one order everywhere: every entry anybody was shown, at whatever moment and through
//! whichever edge, is the entry that every replica has at that place in the end.

use super::{Invariant, Violation, log};
use crate::run::Run;
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "one_order",
    clause: "SE-5.1-M7",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for channel in world::channels() {
        let reference = log(run, channel)?;
        for (replica, copy) in run.logs.copies(channel) {
            for stored in &copy.entries {
                if reference.at(stored.seen.seq).is_some_and(|other| other != stored) {
                    let text = format!(
                        "entry {} of {channel} is {stored:?} on node {} and {:?} elsewhere",
                        stored.seen.seq,
                        replica.node,
                        reference.at(stored.seen.seq)
                    );
                    return Err(Violation::in_logs(text));
                }
            }
        }
    }
    for sighting in run.sightings() {
        let log = log(run, sighting.channel)?;
        let stored = log.at(sighting.entry.seq).map(|stored| stored.seen);
        if stored != Some(sighting.entry) || sighting.epoch != log.epoch {
            let text = format!(
                "{} was shown {:?} of {}, epoch {}; the log (epoch {}) has {stored:?} there",
                sighting.client, sighting.entry, sighting.channel, sighting.epoch, log.epoch
            );
            return Err(Violation::at(sighting.event, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story, keyed, seen};
    use super::*;
    use crate::history::{Anchor, Direction, From, Start, User};
    use throng_protocol::ids::Seq;

    fn logged() -> Story {
        let mut story = Story::new();
        story.logged(&[seen(User(1), 1), seen(User(2), 2)]);
        story
    }

    #[test]
    fn what_is_in_the_log_may_be_shown() {
        let mut story = logged();
        story.subscribed(D1, 1, From::Start, (Start::Resumed, 0));
        story.delivered(D1, 1, 0, seen(User(1), 1));
        story.page(
            D1,
            (Anchor::Seq(Seq(1)), Direction::After),
            (1, 2, &[seen(User(2), 2)]),
        );
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn a_delivery_and_a_page_that_show_something_else_are_found() {
        let mut delivered = logged();
        delivered.subscribed(D1, 1, From::Start, (Start::Resumed, 0));
        delivered.delivered(D1, 1, 0, keyed(User(1), 1, 9));
        assert!(delivered.judged(INVARIANT).is_err());
        let mut read = logged();
        read.page(
            D1,
            (Anchor::Seq(Seq(1)), Direction::After),
            (1, 2, &[seen(User(1), 2)]),
        );
        assert!(read.judged(INVARIANT).is_err());
    }

    #[test]
    fn a_replica_with_another_entry_is_found_and_a_shorter_one_is_not() {
        let mut short = logged();
        short.logs.replicas[2].channels[0].entries.pop();
        assert_eq!(short.judged(INVARIANT), Ok(()));
        let mut other = logged();
        other.logs.replicas[0].channels[0].entries[1].seen = seen(User(3), 2);
        assert!(other.judged(INVARIANT).is_err());
    }
}
