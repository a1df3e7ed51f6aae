//! Deliveries begin where the specification says: behind the position held, on any edge; at the head
//! only for those who hold nothing, whose position is beyond what the edge knows, or who were out of
//! the group in between.

use throng_protocol::ids::{Position, Seq};

use super::{Invariant, Violation, log};
use crate::history::{From, Start};
use crate::run::{Run, Stretch};

pub const INVARIANT: Invariant = Invariant {
    name: "resume",
    clause: "SU-6.1-M1",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for stretch in &run.stretches {
        let (Some(from), Some(start)) = (stretch.from, stretch.start) else {
            continue;
        };
        let log = log(run, stretch.channel)?;
        let asked = match from {
            From::Head | From::Stored => None,
            From::Start => Some(Position {
                epoch: log.epoch,
                seq: Seq(0),
            }),
            From::Position(position) => Some(position),
            From::Ts(ts) => Some(Position {
                epoch: log.epoch,
                seq: log.until(ts),
            }),
        };
        judge(stretch, start, asked).map_err(|why| {
            let text = format!(
                "{} asked for {} {from:?} and was told {start:?} behind {:?}: {why}",
                stretch.client, stretch.channel, stretch.at
            );
            Violation::at(stretch.event, text)
        })?;
        if stretch.at.epoch != log.epoch || stretch.at.seq > log.head {
            let text = format!("{:?} began behind {:?}, beyond the log", stretch.sub, stretch.at);
            return Err(Violation::at(stretch.event, text));
        }
    }
    Ok(())
}

fn judge(stretch: &Stretch, start: Start, asked: Option<Position>) -> Result<(), &'static str> {
    match (start, asked) {
        // What a store held is not seen from here; `held` judges it.
        (_, None) if stretch.from == Some(From::Stored) => Ok(()),
        (Start::Head, None) => Ok(()),
        (_, None) => Err("whoever holds nothing begins at the head"),
        (Start::Head, Some(_)) => Err("a position was held"),
        (Start::Resumed, Some(asked)) if asked == stretch.at => Ok(()),
        (Start::Resumed, Some(_)) => Err("that is not the position asked for"),
        // At most the position asked for: that much of the log this edge can vouch for.
        (Start::FullAhead, Some(asked)) if stretch.at <= asked => Ok(()),
        (Start::FullAhead, Some(_)) => Err("the position asked for is not ahead of it"),
        (Start::FullEpoch, Some(_)) => Err("the log was never rebuilt"),
        (Start::FullFence, Some(asked)) if asked <= stretch.at => Ok(()),
        (Start::FullFence, Some(_)) => Err("a fence does not take deliveries back"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story, position, seen};
    use super::*;
    use crate::history::User;
    use throng_protocol::ids::Ts;

    fn began(from: From, start: Start, at: u64) -> bool {
        let mut story = Story::new();
        story.logged(&[seen(User(1), 1), seen(User(1), 2), seen(User(1), 3)]);
        story.subscribed(D1, 1, from, (start, at));
        story.judged(INVARIANT).is_ok()
    }

    #[test]
    fn a_held_position_is_resumed_exactly() {
        assert!(began(From::Position(position(2)), Start::Resumed, 2));
        assert!(began(From::Start, Start::Resumed, 0));
        assert!(!began(From::Position(position(2)), Start::Resumed, 3));
        assert!(!began(From::Position(position(2)), Start::Resumed, 1));
        assert!(!began(From::Position(position(2)), Start::Head, 3));
        assert!(!began(From::Start, Start::Resumed, 1));
    }

    #[test]
    fn a_time_stamp_stands_for_the_last_entry_up_to_it() {
        let second = seen(User(1), 2).ts;
        assert!(began(From::Ts(second), Start::Resumed, 2));
        assert!(began(From::Ts(Ts(second.0 + 1)), Start::Resumed, 2));
        assert!(began(From::Ts(Ts(second.0 - 1)), Start::Resumed, 1));
        assert!(!began(From::Ts(Ts(second.0 - 1)), Start::Resumed, 2));
    }

    #[test]
    fn the_head_is_for_those_who_hold_nothing_or_too_much() {
        assert!(began(From::Head, Start::Head, 3));
        assert!(!began(From::Head, Start::Resumed, 2));
        assert!(began(From::Position(position(3)), Start::FullAhead, 2));
        assert!(!began(From::Position(position(2)), Start::FullAhead, 3));
        assert!(!began(From::Position(position(2)), Start::FullEpoch, 3));
        assert!(!began(From::Head, Start::Head, 4));
    }
}
