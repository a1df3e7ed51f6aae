//! The keys of all records: one byte for the table, then the parts.
//!
//! Numbers are big-endian, so that byte order is number order. Names end with a zero byte, which no
//! name holds (names have no control characters), so that no key is a prefix of another and a scan
//! of a table is in the order of the names.
//!
//! | tag  | plane      | parts                        | record                  | table |
//! |------|------------|------------------------------|-------------------------|-------|
//! | 0x01 | meta       |                              | `MapRecord`             | the cluster map |
//! | 0x02 | meta       | key id u32                   | `ClusterKeyRecord`      | keys that seal grants |
//! | 0x03 | meta       | app                          | `AppRecord`             | apps and their token keys |
//! | 0x04 | meta       |                              | `LeaseHeadRecord`       | the first user number not leased |
//! | 0x05 | meta       | shard u32                    | `LeaseRecord`           | the last lease of a management shard |
//! | 0x06 | meta       | app                          | `ApiKeysRecord`         | keys of the Server API |
//! | 0x20 | management |                              | `NumberStockRecord`     | leased numbers not issued yet |
//! | 0x21 | management | app, user                    | `UserRecord`            | the user directory |
//! | 0x22 | management | app, group                   | `GroupRecord`           | groups |
//! | 0x23 | management | app, group, user number u64  | `MemberRecord`          | members |
//! | 0x24 | management | app, group, channel          | `ChannelRecord`         | channels by name |
//! | 0x25 | management |                              | `ChannelCounterRecord`  | the last channel number issued |
//! | 0x26 | management | app, group, user number u64  | `LedgerRecord`          | what fences have taken from users |
//! | 0x27 | management | app, group, shard u32        | `GroupShardRecord`      | message shards with channels of a group |
//! | 0x28 | management | app, group, role             | `RoleRecord`            | roles |
//! | 0x29 | management | app, group, user number u64  | `MemberRolesRecord`     | roles of members |
//! | 0x40 | message    | channel u64                  | `LogRecord`             | channels whose log is here |
//! | 0x41 | message    | channel u64                  | `TailRecord`            | the end of a channel's log |
//! | 0x42 | message    | channel u64, seq u64         | `EntryRecord`           | the log |
//! | 0x43 | message    | channel u64, sender u64, client message id u64 | `SentRecord` | idempotency |
//! | 0x44 | message    | app, group                   | `FencesRecord`          | the ends of a group's fences |
//! | 0x45 | message    | app, group, version u64      | `FenceRecord`           | fences in their order |
//! | 0x46 | message    | app, group, user number u64  | `FencedUserRecord`      | the last fences of a user |
//! | 0x47 | message    | channel u64, seq u64, key    | `ExpansionRecord`       | expansions of messages |
//! | 0x48 | message    | channel u64, seq u64         | `ChangedRecord`         | messages that were changed |
//! | 0x60 | any        | target shard u32, number u64 | `OutgoingRecord`        | outbox |
//! | 0x61 | any        | target shard u32             | `OutboxRecord`          | last number issued and acknowledged |
//! | 0x62 | any        | source shard u32             | `InboxRecord`           | last number received |

use bytes::Bytes;
use throng_protocol::ids::{
    AppId, ChannelId, ChannelNumber, ClientMessageId, GroupId, RoleId, Seq, ShardId, UserId, UserNumber,
};

const MAP: u8 = 0x01;
const CLUSTER_KEY: u8 = 0x02;
const APP: u8 = 0x03;
const LEASE_HEAD: u8 = 0x04;
const LEASE: u8 = 0x05;
const API_KEYS: u8 = 0x06;
const NUMBER_STOCK: u8 = 0x20;
const USER: u8 = 0x21;
const GROUP: u8 = 0x22;
const MEMBER: u8 = 0x23;
const CHANNEL: u8 = 0x24;
const CHANNEL_COUNTER: u8 = 0x25;
const LEDGER: u8 = 0x26;
const GROUP_SHARD: u8 = 0x27;
const ROLE: u8 = 0x28;
const MEMBER_ROLES: u8 = 0x29;
const LOG: u8 = 0x40;
const TAIL: u8 = 0x41;
const ENTRY: u8 = 0x42;
const SENT: u8 = 0x43;
const FENCES: u8 = 0x44;
const FENCE: u8 = 0x45;
const FENCED_USER: u8 = 0x46;
const EXPANSION: u8 = 0x47;
const CHANGED: u8 = 0x48;
const OUTGOING: u8 = 0x60;
const OUTBOX: u8 = 0x61;
const INBOX: u8 = 0x62;

