//! A term has one winner (Raft's election safety), no node votes for two in one term, and what a
//! node has voted is never forgotten in a crash: its durable term does not fall.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::dumps::Dump;
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "election_safety",
    clause: "SE-5.1-M2",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    let mut winners = BTreeMap::new();
    let mut votes = BTreeMap::new();
    let mut terms = BTreeMap::new();
    for (dump, replica) in run.logs.dumps.iter().filter_map(Dump::readable) {
        let shard = dump.shard;
        let term = terms.entry((dump.node, shard)).or_insert(0);
        let now = replica.vote.map_or(0, |vote| vote.term);
        if now < *term {
            let text = format!(
                "shard {shard}: node {} was in term {term} and is in {now}",
                dump.node
            );
            return Err(Violation::at_dump(dump, text));
        }
        *term = now;
        let Some(vote) = replica.vote else {
            continue;
        };
        let first = if vote.committed {
            *winners.entry((shard, vote.term)).or_insert(vote.node)
        } else {
            *votes.entry((dump.node, shard, vote.term)).or_insert(vote.node)
        };
        if first != vote.node {
            let (kind, term) = (if vote.committed { "won" } else { "got a vote in" }, vote.term);
            let text = format!(
                "shard {shard}: {first} and {} {kind} term {term}, as node {} has it",
                vote.node, dump.node
            );
            return Err(Violation::at_dump(dump, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use throng_raft_store::inspect::Voted;

    use super::super::story::Story;
    use super::*;
    use crate::dumps::testing::{dump, logs, replica};

    /// Term, for whom, and whether that one is known to have won.
    type Vote = (u64, u64, bool);

    fn judged(votes: &[(u8, Option<Vote>)]) -> Result<(), Violation> {
        let mut story = Story::new();
        let dumps = votes.iter().map(|(at, vote)| {
            let mut replica = replica(&[]);
            replica.vote = vote.map(|(term, node, committed)| Voted {
                term,
                node,
                committed,
            });
            dump(*at, replica)
        });
        story.logs = logs(dumps.collect());
        story.judged(INVARIANT)
    }

    #[test]
    fn a_term_has_one_winner_and_a_node_one_vote_in_it() {
        assert_eq!(
            judged(&[(1, Some((3, 1, true))), (2, Some((3, 1, true)))]),
            Ok(())
        );
        assert!(judged(&[(1, Some((3, 1, true))), (2, Some((3, 2, true)))]).is_err());
        assert_eq!(
            judged(&[(1, Some((3, 1, false))), (2, Some((3, 2, false)))]),
            Ok(())
        );
        assert!(judged(&[(1, Some((3, 1, false))), (1, Some((3, 2, false)))]).is_err());
        // Who voted for the loser follows the winner.
        assert_eq!(
            judged(&[(1, Some((3, 1, false))), (1, Some((3, 2, true)))]),
            Ok(())
        );
    }

    #[test]
    fn a_term_never_falls() {
        assert_eq!(
            judged(&[(1, Some((3, 1, true))), (1, Some((4, 1, false)))]),
            Ok(())
        );
        assert!(judged(&[(1, Some((3, 1, true))), (1, Some((2, 1, true)))]).is_err());
        assert!(judged(&[(1, Some((3, 1, true))), (1, None)]).is_err());
    }
}
