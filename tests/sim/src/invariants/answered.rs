//! Every request is answered, and once.

use super::{Invariant, Violation};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "answered",
    clause: "RQ-4.1-M3",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    if let Some((event, why)) = run.torn.first() {
        return Err(Violation::at(*event, why.clone()));
    }
    for asked in run.ops.values() {
        if asked.answers.len() != 1 {
            let text = format!(
                "{} asked for {:?} as {:?} and had {} answers",
                asked.client,
                asked.ask,
                asked.op,
                asked.answers.len()
            );
            return Err(Violation::at(asked.event, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story, seen};
    use super::*;
    use crate::history::User;

    #[test]
    fn one_answer_each_is_fine() {
        let mut story = Story::new();
        story.sent(D1, 1);
        assert_eq!(story.judged(INVARIANT), Ok(()));
    }

    #[test]
    fn no_answer_two_answers_and_deliveries_to_nobody_are_found() {
        let mut none = Story::new();
        none.send(D1, 1);
        assert!(none.judged(INVARIANT).is_err());
        let mut two = Story::new();
        let op = two.send(D1, 1);
        two.acked(D1, op, 1, false);
        two.acked(D1, op, 1, false);
        assert!(two.judged(INVARIANT).is_err());
        let mut nobody = Story::new();
        nobody.delivered(D1, 5, 0, seen(User(1), 1));
        assert!(nobody.judged(INVARIANT).is_err());
    }
}
