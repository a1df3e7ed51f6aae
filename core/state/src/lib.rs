//! The replicated state machines: what one committed command does to one shard.
//!
//! A shard's state is a set of ordered key/value records. [`apply`] is a pure function: it reads
//! through a [`View`], and everything it wants done is a list of [`Effect`]s. The same log gives the
//! same records, byte for byte, on every replica: time and randomness arrive inside commands, put
//! there by the leader that proposed them. This crate refuses to know disks, Raft, sockets, clocks.

pub mod codec;
pub mod command;
pub mod effect;
pub mod keys;
pub mod limits;
mod management;
mod message;
mod meta;
pub mod outbox;
pub mod query;
pub mod record;
pub mod reply;
#[doc(hidden)]
pub mod testing;
pub mod view;

pub use command::Command;
pub use effect::{Effect, Outgoing};
pub use reply::Reply;
pub use view::{View, ViewError};

use effect::Effects;
use limits::Bounds;
use throng_protocol::placement::Plane;

/// Why a command could not be applied. A refusal that the proposer should hear of is not an error
/// but a reply; this is a store that cannot be read, or a record or command that cannot be decoded,
/// and the replica stops.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The view could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A command in the log is of a version or shape this build does not know.
    #[error("command at index {index} cannot be decoded: {reason}")]
    Command {
        /// The log index of the command.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A record in the state is of a version or shape this build does not know.
    #[error("record {key} cannot be decoded: {reason}")]
    Record {
        /// The record's key, in hexadecimal.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Applies one committed command to a shard of `plane`.
///
/// `index` is the command's log index. The effects are complete: after the puts and deletes are
/// done, the state is that of `index`. Exactly one [`Effect::Reply`] is among them.
pub fn apply(plane: Plane, view: &dyn View, index: u64, command: &[u8]) -> Result<Vec<Effect>, ApplyError> {
    apply_within(&Bounds::default(), plane, view, index, command)
}

/// [`apply`] with other bounds. All replicas must have the same ones, so only tests have others.
#[doc(hidden)]
pub fn apply_within(
    bounds: &Bounds,
    plane: Plane,
    view: &dyn View,
    index: u64,
    command: &[u8],
) -> Result<Vec<Effect>, ApplyError> {
    let unreadable = |reason: String| ApplyError::Command { index, reason };
    let command = Command::decode(command).map_err(|error| unreadable(error.to_string()))?;
    let mut effects = Effects::default();
    let reply = match (plane, &command) {
        (Plane::Meta, Command::Meta(command)) => meta::apply(view, command, &mut effects)?,
        (Plane::Management, Command::Management(command)) => management::apply(view, command, &mut effects)?,
        (Plane::Message, Command::Message(command)) => {
            let at = message::At { view, index, bounds };
            message::apply(&at, command, &mut effects)?
        }
        // Refusing would be a decision that a build with more commands takes differently.
        _ => return Err(unreadable(format!("it is not for a shard of plane {plane:?}"))),
    };
    Ok(effects.finish(&reply))
}
