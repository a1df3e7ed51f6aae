//! What one node asks of another.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Anchor, ApiKey, AppKey, Append, AppendChange, Direction, Grant, Permissions};
use crate::ids::{
    AppId, ChannelId, ChannelNumber, GroupId, Position, RoleId, Seq, ShardId, UserId, UserNumber,
};

/// A request of one node to another; answered by exactly one [`Answer`](super::Answer).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The cluster's map; any node answers from what it holds.
    Map,
    /// An app's token keys. Any node of the meta shard.
    App {
        /// The app.
        app: AppId,
    },
    /// Registers an app or replaces its keys. Admin only.
    PutApp {
        /// The app.
        app: AppId,
        /// Its keys.
        keys: Vec<AppKey>,
    },
    /// A user's number, issued at the first call.
    User {
        /// The app.
        app: AppId,
        /// The user.
        user: UserId,
    },
    /// Creates a group, its creator being the first member. Idempotent for the same creator.
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
    /// Creates a channel. Idempotent: answers with the channel if a member creates it again.
    CreateChannel {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The channel.
        channel: ChannelId,
        /// Who asks, a member; `None` for the app itself, not from edges.
        by: Option<UserNumber>,
    },
    /// Joins a group. Idempotent.
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
    /// Leaves a group. Idempotent.
    Leave {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The user's number.
        number: UserNumber,
    },
    /// A grant for a member.
    Grant {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The user.
        user: UserId,
        /// The user's number.
        number: UserNumber,
    },
    /// A channel by name. Linearizable.
    Channel {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The channel.
        channel: ChannelId,
    },
    /// Appends a message to a channel's log.
    Append {
        /// The message shard of the channel.
        shard: ShardId,
        /// The message.
        append: Append,
    },
    /// A page of a channel's log, confirmed by a quorum.
    Page {
        /// The message shard of the channel.
        shard: ShardId,
        /// The channel.
        channel: ChannelNumber,
        /// The anchor.
        anchor: Anchor,
        /// Which way.
        direction: Direction,
        /// Most entries, at most `PAGE_ENTRIES_MAX`.
        limit: u32,
        /// Whom the page is for, judged against the fences of the group; `None` for operators and
        /// for what an edge repairs on its own behalf.
        grant: Option<Grant>,
        /// Whether the fences that lie within the page are wanted. Not together with a grant: who
        /// else was removed is no reader's business.
        fences: bool,
    },
    /// What this node hosts and which shards it leads. Admin only.
    Status,
    /// An outbox record of another shard, for the leader of `shard`. Core nodes only.
    Deliver {
        /// The shard it is for.
        shard: ShardId,
        /// The shard whose outbox it is from.
        source: ShardId,
        /// Its number in the outbox of `source` towards `shard`.
        number: u64,
        /// What it says, as the core nodes encode it.
        delivery: Bytes,
    },
    /// Leases a range of user numbers to a management shard; for the leader of the meta shard. Core
    /// nodes only.
    LeaseNumbers {
        /// The management shard.
        shard: ShardId,
        /// How many numbers.
        count: u32,
        /// The request; asking again with the same one returns the same range.
        request: u64,
    },
    /// The receiver's clock. Core nodes only.
    Clock,
    /// Ends a membership against the member's will. Answered with `Fenced`. Idempotent until the
    /// user comes back, and with `since` for ever.
    Kick {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// Who is kicked.
        user: UserId,
        /// That user's number.
        number: UserNumber,
        /// The member who asks; `None` for the app itself, not from edges.
        by: Option<UserNumber>,
        /// The version at which the membership began that is to end; `None` for whichever there is.
        since: Option<u64>,
    },
    /// Takes the right to send away until a moment. Answered with `Fenced`.
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
        /// The member who asks; `None` for the app itself, not from edges.
        by: Option<UserNumber>,
    },
    /// Adds a key that a back end of an app uses the Server API with. Idempotent. Admin only.
    AddApiKey {
        /// The app.
        app: AppId,
        /// The key.
        key: ApiKey,
    },
    /// Removes such a key. Idempotent. Admin only.
    RemoveApiKey {
        /// The app.
        app: AppId,
        /// Its id.
        kid: String,
    },
    /// What a group is. Linearizable; not from edges.
    Group {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
    },
    /// Members of a group by ascending number. Linearizable; not from edges.
    Members {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The last number of the page before; 0 for the first page.
        after: UserNumber,
        /// Most members, at most [`MEMBERS_PAGE_MAX`](super::MEMBERS_PAGE_MAX).
        limit: u32,
    },
    /// Channels of a group in the order of their names. Linearizable; not from edges.
    Channels {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The last name of the page before.
        after: Option<ChannelId>,
        /// Most channels, at most [`CHANNELS_PAGE_MAX`](super::CHANNELS_PAGE_MAX).
        limit: u32,
    },
    /// Makes many users members, in one step. Idempotent; not from edges.
    JoinAll {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The users with their numbers, at most [`MEMBERS_PAGE_MAX`](super::MEMBERS_PAGE_MAX).
        members: Vec<(UserId, UserNumber)>,
    },
    /// An app's keys of the Server API. Linearizable; not from edges.
    ApiKeys {
        /// The app.
        app: AppId,
    },
    /// A user's number, if one was issued. Linearizable.
    KnownUser {
        /// The app.
        app: AppId,
        /// The user.
        user: UserId,
    },
    /// Appends a change to a channel's log. Answered with `Changed`.
    Change {
        /// The message shard of the channel.
        shard: ShardId,
        /// The change.
        change: AppendChange,
    },
    /// Which messages of a range have changed behind an entry, confirmed by a quorum. Answered with a page of
    /// them as they are now.
    Changes {
        /// The message shard of the channel.
        shard: ShardId,
        /// The channel.
        channel: ChannelNumber,
        /// The first entry of the range.
        from: Position,
        /// The last one, at most [`CHANGES_RANGE_MAX`] further; of the same epoch.
        ///
        /// [`CHANGES_RANGE_MAX`]: crate::limits::CHANGES_RANGE_MAX
        to: Seq,
        /// Changes up to this entry are known.
        since: Seq,
        /// Whom it is for.
        grant: Grant,
    },
    /// Keys of a message's expansion, confirmed by a quorum.
    Expansion {
        /// The message shard of the channel.
        shard: ShardId,
        /// The channel.
        channel: ChannelNumber,
        /// The message.
        target: Position,
        /// Keys behind this one; empty for the first.
        after: String,
        /// Whom it is for; `None` for the app itself, not from edges.
        grant: Option<Grant>,
    },
    /// Ends writing to a channel by members, or lets it go on. Answered with `Fenced`. Idempotent; not from edges.
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
    /// Makes a role of a group, or gives it other permissions. Answered with `Fenced`. Idempotent; not from edges.
    PutRole {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The role; `everyone` is what all members have.
        role: RoleId,
        /// What it lets do.
        permissions: Permissions,
    },
    /// Removes a role. Answered with `Fenced`. Idempotent; not from edges.
    RemoveRole {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The role.
        role: RoleId,
    },
    /// Gives a member roles, and takes others away. Answered with `Fenced`. Idempotent; not from edges.
    AssignRoles {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
        /// The member.
        user: UserId,
        /// The member's number.
        number: UserNumber,
        /// The roles, at most [`MEMBER_ROLES_MAX`](super::MEMBER_ROLES_MAX).
        roles: Vec<RoleId>,
    },
    /// The roles of a group in the order of their names, `everyone` among them if the group has changed it.
    /// Linearizable; not from edges.
    Roles {
        /// The app.
        app: AppId,
        /// The group.
        group: GroupId,
    },
}
