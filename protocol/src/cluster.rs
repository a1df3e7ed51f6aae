//! The wire between our own nodes: edge to core, and core to core.
//!
//! ALPN `throng-cluster/1`, mutual TLS, the same frames as the client wire; payloads are the enums
//! of this module in postcard. Both ends are ours and are upgraded together, one step apart at
//! most: [`ClusterHello`] negotiates the version before anything else. The feed messages serve
//! core → edge and edge → edge alike.
//!
//! Postcard numbers enum variants by their order: new ones go to the end.

mod change;
mod fence;
mod reply;
mod request;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{
    AppId, ChannelId, ChannelNumber, ClientMessageId, EdgeId, Epoch, GroupId, NodeId, Position, RoleId, Seq,
    ShardId, Ts, UserId, UserNumber,
};

pub use change::{By, Change, ChangeError, Hole, Permissions, check_expansion_key};
pub use fence::{Fence, FenceAt, FenceKind, FenceTable, Fenced};
pub use reply::{Answer, PENDING_CHANNELS_MAX, Refusal, Reply};
pub use request::Request;

/// The ALPN of this wire.
pub const ALPN: &[u8] = b"throng-cluster/1";

/// The versions of this module that this build speaks, newest first. Since 2, entries carry what changes have made
/// of messages, and grants permissions.
pub const VERSIONS: &[u16] = &[2];

/// The kind of a lane of [`Request`]s and [`Answer`]s: an RPC lane, each message in [`encode`]'s form.
pub const REQUEST_LANE: u8 = 1;

/// The kind of a lane that carries [`FeedRequest`]s one way and [`FeedEvent`]s the other, one per
/// frame.
pub const FEED_LANE: u8 = 2;

/// First lane kind that core nodes use among themselves only.
pub const CORE_LANES: u8 = 16;

/// First message of a connection, in both directions, on a lane of its own; the connection is closed when
/// no version is common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterHello {
    /// The versions the sender speaks.
    pub versions: Vec<u16>,
    /// The cluster the sender belongs to; another cluster's node is refused.
    pub cluster: String,
}

/// Who a peer is; taken from its certificate, never from what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PeerId {
    /// A core node.
    Core(NodeId),
    /// An edge.
    Edge(EdgeId),
    /// An operator's tool.
    Admin,
}

/// What a user may do in a group, as management knew it at `version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantClaims {
    /// The app.
    pub app: AppId,
    /// The group.
    pub group: GroupId,
    /// The member.
    pub user: UserId,
    /// The member's number.
    pub number: UserNumber,
    /// The version of the group's management state the grant was made from.
    pub version: u64,
    /// Management version at which the user became a member.
    pub since: u64,
    /// When the grant was made, Unix milliseconds.
    pub issued_ms: u64,
    /// Entries with a time stamp before this are not taken of the user, Unix milliseconds; 0 for a
    /// user who is not muted.
    pub muted_until: u64,
    /// The version of the last fence that touched the user; 0 for none. A shard that has not heard
    /// of that fence yet must not go by this grant.
    pub fenced: u64,
    /// What the member may do.
    pub permissions: Permissions,
}

/// A grant as it travels: the claims in postcard, and their HMAC-SHA256 under the cluster key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Which cluster key sealed it.
    pub key_id: u32,
    /// [`GrantClaims`] in postcard.
    pub claims: Bytes,
    /// HMAC-SHA256 over `claims`.
    pub seal: [u8; 32],
}

/// A channel as edges know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// The app.
    pub app: AppId,
    /// The group.
    pub group: GroupId,
    /// The channel's name.
    pub channel: ChannelId,
    /// Its number.
    pub number: ChannelNumber,
    /// The message shard that holds its log.
    pub shard: ShardId,
}

/// What an entry of a channel's log is. Numbers are on both wires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EntryKind {
    /// A message.
    Message,
    /// A message has another body.
    Modify,
    /// A message was taken back.
    Recall,
    /// A message was deleted for all.
    Delete,
    /// Keys of a message's expansion were set or removed.
    Expand,
}

impl EntryKind {
    /// The number on the client wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Message => 1,
            Self::Modify => 2,
            Self::Recall => 3,
            Self::Delete => 4,
            Self::Expand => 5,
        }
    }

    /// The name in exports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Modify => "modify",
            Self::Recall => "recall",
            Self::Delete => "delete",
            Self::Expand => "expand",
        }
    }
}

