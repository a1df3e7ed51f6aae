//! A message is in the log once, however often it was sent: no two entries of a channel have one
//! sender and key, as long as they lie within the idempotency window of each other.

use std::collections::BTreeMap;

use throng_protocol::limits::IDEMPOTENCY_WINDOW_MS;

use super::{Invariant, Violation};
use crate::run::Run;
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "once",
    clause: "SE-5.1-M3",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for channel in world::channels() {
        for (replica, log) in run.logs.copies(channel) {
            let mut known = BTreeMap::new();
            for stored in &log.entries {
                let seen = stored.seen;
                let Some(first) = known.insert((seen.sender, seen.key), seen) else {
                    continue;
                };
                if seen.ts.millis() - first.ts.millis().min(seen.ts.millis()) <= IDEMPOTENCY_WINDOW_MS {
                    let text = format!(
                        "on node {} the message {} of {} is entry {} and entry {} of {channel}",
                        replica.node, seen.key, seen.sender, first.seq, seen.seq
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
    use super::super::story::{Story, keyed};
    use super::*;
    use crate::history::User;
    use throng_protocol::ids::Ts;

    #[test]
    fn keys_of_different_senders_are_different_messages() {
        let mut story = Story::new();
        story.logged(&[keyed(User(1), 1, 7), keyed(User(2), 2, 7), keyed(User(1), 3, 8)]);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn a_second_entry_of_a_key_is_found_within_the_window_only() {
        let mut story = Story::new();
        story.logged(&[keyed(User(1), 1, 7), keyed(User(2), 2, 9), keyed(User(1), 3, 7)]);
        assert!(story.judged(INVARIANT).is_err());
        let mut late = Story::new();
        let mut again = keyed(User(1), 2, 7);
        again.ts = Ts::from_millis(again.ts.millis() + IDEMPOTENCY_WINDOW_MS + 1);
        late.logged(&[keyed(User(1), 1, 7), again]);
        assert_eq!(late.judged(INVARIANT), Ok(()));
    }
}
