//! No entry reaches an application twice through one subscription, over all its connections.

use super::{Invariant, Violation};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "no_duplicate",
    clause: "DL-6.2-M3",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for stretch in &run.stretches {
        let mut last = stretch.at;
        for delivery in &stretch.deliveries {
            let at = throng_protocol::ids::Position {
                epoch: delivery.epoch,
                seq: delivery.entry.seq,
            };
            if at <= last {
                let text = format!(
                    "{} had {last:?} of {} and was given {at:?} by {:?}",
                    stretch.client, stretch.channel, stretch.sub
                );
                return Err(Violation::at(delivery.event, text));
            }
            last = at;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story, seen};
    use super::*;
    use crate::history::{From, Start, User};

    #[test]
    fn ascending_deliveries_are_fine_and_a_second_one_is_found() {
        for (again, fine) in [(3, true), (2, false), (1, false)] {
            let mut story = Story::new();
            story.subscribed(D1, 1, From::Start, (Start::Resumed, 0));
            story.delivered(D1, 1, 0, seen(User(1), 1));
            story.delivered(D1, 1, 1, seen(User(1), 2));
            story.delivered(D1, 1, 2, seen(User(1), again));
            assert_eq!(story.judged(INVARIANT).is_ok(), fine, "{again}");
        }
    }

    #[test]
    fn an_entry_at_the_position_a_subscription_began_behind_is_found() {
        let mut story = Story::new();
        story.subscribed(D1, 1, From::Head, (Start::Head, 4));
        story.delivered(D1, 1, 3, seen(User(1), 4));
        assert!(story.judged(INVARIANT).is_err());
    }
}
