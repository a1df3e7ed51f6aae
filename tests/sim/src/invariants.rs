//! What must hold of every run, whatever its faults: one file per promise.
//!
//! Each is a pure function over a finished [`Run`] and names the clause of `protocol/SPEC.md` it
//! stands for. An invariant says what it saw and where; it knows nothing of how a run was made, and
//! it judges only what is certain: where two things overlap in time, either order is granted.

use std::fmt;

use crate::run::Run;

mod acked_survives;
mod answered;
mod ascending;
mod change_rights;
mod changes_fresh;
mod changes_shown;
mod converged;
mod durable;
mod election_safety;
mod fence_done;
mod fence_reads;
mod fence_sends;
mod fences;
mod fresh_reads;
mod held;
mod leader_completeness;
mod linearizable;
mod log_matching;
mod mutes;
mod no_duplicate;
mod no_hole;
mod nothing_invented;
mod once;
mod one_leader;
mod one_order;
mod pages;
mod refusals;
mod replicas;
mod resume;
mod roles;
mod same_answer;
mod state_machine_safety;
#[cfg(test)]
mod story;
mod ts_reads;

/// A promise.
#[derive(Clone, Copy)]
pub struct Invariant {
    /// Its name: that of its file.
    pub name: &'static str,
    /// The clause of the specification it stands for.
    pub clause: &'static str,
    /// Judges a run.
    pub check: fn(&Run) -> Result<(), Violation>,
}

impl fmt::Debug for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.clause)
    }
}

/// A promise was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The place in the history where it shows; `None` if only the final logs show it.
    pub event: Option<usize>,
    /// What was seen, and what would have been right.
    pub text: String,
}

impl Violation {
    fn at(event: usize, text: impl Into<String>) -> Self {
        Self {
            event: Some(event),
            text: text.into(),
        }
    }

    fn at_dump(dump: &crate::dumps::Dump, text: impl Into<String>) -> Self {
        // The event that the dump was taken at is the last one before it.
        Self {
            event: dump.event.checked_sub(1),
            text: text.into(),
        }
    }

    fn in_logs(text: impl Into<String>) -> Self {
        Self {
            event: None,
            text: text.into(),
        }
    }
}

/// All of them.
pub const ALL: &[Invariant] = &[
    acked_survives::INVARIANT,
    answered::INVARIANT,
    ascending::INVARIANT,
    change_rights::INVARIANT,
    changes_fresh::INVARIANT,
    changes_shown::INVARIANT,
    converged::INVARIANT,
    durable::INVARIANT,
    election_safety::INVARIANT,
    fence_done::INVARIANT,
    fence_reads::INVARIANT,
    fence_sends::INVARIANT,
    fresh_reads::INVARIANT,
    held::INVARIANT,
    leader_completeness::INVARIANT,
    linearizable::INVARIANT,
    log_matching::INVARIANT,
    mutes::INVARIANT,
    no_duplicate::INVARIANT,
    no_hole::INVARIANT,
    nothing_invented::INVARIANT,
    once::INVARIANT,
    one_leader::INVARIANT,
    one_order::INVARIANT,
    pages::INVARIANT,
    refusals::INVARIANT,
    replicas::INVARIANT,
    resume::INVARIANT,
    same_answer::INVARIANT,
    state_machine_safety::INVARIANT,
    ts_reads::INVARIANT,
];

/// The promises a run broke, each with its first violation.
#[must_use]
pub fn broken(run: &Run) -> Vec<(Invariant, Violation)> {
    let judged = ALL.iter().map(|invariant| (*invariant, (invariant.check)(run)));
    judged
        .filter_map(|(invariant, judged)| judged.err().map(|violation| (invariant, violation)))
        .collect()
}

/// The log of a channel, which every run has at its end.
fn log(run: &Run, channel: crate::history::Channel) -> Result<&crate::logs::ChannelLog, Violation> {
    run.logs
        .log(channel)
        .ok_or_else(|| Violation::in_logs(format!("no replica has a log of {channel}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_invariant_has_a_name_of_its_own_and_a_clause() {
        let mut names: Vec<&str> = ALL.iter().map(|invariant| invariant.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|invariant| invariant.clause.contains("-M")));
    }

    #[test]
    fn a_run_in_which_all_went_well_breaks_none() {
        let run = story::good().run();
        assert_eq!(
            broken(&run)
                .first()
                .map(|(invariant, violation)| format!("{invariant:?}: {}", violation.text)),
            None
        );
    }
}
