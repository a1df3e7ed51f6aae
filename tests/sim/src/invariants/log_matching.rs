//! Two logs that have an entry of one index and term have the same entry there and the same before it
//! (Raft's log matching), on all nodes and at all times. By induction it is enough that an index and
//! a term stand for one payload and one term of the entry before.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::dumps::Dump;
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "log_matching",
    clause: "SE-5.1-M2",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    let mut known = BTreeMap::new();
    for (dump, replica) in run.logs.dumps.iter().filter_map(Dump::readable) {
        // What stands before the first entry is known only if it was purged.
        let mut before = replica.purged.map(|purged| purged.term);
        for entry in &replica.log {
            let (first, term, node) = *known
                .entry((dump.shard, entry.at))
                .or_insert((entry, before, dump.node));
            if first != entry || (term.is_some() && before.is_some() && term != before) {
                let text = format!(
                    "shard {}: node {} has {first:?} behind term {term:?}, node {} has {entry:?} behind term {before:?}",
                    dump.shard, node, dump.node
                );
                return Err(Violation::at_dump(dump, text));
            }
            before = Some(entry.at.term);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::dumps::testing::{at, dump, logs, replica};

    fn judged(
        second: &[u64],
        change: impl Fn(&mut throng_raft_store::inspect::Replica),
    ) -> Result<(), Violation> {
        let mut story = Story::new();
        let mut other = replica(second);
        change(&mut other);
        story.logs = logs(vec![dump(1, replica(&[1, 1, 2, 3])), dump(2, other)]);
        story.judged(INVARIANT)
    }

    #[test]
    fn logs_may_part_but_not_meet_again() {
        assert_eq!(judged(&[1, 1, 2, 3], |_| ()), Ok(()));
        assert_eq!(judged(&[1, 1, 1, 4], |_| ()), Ok(()));
        assert!(
            judged(&[1, 1, 1, 3], |_| ()).is_err(),
            "entry 4 of term 3 stands behind two entries"
        );
        let purged = |term| {
            move |other: &mut throng_raft_store::inspect::Replica| {
                other.log.drain(..3);
                other.purged = Some(at(term, 3));
            }
        };
        assert_eq!(judged(&[1, 1, 2, 3], purged(2)), Ok(()));
        assert!(judged(&[1, 1, 2, 3], purged(1)).is_err());
    }

    #[test]
    fn an_index_and_a_term_stand_for_one_payload() {
        let other = judged(&[1, 1, 2], |other| {
            other.log[1].payload = bytes::Bytes::from_static(b"x")
        });
        assert!(other.is_err());
    }
}