/// A key under construction.
struct Key(Vec<u8>);

impl Key {
    fn new(tag: u8) -> Self {
        Self(vec![tag])
    }

    fn name(mut self, name: &str) -> Self {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self
    }

    fn of_group(tag: u8, app: &AppId, group: &GroupId) -> Self {
        Self::new(tag).name(app.as_str()).name(group.as_str())
    }

    fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn done(self) -> Bytes {
        Bytes::from(self.0)
    }
}

/// The cluster map.
pub fn map() -> Bytes {
    Key::new(MAP).done()
}

/// A key that seals grants.
pub fn cluster_key(id: u32) -> Bytes {
    Key::new(CLUSTER_KEY).u32(id).done()
}

/// All keys that seal grants, as a range.
pub fn cluster_keys() -> (Bytes, Bytes) {
    (Key::new(CLUSTER_KEY).done(), Key::new(CLUSTER_KEY + 1).done())
}

/// An app.
pub fn app(app: &AppId) -> Bytes {
    Key::new(APP).name(app.as_str()).done()
}

/// The first user number not leased.
pub fn lease_head() -> Bytes {
    Key::new(LEASE_HEAD).done()
}

/// The last lease of a management shard.
pub fn lease(shard: ShardId) -> Bytes {
    Key::new(LEASE).u32(shard.0).done()
}

/// An app's keys of the Server API.
pub fn api_keys(app: &AppId) -> Bytes {
    Key::new(API_KEYS).name(app.as_str()).done()
}

/// Leased numbers not issued yet.
pub fn number_stock() -> Bytes {
    Key::new(NUMBER_STOCK).done()
}

/// A user of the directory.
pub fn user(app: &AppId, user: &UserId) -> Bytes {
    Key::new(USER).name(app.as_str()).name(user.as_str()).done()
}

/// A group.
pub fn group(app: &AppId, group: &GroupId) -> Bytes {
    Key::of_group(GROUP, app, group).done()
}

/// A member of a group.
pub fn member(app: &AppId, group: &GroupId, number: UserNumber) -> Bytes {
    Key::of_group(MEMBER, app, group).u64(number.0).done()
}

/// Members of a group with a greater number, as a range.
pub fn members_after(app: &AppId, group: &GroupId, after: UserNumber) -> (Bytes, Bytes) {
    let from = [&member(app, group, after)[..], &[0]].concat();
    let to = [&member(app, group, UserNumber(u64::MAX))[..], &[0]].concat();
    (Bytes::from(from), Bytes::from(to))
}

/// A channel by its name.
pub fn channel(app: &AppId, group: &GroupId, channel: &ChannelId) -> Bytes {
    Key::of_group(CHANNEL, app, group).name(channel.as_str()).done()
}

/// All channels of a group, as a range.
pub fn channels(app: &AppId, group: &GroupId) -> (Bytes, Bytes) {
    // No name begins with a byte of this value: it is not UTF-8.
    let end = [&Key::of_group(CHANNEL, app, group).0[..], &[0xff]].concat();
    (Key::of_group(CHANNEL, app, group).done(), Bytes::from(end))
}

/// Channels of a group with a greater name, as a range.
pub fn channels_after(app: &AppId, group: &GroupId, after: &ChannelId) -> (Bytes, Bytes) {
    let from = [&channel(app, group, after)[..], &[0]].concat();
    (Bytes::from(from), channels(app, group).1)
}

/// The last channel number issued.
pub fn channel_counter() -> Bytes {
    Key::new(CHANNEL_COUNTER).done()
}

