//! A page is a stretch of the log beside its anchor: ascending, complete, without the anchor, and
//! not empty while there is something.

use throng_protocol::ids::Seq;

use super::{Invariant, Violation, log};
use crate::history::{Anchor, Ask, Direction, Page};
use crate::logs::ChannelLog;
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "pages",
    clause: "SY-6.4-M1",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for (asked, channel, page) in run.pages() {
        let Ask::Page {
            anchor: Anchor::Seq(anchor),
            direction,
            limit,
            ..
        } = asked.ask
        else {
            continue;
        };
        let log = log(run, channel)?;
        judge(log, page, (anchor, direction)).map_err(|why| {
            let event = asked.answers.first().map_or(asked.event, |(_, event, _)| *event);
            let text = format!(
                "{} asked {channel} for {direction:?} {anchor} and got {page:?}: {why}",
                asked.client
            );
            Violation::at(event, text)
        })?;
        if limit > 0 && page.entries.len() > limit as usize {
            return Err(Violation::at(
                asked.event,
                format!("{limit} entries were asked for, {} came", page.entries.len()),
            ));
        }
    }
    Ok(())
}

fn judge(log: &ChannelLog, page: &Page, (anchor, direction): (Seq, Direction)) -> Result<(), &'static str> {
    // Entries `first..=last` were there to choose from.
    let (first, last) = match direction {
        Direction::After => (anchor.next(), page.head),
        Direction::Before if anchor == Seq(0) || anchor > page.head => (Seq(1), page.head),
        Direction::Before => (Seq(1), Seq(anchor.0 - 1)),
    };
    let seqs: Vec<Seq> = page.entries.iter().map(|entry| entry.seq).collect();
    let (Some(begin), Some(end)) = (seqs.first(), seqs.last()) else {
        return if first > last {
            Ok(())
        } else {
            Err("it is empty and there is something")
        };
    };
    if seqs.windows(2).any(|pair| pair[1] != pair[0].next()) {
        return Err("entries are missing between its own");
    }
    let nearest = match direction {
        Direction::After => *begin == first && *end <= last,
        Direction::Before => *end == last && *begin >= first,
    };
    if !nearest {
        return Err("it does not begin beside its anchor");
    }
    if page.prev.next() != *begin {
        return Err("it names another entry before its first");
    }
    if page.head > log.head || page.epoch != log.epoch {
        return Err("its end of the log is beyond the log");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story, seen};
    use super::*;
    use crate::history::User;

    fn read(anchor: u64, direction: Direction, (prev, head, seqs): (u64, u64, &[u64])) -> bool {
        let mut story = Story::new();
        let entries: Vec<_> = (1..=5).map(|seq| seen(User(1), seq)).collect();
        story.logged(&entries);
        let page: Vec<_> = seqs.iter().map(|seq| seen(User(1), *seq)).collect();
        story.page(D1, (Anchor::Seq(Seq(anchor)), direction), (prev, head, &page));
        story.judged(INVARIANT).is_ok()
    }

    #[test]
    fn pages_beside_their_anchor_are_fine() {
        assert!(read(2, Direction::After, (2, 5, &[3, 4])));
        assert!(read(5, Direction::After, (5, 5, &[])));
        assert!(read(4, Direction::Before, (1, 5, &[2, 3])));
        assert!(read(0, Direction::Before, (3, 5, &[4, 5])));
        assert!(read(1, Direction::Before, (0, 5, &[])));
    }

    #[test]
    fn a_page_that_skips_doubles_or_holds_its_anchor_is_found() {
        assert!(!read(2, Direction::After, (3, 5, &[4, 5])));
        assert!(!read(2, Direction::After, (2, 5, &[3, 5])));
        assert!(!read(2, Direction::After, (1, 5, &[2, 3])));
        assert!(!read(4, Direction::Before, (0, 5, &[1, 2])));
        assert!(!read(4, Direction::Before, (2, 5, &[3, 4])));
        assert!(!read(0, Direction::After, (0, 5, &[1, 1])));
    }

    #[test]
    fn an_empty_page_before_the_end_a_wrong_prev_and_a_wrong_head_are_found() {
        assert!(!read(2, Direction::After, (2, 5, &[])));
        assert!(!read(2, Direction::After, (0, 5, &[3])));
        assert!(!read(2, Direction::After, (2, 6, &[3])));
    }
}
