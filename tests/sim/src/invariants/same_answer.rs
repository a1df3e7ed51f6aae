//! A retry is answered like the first attempt: one key and body have one place for ever, only one
//! attempt is ever told that it is the first, and another body under the key is refused.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::history::Answer;
use crate::run::{Key, Run};

pub const INVARIANT: Invariant = Invariant {
    name: "same_answer",
    clause: "SE-5.1-M3",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    let mut acks: BTreeMap<Key, Vec<Ack>> = BTreeMap::new();
    for (key, hash, asked) in run.sends() {
        for (answered_us, event, answer) in &asked.answers {
            if let Answer::Acked {
                epoch,
                seq,
                ts,
                repeat,
            } = *answer
            {
                acks.entry(key).or_default().push(Ack {
                    place: (epoch, seq, ts, hash),
                    repeat,
                    asked_us: asked.at_us,
                    answered_us: *answered_us,
                    event: *event,
                });
            }
        }
    }
    for (key, acks) in &acks {
        judge(acks).map_err(|(event, why)| Violation::at(event, format!("{key:?}: {why}")))?;
    }
    Ok(())
}

struct Ack {
    place: (
        throng_protocol::ids::Epoch,
        throng_protocol::ids::Seq,
        throng_protocol::ids::Ts,
        crate::history::BodyHash,
    ),
    repeat: bool,
    asked_us: u64,
    answered_us: u64,
    event: usize,
}

fn judge(acks: &[Ack]) -> Result<(), (usize, String)> {
    let Some(first) = acks.iter().min_by_key(|ack| ack.answered_us) else {
        return Ok(());
    };
    for ack in acks {
        if ack.place != first.place {
            return Err((
                ack.event,
                format!("acked as {:?} and as {:?}", first.place, ack.place),
            ));
        }
        if !ack.repeat && ack.asked_us > first.answered_us {
            let why = "a retry of an acked message was told that it is the first".to_owned();
            return Err((ack.event, why));
        }
    }
    let firsts: Vec<&Ack> = acks.iter().filter(|ack| !ack.repeat).collect();
    match firsts[..] {
        [_, second, ..] => Err((
            second.event,
            "two attempts were told that they are the first".to_owned(),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, D2, Story};
    use super::*;

    #[test]
    fn a_repeat_with_the_first_answer_is_fine() {
        let mut story = Story::new();
        let first = story.send(D1, 7);
        let meanwhile = story.send(D2, 7);
        story.acked(D2, meanwhile, 1, true);
        story.acked(D1, first, 1, false);
        let later = story.send(D1, 7);
        story.acked(D1, later, 1, true);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn another_place_and_a_repeat_taken_for_a_first_are_found() {
        for (place, repeat) in [(2, true), (2, false), (1, false)] {
            let mut story = Story::new();
            let first = story.send(D1, 7);
            story.acked(D1, first, 1, false);
            let again = story.send(D2, 7);
            story.acked(D2, again, place, repeat);
            assert!(story.judged(INVARIANT).is_err(), "{place} {repeat}");
        }
    }

    #[test]
    fn two_firsts_at_once_and_an_ack_for_another_body_are_found() {
        let mut firsts = Story::new();
        let (one, two) = (firsts.send(D1, 7), firsts.send(D2, 7));
        firsts.acked(D1, one, 1, false);
        firsts.acked(D2, two, 1, false);
        assert!(firsts.judged(INVARIANT).is_err());
        let mut bodies = Story::new();
        let (one, two) = (bodies.send_body(D1, 7, 70), bodies.send_body(D1, 7, 71));
        bodies.acked(D1, one, 1, false);
        bodies.acked(D1, two, 1, true);
        assert!(bodies.judged(INVARIANT).is_err());
    }
}
