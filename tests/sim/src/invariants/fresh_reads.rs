//! A page is read as a quorum confirms it: it shows at least what was acked before it was asked for.

use std::collections::BTreeMap;

use throng_protocol::ids::Seq;

use super::{Invariant, Violation};
use crate::history::{Answer, Ask, Channel, What};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "fresh_reads",
    clause: "SY-6.4-M6",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    // The newest entry anybody knew to be stored, as time goes on.
    let mut known: BTreeMap<Channel, Seq> = BTreeMap::new();
    let mut asked: BTreeMap<crate::history::Op, (Channel, Seq)> = BTreeMap::new();
    for (event, at) in run.history.events().iter().enumerate() {
        match &at.what {
            What::Asked(op, Ask::Page { channel, .. }) => {
                asked.insert(*op, (*channel, known.get(channel).copied().unwrap_or_default()));
            }
            What::Answered(op, answer) => {
                let ask = run.ops.get(op).map(|asked| asked.ask);
                let seen = match (ask, answer) {
                    (
                        Some(Ask::Send { channel, .. } | Ask::Change { channel, .. }),
                        Answer::Acked { seq, .. },
                    ) => Some((channel, *seq)),
                    (Some(Ask::Page { channel, .. }), Answer::Page(page)) => Some((channel, page.head)),
                    _ => None,
                };
                if let (Some((channel, at_least)), Answer::Page(page)) = (asked.get(op), answer)
                    && page.head < *at_least
                {
                    let text = format!(
                        "the log of {channel} had {at_least} when the page was asked for, and its end is given as {}",
                        page.head
                    );
                    return Err(Violation::at(event, text));
                }
                if let Some((channel, seq)) = seen {
                    let newest = known.entry(channel).or_default();
                    *newest = seq.max(*newest);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, D2, EPOCH, Story};
    use super::*;
    use crate::history::{Anchor, Direction, Page};

    #[test]
    fn a_page_asked_for_after_an_ack_shows_it() {
        for (head, fine) in [(1, true), (2, true), (0, false)] {
            let mut story = Story::new();
            story.sent(D1, 1);
            story.page(D2, (Anchor::Seq(Seq(9)), Direction::After), (1, head, &[]));
            assert_eq!(story.judged(INVARIANT).is_ok(), fine, "{head}");
        }
    }

    fn ask(story: &mut Story) -> crate::history::Op {
        let (anchor, direction) = (Anchor::Seq(Seq(9)), Direction::After);
        let (channel, limit) = (Channel(0), 0);
        let ask = Ask::Page {
            channel,
            anchor,
            direction,
            limit,
        };
        story.ask(D2, ask)
    }

    fn shown(story: &mut Story, op: crate::history::Op, head: u64) {
        let (epoch, prev, head) = (EPOCH, Seq(head), Seq(head));
        let entries = Vec::new();
        let page = Page {
            epoch,
            prev,
            head,
            entries,
            shown: Vec::new(),
        };
        story.answer(D2, op, Answer::Page(page));
    }

    #[test]
    fn an_ack_while_the_page_is_on_its_way_proves_nothing() {
        let mut story = Story::new();
        let page = ask(&mut story);
        story.sent(D1, 1);
        shown(&mut story, page, 0);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn a_page_that_shows_less_than_an_older_one_is_found() {
        let mut story = Story::new();
        for head in [3, 2] {
            let page = ask(&mut story);
            shown(&mut story, page, head);
        }
        assert!(story.judged(INVARIANT).is_err());
    }
}
