//! Reading by time stamp gives what reading by seq gives: the same stretch of the log.

use throng_protocol::ids::Seq;

use super::{Invariant, Violation, log};
use crate::history::{Anchor, Ask, Direction};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "ts_reads",
    clause: "SY-6.4-M7",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for (asked, channel, page) in run.pages() {
        let Ask::Page {
            anchor: Anchor::Ts(ts),
            direction,
            ..
        } = asked.ask
        else {
            continue;
        };
        let log = log(run, channel)?;
        let seqs: Vec<Seq> = page.entries.iter().map(|entry| entry.seq).collect();
        let dense = seqs.windows(2).all(|pair| pair[1] == pair[0].next());
        // The entry at the stamp, if there is one, is in neither direction's page.
        let beside = match direction {
            Direction::After => {
                let first = log.until(ts).next();
                seqs.first().map_or(first > page.head, |begin| *begin == first)
            }
            Direction::Before => {
                let last = log
                    .until(throng_protocol::ids::Ts(ts.0.saturating_sub(1)))
                    .min(page.head);
                seqs.last().map_or(last == Seq(0), |end| *end == last)
            }
        };
        if !dense || !beside {
            let event = asked.answers.first().map_or(asked.event, |(_, event, _)| *event);
            let text = format!(
                "{} asked {channel} for {direction:?} {ts:?} and got {seqs:?} of {}; up to the stamp the log has {}",
                asked.client,
                page.head,
                log.until(ts)
            );
            return Err(Violation::at(event, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story, seen};
    use super::*;
    use crate::history::User;
    use throng_protocol::ids::Ts;

    fn read(ts: Ts, direction: Direction, seqs: &[u64]) -> bool {
        let mut story = Story::new();
        let entries: Vec<_> = (1..=4).map(|seq| seen(User(1), seq)).collect();
        story.logged(&entries);
        let page: Vec<_> = seqs.iter().map(|seq| seen(User(1), *seq)).collect();
        let prev = seqs.first().map_or(0, |first| first - 1);
        story.page(D1, (Anchor::Ts(ts), direction), (prev, 4, &page));
        story.judged(INVARIANT).is_ok()
    }

    #[test]
    fn the_entries_beside_the_stamp_are_fine() {
        let second = seen(User(1), 2).ts;
        assert!(read(second, Direction::After, &[3, 4]));
        assert!(read(second, Direction::Before, &[1]));
        assert!(read(Ts(second.0 + 1), Direction::Before, &[1, 2]));
        assert!(read(Ts(second.0 - 1), Direction::After, &[2]));
        assert!(read(seen(User(1), 4).ts, Direction::After, &[]));
        assert!(read(seen(User(1), 1).ts, Direction::Before, &[]));
    }

    #[test]
    fn the_entry_at_the_stamp_one_too_few_and_a_gap_are_found() {
        let second = seen(User(1), 2).ts;
        assert!(!read(second, Direction::After, &[2, 3]));
        assert!(!read(second, Direction::After, &[4]));
        assert!(!read(second, Direction::Before, &[1, 2]));
        assert!(!read(second, Direction::After, &[3, 3]));
        assert!(!read(second, Direction::After, &[]));
    }
}
