//! Deliveries are complete: from where a subscription began, every entry of the log comes, each
//! with the one before it as `prev`, over all connections, edges and resumes.

use super::{Invariant, Violation, log};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "no_hole",
    clause: "DL-6.2-M4",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for stretch in &run.stretches {
        let log = log(run, stretch.channel)?;
        let mut expected = log.behind(stretch.at.seq).iter();
        let mut last = stretch.at.seq;
        for delivery in &stretch.deliveries {
            let next = expected.next().map(|stored| stored.seen.seq);
            if next != Some(delivery.entry.seq) || delivery.prev != last {
                let text = format!(
                    "{} had {last} of {} and was given {} with prev {} by {:?}, edge {}; the log goes on with {next:?}",
                    stretch.client,
                    stretch.channel,
                    delivery.entry.seq,
                    delivery.prev,
                    stretch.sub,
                    delivery.edge
                );
                return Err(Violation::at(delivery.event, text));
            }
            last = delivery.entry.seq;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story, seen};
    use super::*;
    use crate::history::{From, Start, User};

    fn delivered(entries: &[(u64, u64)]) -> Result<(), Violation> {
        let mut story = Story::new();
        story.logged(&[seen(User(1), 1), seen(User(1), 2), seen(User(1), 3)]);
        story.subscribed(D1, 1, From::Start, (Start::Resumed, 0));
        for (prev, seq) in entries {
            story.delivered(D1, 1, *prev, seen(User(1), *seq));
        }
        story.judged(INVARIANT)
    }

    #[test]
    fn every_entry_behind_the_start_is_fine() {
        assert_eq!(delivered(&[(0, 1), (1, 2), (2, 3)]), Ok(()));
        assert_eq!(delivered(&[(0, 1)]), Ok(()));
    }

    #[test]
    fn a_missing_entry_is_found_whatever_prev_says() {
        assert!(delivered(&[(0, 1), (1, 3)]).is_err());
        assert!(delivered(&[(0, 1), (2, 3)]).is_err());
        assert!(delivered(&[(1, 2)]).is_err());
    }

    #[test]
    fn a_wrong_prev_and_an_entry_beyond_the_log_are_found() {
        assert!(delivered(&[(0, 1), (0, 2)]).is_err());
        assert!(delivered(&[(0, 1), (1, 2), (2, 3), (3, 4)]).is_err());
    }
}
