//! A kick or a mute that was answered is a fence, or below the floor, on every replica of every shard
//! that holds channels of the group: at once where the answer says so, in the end everywhere.

use super::{Invariant, Violation};
use crate::history::{Answer, Ask};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "fence_done",
    clause: "RI-4.3-M2",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for asked in run.ops.values() {
        let group = match asked.ask {
            Ask::Kick { group, .. } => group,
            Ask::Mute { group, until_ms, .. } if until_ms > 0 => group,
            _ => continue,
        };
        let Some(Answer::Fenced { version, .. }) = asked.answer() else {
            continue;
        };
        for channel in group.channels() {
            for (replica, _) in run.logs.copies(channel) {
                let table = replica.fences.iter().find(|fences| fences.group == group);
                let there = table.is_some_and(|table| {
                    table.floor >= *version || table.fences.iter().any(|fence| fence.version == *version)
                });
                if !there {
                    let text = format!(
                        "{:?} was answered with version {version}; node {} has no such fence for {channel}: {table:?}",
                        asked.ask, replica.node
                    );
                    return Err(Violation::at(asked.event, text));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::{FenceKind, User};

    #[test]
    fn a_fence_that_every_replica_has_or_has_folded_is_fine() {
        let mut story = Story::new();
        story.kicked(User(1), 4);
        story.fence(User(1), FenceKind::Kick, 4, 0);
        assert_eq!(story.judged(INVARIANT), Ok(()));
        let mut folded = Story::new();
        folded.kicked(User(1), 4);
        for replica in &mut folded.logs.replicas {
            replica.fences[0].floor = 4;
        }
        assert_eq!(folded.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn a_fence_that_one_replica_lacks_is_found() {
        let mut story = Story::new();
        story.kicked(User(1), 4);
        story.fence(User(1), FenceKind::Kick, 4, 0);
        story.logs.replicas[1].fences[0].fences.clear();
        assert!(story.judged(INVARIANT).is_err());
        let mut mute = Story::new();
        mute.muted(User(1), 5_000, 4);
        assert!(mute.judged(INVARIANT).is_err());
    }

    #[test]
    fn an_unmute_needs_no_fence() {
        let mut story = Story::new();
        story.muted(User(1), 0, 4);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }
}