/// What fences have taken from a user of a group.
pub fn ledger(app: &AppId, group: &GroupId, number: UserNumber) -> Bytes {
    Key::of_group(LEDGER, app, group).u64(number.0).done()
}

/// A message shard that holds channels of a group.
pub fn group_shard(app: &AppId, group: &GroupId, shard: ShardId) -> Bytes {
    Key::of_group(GROUP_SHARD, app, group).u32(shard.0).done()
}

/// All message shards that hold channels of a group, as a range.
pub fn group_shards(app: &AppId, group: &GroupId) -> (Bytes, Bytes) {
    let end = Key::of_group(GROUP_SHARD, app, group).u32(u32::MAX).0;
    let behind = [&end[..], &[0]].concat();
    (group_shard(app, group, ShardId(0)), Bytes::from(behind))
}

/// A role of a group.
pub fn role(app: &AppId, group: &GroupId, role: &RoleId) -> Bytes {
    role_named(app, group, role.as_str())
}

/// A role of a group, by a name that is valid.
pub(crate) fn role_named(app: &AppId, group: &GroupId, role: &str) -> Bytes {
    Key::of_group(ROLE, app, group).name(role).done()
}

/// All roles of a group, as a range.
pub fn roles(app: &AppId, group: &GroupId) -> (Bytes, Bytes) {
    // No name begins with a byte of this value: it is not UTF-8.
    let end = [&Key::of_group(ROLE, app, group).0[..], &[0xff]].concat();
    (Key::of_group(ROLE, app, group).done(), Bytes::from(end))
}

/// The name of a key of [`role`]; `None` for any other key.
pub fn role_name(key: &[u8]) -> Option<&str> {
    match key {
        [ROLE, parts @ .., 0] => std::str::from_utf8(parts.rsplit(|byte| *byte == 0).next()?).ok(),
        _ => None,
    }
}

/// The roles of a member.
pub fn member_roles(app: &AppId, group: &GroupId, number: UserNumber) -> Bytes {
    Key::of_group(MEMBER_ROLES, app, group).u64(number.0).done()
}

/// A channel whose log is on this shard.
pub fn log(channel: ChannelNumber) -> Bytes {
    Key::new(LOG).u64(channel.0).done()
}

/// The end of a channel's log.
pub fn tail(channel: ChannelNumber) -> Bytes {
    Key::new(TAIL).u64(channel.0).done()
}

/// An entry of a channel's log.
pub fn entry(channel: ChannelNumber, seq: Seq) -> Bytes {
    Key::new(ENTRY).u64(channel.0).u64(seq.0).done()
}

/// The idempotency record of a sent message.
pub fn sent(channel: ChannelNumber, sender: UserNumber, id: ClientMessageId) -> Bytes {
    Key::new(SENT).u64(channel.0).u64(sender.0).u64(id.0).done()
}

/// The ends of a group's fences.
pub fn fences(app: &AppId, group: &GroupId) -> Bytes {
    Key::of_group(FENCES, app, group).done()
}

/// A fence of a group.
pub fn fence(app: &AppId, group: &GroupId, version: u64) -> Bytes {
    Key::of_group(FENCE, app, group).u64(version).done()
}

/// The last fences of a user of a group.
pub fn fenced_user(app: &AppId, group: &GroupId, number: UserNumber) -> Bytes {
    Key::of_group(FENCED_USER, app, group).u64(number.0).done()
}

/// What changes have made of a message.
pub fn changed(channel: ChannelNumber, seq: Seq) -> Bytes {
    Key::new(CHANGED).u64(channel.0).u64(seq.0).done()
}

/// A key of a message's expansion.
pub fn expansion(channel: ChannelNumber, seq: Seq, key: &str) -> Bytes {
    Key::new(EXPANSION).u64(channel.0).u64(seq.0).name(key).done()
}

/// The keys of a message's expansion behind one, in the order of their bytes, as a range; all of them behind
/// the empty one.
pub fn expansion_after(channel: ChannelNumber, seq: Seq, after: &str) -> (Bytes, Bytes) {
    let start = Key::new(EXPANSION).u64(channel.0).u64(seq.0);
    // No key begins with a byte of this value: it is not UTF-8.
    let to = [&start.0[..], &[0xff]].concat();
    let from = match after {
        "" => start.done(),
        after => Bytes::from([&start.name(after).0[..], &[0]].concat()),
    };
    (from, Bytes::from(to))
}

