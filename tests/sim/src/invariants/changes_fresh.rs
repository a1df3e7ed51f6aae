//! A page that is asked for after a change was acked shows the message with it.

use std::collections::BTreeMap;

use throng_protocol::ids::Seq;

use super::{Invariant, Violation};
use crate::history::{Answer, Ask, Channel};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "changes_fresh",
    clause: "CH-5.2-M4",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    // By message: when each of its changes was acked, and where it lies.
    let mut acked: BTreeMap<(Channel, Seq), Vec<(u64, Seq)>> = BTreeMap::new();
    for asked in run.ops.values() {
        if let (Ask::Change { channel, change, .. }, Some(Answer::Acked { seq, .. })) =
            (asked.ask, asked.answer())
        {
            let of_message = acked.entry((channel, change.target.seq)).or_default();
            of_message.push((asked.answered_us(), *seq));
        }
    }
    for (asked, channel, page) in run.pages() {
        let Some((_, event, _)) = asked.answers.first() else {
            continue;
        };
        for (entry, shown) in page.entries.iter().zip(&page.shown) {
            let changes = acked.get(&(channel, entry.seq)).into_iter().flatten();
            let before = changes.filter(|(acked_us, _)| *acked_us < asked.at_us);
            let newest = before.map(|(_, seq)| *seq).max().unwrap_or_default();
            if shown.kind == 1 && shown.version < newest {
                let text = format!(
                    "change {newest} of {} in {channel} was acked before the page was asked for, which shows {}",
                    entry.seq, shown.version
                );
                return Err(Violation::at(*event, text));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story, spoken};
    use super::*;
    use crate::changes::{Deed, Shown};
    use crate::history::User;

    #[test]
    fn a_page_asked_for_after_a_change_shows_it() {
        for (version, fine) in [(5, true), (6, true), (0, false)] {
            let mut story = Story::new();
            story.changed(D1, 5, (User(1), 1), Deed::Modify);
            let (seen, shown) = spoken(User(1), 1);
            let version = Seq(version);
            story.paged(D1, &[(seen, Shown { version, ..shown })]);
            assert_eq!(story.judged(INVARIANT).is_ok(), fine, "{version}");
        }
    }

    #[test]
    fn a_page_that_was_read_before_proves_nothing() {
        let mut story = Story::new();
        story.paged(D1, &[spoken(User(1), 1)]);
        story.changed(D1, 5, (User(1), 1), Deed::Modify);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }
}
