//! The records of a shard's state, each `[version u8][postcard]` under a key of [`keys`].
//!
//! A record that changes its shape gets a new version and a reader for the old one. A record that
//! cannot be read stops the replica: guessing would let replicas drift apart.
//!
//! [`keys`]: crate::keys

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use throng_protocol::cluster::{ApiKey, AppKey, ChannelInfo, EntryKind, FenceKind, Hole, Permissions};
use throng_protocol::ids::{ClientMessageId, Epoch, RoleId, Seq, ShardId, Ts, UserId, UserNumber};
use throng_protocol::placement::ClusterMap;

use crate::command::ClusterKey;
use crate::outbox::Delivery;
use crate::{ApplyError, View, codec};

/// A type that is stored under a key of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// The version this build writes and reads.
    const VERSION: u8;

    /// The record as it is stored.
    fn encode(&self) -> Bytes {
        codec::encode(Self::VERSION, self)
    }

    /// Reads what is stored under `key`.
    fn decode(key: &[u8], value: &[u8]) -> Result<Self, ApplyError> {
        codec::decode(Self::VERSION, value).map_err(|error| corrupt(key, error.to_string()))
    }
}

/// The record under a key.
pub fn read<R: Record>(view: &dyn View, key: &[u8]) -> Result<Option<R>, ApplyError> {
    view.get(key)?.map(|value| R::decode(key, &value)).transpose()
}

/// The record under a key that another record says is there.
pub(crate) fn read_present<R: Record>(view: &dyn View, key: &[u8]) -> Result<R, ApplyError> {
    read(view, key)?.ok_or_else(|| corrupt(key, "it is missing".to_owned()))
}

/// The error for a record that is not what it must be.
pub(crate) fn corrupt(key: &[u8], reason: String) -> ApplyError {
    let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
    ApplyError::Record { key, reason }
}

/// One more than a stored count. A count at its end is a damaged record: none is ever reached.
pub(crate) fn one_more(key: &[u8], count: u64) -> Result<u64, ApplyError> {
    count
        .checked_add(1)
        .ok_or_else(|| corrupt(key, "a count has come to its end".to_owned()))
}

