//! A term of a shard has one leader. It is Raft's election safety, and what an ack by a quorum
//! rests on.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::history::What;
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "one_leader",
    clause: "SE-5.1-M2",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    let mut leaders = BTreeMap::new();
    for (event, at) in run.history.events().iter().enumerate() {
        let What::LeaderChanged { shard, term, node } = at.what else {
            continue;
        };
        let first = *leaders.entry((shard, term)).or_insert(node);
        if first != node {
            let text = format!("shard {shard} had the leaders {first} and {node} in term {term}");
            return Err(Violation::at(event, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::Host;
    use throng_protocol::ids::ShardId;

    fn led(second: (u32, u64, u8)) -> Result<(), Violation> {
        let mut story = Story::new();
        for (shard, term, node) in [(1, 3, 1), second] {
            let shard = ShardId(shard);
            story.event(Host::Core(node), What::LeaderChanged { shard, term, node });
        }
        story.judged(INVARIANT)
    }

    #[test]
    fn another_leader_needs_another_term_or_another_shard() {
        assert_eq!(led((1, 4, 2)), Ok(()));
        assert_eq!(led((2, 3, 2)), Ok(()));
        assert_eq!(led((1, 3, 1)), Ok(()));
        assert!(led((1, 3, 2)).is_err());
    }
}
