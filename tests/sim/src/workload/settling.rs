//! The end of a run: everyone comes back, finishes what is open, and says a last word everywhere.

use super::known::Known;
use super::player::Player;
use super::{Numbers, Step};
use crate::history::{Ask, Channel, From};
use crate::world;

/// Between two looks of a client that waits for something only others can bring about.
const LOOK_US: u64 = 50_000;

impl Player {
    /// What a client does once there are no faults any more. It asks for one thing at a time, so that
    /// a slow start is no flood.
    pub(super) fn settle(&mut self, now_us: u64, numbers: &mut Numbers<'_>) -> Step {
        if let Some(step) = self.due_again(now_us, numbers) {
            return step;
        }
        let wait = Step::Wait(now_us + LOOK_US);
        if self
            .in_flight
            .values()
            .any(|ask| !matches!(ask, Ask::Send { .. } | Ask::Change { .. }))
        {
            return wait;
        }
        if let Some(group) = self.out.keys().next().copied() {
            return self.ask(numbers, Ask::Join { group });
        }
        if let Some(channel) = world::channels().find(|channel| !self.follows(*channel)) {
            return self.follow(numbers, channel, From::Start);
        }
        match world::channels().find(|channel| !self.spoken.contains(channel)) {
            Some(channel) => {
                self.spoken.push(channel);
                self.last_word(numbers, channel)
            }
            None => wait,
        }
    }

    fn follows(&self, channel: Channel) -> bool {
        self.following
            .values()
            .any(|following| following.channel == channel)
    }

    /// Whether the client has everything there is.
    pub(super) fn settled(&self, known: &Known) -> Result<(), String> {
        let client = self.client;
        if let Some((op, ask)) = self.in_flight.first_key_value() {
            return Err(format!("{client} waits for the answer to {op:?}, {ask:?}"));
        }
        if let Some((_, step)) = self.again.front() {
            return Err(format!("{client} has yet to do {step:?} again"));
        }
        if let Some(group) = self.out.keys().next() {
            return Err(format!("{client} is not back in {group}"));
        }
        for channel in world::channels() {
            if !self.spoken.contains(&channel) {
                return Err(format!("{client} has not said its last word in {channel}"));
            }
            let reached = self
                .following
                .values()
                .find(|following| following.channel == channel);
            let reached = reached
                .and_then(|following| following.reached)
                .map(|position| position.seq);
            if reached.is_none_or(|seq| seq < known.head(channel)) {
                return Err(format!(
                    "{client} has {reached:?} of {channel}, of which {} was acked",
                    known.head(channel)
                ));
            }
        }
        Ok(())
    }
}
