//! The seqs of a log are dense from 1 and its time stamps strictly ascending, whatever clocks do.

use throng_protocol::ids::{Seq, Ts};

use super::{Invariant, Violation};
use crate::logs::ChannelLog;
use crate::run::Run;
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "ascending",
    clause: "SE-5.1-M7",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for channel in world::channels() {
        for (replica, log) in run.logs.copies(channel) {
            ascends(log).map_err(|why| {
                Violation::in_logs(format!("the log of {channel} on node {}: {why}", replica.node))
            })?;
        }
    }
    Ok(())
}

fn ascends(log: &ChannelLog) -> Result<(), String> {
    let mut last = (Seq(0), Ts(0));
    for stored in &log.entries {
        let (seq, ts) = (stored.seen.seq, stored.seen.ts);
        if seq != last.0.next() {
            return Err(format!("entry {seq} follows entry {}", last.0));
        }
        if ts <= last.1 {
            return Err(format!("entry {seq} has {ts:?}, the one before it {:?}", last.1));
        }
        last = (seq, ts);
    }
    if last != (log.head, log.last_ts) {
        return Err(format!(
            "it ends with {last:?} and says {:?}",
            (log.head, log.last_ts)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, seen};
    use super::*;
    use crate::history::User;

    #[test]
    fn a_dense_and_ascending_log_is_fine() {
        let mut story = Story::new();
        story.logged(&[seen(User(1), 1), seen(User(2), 2)]);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn a_gap_a_time_stamp_that_stands_still_and_a_wrong_end_are_found() {
        let mut gap = Story::new();
        gap.logged(&[seen(User(1), 1), seen(User(1), 3)]);
        assert!(gap.judged(INVARIANT).is_err());
        let mut still = Story::new();
        let (first, mut second) = (seen(User(1), 1), seen(User(1), 2));
        second.ts = first.ts;
        still.logged(&[first, second]);
        assert!(still.judged(INVARIANT).is_err());
        let mut end = Story::new();
        end.logged(&[seen(User(1), 1)]);
        end.logs.replicas[1].channels[0].head = Seq(2);
        assert!(end.judged(INVARIANT).is_err());
    }
}
