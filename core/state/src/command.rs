//! What can be proposed to a shard.
//!
//! A command is written to the Raft log as `[version u8][postcard]` and stays readable for as long
//! as a log or a backup holds it: variants are only ever added at the end. It refuses to hold
//! anything a replica would have to look up outside: the leader puts the time (`proposed_ms`) in,
//! and it has verified a grant's seal; everything else is judged when the command is applied.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::{ApiKey, AppKey, Change, GrantClaims, Permissions};
use throng_protocol::ids::{
    AppId, ChannelId, ChannelNumber, ClientMessageId, GroupId, Position, RoleId, ShardId, UserId, UserNumber,
};
use throng_protocol::placement::ClusterMap;

use crate::codec::{self, DecodeError};
use crate::outbox::Delivery;

/// The version written before every command. Before 2, grants and leaving knew no fences; before 3, only
/// members created channels; before 4, grants knew no permissions.
const VERSION: u8 = 4;

/// A command to one shard; the outer variant is the plane of the shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// To the meta shard.
    Meta(MetaCommand),
    /// To a management shard.
    Management(ManagementCommand),
    /// To a message shard.
    Message(MessageCommand),
}

impl Command {
    /// The command as the Raft log holds it.
    pub fn encode(&self) -> Bytes {
        codec::encode(VERSION, self)
    }

    /// Reads a command from the Raft log.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(VERSION, bytes)
    }
}

/// A key that seals grants, shared by all core nodes through the meta shard.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterKey {
    /// Which key; a grant names it.
    pub id: u32,
    /// The secret.
    pub secret: [u8; 32],
}

impl fmt::Debug for ClusterKey {
    /// Never prints the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A command to the meta shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaCommand {
    /// Begins a cluster. Does nothing if it has begun. Answer: [`Bootstrapped`].
    ///
    /// [`Bootstrapped`]: crate::reply::Reply::Bootstrapped
    Bootstrap {
        /// The first map.
        map: ClusterMap,
        /// The first key that seals grants.
        cluster_key: ClusterKey,
    },
    /// Registers an app or replaces its keys. Answer: `Done`.
    PutApp {
        /// The app.
        app: AppId,
        /// Its keys; none locks the app out.
        keys: Vec<AppKey>,
    },
    /// Leases a range of user numbers to a management shard. Answer: [`Leased`].
    ///
    /// [`Leased`]: crate::reply::Reply::Leased
    LeaseNumbers {
        /// The management shard.
        shard: ShardId,
        /// How many numbers.
        count: u32,
        /// The request, from [`query::number_stock`]; asking again with the same one returns the
        /// same range, a smaller one is refused.
        ///
        /// [`query::number_stock`]: crate::query::number_stock
        request: u64,
    },
    /// Replaces the map by one of a higher version. Answer: `Done`.
    PutMap {
        /// The new map.
        map: ClusterMap,
    },
    /// Adds a key to those an app uses the Server API with. Answer: `Done`.
    AddApiKey {
        /// The app; must be registered.
        app: AppId,
        /// The key.
        key: ApiKey,
    },
    /// Removes a key from those. Answer: `Done`.
    RemoveApiKey {
        /// The app.
        app: AppId,
        /// The id of the key.
        kid: String,
    },
}

