//! Nobody changes what is not theirs to change: a message's body and its being there belong to its sender and
//! to the group's creator, deletions to the creator alone.

use super::{Invariant, Violation};
use crate::changes::Deed;
use crate::history::{Answer, Ask};
use crate::run::Run;
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "change_rights",
    clause: "CH-5.2-M2",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for asked in run.ops.values() {
        let (Ask::Change { change, .. }, Some(Answer::Acked { .. })) = (asked.ask, asked.answer()) else {
            continue;
        };
        let user = asked.client.user();
        let may = user == world::CREATOR
            || match change.deed {
                Deed::Modify | Deed::Recall => user == change.owner,
                Deed::Delete => false,
                Deed::Set(_) | Deed::Unset(_) => true,
            };
        if !may {
            let event = asked.answers.first().map_or(asked.event, |(_, event, _)| *event);
            return Err(Violation::at(
                event,
                format!("{} was let do {change:?}", asked.client),
            ));
        }
    }
    Ok(())
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
