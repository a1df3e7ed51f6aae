//! Whether there is one order of everything that was asked of a channel that explains every answer.
//!
//! An operation took effect at one moment between its question and its answer: a send at the moment
//! its message got its `seq`, a read at the moment whose log it shows, a join at the moment the user
//! became a member. The search for such moments is the work of an existing checker (Wing and Gong's
//! algorithm with Lowe's memory, in `todc-utils`); this crate is the sequential model it is given and
//! the translation of histories.
//!
//! * Channels are checked one by one, which is no weaker: linearizability is local.
//! * What nobody got an answer to may have happened at any moment since, or never. A send of unknown
//!   outcome that the final log holds has happened; one that it does not hold is left out.
//! * A kick takes effect in two steps, both before it is answered as done: from the first on, sends
//!   may be refused, and from the second on, none is accepted. Between the two the group knows of it
//!   and the channel does not yet. A leave, and a kick answered as pending, are the first step alone.
//! * A search that is not over within its budget is [`Verdict::Unknown`], which is no pass.
//!
//! It refuses to know where histories come from: processes and simulations both bring theirs.

mod history;
mod model;
mod search;

pub use history::{ChannelHistory, Entry, Operation, Outcome, Timed, User};
pub use search::{STEPS_MAX, Verdict, check, check_within};

#[cfg(test)]
mod tests;
