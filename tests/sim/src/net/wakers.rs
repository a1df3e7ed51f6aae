//! Who waits for something, woken only when no lock is held: a woken task may be dropped at once and
//! come back into the network.

use std::task::{Context, Waker};

/// Who waits for something.
#[derive(Debug, Default)]
pub(super) struct Wakers(Vec<Waker>);

impl Wakers {
    /// The task of `context` waits as well.
    pub fn add(&mut self, context: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(context.waker())) {
            self.0.push(context.waker().clone());
        }
    }

    /// Moves all to those that are woken next.
    pub fn wake(&mut self, due: &mut Vec<Waker>) {
        due.append(&mut self.0);
    }
}
