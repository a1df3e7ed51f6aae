//! What was acked is in the log, exactly as acked: an ack means a quorum has it on disk.

use super::{Invariant, Violation, log};
use crate::history::Answer;
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "acked_survives",
    clause: "SE-5.1-M2",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for ((channel, user, key), hash, asked) in run.sends() {
        for (_, event, answer) in &asked.answers {
            let Answer::Acked { epoch, seq, ts, .. } = *answer else {
                continue;
            };
            let log = log(run, channel)?;
            let stored = log.at(seq).map(|stored| stored.seen);
            let same = stored.is_some_and(|seen| {
                (seen.sender, seen.key, seen.hash, seen.ts) == (user, key, hash, ts) && log.epoch == epoch
            });
            if !same {
                let text = format!(
                    "{user} was told that {key} is entry {seq} of {channel}, epoch {epoch}, {ts:?}; \
                     the log (epoch {}, head {}) has {stored:?} there",
                    log.epoch, log.head
                );
                return Err(Violation::at(*event, text));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D0, D1, Story, keyed, seen};
    use super::*;
    use crate::history::User;

    #[test]
    fn an_acked_message_that_is_in_the_log_is_fine() {
        let mut story = Story::new();
        story.sent(D1, 1);
        story.logged(&[seen(User(1), 1)]);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn an_acked_message_that_is_gone_or_replaced_is_found() {
        let mut gone = Story::new();
        gone.sent(D1, 1);
        assert!(gone.judged(INVARIANT).is_err());
        let mut replaced = Story::new();
        replaced.sent(D1, 1);
        replaced.logged(&[seen(D0.user(), 1)]);
        assert!(replaced.judged(INVARIANT).is_err());
        let mut other = Story::new();
        other.sent(D1, 1);
        other.logged(&[keyed(User(1), 1, 2)]);
        assert!(other.judged(INVARIANT).is_err());
    }
}
