//! What a crash leaves on a disk can always be gone on with: every record is whole, the log has no
//! hole, the state is not ahead of the log and nothing is purged that is not in the state.

use super::{Invariant, Violation};
use crate::run::Run;

pub const INVARIANT: Invariant = Invariant {
    name: "durable",
    clause: "SE-5.1-M2",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    for dump in &run.logs.dumps {
        let sound = match &dump.found {
            Ok(replica) => replica.check(),
            Err(reason) => Err(format!("shard {}: {reason}", dump.shard)),
        };
        sound.map_err(|reason| {
            Violation::at_dump(dump, format!("on the disk of node {}: {reason}", dump.node))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::dumps::Dump;
    use crate::dumps::testing::{at, dump, logs, replica};

    fn judged(dump: Dump) -> Result<(), Violation> {
        let mut story = Story::new();
        story.logs = logs(vec![dump]);
        story.judged(INVARIANT)
    }

    #[test]
    fn what_cannot_be_read_or_gone_on_with_is_a_violation() {
        assert_eq!(judged(dump(1, replica(&[1, 1, 2]))), Ok(()));
        let mut damaged = dump(1, replica(&[1]));
        damaged.found = Err("record 00 of table log is damaged".to_owned());
        assert!(judged(damaged).is_err());
        let mut ahead = replica(&[1, 1, 2]);
        ahead.applied = Some(at(2, 4));
        assert!(judged(dump(1, ahead)).is_err());
    }
}
