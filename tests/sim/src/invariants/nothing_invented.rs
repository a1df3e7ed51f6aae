//! Every entry of a log is a message that its sender asked to store there: under that key, with that
//! body. Nothing is made up, and no retry turns into another message.

use std::collections::BTreeSet;

use super::{Invariant, Violation};
use crate::run::Run;
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "nothing_invented",
    clause: "SE-5.1-M3",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    let asked: BTreeSet<_> = run
        .sends()
        .map(|((channel, user, key), hash, _)| (channel, user, key, hash.0))
        .collect();
    for channel in world::channels() {
        for (replica, log) in run.logs.copies(channel) {
            for stored in &log.entries {
                let seen = stored.seen;
                if !asked.contains(&(channel, seen.sender, seen.key, seen.hash.0)) {
                    let text = format!(
                        "node {} has {seen:?} in {channel}, which nobody sent",
                        replica.node
                    );
                    return Err(Violation::in_logs(text));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, D2, Story, keyed};
    use super::*;
    use crate::history::User;

    #[test]
    fn a_message_its_sender_asked_for_is_fine_also_without_an_answer() {
        let mut story = Story::new();
        story.send(D1, 7);
        story.logged(&[keyed(User(1), 1, 7)]);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn another_key_another_sender_and_another_body_are_found() {
        for (user, key) in [(User(1), 8), (User(2), 7)] {
            let mut story = Story::new();
            story.send(D1, 7);
            story.logged(&[keyed(user, 1, key)]);
            assert!(story.judged(INVARIANT).is_err());
        }
        let mut body = Story::new();
        body.send_body(D2, 7, 70);
        body.logged(&[keyed(User(1), 1, 7)]);
        assert!(body.judged(INVARIANT).is_err());
    }
}