/// One entry of a channel's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Position.
    pub seq: Seq,
    /// Time stamp.
    pub ts: Ts,
    /// What it is.
    pub kind: EntryKind,
    /// Who sent it, by number.
    pub sender_number: UserNumber,
    /// Who sent it, by name.
    pub sender: UserId,
    /// The sender's key.
    pub client_message_id: ClientMessageId,
    /// The body, opaque. Of a change: its target's, as it is now.
    pub body: Bytes,
    /// Of a change: the message it changes; 0 for a message.
    pub target: Seq,
    /// Of a message: the last change that is in what is shown here; of a change: the last one of its target
    /// before it. 0 for none.
    pub version: Seq,
    /// Why there is no content. Of a change: its target's.
    pub hole: Hole,
    /// Of a message its expansion; of a change to one, what it set, as it is now.
    pub expansion: Vec<(String, String)>,
    /// Of a change to an expansion: the keys it touched that are not there any more.
    pub removed: Vec<String>,
    /// Of a message: its expansion is too large to be a part of its entry.
    pub keys_elsewhere: bool,
}

/// A message to append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The channel's number.
    pub channel: ChannelNumber,
    /// By which right.
    pub by: By,
    /// The sender's key.
    pub client_message_id: ClientMessageId,
    /// When the sender first tried, Unix milliseconds of the server's clock as the client knows it.
    pub first_attempt_ms: u64,
    /// The body.
    pub body: Bytes,
}

/// A change to append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendChange {
    /// The channel's number.
    pub channel: ChannelNumber,
    /// By which right.
    pub by: By,
    /// The sender's key, of the same numbers as those of messages.
    pub client_message_id: ClientMessageId,
    /// As in [`Append`].
    pub first_attempt_ms: u64,
    /// The message to change.
    pub target: Position,
    /// What becomes of it.
    pub change: Change,
}

/// What a page is on one side of; not part of the page itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Anchor {
    /// A position.
    Seq(Seq),
    /// A time stamp. Stamps grow strictly with positions, so this is another name for the place
    /// between two entries.
    Ts(Ts),
}

/// Which way a page goes from its anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Entries behind (greater than) the anchor, ascending.
    After,
    /// Entries before (less than) the anchor, returned ascending as well.
    Before,
}

/// Most members in one request or page: with names of 64 bytes some 40 KiB, a small part of a frame.
pub const MEMBERS_PAGE_MAX: u32 = 500;

/// Most roles of a group, that of everyone not among them: Discord's limit.
pub const ROLES_MAX: usize = 250;

/// Most roles of a member: a grant is made from all of them.
pub const MEMBER_ROLES_MAX: usize = 32;

/// Most channels in one page: as many as members.
pub const CHANNELS_PAGE_MAX: u32 = 500;

/// A key of the Server API, as the cluster keeps it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its name among the keys of the app.
    pub kid: String,
    /// SHA-256 of its secret, which has 32 random bytes: whoever reads the store cannot use it.
    pub digest: [u8; 32],
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// A group, as management knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// The version of its management state; grows with every change.
    pub version: u64,
    /// Who created it, while a member.
    pub creator: Option<UserId>,
    /// How many members it has.
    pub members: u64,
    /// How many channels it has.
    pub channels: u32,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// The user.
    pub user: UserId,
    /// The user's number.
    pub number: UserNumber,
    /// The version of the group's management state at which the membership began.
    pub since: u64,
    /// Until when the user may not send, Unix milliseconds; 0 for a user who is not muted.
    pub muted_until: u64,
    /// The member's roles, in the order of their names.
    pub roles: Vec<RoleId>,
}

/// A channel of a group as its management knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedChannel {
    /// The channel.
    pub info: ChannelInfo,
    /// Whether members may not write to it any more.
    pub archived: bool,
}

/// A role of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleInfo {
    /// Its name.
    pub role: RoleId,
    /// What it lets do.
    pub permissions: Permissions,
}

/// A key that verifies an app's tokens. Its `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppKey {
    /// The `kid` of tokens signed with it.
    pub kid: String,
    /// The one algorithm of this key; tokens naming another are refused.
    pub algorithm: TokenAlgorithm,
    /// The secret (HS256) or the public key (Ed25519, raw 32 bytes).
    pub material: Bytes,
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Signature algorithms of tokens; fixed per key, so that a token cannot choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TokenAlgorithm {
    /// HMAC-SHA256 with a shared secret of at least 32 bytes.
    Hs256,
}

