//! Nobody changes what is not theirs to change: a message's body and its being there belong to its sender and
//! to the group's creator, deletions to the creator alone; and to whoever may have had a role that lets do them.

use super::{Invariant, Violation, roles};
use crate::changes::Deed;
use crate::history::{Answer, Ask};
use crate::run::{Asked, Run};
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "change_rights",
    clause: "CH-5.2-M2",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for asked in run.ops.values() {
        let (Ask::Change { channel, change, .. }, Some(Answer::Acked { .. })) = (asked.ask, asked.answer())
        else {
            continue;
        };
        let user = asked.client.user();
        let may = user == world::CREATOR
            || match change.deed {
                Deed::Modify | Deed::Recall => user == change.owner,
                Deed::Delete => false,
                Deed::Set(_) | Deed::Unset(_) => true,
            };
        let by_role = || !roles::certainly_not(run, channel.group(), user, since_first(run, asked));
        if !may && !by_role() {
            let event = asked.answers.first().map_or(asked.event, |(_, event, _)| *event);
            return Err(Violation::at(
                event,
                format!("{} was let do {change:?}", asked.client),
            ));
        }
    }
    Ok(())
}

/// From when the change was asked for first until it was answered: a repeat is answered as the first was.
fn since_first(run: &Run, asked: &Asked) -> (u64, u64) {
    let same = run
        .ops
        .values()
        .filter(|other| other.ask == asked.ask && other.client.user() == asked.client.user());
    let first = same.map(|other| other.at_us).min().unwrap_or(asked.at_us);
    (first, asked.answered_us())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story};
    use super::*;
    use crate::history::User;

    #[test]
    fn what_belongs_to_others_is_found_and_what_may_be_done_is_not() {
        let own = D1.user();
        let other = world::users()
            .find(|user| *user != own && *user != world::CREATOR)
            .unwrap_or(User(9));
        for (owner, deed, fine) in [
            (own, Deed::Modify, true),
            (own, Deed::Recall, true),
            (own, Deed::Delete, own == world::CREATOR),
            (other, Deed::Set(1), true),
            (other, Deed::Unset(1), true),
            (other, Deed::Modify, own == world::CREATOR),
            (other, Deed::Recall, own == world::CREATOR),
        ] {
            let mut story = Story::new();
            story.changed(D1, 5, (owner, 1), deed);
            assert_eq!(story.judged(INVARIANT).is_ok(), fine, "{owner} {deed:?}");
        }
    }
}