/// A command to a management shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManagementCommand {
    /// Gives a user a number, once. Answer: [`User`], or [`NumbersExhausted`] when a range must be
    /// leased first.
    ///
    /// [`User`]: crate::reply::Reply::User
    /// [`NumbersExhausted`]: crate::reply::Reply::NumbersExhausted
    RegisterUser {
        /// The app.
        app: AppId,
        /// The user.
        user: UserId,
    },
    /// Adds a range leased from meta to this shard's stock. A range that does not lie behind all
    /// earlier ones is ignored, so that no number is issued twice. Answer: `Done`.
    AddNumberRange {
        /// The first number.
        start: u64,
        /// The number behind the last.
        end: u64,
    },
    /// Creates a group; its creator is the first member. Answer: [`Group`].
    ///
    /// [`Group`]: crate::reply::Reply::Group
    CreateGroup {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The creator.
        user: UserId,
        /// The creator's number.
        number: UserNumber,
    },
    /// Creates a channel; a member who asks for one that exists gets it. Answer: [`Channel`].
    ///
    /// [`Channel`]: crate::reply::Reply::Channel
    CreateChannel {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The channel.
        channel: ChannelId,
        /// Who asks, a member; `None` for the app itself.
        by: Option<UserNumber>,
        /// The management shard this command is for; part of the channel's number.
        issuer: ShardId,
        /// The message shard that will hold the channel's log.
        target: ShardId,
    },
    /// Makes a user a member. Answer: [`Membership`].
    ///
    /// [`Membership`]: crate::reply::Reply::Membership
    Join {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The user.
        user: UserId,
        /// The user's number.
        number: UserNumber,
    },
    /// Ends a membership, with a fence. Answer: [`Membership`].
    ///
    /// [`Membership`]: crate::reply::Reply::Membership
    Leave {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The user's number.
        number: UserNumber,
        /// The leader's clock when it proposed this, Unix milliseconds.
        proposed_ms: u64,
    },
    /// A target shard has committed outbox records. Answer: [`OutboxAcked`].
    ///
    /// [`OutboxAcked`]: crate::reply::Reply::OutboxAcked
    OutboxAcked {
        /// The shard that has them.
        target: ShardId,
        /// The last one it has.
        through: u64,
    },
    /// Ends a membership against the member's will. Answer: [`Fenced`].
    ///
    /// [`Fenced`]: crate::reply::Reply::Fenced
    Kick {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// Who is kicked.
        user: UserId,
        /// That user's number.
        number: UserNumber,
        /// Who asks; `None` for the app itself.
        by: Option<UserNumber>,
        /// The version at which the membership began that is to end; `None` for whichever there is.
        since: Option<u64>,
        /// The leader's clock when it proposed this, Unix milliseconds.
        proposed_ms: u64,
    },
    /// Takes the right to send away, or gives it back. Answer: [`Fenced`].
    ///
    /// [`Fenced`]: crate::reply::Reply::Fenced
    Mute {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// Who is muted.
        user: UserId,
        /// That user's number.
        number: UserNumber,
        /// Until when, Unix milliseconds; 0 gives the right back.
        until_ms: u64,
        /// Who asks; `None` for the app itself.
        by: Option<UserNumber>,
        /// The leader's clock when it proposed this, Unix milliseconds.
        proposed_ms: u64,
    },
    /// Makes many users members. Answer: [`Joined`].
    ///
    /// [`Joined`]: crate::reply::Reply::Joined
    JoinAll {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The users with their numbers.
        members: Vec<(UserId, UserNumber)>,
    },
    /// Ends writing to a channel by members, or lets it go on. Answer: [`Fenced`].
    ///
    /// [`Fenced`]: crate::reply::Reply::Fenced
    ArchiveChannel {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The channel.
        channel: ChannelId,
        /// Whether it is to be archived.
        archived: bool,
    },
    /// Changes the roles of a group. Answer: [`Fenced`].
    ///
    /// [`Fenced`]: crate::reply::Reply::Fenced
    Roles {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// What changes.
        change: RoleChange,
    },
}

/// A change of the roles of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoleChange {
    /// Makes a role, or gives it other permissions.
    Put {
        /// The role.
        role: RoleId,
        /// What it lets do.
        permissions: Permissions,
    },
    /// Removes a role.
    Remove {
        /// The role.
        role: RoleId,
    },
    /// Gives a member these roles and no others.
    Assign {
        /// The member.
        user: UserId,
        /// The member's number.
        number: UserNumber,
        /// The roles.
        roles: Vec<RoleId>,
        /// The leader's clock when it proposed this, Unix milliseconds.
        proposed_ms: u64,
    },
}

/// A command to a message shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageCommand {
    /// An outbox record of another shard. Answer: `Done`, also for one seen before; [`OutOfOrder`]
    /// for one that comes too early.
    ///
    /// [`OutOfOrder`]: crate::reply::Reply::OutOfOrder
    Deliver {
        /// The shard whose outbox it is from.
        source: ShardId,
        /// Its number there, among those for this shard.
        number: u64,
        /// What it says.
        delivery: Delivery,
    },
    /// Appends a message to a channel's log. Answer: [`Appended`].
    ///
    /// [`Appended`]: crate::reply::Reply::Appended
    Append(AppendMessage),
    /// Appends a change to a message of a channel's log, and makes it. Answer: [`Changed`].
    ///
    /// [`Changed`]: crate::reply::Reply::Changed
    Change(ChangeMessage),
}

/// A message to append, with what the leader knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendMessage {
    /// The channel.
    pub channel: ChannelNumber,
    /// What the sender's grant says; the leader has verified its seal and age.
    pub claims: GrantClaims,
    /// The sender's key.
    pub client_message_id: ClientMessageId,
    /// When the sender first tried, Unix milliseconds of the server's clock as the sender knows it.
    pub first_attempt_ms: u64,
    /// The leader's clock when it proposed this, Unix milliseconds.
    pub proposed_ms: u64,
    /// The body, opaque.
    pub body: Bytes,
}

/// A change to append, with what the leader knows of whoever makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeMessage {
    /// The channel.
    pub channel: ChannelNumber,
    /// As of a message; the leader makes those of the app itself.
    pub claims: GrantClaims,
    /// The sender's key.
    pub client_message_id: ClientMessageId,
    /// As of a message.
    pub first_attempt_ms: u64,
    /// As of a message.
    pub proposed_ms: u64,
    /// The message to change.
    pub target: Position,
    /// What becomes of it; the leader has checked its limits.
    pub change: Change,
}
