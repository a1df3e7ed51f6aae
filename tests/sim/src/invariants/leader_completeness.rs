//! An entry that is committed stands in the log of every later leader (Raft's leader completeness).
//! A replica with an entry of a later term has it from such a leader, so its log holds every entry
//! committed in an earlier term, or has purged it. The term that counts is that of the leader who
//! committed an entry, not the entry's own: an entry that an old leader left behind is committed with
//! the first one of a later leader, and leaders in between may never have seen it.

use super::{Invariant, Violation};
use crate::dumps::{Committed, Dump};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "leader_completeness",
    clause: "SE-5.1-M2",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    let (committed, _) = Committed::of(&run.logs.dumps);
    for (dump, replica) in run.logs.dumps.iter().filter_map(Dump::readable) {
        let Some(last) = replica.last() else {
            continue;
        };
        let purged = replica.purged.map_or(0, |purged| purged.index);
        for (at, known, term) in committed.shard(dump.shard) {
            if term >= last.term || at.index <= purged {
                continue;
            }
            let found = replica.entry(at.index).map(|entry| entry.at);
            if found != Some(at) {
                let text = format!(
                    "shard {}: node {} has committed {at}, and the log of node {}, which goes up to {last}, \
                     has {found:?} there",
                    dump.shard, known.node, dump.node
                );
                return Err(Violation::at_dump(dump, text));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::dumps::testing::{at, dump, logs, replica};

    /// Entries 1 to 3 of terms 1, 1 and 2 are committed on one node, another has this log.
    fn judged(terms: &[u64], purged: usize) -> Result<(), Violation> {
        let mut committed = replica(&[1, 1, 2]);
        committed.committed = Some(at(2, 3));
        let mut other = replica(terms);
        other.purged = other.log.drain(..purged).next_back().map(|entry| entry.at);
        let mut story = Story::new();
        story.logs = logs(vec![dump(1, committed), dump(2, other)]);
        story.judged(INVARIANT)
    }

    #[test]
    fn a_log_with_entries_of_a_later_term_holds_all_that_was_committed() {
        assert_eq!(judged(&[1, 1, 2, 3], 0), Ok(()));
        assert_eq!(judged(&[1, 1, 2, 3], 3), Ok(()));
        assert!(judged(&[1, 1, 3, 3], 0).is_err(), "entry 3 is another");
        assert!(
            judged(&[1, 3], 0).is_err(),
            "entry 2 was overwritten, entry 3 is missing"
        );
        assert!(judged(&[1, 1, 1, 1, 3], 0).is_err());
    }

    #[test]
    fn an_entry_that_a_later_leader_committed_may_be_unknown_to_leaders_in_between() {
        for (other, fine) in [(&[2][..], true), (&[1, 3], true), (&[2, 4], false)] {
            let mut committed = replica(&[1, 3]);
            committed.committed = Some(at(3, 2));
            let mut story = Story::new();
            story.logs = logs(vec![dump(1, committed), dump(2, replica(other))]);
            assert_eq!(story.judged(INVARIANT).is_ok(), fine, "{other:?}");
        }
    }

    #[test]
    fn a_log_without_entries_of_a_later_term_may_lack_what_was_committed() {
        assert_eq!(judged(&[], 0), Ok(()));
        assert_eq!(judged(&[1], 0), Ok(()));
        assert_eq!(judged(&[1, 1, 1], 0), Ok(()));
    }
}