macro_rules! record {
    ($(#[$doc:meta])* $name:ident {$($fields:tt)*}) => {
        record!(version 1, $(#[$doc])* $name {$($fields)*});
    };
    (version $version:literal, $(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Record for $name {
            const VERSION: u8 = $version;
        }
    };
}

record!(
    /// Meta: the cluster map.
    MapRecord {
        /// The map.
        map: ClusterMap,
    }
);
record!(
    /// Meta: a key that seals grants.
    ClusterKeyRecord {
        /// The key.
        key: ClusterKey,
    }
);
record!(
    /// Meta: an app.
    AppRecord {
        /// The keys that verify its tokens.
        keys: Vec<AppKey>,
    }
);
record!(
    /// Meta: the keys of an app for the Server API.
    ApiKeysRecord {
        /// The keys.
        keys: Vec<ApiKey>,
    }
);
record!(
    /// Meta: where the next lease begins.
    LeaseHeadRecord {
        /// The first user number never leased.
        next: u64,
    }
);
record!(
    /// Meta: the last lease of one management shard.
    LeaseRecord {
        /// The request that was answered with it.
        request: u64,
        /// The range.
        range: NumberRange,
    }
);

/// User numbers `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberRange {
    /// The first number.
    pub start: u64,
    /// The number behind the last.
    pub end: u64,
}

record!(
    /// Management: user numbers in stock.
    NumberStockRecord {
        /// Leased ranges with numbers left, in the order they are used up.
        ranges: Vec<NumberRange>,
        /// The number behind all ranges ever added; a range must begin at or behind it.
        end: u64,
        /// Ranges ever added.
        added: u64,
    }
);
record!(
    /// Management: a user.
    UserRecord {
        /// The user's number.
        number: UserNumber,
    }
);
record!(
    version 2,
    /// Management: a group.
    GroupRecord {
        /// Who created it.
        creator: UserNumber,
        /// Grows with each change of the group, its members or its channels; from 1.
        version: u64,
        /// Members it has.
        members: u64,
        /// Channels it has.
        channels: u32,
        /// The version of its last fence; 0 for none. A shard that hears of the group later takes
        /// no grant from before it.
        fenced: u64,
    }
);
record!(
    /// Management: a member of a group.
    MemberRecord {
        /// The group's version when this membership began.
        since: u64,
        /// The member's name.
        name: UserId,
    }
);
record!(
    version 2,
    /// Management: a channel, by its name.
    ChannelRecord {
        /// The channel.
        info: ChannelInfo,
        /// Whether members may not write to it any more.
        archived: bool,
        /// The version of the group that decided so last; 0 if none has.
        decided: u64,
    }
);
record!(
    /// Management: channel numbers.
    ChannelCounterRecord {
        /// The shard that issues them: this one.
        issuer: ShardId,
        /// The last counter issued.
        last: u64,
    }
);
record!(
    /// Management: what fences have taken from a user of a group. Outlives the membership, so that
    /// leaving and coming back wipes nothing out.
    LedgerRecord {
        /// The user's name when the last fence was made.
        name: UserId,
        /// The version of the last fence of any kind.
        fenced: u64,
        /// The version of the last kick; 0 for none.
        kicked: u64,
        /// The version that last changed `muted_until`; 0 for none.
        muted: u64,
        /// Until when the user may not send, Unix milliseconds; 0 for a user who is not muted.
        muted_until: u64,
    }
);
record!(
    /// Management: a role of a group.
    RoleRecord {
        /// What it lets do.
        permissions: Permissions,
        /// The version of the group that made it: a role that is made anew under its name is another one.
        since: u64,
        /// The version of the group that changed it last.
        version: u64,
    }
);

/// A role that a member has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedRole {
    /// Its name.
    pub role: RoleId,
    /// Which one of that name.
    pub since: u64,
}

record!(
    /// Management: the roles of a member; absent for one who has none. Ends with the membership.
    MemberRolesRecord {
        /// The roles, in the order of their names.
        roles: Vec<AssignedRole>,
    }
);
record!(
    /// Management: a message shard that holds channels of a group, and so must hear of its fences.
    GroupShardRecord {
        /// The version of the group that brought its first channel there.
        since: u64,
    }
);
record!(
    version 2,
    /// Message: a channel whose log is here. Apart from the [`TailRecord`], so that an append does not
    /// rewrite the names.
    LogRecord {
        /// The channel.
        info: ChannelInfo,
        /// The incarnation of its log.
        epoch: Epoch,
        /// Whether members may not write to it any more.
        archived: bool,
    }
);
record!(
    /// Message: the end of a channel's log, rewritten by each append.
    TailRecord {
        /// The last entry; 0 for an empty log.
        head: Seq,
        /// Its time stamp.
        last_ts: Ts,
        /// The oldest entry kept.
        oldest: Seq,
        /// Idempotency records of entries up to here are gone.
        expired: Seq,
        /// The time stamp of the entry behind `expired`, so that an append need not read that entry
        /// to see that it is not due. Without meaning while `expired` is `head`.
        due: Ts,
    }
);
record!(
    version 3,
    /// Message: an entry of a log. The one place a message's body is stored: a modification rewrites it, and the
    /// entries of changes hold nothing of it. Begins as [`EntryStamp`] does.
    EntryRecord {
        /// Its time stamp.
        ts: Ts,
        /// The log index it was applied at: what says on which side of a fence it lies.
        index: u64,
        /// What it is.
        kind: EntryKind,
        /// Of a change: the message it changes; 0 for a message.
        target: Seq,
        /// Of a change: the last one of its target before it; 0 for none, and for a message.
        before: Seq,
        /// Who sent it; 0 for the app itself.
        sender_number: UserNumber,
        /// The sender's name when it was sent.
        sender: UserId,
        /// The sender's key.
        client_message_id: ClientMessageId,
        /// The body of a message, opaque; of a change to an expansion the keys it touched, as [`Touched`].
        body: Bytes,
    }
);
record!(
    /// Message: what changes have made of a message; absent for one that was never changed. Apart from the
    /// entry, so that a small change rewrites no body, and what has changed is found without reading any.
    ChangedRecord {
        /// Its last change.
        version: Seq,
        /// Why there is no content any more.
        hole: Hole,
        /// Keys of its expansion; they are [`ExpansionRecord`]s.
        keys: u16,
        /// Bytes of those keys and their values.
        keys_bytes: u32,
    }
);
record!(
    /// Message: the value of a key of a message's expansion.
    ExpansionRecord {
        /// The value.
        value: String,
    }
);
record!(
    /// The keys that a change to an expansion touched: the body of its entry.
    Touched {
        /// The keys.
        keys: Vec<String>,
    }
);
record!(
    /// Message: what a sender's key was used for.
    SentRecord {
        /// The entry.
        seq: Seq,
        /// Its time stamp.
        ts: Ts,
        /// The hash over the fields that a retry must repeat.
        fields: [u8; 16],
    }
);

/// The beginning of an [`EntryRecord`], for searches: without the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryStamp {
    /// Its time stamp.
    pub ts: Ts,
    /// The log index it was applied at.
    pub index: u64,
}

impl Default for ChangedRecord {
    /// Of a message that was never changed.
    fn default() -> Self {
        Self {
            version: Seq(0),
            hole: Hole::None,
            keys: 0,
            keys_bytes: 0,
        }
    }
}

impl EntryStamp {
    /// Reads the beginning of the entry under `key`, which must be there.
    pub(crate) fn read(view: &dyn View, key: &[u8]) -> Result<Self, ApplyError> {
        let value = view
            .get(key)?
            .ok_or_else(|| corrupt(key, "it is missing".to_owned()))?;
        codec::decode_start(EntryRecord::VERSION, &value).map_err(|error| corrupt(key, error.to_string()))
    }
}

record!(
    version 2,
    /// Message: the ends of a group's fences. Absent for a group that has none.
    FencesRecord {
        /// Grants of a lower version are void: fences up to here were folded together.
        floor: u64,
        /// The version of the last fence, or the floor.
        last: u64,
        /// Fences kept; all lie behind the floor.
        count: u64,
        /// Grants of a lower version do not count for acting: a role has lost permissions since. 0 if none has.
        rights: u64,
    }
);
record!(
    /// Message: a fence.
    FenceRecord {
        /// Whom it touches.
        number: UserNumber,
        /// Whom it touches, by name.
        user: UserId,
        /// What it does.
        kind: FenceKind,
        /// The log index it was applied at: entries with a smaller one lie before it.
        index: u64,
        /// When the change was proposed, Unix milliseconds.
        at_ms: u64,
    }
);
record!(
    /// Message: the last fences of a user, folded ones not among them.
    FencedUserRecord {
        /// The version of the last one that ended reading; 0 for none.
        ended: u64,
        /// The version of the last mute; 0 for none.
        muted: u64,
    }
);
record!(
    version 2,
    /// Any shard: what it must tell another.
    OutgoingRecord {
        /// What it tells.
        delivery: Delivery,
    }
);
record!(
    /// Any shard: its outbox towards one target. Records `acked + 1 ..= last` are stored.
    OutboxRecord {
        /// The last number issued.
        last: u64,
        /// The last number acknowledged.
        acked: u64,
    }
);
record!(
    /// Any shard: what it has of one source's outbox.
    InboxRecord {
        /// The last number received.
        last: u64,
    }
);
