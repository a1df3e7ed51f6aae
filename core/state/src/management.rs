//! Management shards: the user directory, groups, their channels and members. Everything here is
//! judged on the state of one shard; what a message shard must know of it goes through the outbox.

mod archive;
mod channel;
mod directory;
mod fence;
mod group;
mod kick;
mod member;
mod mute;
pub(crate) mod role;

use fence::Target;
use role::Roles;

use crate::command::ManagementCommand as Command;
use crate::effect::Effects;
use crate::{ApplyError, Reply, View, outbox};

/// Applies a command to a management shard.
pub(crate) fn apply(view: &dyn View, command: &Command, effects: &mut Effects) -> Result<Reply, ApplyError> {
    match command {
        Command::RegisterUser { app, user } => directory::register_user(view, app, user, effects),
        Command::AddNumberRange { start, end } => directory::add_number_range(view, *start, *end, effects),
        Command::CreateGroup {
            app,
            group,
            user,
            number,
        } => group::create_group(view, app, group, user, *number, effects),
        Command::CreateChannel {
            app,
            group,
            channel,
            by,
            issuer,
            target,
        } => {
            let wanted = channel::Wanted::new(app, group, channel, *by);
            channel::create_channel(view, &wanted, *issuer, *target, effects)
        }
        Command::Join {
            app,
            group,
            user,
            number,
        } => member::join(view, app, group, user, *number, effects),
        Command::JoinAll { app, group, members } => member::join_all(view, app, group, members, effects),
        Command::Leave {
            app,
            group,
            number,
            proposed_ms,
        } => member::leave(view, app, group, *number, *proposed_ms, effects),
        Command::Kick {
            app,
            group,
            user,
            number,
            by,
            since,
            proposed_ms,
        } => {
            let target = Target::new(app, group, user, *number);
            kick::kick(view, &target, *by, *since, *proposed_ms, effects)
        }
        Command::Mute {
            app,
            group,
            user,
            number,
            until_ms,
            by,
            proposed_ms,
        } => {
            let target = Target::new(app, group, user, *number);
            mute::mute(view, &target, *until_ms, *by, *proposed_ms, effects)
        }
        Command::ArchiveChannel {
            app,
            group,
            channel,
            archived,
        } => archive::archive(view, (app, group, channel), *archived, effects),
        Command::Roles { app, group, change } => Roles { view, app, group }.change(change, effects),
        Command::OutboxAcked { target, through } => outbox::acknowledge(view, *target, *through, effects),
    }
}