/// A page of a channel's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The channel's epoch.
    pub epoch: Epoch,
    /// The position before the first entry of the page for this reader.
    pub prev: Seq,
    /// The entries, ascending.
    pub entries: Vec<Entry>,
    /// The last entry of the log when the page was read.
    pub head: Seq,
    /// The version up to which the shard knew the fences of the channel's group when the page was
    /// read. A feed that has told less is behind.
    pub fenced: u64,
    /// If asked for: the fences whose place lies in the page, ascending. A page reaches from `prev`
    /// up to before its last entry, or up to the end of the log if that is its last entry, so that
    /// consecutive pages tell each fence once.
    pub fences: Vec<FenceAt>,
}

/// A node's shards, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its replicas.
    pub shards: Vec<ShardStatus>,
}

/// One replica of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// The leader this replica knows.
    pub leader: Option<NodeId>,
    /// Raft term.
    pub term: u64,
    /// Last log index.
    pub last_log: u64,
    /// Last applied index.
    pub applied: u64,
    /// Why the replica has stopped, if it has.
    pub failed: Option<String>,
}

/// What a follower of feeds asks of its upstream, which is a core node or another edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedRequest {
    /// Follow a channel from behind a position; answered by `Opened` or `Refused`, then `Batch`es.
    Follow {
        /// The channel.
        channel: ChannelInfo,
        /// Everything up to here is held; `Position::default()` to start at the head.
        position: Position,
    },
    /// Stop following.
    Unfollow {
        /// The channel.
        channel: ChannelNumber,
    },
}

/// What an upstream tells a follower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedEvent {
    /// The feed is open. Batches begin behind `from`.
    Opened {
        /// The channel.
        channel: ChannelNumber,
        /// The channel's epoch.
        epoch: Epoch,
        /// The position the feed begins behind.
        from: Seq,
        /// The last entry of the log now.
        head: Seq,
        /// The fences with a place at or before `from`; the others follow as events.
        fences: FenceTable,
    },
    /// Entries, ascending, complete.
    Batch {
        /// The channel.
        channel: ChannelNumber,
        /// The channel's epoch.
        epoch: Epoch,
        /// The entry before the first, for this feed.
        prev: Seq,
        /// The entries; at least one.
        entries: Vec<Entry>,
    },
    /// The position asked for cannot be served (other epoch, or before the oldest kept entry):
    /// start anew from `head`.
    Reset {
        /// The channel.
        channel: ChannelNumber,
        /// The channel's epoch.
        epoch: Epoch,
        /// The last entry of the log.
        head: Seq,
        /// The fences with a place at or before `head`.
        fences: FenceTable,
    },
    /// This upstream cannot feed that channel; ask another node.
    Refused {
        /// The channel.
        channel: ChannelNumber,
        /// Why.
        refusal: Refusal,
    },
    /// A fence at its place: all entries up to `after` have been sent, none behind it.
    Fence {
        /// The channel.
        channel: ChannelNumber,
        /// Its place: behind this entry and before the next.
        after: Seq,
        /// The fence.
        fence: Fence,
    },
}

/// What the bytes of a message of this wire are not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a cluster message cannot be decoded: {0}")]
pub struct ClusterDecodeError(String);

/// Encodes a message of this wire.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    let bytes =
        postcard::to_stdvec(message).expect("invariant: messages of this module hold no unsized sequences");
    Bytes::from(bytes)
}

/// Decodes a message of this wire; trailing bytes are refused.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ClusterDecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(ClusterDecodeError(format!("{} bytes are left over", rest.len()))),
        Err(error) => Err(ClusterDecodeError(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_out_as_it_went_in_and_leftovers_are_refused() {
        let request = Request::Join {
            app: AppId::new("app").expect("valid"),
            group: GroupId::new("group").expect("valid"),
            user: UserId::new("user").expect("valid"),
            number: UserNumber(7),
        };
        let mut bytes = encode(&request).to_vec();
        assert_eq!(decode::<Request>(&bytes), Ok(request));
        bytes.push(0);
        assert!(decode::<Request>(&bytes).is_err());
        assert!(decode::<Request>(&bytes[..3]).is_err());
    }
}
