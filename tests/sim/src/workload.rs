//! What clients do in a run: a pure generator, and the rules by which clients react.
//!
//! A driver asks [`Workload::next`] for each client what to do, does it with a real SDK client, and
//! shows every event it records to [`Workload::observe`]. Nothing here reads a clock or waits: times
//! come in, and "not before then" goes out. Every client draws from a stream of its own, so that
//! what one does changes nothing of what another would do by itself.
//!
//! Until it settles clients send in bursts and do what makes trouble: keys again from the
//! other device, retries at the other edge after a time-out, kicks and mutes while sends are in
//! flight, subscriptions from everywhere, pages both ways, lost connections, pauses, restarts. Then
//! everyone comes back to every channel, finishes what has no answer yet, and says a last word.

mod known;
mod player;
mod settling;

use throng_protocol::ids::ClientMessageId;

use crate::history::{Answer, Ask, BodyHash, Client, Event, Host, Op, Phase, Sub, What};
use crate::workload::known::Known;
use crate::workload::player::Player;
use crate::world;

/// What a driver does next for a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Ask for something; record it as asked, and its answer when it comes.
    Ask(Op, Ask),
    /// Give a subscription up.
    Drop(Sub),
    /// End the connection; the client finds another edge.
    DropConnection,
    /// Let the client stand still.
    Freeze {
        /// For how long.
        ms: u64,
    },
    /// Stop the client without a farewell and start it anew from its local store. What has no answer
    /// is answered as unknown, what was subscribed is dropped; sends the store still holds are asked
    /// for again, under numbers of [`Workload::op`].
    Restart,
    /// Nothing before this time, in microseconds, unless something is observed before.
    Wait(u64),
}

/// The clients of a run.
#[derive(Debug)]
pub struct Workload {
    players: Vec<Player>,
    known: Known,
    ops: u32,
    subs: u32,
    settling: bool,
}

/// Numbers given out to players.
#[derive(Debug)]
struct Numbers<'a> {
    ops: &'a mut u32,
    subs: &'a mut u32,
}

impl Numbers<'_> {
    fn op(&mut self) -> Op {
        *self.ops += 1;
        Op(*self.ops)
    }

    fn sub(&mut self) -> Sub {
        *self.subs += 1;
        Sub(*self.subs)
    }
}

impl Workload {
    /// The clients of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            players: world::clients().map(|client| Player::new(seed, client)).collect(),
            known: Known::default(),
            ops: 0,
            subs: 0,
            settling: false,
        }
    }

    /// A number for an operation that a restarted client does by itself.
    pub fn op(&mut self) -> Op {
        self.ops += 1;
        Op(self.ops)
    }

    /// What a client does now. Steps are for at once; the driver asks again right after each.
    pub fn next(&mut self, client: Client, now_us: u64) -> Step {
        let mut numbers = Numbers {
            ops: &mut self.ops,
            subs: &mut self.subs,
        };
        let player = &mut self.players[usize::from(client.0)];
        if self.settling {
            player.settle(now_us, &mut numbers)
        } else {
            player.next(now_us, &mut self.known, &mut numbers)
        }
    }

    /// Takes notice of what was recorded.
    pub fn observe(&mut self, event: &Event) {
        self.known.observe(event);
        match (event.host, &event.what) {
            (Host::World, What::Phase(Phase::Liveness)) => self.settling = true,
            (Host::Client(client), what) => {
                self.players[usize::from(client.0)].observe(event.at_us, what, &self.known)
            }
            _ => {}
        }
    }

    /// Whether everyone has come back, has every answer and every entry that was ever acked; if not,
    /// what is missing.
    ///
    /// # Errors
    /// The first thing that is missing, for people.
    pub fn settled(&self) -> Result<(), String> {
        if !self.settling {
            return Err("faults still happen".to_owned());
        }
        self.players
            .iter()
            .try_for_each(|player| player.settled(&self.known))
    }

    /// How many sends were acked so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.known.acked()
    }
}

/// The body of a message: a function of its key and its variant, so that every device of a user says
/// the same under one key. Variant 0 is the message; another is a conflict.
#[must_use]
pub fn body(key: ClientMessageId, variant: u8) -> Vec<u8> {
    // Mostly short, now and then long enough for a page to end by its bytes.
    let filler = match key.0 % 16 {
        0 => 6_000,
        1..=3 => 500,
        _ => 24,
    };
    let mut body = key.0.to_be_bytes().to_vec();
    body.push(variant);
    body.resize(body.len() + filler, b'.');
    body
}

/// The body that hashes to `hash` under `key`; the driver of a send needs it.
#[must_use]
pub fn body_of(key: ClientMessageId, hash: BodyHash) -> Option<Vec<u8>> {
    (0..=1)
        .map(|variant| body(key, variant))
        .find(|body| BodyHash::of(body) == hash)
}

/// Whether an answer leaves open whether the thing was done, or says that it may be done later.
fn may_succeed_later(answer: &Answer) -> bool {
    use throng_protocol::code::{Class, Code};
    match *answer {
        Answer::Refused { unknown: true, .. } | Answer::Refused { code: 0, .. } => true,
        Answer::Refused { code, .. } => {
            Code::from_number(code).is_some_and(|code| code.class() != Class::Fatal)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
