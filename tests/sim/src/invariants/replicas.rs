//! Replicas that have applied the same entries hold the same records, byte for byte. It is Raft's
//! state machine safety, and what one order everywhere rests on.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "replicas",
    clause: "SE-5.1-M7",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    let mut known = BTreeMap::new();
    for replica in &run.logs.replicas {
        let first = *known
            .entry((replica.shard, replica.applied))
            .or_insert((replica.node, replica.records));
        if first.1 != replica.records {
            let text = format!(
                "nodes {} and {} have applied shard {} up to {} and hold different records",
                first.0, replica.node, replica.shard, replica.applied
            );
            return Err(Violation::in_logs(text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;

    #[test]
    fn records_may_differ_while_one_replica_is_behind_only() {
        assert_eq!(Story::new().judged(INVARIANT), Ok(()));
        let mut behind = Story::new();
        behind.logs.replicas[2].records += 1;
        behind.logs.replicas[2].applied -= 1;
        assert_eq!(behind.judged(INVARIANT), Ok(()));
        let mut different = Story::new();
        different.logs.replicas[2].records += 1;
        assert!(different.judged(INVARIANT).is_err());
    }
}
