//! Message shards: the logs of channels. Everything that decides what becomes an entry is judged
//! here, when the command is applied: the order of the log is the only clock there is.

mod append;
mod dedupe;
mod open;
pub(crate) mod page;

use crate::command::MessageCommand;
use crate::effect::Effects;
use crate::{ApplyError, Reply, View};

/// Applies a command to a message shard.
pub(crate) fn apply(
    view: &dyn View,
    command: &MessageCommand,
    effects: &mut Effects,
) -> Result<Reply, ApplyError> {
    match command {
        MessageCommand::Deliver {
            source,
            number,
            delivery,
        } => open::deliver(view, *source, *number, delivery, effects),
        MessageCommand::Append(message) => append::append(view, message, effects),
    }
}
