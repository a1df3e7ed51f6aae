//! From a history to the checker's steps, the search, and its budget.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};

use crate::history::{ChannelHistory, Entry, Operation, Outcome, Timed, User};
use crate::model::{Change, Channel, Member, Model, Standing, Step};

/// Steps of the search before it gives up. A history that has an explanation is mostly explained in a
/// few steps per operation; some millions take seconds.
pub const STEPS_MAX: u64 = 3_000_000;

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Violated(String),
    /// It could not be found out. Never a pass.
    Unknown(String),
}

impl Verdict {
    /// Whether the history is linearizable for sure.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        *self == Self::Linearizable
    }
}

thread_local! {
    static STEPS_LEFT: Cell<u64> = const { Cell::new(0) };
    static FURTHEST: Cell<u64> = const { Cell::new(0) };
}

/// Thrown through the checker, which knows no budget.
struct OutOfSteps;

pub(crate) fn count_step() {
    match STEPS_LEFT.get().checked_sub(1) {
        Some(left) => STEPS_LEFT.set(left),
        // Not a panic: nothing is wrong, and no hook should say so.
        None => panic::resume_unwind(Box::new(OutOfSteps)),
    }
}

pub(crate) fn note_head(head: u64) {
    FURTHEST.set(FURTHEST.get().max(head));
}

/// Checks a channel within [`STEPS_MAX`] steps.
#[must_use]
pub fn check(history: &ChannelHistory) -> Verdict {
    check_within(history, STEPS_MAX)
}

/// Checks a channel within a number of steps.
#[must_use]
pub fn check_within(history: &ChannelHistory, steps: u64) -> Verdict {
    let timed = match Translation::of(history) {
        Ok(timed) => timed,
        Err(text) => return Verdict::Violated(text),
    };
    if timed.is_empty() {
        return Verdict::Unknown("nothing was asked of the channel".to_owned());
    }
    let operations = timed.len();
    let actions = actions(history, timed);
    STEPS_LEFT.set(steps);
    FURTHEST.set(0);
    let search = || WGLChecker::<Model>::is_linearizable(History::from_actions(actions));
    match panic::catch_unwind(AssertUnwindSafe(search)) {
        Ok(true) => Verdict::Linearizable,
        Ok(false) => Verdict::Violated(stuck(history, operations)),
        Err(reason) if reason.is::<OutOfSteps>() => Verdict::Unknown(format!(
            "no order of {operations} operations was found within {steps} steps, and none was excluded"
        )),
        Err(reason) => panic::resume_unwind(reason),
    }
}

fn stuck(history: &ChannelHistory, operations: usize) -> String {
    let reached = FURTHEST.get();
    let next = usize::try_from(reached)
        .ok()
        .and_then(|place| history.log.get(place));
    format!(
        "no order of the {operations} operations explains all answers; the longest that explains some reaches entry \
         {reached} of {}, behind which comes {next:?}",
        history.log.len()
    )
}

/// What the checker takes; each operation is a process of its own.
type Actions = Vec<(usize, Action<(Arc<Channel>, Step)>)>;

/// The questions and answers in the order of time. At the same moment questions come first: what
/// touches may overlap.
fn actions(history: &ChannelHistory, timed: Vec<Interval>) -> Actions {
    let standing = |member: bool| if member { Standing::Member } else { Standing::Out };
    let members = history
        .members
        .iter()
        .map(|(user, member)| (*user, BTreeSet::from([Member::new(standing(*member))])));
    let beginning = Arc::new(Channel {
        head: 0,
        members: Arc::new(members.collect()),
    });
    let mut events = Vec::with_capacity(timed.len() * 2);
    for (process, interval) in timed.into_iter().enumerate() {
        let operation = (Arc::clone(&beginning), interval.step);
        events.push((interval.start, 0, process, Action::Call(operation.clone())));
        events.push((interval.end, 1, process, Action::Response(operation)));
    }
    events.sort_by_key(|(time, answer, process, _)| (*time, *answer, *process));
    events
        .into_iter()
        .map(|(_, _, process, action)| (process, action))
        .collect()
}

/// A step and the time within which it happened.
struct Interval {
    start: u64,
    end: u64,
    step: Step,
}

