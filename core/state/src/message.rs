//! Message shards: the logs of channels, and the fences of their groups. Everything that decides
//! what becomes an entry is judged here, when the command is applied: the order of the log is the
//! only clock there is.

mod admit;
mod append;
mod change;
pub(crate) mod changes;
mod dedupe;
mod deliver;
pub(crate) mod fence;
mod open;
pub(crate) mod page;
pub(crate) mod place;
pub(crate) mod rights;
pub(crate) mod within;

use crate::command::MessageCommand;
use crate::effect::Effects;
use crate::limits::Bounds;
use crate::{ApplyError, Reply, View};

/// Where a command is applied.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    /// The state before it.
    pub(crate) view: &'a dyn View,
    /// Its log index.
    pub(crate) index: u64,
    /// What the state is bounded by.
    pub(crate) bounds: &'a Bounds,
}

/// Applies a command to a message shard.
pub(crate) fn apply(
    at: &At<'_>,
    command: &MessageCommand,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    match command {
        MessageCommand::Deliver {
            source,
            number,
            delivery,
        } => deliver::deliver(at, *source, *number, delivery, effects),
        MessageCommand::Append(message) => append::append(at, message, effects),
        MessageCommand::Change(change) => change::change(at, change, effects),
    }
}
