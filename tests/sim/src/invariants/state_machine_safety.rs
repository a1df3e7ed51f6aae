//! No two nodes apply different entries at one index, ever, and what is durable of the state after
//! an entry is the same everywhere (Raft's state machine safety), also on a disk that crashed in the
//! middle of a run. A message applied twice after a restart shows here.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::dumps::{Committed, Dump};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "state_machine_safety",
    clause: "SE-5.1-M7",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    if let (_, Some(((one, at_one), (two, at_two)))) = Committed::of(&run.logs.dumps) {
        let text = format!(
            "shard {}: node {} has committed {one:?}, node {} has committed {two:?}",
            at_one.shard, at_one.node, at_two.node
        );
        return Err(Violation::at_dump(at_two, text));
    }
    let mut known = BTreeMap::new();
    for (dump, replica) in run.logs.dumps.iter().filter_map(Dump::readable) {
        let Some(applied) = replica.applied else {
            continue;
        };
        let (term, state, node) =
            *known
                .entry((dump.shard, applied.index))
                .or_insert((applied.term, &replica.state, dump.node));
        if term != applied.term || *state != replica.state {
            let text = format!(
                "shard {}: nodes {node} and {} have applied {} and hold {} and {} records that differ",
                dump.shard,
                dump.node,
                applied,
                state.len(),
                replica.state.len()
            );
            return Err(Violation::at_dump(dump, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use throng_raft_store::inspect::Replica;

    use super::super::story::Story;
    use super::*;
    use crate::dumps::testing::{at, dump, logs, replica};

    fn judged(one: Replica, two: Replica) -> Result<(), Violation> {
        let mut story = Story::new();
        story.logs = logs(vec![dump(1, one), dump(2, two)]);
        story.judged(INVARIANT)
    }

    fn applied(terms: &[u64], upto: u64, value: &'static [u8]) -> Replica {
        let mut replica = replica(terms);
        replica.applied = Some(at(terms[upto as usize - 1], upto));
        replica.state = vec![(Bytes::from_static(b"key"), Bytes::from_static(value))];
        replica
    }

    #[test]
    fn the_state_after_an_entry_is_one() {
        assert_eq!(
            judged(applied(&[1, 1], 2, b"a"), applied(&[1, 1], 2, b"a")),
            Ok(())
        );
        assert_eq!(
            judged(applied(&[1, 1], 2, b"a"), applied(&[1, 1], 1, b"b")),
            Ok(())
        );
        assert!(judged(applied(&[1, 1], 2, b"a"), applied(&[1, 1], 2, b"b")).is_err());
    }

    #[test]
    fn other_entries_may_stand_only_where_nothing_is_committed() {
        let behind = |committed| {
            let mut replica = replica(&[1, 2]);
            replica.committed = committed;
            replica
        };
        assert_eq!(judged(applied(&[1, 1], 2, b"a"), behind(Some(at(1, 1)))), Ok(()));
        assert!(judged(applied(&[1, 1], 2, b"a"), behind(Some(at(2, 2)))).is_err());
    }

    #[test]
    fn a_log_that_an_installed_snapshot_has_overtaken_says_nothing() {
        let mut stale = replica(&[1, 2]);
        stale.applied = Some(at(3, 9));
        stale.generation = 1;
        assert_eq!(judged(applied(&[1, 1], 2, b"a"), stale), Ok(()));
    }
}
