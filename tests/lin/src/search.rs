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
    /// When each entry can have been stored, by its place in the log.
    stored: Vec<Bounds>,
}

/// The earliest and the latest moment of something, as far as answers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    from: u64,
    to: u64,
}

impl Bounds {
    /// Nothing that could have been the cause was asked for yet.
    const NEVER: Self = Self {
        from: u64::MAX,
        to: u64::MAX,
    };
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
            stored: vec![Bounds::NEVER; history.log.len()],
        };
        for timed in &history.operations {
            translation.take(timed);
        }
        translation.bound()?;
        translation.stores();
        Ok(translation.intervals)
    }

    /// Narrows what is known of when entries were stored and reads took effect. The log's order is
    /// known, so that an entry is stored behind the one before it and before the one behind it, and
    /// whoever saw a log that ends with an entry saw it between that entry's storing and the next
    /// one's. No order is lost by it, and the search has far fewer to try.
    fn bound(&mut self) -> Result<(), String> {
        for (bounds, (entry, seq)) in self.stored.iter().zip(self.history.log.iter().zip(1..)) {
            if bounds.from == u64::MAX {
                return Err(format!(
                    "nobody whose send was not refused sent entry {seq}, {entry:?}"
                ));
            }
        }
        for interval in &self.intervals {
            if let Step::Read { head, .. } = interval.step {
                let place = usize::try_from(head).unwrap_or(usize::MAX);
                if let Some(last) = place.checked_sub(1).and_then(|last| self.stored.get_mut(last)) {
                    last.to = last.to.min(interval.end);
                }
                if let Some(next) = self.stored.get_mut(place) {
                    next.from = next.from.max(interval.start);
                }
            }
        }
        let mut from = 0;
        for bounds in &mut self.stored {
            from = bounds.from.max(from);
            bounds.from = from;
        }
        let mut to = u64::MAX;
        for bounds in self.stored.iter_mut().rev() {
            to = bounds.to.min(to);
            bounds.to = to;
        }
        if let Some((bounds, seq)) = self
            .stored
            .iter()
            .zip(1..)
            .find(|(bounds, _)| bounds.from > bounds.to)
        {
            return Err(format!(
                "entry {seq} was there at {} and cannot have been stored before {}",
                bounds.to, bounds.from
            ));
        }
        for interval in &mut self.intervals {
            if let Step::Read { head, .. } = interval.step {
                let place = usize::try_from(head).unwrap_or(usize::MAX);
                let behind = place.checked_sub(1).and_then(|last| self.stored.get(last));
                interval.start = behind.map_or(0, |last| last.from).max(interval.start);
                interval.end = self
                    .stored
                    .get(place)
                    .map_or(u64::MAX, |next| next.to)
                    .min(interval.end);
            }
        }
        match self
            .intervals
            .iter()
            .find(|interval| interval.start > interval.end)
        {
            Some(interval) => Err(format!("no moment explains {:?}", interval.step)),
            None => Ok(()),
        }
    }

    /// A step for each entry of the log: that it was stored. Attempts that found it there say no more
    /// than when it was there at the latest.
    fn stores(&mut self) {
        for (bounds, (entry, seq)) in self.stored.iter().zip(self.history.log.iter().zip(1..)) {
            self.intervals.push(Interval {
                start: bounds.from,
                end: bounds.to,
                step: Step::Sent {
                    user: entry.user,
                    seq,
                },
            });
        }
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

    fn send(&mut self, timed: &Timed, entry: Entry, outcome: &Outcome<u64>) {
        let user = entry.user;
        let place = self.places.get(&(user, entry.key)).copied();
        let stored = place.filter(|seq| self.entry(*seq) == Some(entry));
        let end = match outcome {
            Outcome::Done(seq) if stored == Some(*seq) => timed.end,
            Outcome::Done(_) => return self.push(timed, Step::Impossible),
            Outcome::NotMember => return self.push(timed, Step::Refused { user }),
            Outcome::Refused => return,
            Outcome::Unknown => u64::MAX,
        };
        let place = stored.and_then(|seq| usize::try_from(seq - 1).ok());
        if let Some(bounds) = place.and_then(|place| self.stored.get_mut(place)) {
            bounds.from = bounds.from.min(timed.start);
            bounds.to = bounds.to.min(end);
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
        match outcome {
            Outcome::Done(_) => self.push(timed, Step::Changed { user, change }),
            // It may happen at any moment from the question on, which the model keeps in mind: as a step
            // that may come anywhere it would double the orders to search.
            Outcome::Unknown => self.intervals.push(Interval {
                start: timed.start,
                end: timed.start,
                step: Step::Possible { user, change },
            }),
            // That one who is no member cannot leave or be kicked is judged elsewhere.
            Outcome::NotMember | Outcome::Refused => {}
        }
    }

    fn entry(&self, seq: u64) -> Option<Entry> {
        let place = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.history.log.get(place).copied()
    }
}