/// A record of the outbox.
pub fn outgoing(target: ShardId, number: u64) -> Bytes {
    Key::new(OUTGOING).u32(target.0).u64(number).done()
}

/// The outbox towards one shard: the last numbers issued and acknowledged.
pub fn outbox(target: ShardId) -> Bytes {
    Key::new(OUTBOX).u32(target.0).done()
}

/// All outboxes of this shard, as a range.
pub fn outboxes() -> (Bytes, Bytes) {
    (Key::new(OUTBOX).done(), Key::new(OUTBOX + 1).done())
}

/// The last number received from another shard.
pub fn inbox(source: ShardId) -> Bytes {
    Key::new(INBOX).u32(source.0).done()
}

/// The target of an outbox key; `None` for any other key.
pub fn outbox_target(key: &[u8]) -> Option<ShardId> {
    match key {
        [OUTBOX, target @ ..] => Some(ShardId(u32::from_be_bytes(target.try_into().ok()?))),
        _ => None,
    }
}

/// The number of a key of [`outgoing`]; `None` for any other key.
pub fn outgoing_number(key: &[u8]) -> Option<u64> {
    match key {
        [OUTGOING, _, _, _, _, number @ ..] => Some(u64::from_be_bytes(number.try_into().ok()?)),
        _ => None,
    }
}

/// The number of a key of [`member`]; `None` for any other key.
pub fn member_number(key: &[u8]) -> Option<UserNumber> {
    match key {
        [MEMBER, parts @ ..] => Some(UserNumber(u64::from_be_bytes(*parts.last_chunk()?))),
        _ => None,
    }
}

/// The shard of a key of [`group_shard`]; `None` for any other key.
pub fn group_shard_of(key: &[u8]) -> Option<ShardId> {
    match key {
        [GROUP_SHARD, .., a, b, c, d] => Some(ShardId(u32::from_be_bytes([*a, *b, *c, *d]))),
        _ => None,
    }
}

/// The version of a key of [`fence`]; `None` for any other key.
pub fn fence_version(key: &[u8]) -> Option<u64> {
    match key {
        [FENCE, parts @ ..] => Some(u64::from_be_bytes(*parts.last_chunk()?)),
        _ => None,
    }
}

/// The key of an expansion that a key of [`expansion`] is for; `None` for any other key.
pub fn expansion_key(key: &[u8]) -> Option<&str> {
    match key {
        [EXPANSION, parts @ .., 0] => std::str::from_utf8(parts.get(16..)?).ok(),
        _ => None,
    }
}

