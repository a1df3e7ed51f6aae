//! User numbers: issued by the management shard of a user, from ranges leased of the meta shard.

use throng_protocol::cluster::{Answer, Refusal, Reply, Request};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, UserId};
use throng_protocol::placement::{META_SHARD, PlacementKey};
use throng_state::command::{Command, ManagementCommand};
use throng_state::{Reply as StateReply, query};

use super::{refused, unexpected};
use crate::calls;
use crate::core::Core;
use crate::limits::NUMBERS_PER_LEASE;
use crate::replica::Replica;

/// Attempts to register a user, a lease between each two: the first finds the stock empty, others
/// may use up a range before the second comes to it, but not several ranges of this size.
const ATTEMPTS_MAX: usize = 4;

/// A user's number, issued at the first call.
pub(super) async fn user(core: &Core, app: AppId, user: UserId) -> Answer {
    let shard = core.shard_of(PlacementKey::Directory(&app, &user))?;
    let replica = core.replica(shard)?;
    // Numbers never change: one that is known needs no quorum.
    if let Some(number) = replica.read(|view| query::user_number(view, &app, &user))? {
        return Ok(Reply::User(number));
    }
    let command = Command::Management(ManagementCommand::RegisterUser { app, user });
    for _ in 0..ATTEMPTS_MAX {
        match replica.propose(command.clone()).await? {
            StateReply::User(number) => return Ok(Reply::User(number)),
            StateReply::NumbersExhausted => lease(core, &replica).await?,
            other => return Err(unexpected(&other)),
        }
    }
    Err(refused(
        Code::Unavailable,
        format!("shard {shard} ran out of user numbers {ATTEMPTS_MAX} times in a row"),
    ))
}

/// A user's number, if one was issued.
pub(super) async fn known(core: &Core, app: &AppId, user: &UserId) -> Answer {
    let shard = core.shard_of(PlacementKey::Directory(app, user))?;
    let replica = core.replica(shard)?;
    let read = || replica.read(|view| query::user_number(view, app, user));
    if let Some(number) = read()? {
        return Ok(Reply::KnownUser(Some(number)));
    }
    replica.linearize().await?;
    Ok(Reply::KnownUser(read()?))
}

/// Adds a range to a shard's stock, unless somebody else just has.
async fn lease(core: &Core, replica: &Replica) -> Result<(), Refusal> {
    // One at a time: who waits here finds the stock filled.
    let _turn = replica.lease_turn().await;
    let stock = replica.read(query::number_stock)?;
    if stock.left > 0 {
        return Ok(());
    }
    let request = Request::LeaseNumbers {
        shard: replica.shard(),
        count: NUMBERS_PER_LEASE,
        request: stock.next_request,
    };
    let Reply::Leased { start, end } = calls::call(core, META_SHARD, &request).await? else {
        return Err(refused(
            Code::Internal,
            "a lease was answered with something else",
        ));
    };
    let add = Command::Management(ManagementCommand::AddNumberRange { start, end });
    match replica.propose(add).await? {
        StateReply::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}
