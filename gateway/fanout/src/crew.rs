//! The subscribers of a channel, by the worker that serves them, and each worker's round.
//!
//! What a worker's sessions hold is written by that worker alone, and lies apart from what others
//! write: a message tells every worker once, however many sessions it serves, and the worker goes
//! through its own sessions from there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use throng_protocol::ids::SessionId;

use crate::subscriber::Subscriber;

/// A worker of the edge, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WorkerNumber(pub u16);

/// A session, and the worker that serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// The worker.
    pub worker: WorkerNumber,
    /// The session.
    pub session: SessionId,
}

impl Seat {
    /// Before every other.
    pub(crate) const MIN: Self = Self {
        worker: WorkerNumber(0),
        session: SessionId(0),
    };
    /// Behind every other.
    pub(crate) const MAX: Self = Self {
        worker: WorkerNumber(u16::MAX),
        session: SessionId(u64::MAX),
    };
}

/// Sessions one step of a round looks at: it holds the channel, and most may have nothing to take.
const LOOKS_MAX: usize = 1_024;

/// Where a worker is with its round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Round {
    /// Everything was handed out, as far as the worker knows.
    #[default]
    Over,
    /// The worker was told, and has not begun.
    Told,
    /// It goes on with this session; `again` if something has come since it began.
    Under { from: SessionId, again: bool },
}

/// The subscribers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    subscribers: BTreeMap<SessionId, Subscriber>,
    /// How many of them may be handed something.
    attached: usize,
    round: Round,
}

impl Crew {
    /// Something has come for all. Whether the worker is to be told.
    pub fn news(&mut self) -> bool {
        match &mut self.round {
            Round::Over if self.attached > 0 => {
                self.round = Round::Told;
                true
            }
            Round::Under { again, .. } => {
                *again = true;
                false
            }
            Round::Over | Round::Told => false,
        }
    }

    /// A step of the worker's round: names attached sessions of which `due` says that they have
    /// something to take, until `each` has enough. Whether the round goes on.
    pub fn step(
        &mut self,
        due: impl Fn(&Subscriber) -> bool,
        mut each: impl FnMut(SessionId) -> ControlFlow<()>,
    ) -> bool {
        let (start, again) = match self.round {
            Round::Under { from, again } => (from, again),
            Round::Over | Round::Told => (SessionId(0), false),
        };
        for (looks, (&session, subscriber)) in self.subscribers.range(start..).enumerate() {
            if looks == LOOKS_MAX {
                self.round = Round::Under { from: session, again };
                return true;
            }
            if subscriber.attached && due(subscriber) && each(session).is_break() {
                let from = SessionId(session.0.saturating_add(1));
                self.round = Round::Under { from, again };
                return true;
            }
        }
        self.round = match again {
            true => Round::Under {
                from: SessionId(0),
                again: false,
            },
            false => Round::Over,
        };
        again
    }
}

/// The subscribers of a channel.
#[derive(Debug, Default)]
pub(crate) struct Crews {
    /// By the worker's number.
    crews: Vec<Crew>,
}

impl Crews {
    pub fn get(&self, seat: Seat) -> Option<&Subscriber> {
        self.crew(seat.worker)?.subscribers.get(&seat.session)
    }

    pub fn get_mut(&mut self, seat: Seat) -> Option<&mut Subscriber> {
        self.crew_mut(seat.worker)?.subscribers.get_mut(&seat.session)
    }

    fn crew(&self, worker: WorkerNumber) -> Option<&Crew> {
        self.crews.get(usize::from(worker.0))
    }

    pub fn crew_mut(&mut self, worker: WorkerNumber) -> Option<&mut Crew> {
        self.crews.get_mut(usize::from(worker.0))
    }

    /// Adds a subscriber that is not attached, in place of the seat's former one.
    pub fn insert(&mut self, seat: Seat, subscriber: Subscriber) {
        let place = usize::from(seat.worker.0);
        if place >= self.crews.len() {
            self.crews.resize_with(place + 1, Crew::default);
        }
        self.remove(seat);
        if let Some(crew) = self.crews.get_mut(place) {
            crew.subscribers.insert(seat.session, subscriber);
        }
    }

    pub fn remove(&mut self, seat: Seat) -> Option<Subscriber> {
        let crew = self.crew_mut(seat.worker)?;
        let removed = crew.subscribers.remove(&seat.session);
        crew.attached -= usize::from(removed.is_some_and(|subscriber| subscriber.attached));
        removed
    }

    /// Lets a subscriber be handed something from now on; `false` if there is none.
    pub fn attach(&mut self, seat: Seat) -> bool {
        let Some(crew) = self.crew_mut(seat.worker) else {
            return false;
        };
        let Some(subscriber) = crew.subscribers.get_mut(&seat.session) else {
            return false;
        };
        if !std::mem::replace(&mut subscriber.attached, true) {
            crew.attached += 1;
        }
        true
    }

    pub fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        self.crews.iter().flat_map(|crew| crew.subscribers.values())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Seat, &mut Subscriber)> {
        numbered(&mut self.crews).flat_map(|(worker, crew)| {
            let subscribers = crew.subscribers.iter_mut();
            subscribers.map(move |(&session, subscriber)| (Seat { worker, session }, subscriber))
        })
    }

    /// The workers, with their subscribers.
    pub fn workers(&mut self) -> impl Iterator<Item = (WorkerNumber, &mut Crew)> {
        numbered(&mut self.crews)
    }
}

fn numbered(crews: &mut [Crew]) -> impl Iterator<Item = (WorkerNumber, &mut Crew)> {
    (0..).map(WorkerNumber).zip(crews)
}
