//! What all hosts of a run write into: the history and the workload that reads it.
//!
//! Hosts run one after the other through a window, so their events are put in the order of time when
//! the window is over. The workload hears of each at once, as a client knows what it did itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::history::{Answer, Client, Event, History, Host, Op, Sub, What};
use crate::net::Us;
use crate::workload::{Step, Workload};
use crate::world;

/// The shared end. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    history: History,
    /// Events of the window that runs.
    window: Vec<Event>,
    workload: Workload,
    /// Told when the workload may have something for a client.
    news: BTreeMap<Client, Arc<Notify>>,
    asked: BTreeMap<Op, Client>,
    following: BTreeMap<Sub, Client>,
    /// Clients that are to be started anew.
    restarts: BTreeSet<Client>,
}

impl Recorder {
    /// The recorder of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            history: History::default(),
            window: Vec::new(),
            workload: Workload::new(seed),
            news: world::clients().map(|client| (client, Arc::default())).collect(),
            asked: BTreeMap::new(),
            following: BTreeMap::new(),
            restarts: BTreeSet::new(),
        })))
    }

    /// Records that something happened.
    pub fn record(&self, at_us: Us, host: Host, what: What) {
        let mut inner = self.0.lock();
        match (&what, host) {
            (What::Asked(op, _), Host::Client(client)) => {
                inner.asked.insert(*op, client);
            }
            (What::Answered(op, _), _) => {
                inner.asked.remove(op);
            }
            (What::Dropped { sub } | What::Ended { sub, .. }, _) => {
                inner.following.remove(sub);
            }
            _ => {}
        }
        let event = Event { at_us, host, what };
        inner.workload.observe(&event);
        inner.window.push(event);
        match host {
            Host::Client(client) => inner.news[&client].notify_one(),
            _ => inner.news.values().for_each(|news| news.notify_one()),
        }
    }

    /// A client follows a channel.
    pub fn follows(&self, client: Client, sub: Sub) {
        self.0.lock().following.insert(sub, client);
    }

    /// Records that a client is gone: what it asked for is open, what it followed is given up.
    pub fn client_gone(&self, at_us: Us, client: Client) {
        let of = |open: &BTreeMap<Op, Client>| -> Vec<Op> {
            let ours = open.iter().filter(|(_, whose)| **whose == client);
            ours.map(|(op, _)| *op).collect()
        };
        let (ops, subs) = {
            let inner = self.0.lock();
            let ours = inner.following.iter().filter(|(_, whose)| **whose == client);
            (of(&inner.asked), ours.map(|(sub, _)| *sub).collect::<Vec<_>>())
        };
        let host = Host::Client(client);
        for op in ops {
            let answer = Answer::Refused {
                code: 0,
                unknown: true,
            };
            self.record(at_us, host, What::Answered(op, answer));
        }
        for sub in subs {
            self.record(at_us, host, What::Dropped { sub });
        }
    }

    /// What a client does now.
    pub fn next(&self, client: Client, now: Us) -> Step {
        self.0.lock().workload.next(client, now)
    }

    /// A number for what a restarted client does by itself.
    pub fn op(&self) -> Op {
        self.0.lock().workload.op()
    }

    /// Told when there may be something new for a client.
    pub fn news(&self, client: Client) -> Arc<Notify> {
        Arc::clone(&self.0.lock().news[&client])
    }

    /// Asks for a client to be started anew when the window is over.
    pub fn restart(&self, client: Client) {
        self.0.lock().restarts.insert(client);
    }

    /// The clients that are to be started anew.
    pub fn take_restarts(&self) -> BTreeSet<Client> {
        std::mem::take(&mut self.0.lock().restarts)
    }

    /// Whether everything has converged, as far as clients can tell.
    ///
    /// # Errors
    /// The first thing that is missing, for people.
    pub fn settled(&self) -> Result<(), String> {
        self.0.lock().workload.settled()
    }

    /// Puts the events of a window into the history.
    pub fn window_ends(&self) {
        let mut inner = self.0.lock();
        let mut window = std::mem::take(&mut inner.window);
        window.sort_by_key(|event| event.at_us);
        for Event { at_us, host, what } in window {
            inner.history.push(at_us, host, what);
        }
    }

    /// How many events there are.
    pub fn events(&self) -> usize {
        let inner = self.0.lock();
        inner.history.events().len() + inner.window.len()
    }

    /// The history, once nobody writes any more.
    pub fn into_history(self) -> History {
        self.window_ends();
        std::mem::take(&mut self.0.lock().history)
    }
}
