//! What one node answers another.

use serde::{Deserialize, Serialize};

use super::{
    ApiKey, AppKey, ChannelInfo, Grant, GroupInfo, ListedChannel, MemberInfo, NodeStatus, Page, RoleInfo,
};
use crate::code::Code;
use crate::ids::{ChannelId, Epoch, NodeId, Seq, Ts, UserNumber};
use crate::placement::ClusterMap;

/// Why a request was refused, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Another node leads the shard; `None` while an election runs. Ask that one, or again later.
    NotLeader {
        /// The leader, if this node knows one.
        leader: Option<NodeId>,
    },
    /// A numbered error for the client.
    Code {
        /// The code.
        code: Code,
        /// What happened, for people.
        text: String,
    },
    /// The grant is older than a fence that touches its user. Never told to clients: an edge asks
    /// management for a fresh grant, once, and tells what that comes to.
    GrantStale,
}

/// The answer to a [`Request`](super::Request).
pub type Answer = Result<Reply, Refusal>;

/// What a granted request returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Map`.
    Map(ClusterMap),
    /// To `App`; `None` for an unknown app.
    App(Option<Vec<AppKey>>),
    /// To requests that only succeed.
    Done,
    /// To `User`.
    User(UserNumber),
    /// To `CreateChannel` and `Channel`.
    Channel(ChannelInfo),
    /// To `Grant`.
    Grant(Grant),
    /// To `Append`.
    Appended {
        /// The channel's epoch.
        epoch: Epoch,
        /// The message's position.
        seq: Seq,
        /// Its time stamp.
        ts: Ts,
        /// Whether it was appended by an earlier attempt.
        repeat: bool,
    },
    /// To `Page`.
    Page(Page),
    /// To `Status`.
    Status(NodeStatus),
    /// To `Deliver`, when earlier records are missing; nothing was done.
    DeliverFrom {
        /// The number that must come next.
        expected: u64,
    },
    /// To `LeaseNumbers`: the range `start..end`.
    Leased {
        /// The first number.
        start: u64,
        /// The number behind the last.
        end: u64,
    },
    /// To `Clock`: Unix milliseconds.
    Clock(u64),
    /// To `Kick`, `Mute`, `ArchiveChannel` and changes of roles.
    Fenced {
        /// The version of the group's management state that the change made.
        version: u64,
        /// Channels whose shard has not taken the fence yet, at most [`PENDING_CHANNELS_MAX`] of
        /// them. Empty when the change holds everywhere.
        pending: Vec<ChannelId>,
        /// Further such channels that are not named.
        more: u32,
    },
    /// To `Group`.
    Group(GroupInfo),
    /// To `Members`.
    Members(Vec<MemberInfo>),
    /// To `Channels`.
    Channels(Vec<ListedChannel>),
    /// To `JoinAll`.
    Joined {
        /// How many of the users were no members before.
        joined: u32,
    },
    /// To `ApiKeys`: none for an unknown app.
    ApiKeys(Vec<ApiKey>),
    /// To `KnownUser`.
    KnownUser(Option<UserNumber>),
    /// To `Change`.
    Changed {
        /// The channel's epoch.
        epoch: Epoch,
        /// The change's position.
        seq: Seq,
        /// Its time stamp.
        ts: Ts,
        /// Whether it was appended by an earlier attempt.
        repeat: bool,
        /// The last change of the target before it; 0 for none.
        before: Seq,
    },
    /// To `Roles`.
    Roles(Vec<RoleInfo>),
    /// To `Expansion`.
    Expansion {
        /// The channel's epoch.
        epoch: Epoch,
        /// The last change of the message; 0 for none.
        version: Seq,
        /// Keys and values, ascending.
        expansion: Vec<(String, String)>,
        /// Whether there are more behind the last.
        more: bool,
    },
}

/// Most channels that [`Reply::Fenced`] names: enough for a person to read, and bounded.
pub const PENDING_CHANNELS_MAX: usize = 100;