/// The position of a key of [`entry`] or [`changed`]; `None` for any other key.
pub fn entry_seq(key: &[u8]) -> Option<Seq> {
    match key {
        [ENTRY | CHANGED, parts @ ..] if parts.len() == 16 => {
            Some(Seq(u64::from_be_bytes(parts[8..].try_into().ok()?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_table_sort_like_their_parts() {
        assert!(entry(ChannelNumber(1), Seq(255)) < entry(ChannelNumber(1), Seq(256)));
        assert!(entry(ChannelNumber(1), Seq(u64::MAX)) < entry(ChannelNumber(2), Seq(0)));
        assert!(outgoing(ShardId(1), u64::MAX) < outgoing(ShardId(2), 0));
        let (from, to) = cluster_keys();
        assert!(from < cluster_key(0) && cluster_key(u32::MAX) < to);
        let (from, to) = outboxes();
        assert!(from < outbox(ShardId(0)) && outbox(ShardId(u32::MAX)) < to);
        let (app, group) = (AppId::new("a").unwrap(), GroupId::new("g").unwrap());
        assert!(fence(&app, &group, 255) < fence(&app, &group, 256));
        let (from, to) = group_shards(&app, &group);
        assert!(from <= group_shard(&app, &group, ShardId(0)));
        assert!(group_shard(&app, &group, ShardId(u32::MAX)) < to);
        let next = GroupId::new("gg").unwrap();
        assert!(to < group_shard(&app, &next, ShardId(0)));
        let (from, to) = channels(&app, &group);
        let named = |name: &str| channel(&app, &group, &ChannelId::new(name).unwrap());
        assert!(from < named("!") && named("\u{10ffff}") < to);
        assert!(to < channel(&app, &next, &ChannelId::new("!").unwrap()));
        let (after, _) = channels_after(&app, &group, &ChannelId::new("b").unwrap());
        assert!(named("b") < after && after <= named("b!") && after < named("c"));
        let (from, to) = members_after(&app, &group, UserNumber(7));
        let numbered = |number| member(&app, &group, UserNumber(number));
        assert!(numbered(7) < from && from <= numbered(8) && numbered(u64::MAX) < to);
        assert!(to < member(&app, &next, UserNumber(0)));
        assert_eq!(member_number(&numbered(300)), Some(UserNumber(300)));
    }

    #[test]
    fn keys_of_an_expansion_lie_in_its_range_and_in_the_order_of_their_bytes() {
        let of = |seq, key: &str| expansion(ChannelNumber(7), Seq(seq), key);
        let (from, to) = expansion_after(ChannelNumber(7), Seq(3), "");
        assert!(from < of(3, "!") && of(3, "\u{10ffff}") < to);
        assert!(of(2, "z") < from && to < of(4, "!"));
        let (from, to) = expansion_after(ChannelNumber(7), Seq(3), "b");
        assert!(of(3, "b") < from && from < of(3, "b!") && of(3, "c") < to);
        assert_eq!(expansion_key(&of(3, "ключ")), Some("ключ"));
        assert_eq!(expansion_key(&entry(ChannelNumber(7), Seq(3))), None);
        assert_eq!(expansion_key(&[EXPANSION, 0]), None);
    }

    #[test]
    fn names_that_run_into_each_other_have_different_keys() {
        let (app_a, app_ab) = (AppId::new("a").unwrap(), AppId::new("ab").unwrap());
        let (user_bc, user_c) = (UserId::new("bc").unwrap(), UserId::new("c").unwrap());
        assert_ne!(user(&app_a, &user_bc), user(&app_ab, &user_c));
        let (group_a, group_ab) = (GroupId::new("g").unwrap(), GroupId::new("gg").unwrap());
        assert!(!group(&app_a, &group_ab).starts_with(&group(&app_a, &group_a)));
    }

    #[test]
    fn the_longest_key_fits_into_a_store_that_takes_400_bytes() {
        let name = "x".repeat(64);
        let key = channel(
            &AppId::new(&name).unwrap(),
            &GroupId::new(&name).unwrap(),
            &ChannelId::new(&name).unwrap(),
        );
        assert_eq!(key.len(), 1 + 3 * 65);
    }

    #[test]
    fn parts_are_read_back_from_their_own_keys_only() {
        assert_eq!(entry_seq(&entry(ChannelNumber(7), Seq(9))), Some(Seq(9)));
        assert_eq!(entry_seq(&tail(ChannelNumber(7))), None);
        assert_eq!(entry_seq(&[ENTRY]), None);
        assert_eq!(outgoing_number(&outgoing(ShardId(3), 5)), Some(5));
        assert_eq!(outgoing_number(&outgoing(ShardId(3), 5)[..9]), None);
        assert_eq!(outbox_target(&outbox(ShardId(3))), Some(ShardId(3)));
        assert_eq!(outbox_target(&inbox(ShardId(3))), None);
        let (app, group) = (AppId::new("a").unwrap(), GroupId::new("g").unwrap());
        assert_eq!(fence_version(&fence(&app, &group, 9)), Some(9));
        assert_eq!(fence_version(&fences(&app, &group)), None);
        assert_eq!(fence_version(&[FENCE]), None);
        assert_eq!(
            group_shard_of(&group_shard(&app, &group, ShardId(3))),
            Some(ShardId(3))
        );
        assert_eq!(group_shard_of(&fences(&app, &group)), None);
    }
}