/// Translates operations into steps.
struct Translation<'a> {
    history: &'a ChannelHistory,
    /// Where each key of each sender is in the final log.
    places: BTreeMap<(User, u64), u64>,
    intervals: Vec<Interval>,
    /// Entries that some operation may have stored.
    explained: BTreeSet<u64>,
}

impl<'a> Translation<'a> {
    fn of(history: &'a ChannelHistory) -> Result<Vec<Interval>, String> {
        let mut places = BTreeMap::new();
        for (entry, seq) in history.log.iter().zip(1..) {
            if let Some(first) = places.insert((entry.user, entry.key), seq) {
                return Err(format!(
                    "entries {first} and {seq} are the same message: {entry:?}"
                ));
            }
        }
        let mut translation = Self {
            history,
            places,
            intervals: Vec::new(),
            explained: BTreeSet::new(),
        };
        for timed in &history.operations {
            translation.take(timed);
        }
        for (entry, seq) in history.log.iter().zip(1..) {
            if !translation.explained.contains(&seq) {
                return Err(format!(
                    "nobody whose send was not refused sent entry {seq}, {entry:?}"
                ));
            }
        }
        Ok(translation.intervals)
    }

    fn take(&mut self, timed: &Timed) {
        match &timed.operation {
            Operation::Send { entry, outcome } => self.send(timed, *entry, outcome),
            Operation::Read { user, outcome } => self.read(timed, *user, outcome),
            Operation::Join { user, outcome } => self.change(timed, *user, Change::Join, outcome),
            Operation::Leave { user, outcome } => self.change(timed, *user, Change::Leave, outcome),
            Operation::Kick { user, outcome } => {
                self.change(timed, *user, Change::KickBegins, outcome);
                if *outcome == Outcome::Done(true) {
                    self.change(timed, *user, Change::KickEnds, outcome);
                }
            }
        }
    }

    fn push(&mut self, timed: &Timed, step: Step) {
        self.intervals.push(Interval {
            start: timed.start,
            end: timed.end,
            step,
        });
    }

    /// Something whose answer nobody got: it may happen at any later moment.
    fn push_open(&mut self, timed: &Timed, step: Step) {
        self.intervals.push(Interval {
            start: timed.start,
            end: u64::MAX,
            step,
        });
    }

    fn send(&mut self, timed: &Timed, entry: Entry, outcome: &Outcome<u64>) {
        let user = entry.user;
        let place = self.places.get(&(user, entry.key)).copied();
        let stored = place.filter(|seq| self.entry(*seq) == Some(entry));
        match outcome {
            Outcome::Done(seq) if stored == Some(*seq) => {
                self.explained.insert(*seq);
                self.push(timed, Step::Sent { user, seq: *seq });
            }
            Outcome::Done(_) => self.push(timed, Step::Impossible),
            Outcome::NotMember => self.push(timed, Step::Refused { user }),
            Outcome::Refused => {}
            Outcome::Unknown => {
                if let Some(seq) = stored {
                    self.explained.insert(seq);
                    self.push_open(timed, Step::Sent { user, seq });
                }
            }
        }
    }

    fn read(&mut self, timed: &Timed, user: Option<User>, outcome: &Outcome<(u64, BTreeMap<u64, Entry>)>) {
        match (outcome, user) {
            (Outcome::Done((head, shown)), _) => {
                let shows = |(seq, entry): (&u64, &Entry)| seq <= head && self.entry(*seq) == Some(*entry);
                let step = if shown.iter().all(shows) {
                    Step::Read { user, head: *head }
                } else {
                    Step::Impossible
                };
                self.push(timed, step);
            }
            (Outcome::NotMember, Some(user)) => self.push(timed, Step::Refused { user }),
            _ => {}
        }
    }

    fn change<T>(&mut self, timed: &Timed, user: User, change: Change, outcome: &Outcome<T>) {
        let step = |sure| Step::Changed { user, change, sure };
        match outcome {
            Outcome::Done(_) => self.push(timed, step(true)),
            Outcome::Unknown => self.push_open(timed, step(false)),
            // That one who is no member cannot leave or be kicked is judged elsewhere.
            Outcome::NotMember | Outcome::Refused => {}
        }
    }

    fn entry(&self, seq: u64) -> Option<Entry> {
        let place = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.history.log.get(place).copied()
    }
}
