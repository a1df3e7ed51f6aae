//! Nothing behind a fence reaches the user it is for.
//!
//! While the user is out, no device is shown an entry behind the fence, by whatever way. And no
//! deliveries ever run across the fence: what began before its place ends there, also for a user who
//! came back meanwhile; who comes back begins behind it.

use super::fences::{Placed, placed};
use super::{Invariant, Violation, log};
use crate::run::{Delivery, Run, Stretch};
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "fence_reads",
    clause: "EN-6.5-M1",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for channel in world::channels() {
        let log = log(run, channel)?;
        for placed in placed(run, channel, log)
            .iter()
            .filter(|placed| placed.ends_membership())
        {
            let of_user = |client: crate::history::Client| client.user() == placed.fence.user;
            for stretch in run.stretches.iter().filter(|stretch| stretch.channel == channel) {
                let across = across(stretch, placed);
                if let (true, true, Some(delivery)) =
                    (of_user(stretch.client), stretch.at.seq < placed.place, across)
                {
                    let text = format!(
                        "{} began behind {} of {channel} and was given {} behind {placed:?}",
                        stretch.client, stretch.at.seq, delivery.entry.seq
                    );
                    return Err(Violation::at(delivery.event, text));
                }
            }
            for sighting in run.sightings().filter(|sighting| sighting.channel == channel) {
                let out = sighting.at_us < placed.back_us && sighting.entry.seq > placed.place;
                if of_user(sighting.client) && out {
                    let text = format!(
                        "{} was shown {} of {channel}, which is behind {placed:?}",
                        sighting.client, sighting.entry.seq
                    );
                    return Err(Violation::at(sighting.event, text));
                }
            }
        }
    }
    Ok(())
}

/// The first entry behind a fence, unless the client that had everything before it came back with
/// another connection when its user had: nothing was skipped, and nothing came in between.
fn across<'a>(stretch: &'a Stretch, placed: &Placed) -> Option<&'a Delivery> {
    let place = stretch
        .deliveries
        .partition_point(|delivery| delivery.entry.seq <= placed.place);
    let behind = stretch.deliveries.get(place)?;
    let before = place
        .checked_sub(1)
        .and_then(|place| stretch.deliveries.get(place));
    let came_back = behind.at_us >= placed.back_us
        && before
            .is_some_and(|before| before.entry.seq == placed.place && before.connection < behind.connection);
    (!came_back).then_some(behind)
}

#[cfg(test)]
mod tests {
    use super::super::story::{D0, D1, D2, Story, seen};
    use super::*;
    use crate::history::{Anchor, Client, Direction, FenceKind, From, Start, User};
    use throng_protocol::ids::Seq;

    /// Two entries of the creator with the kick of user 1 between them.
    fn kicked() -> Story {
        let mut story = Story::new();
        story.join(D1);
        story.logged(&[seen(User(0), 1), seen(User(0), 2)]);
        story.fence(User(1), FenceKind::Kick, 4, 1);
        story.subscribed(D0, 1, From::Start, (Start::Resumed, 0));
        story.subscribed(D1, 2, From::Start, (Start::Resumed, 0));
        story.kicked(User(1), 4);
        story.delivered(D0, 1, 0, seen(User(0), 1));
        story.delivered(D1, 2, 0, seen(User(0), 1));
        story.delivered(D0, 1, 1, seen(User(0), 2));
        story
    }

    fn page(story: &mut Story, client: Client) {
        let from = (Anchor::Seq(Seq(1)), Direction::After);
        story.page(client, from, (1, 2, &[seen(User(0), 2)]));
    }

    #[test]
    fn everything_up_to_the_fence_may_come_late_and_others_go_on() {
        assert_eq!(kicked().judged(INVARIANT), Ok(()));
        let mut other = kicked();
        page(&mut other, D0);
        assert_eq!(other.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn a_delivery_and_a_page_behind_the_fence_are_found() {
        let mut delivered = kicked();
        delivered.delivered(D1, 2, 1, seen(User(0), 2));
        assert!(delivered.judged(INVARIANT).is_err());
        let mut read = kicked();
        page(&mut read, D2);
        assert!(read.judged(INVARIANT).is_err());
    }

    #[test]
    fn who_came_back_reads_pages_and_begins_behind_the_fence() {
        let mut story = kicked();
        story.join(D2);
        page(&mut story, D1);
        story.subscribed(D2, 3, From::Head, (Start::Head, 1));
        story.delivered(D2, 3, 1, seen(User(0), 2));
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn deliveries_across_the_fence_are_found_also_after_a_return() {
        let mut story = kicked();
        story.join(D2);
        story.delivered(D1, 2, 1, seen(User(0), 2));
        assert!(story.judged(INVARIANT).is_err());
        let mut anew = kicked();
        anew.join(D2);
        anew.subscribed(D2, 3, From::Start, (Start::Resumed, 0));
        anew.delivered(D2, 3, 0, seen(User(0), 1));
        anew.delivered(D2, 3, 1, seen(User(0), 2));
        assert!(anew.judged(INVARIANT).is_err());
    }
}
