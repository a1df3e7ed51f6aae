//! A client claims only what its application has: what its store keeps of a channel is never ahead
//! of the entries it handed over.

use std::collections::BTreeMap;

use throng_protocol::ids::Position;

use super::{Invariant, Violation};
use crate::history::{Channel, Client, From, Start};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "held",
    clause: "CA-6.3-M1",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    let mut had: BTreeMap<(Client, Channel), Position> = BTreeMap::new();
    for stretch in &run.stretches {
        let key = (stretch.client, stretch.channel);
        let before = had.get(&key).copied();
        if let (Some(From::Stored), Some(Start::Resumed), Some(before)) =
            (stretch.from, stretch.start, before)
            && stretch.at > before
        {
            let text = format!(
                "{} had {before:?} of {} and went on behind {:?}",
                stretch.client, stretch.channel, stretch.at
            );
            return Err(Violation::at(stretch.event, text));
        }
        let reached = stretch.reached();
        had.entry(key)
            .and_modify(|had| *had = reached.max(*had))
            .or_insert(reached);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story, seen};
    use super::*;
    use crate::history::{Host, Sub, User, What};

    #[test]
    fn going_on_behind_or_before_what_was_had_is_fine_and_beyond_it_is_found() {
        for (at, fine) in [(0, true), (1, true), (2, false)] {
            let mut story = Story::new();
            story.subscribed(D1, 1, From::Start, (Start::Resumed, 0));
            story.delivered(D1, 1, 0, seen(User(1), 1));
            story.event(Host::Client(D1), What::Dropped { sub: Sub(1) });
            story.subscribed(D1, 2, From::Stored, (Start::Resumed, at));
            assert_eq!(story.judged(INVARIANT).is_ok(), fine, "{at}");
        }
    }
}
