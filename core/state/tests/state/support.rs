//! Names, commands and shards the tests share.

use bytes::Bytes;
use throng_protocol::cluster::{
    Anchor, ApiKey, AppKey, ChannelInfo, Direction, Fence, FenceKind, GrantClaims, Permissions,
    TokenAlgorithm,
};
use throng_protocol::code::Code;
use throng_protocol::ids::{
    AppId, ChannelId, ChannelNumber, ClientMessageId, Epoch, GroupId, NodeId, RoleId, Seq, ShardId, Ts,
    UserId, UserNumber,
};
use throng_protocol::placement::{ClusterMap, NodeInfo, Plane};
use throng_state::command::{
    AppendMessage, ClusterKey, ManagementCommand, MessageCommand, MetaCommand, RoleChange,
};
use throng_state::outbox::Delivery;
use throng_state::query::{self, PageWanted};
use throng_state::record::Record;
use throng_state::testing::MapView;
use throng_state::{Command, Effect, Reply};

/// The management shard of these tests.
pub const MANAGEMENT: ShardId = ShardId(3);
/// The message shard of these tests.
pub const MESSAGE: ShardId = ShardId(101);
/// A time of the leader's clock.
pub const NOW: u64 = 1_700_000_000_000;

pub fn app() -> AppId {
    AppId::new("app").expect("valid")
}

pub fn group(name: &str) -> GroupId {
    GroupId::new(name).expect("valid")
}

pub fn channel(name: &str) -> ChannelId {
    ChannelId::new(name).expect("valid")
}

pub fn role(name: &str) -> RoleId {
    RoleId::new(name).expect("valid")
}

pub fn user(number: u64) -> UserId {
    UserId::new(&format!("user-{number}")).expect("valid")
}

pub fn app_key(kid: &str, bytes: usize) -> AppKey {
    AppKey {
        kid: kid.to_owned(),
        algorithm: TokenAlgorithm::Hs256,
        material: Bytes::from(vec![7; bytes]),
    }
}

pub fn cluster_map(version: u64) -> ClusterMap {
    let nodes = vec![NodeInfo {
        id: NodeId(1),
        address: "127.0.0.1:1".to_owned(),
    }];
    ClusterMap {
        version,
        ..ClusterMap::initial(nodes, 1, 2, 1)
    }
}

pub fn bootstrap(key: u32) -> Command {
    let cluster_key = ClusterKey {
        id: key,
        secret: [key as u8; 32],
    };
    Command::Meta(MetaCommand::Bootstrap {
        map: cluster_map(1),
        cluster_key,
    })
}

pub fn put_app(keys: Vec<AppKey>) -> Command {
    Command::Meta(MetaCommand::PutApp { app: app(), keys })
}

pub fn add_api_key(kid: &str, digest: u8) -> Command {
    Command::Meta(MetaCommand::AddApiKey {
        app: app(),
        key: ApiKey {
            kid: kid.to_owned(),
            digest: [digest; 32],
        },
    })
}

pub fn remove_api_key(kid: &str) -> Command {
    Command::Meta(MetaCommand::RemoveApiKey {
        app: app(),
        kid: kid.to_owned(),
    })
}

pub fn put_map(version: u64) -> Command {
    Command::Meta(MetaCommand::PutMap {
        map: cluster_map(version),
    })
}

pub fn lease(shard: u32, count: u32, request: u64) -> Command {
    Command::Meta(MetaCommand::LeaseNumbers {
        shard: ShardId(shard),
        count,
        request,
    })
}

pub fn register(name: u64) -> Command {
    Command::Management(ManagementCommand::RegisterUser {
        app: app(),
        user: user(name),
    })
}

pub fn add_range(start: u64, end: u64) -> Command {
    Command::Management(ManagementCommand::AddNumberRange { start, end })
}

pub fn create_group(name: &str, number: u64) -> Command {
    Command::Management(ManagementCommand::CreateGroup {
        app: app(),
        group: group(name),
        user: user(number),
        number: UserNumber(number),
    })
}

pub fn create_channel(group_name: &str, name: &str, number: u64) -> Command {
    create_channel_by(group_name, name, Some(number))
}

/// A channel that a member or the app itself wants.
pub fn create_channel_by(group_name: &str, name: &str, by: Option<u64>) -> Command {
    Command::Management(ManagementCommand::CreateChannel {
        app: app(),
        group: group(group_name),
        channel: channel(name),
        by: by.map(UserNumber),
        issuer: MANAGEMENT,
        target: MESSAGE,
    })
}

pub fn join(name: &str, number: u64) -> Command {
    Command::Management(ManagementCommand::Join {
        app: app(),
        group: group(name),
        user: user(number),
        number: UserNumber(number),
    })
}

pub fn join_all(name: &str, numbers: &[u64]) -> Command {
    Command::Management(ManagementCommand::JoinAll {
        app: app(),
        group: group(name),
        members: numbers
            .iter()
            .map(|number| (user(*number), UserNumber(*number)))
            .collect(),
    })
}

pub fn leave(name: &str, number: u64) -> Command {
    Command::Management(ManagementCommand::Leave {
        app: app(),
        group: group(name),
        number: UserNumber(number),
        proposed_ms: NOW,
    })
}

/// A kick of a user by another, or by an operator.
pub fn kick(name: &str, number: u64, by: Option<u64>) -> Command {
    kick_since(name, number, by, None)
}

/// A kick out of one membership.
pub fn kick_since(name: &str, number: u64, by: Option<u64>, since: Option<u64>) -> Command {
    Command::Management(ManagementCommand::Kick {
        app: app(),
        group: group(name),
        user: user(number),
        number: UserNumber(number),
        by: by.map(UserNumber),
        since,
        proposed_ms: NOW,
    })
}

/// A mute of a user by another, or by an operator.
pub fn mute(name: &str, number: u64, until_ms: u64, by: Option<u64>) -> Command {
    Command::Management(ManagementCommand::Mute {
        app: app(),
        group: group(name),
        user: user(number),
        number: UserNumber(number),
        until_ms,
        by: by.map(UserNumber),
        proposed_ms: NOW,
    })
}

/// Archives a channel of group `g`, or opens it again.
pub fn archive(name: &str, archived: bool) -> Command {
    Command::Management(ManagementCommand::ArchiveChannel {
        app: app(),
        group: group("g"),
        channel: channel(name),
        archived,
    })
}

/// That a channel of group `g` was archived, as the management shard tells of it.
pub fn archive_told(number: ChannelNumber, archived: bool, version: u64) -> Delivery {
    Delivery::Archive {
        app: app(),
        group: group("g"),
        channel: number,
        archived,
        version,
    }
}

fn role_change(change: RoleChange) -> Command {
    Command::Management(ManagementCommand::Roles {
        app: app(),
        group: group("g"),
        change,
    })
}

/// A role of group `g` with these permissions.
pub fn put_role(name: &str, permissions: Permissions) -> Command {
    role_change(RoleChange::Put {
        role: role(name),
        permissions,
    })
}

pub fn remove_role(name: &str) -> Command {
    role_change(RoleChange::Remove { role: role(name) })
}

/// All roles of a member of group `g`.
pub fn assign(number: u64, roles: &[&str]) -> Command {
    role_change(RoleChange::Assign {
        user: user(number),
        number: UserNumber(number),
        roles: roles.iter().map(|name| role(name)).collect(),
        proposed_ms: NOW,
    })
}

pub fn acked(through: u64) -> Command {
    Command::Management(ManagementCommand::OutboxAcked {
        target: MESSAGE,
        through,
    })
}

pub fn info(number: u64) -> ChannelInfo {
    ChannelInfo {
        app: app(),
        group: group("g"),
        channel: channel(&format!("c{number}")),
        number: ChannelNumber(number),
        shard: MESSAGE,
    }
}

pub fn deliver(number: u64, info: ChannelInfo) -> Command {
    let delivery = Delivery::OpenChannel {
        info,
        epoch: Epoch(1),
        floor: 0,
    };
    delivered(number, delivery)
}

/// An outbox record of the management shard.
pub fn delivered(number: u64, delivery: Delivery) -> Command {
    Command::Message(MessageCommand::Deliver {
        source: MANAGEMENT,
        number,
        delivery,
    })
}

/// A fence of group `g` as the management shard tells of it.
pub fn fence(version: u64, number: u64, kind: FenceKind) -> Delivery {
    Delivery::Fence {
        app: app(),
        group: group("g"),
        fence: Fence {
            version,
            number: UserNumber(number),
            kind,
        },
        user: user(number),
        at_ms: NOW,
    }
}

/// What a role of group `g` lost, as the management shard tells of it.
pub fn rights_lost(version: u64) -> Delivery {
    Delivery::Rights {
        app: app(),
        group: group("g"),
        version,
    }
}

/// Takes the next outbox record of the management shard.
pub fn take(shard: &mut MapView, delivery: Delivery) {
    let next = query::inbox_position(shard, MANAGEMENT).expect("readable") + 1;
    assert_eq!(shard.reply(&delivered(next, delivery)), Reply::Done);
}

/// Entries on one side of a position.
pub fn entries_at(anchor: Anchor, direction: Direction, limit: u32, bytes_target: usize) -> PageWanted {
    PageWanted {
        anchor,
        direction,
        limit,
        bytes_target,
        fences: false,
    }
}

/// A message shard with channels 1 to `channels`.
pub fn message_shard(channels: u64) -> MapView {
    let mut shard = MapView::new(Plane::Message);
    for number in 1..=channels {
        assert_eq!(shard.reply(&deliver(number, info(number))), Reply::Done);
    }
    shard
}

/// A message of user `sender` to channel 1, first tried and proposed at [`NOW`].
pub fn message(sender: u64, id: u64, body: &str) -> AppendMessage {
    AppendMessage {
        channel: ChannelNumber(1),
        claims: GrantClaims {
            app: app(),
            group: group("g"),
            user: user(sender),
            number: UserNumber(sender),
            version: 1,
            since: 1,
            issued_ms: NOW,
            muted_until: 0,
            fenced: 0,
            permissions: Permissions::EVERYONE,
        },
        client_message_id: ClientMessageId(id),
        first_attempt_ms: NOW,
        proposed_ms: NOW,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// The same message, first tried and proposed at another time.
pub fn at(ms: u64, message: AppendMessage) -> AppendMessage {
    AppendMessage {
        first_attempt_ms: ms,
        proposed_ms: ms,
        ..message
    }
}

pub fn append(message: &AppendMessage) -> Command {
    Command::Message(MessageCommand::Append(message.clone()))
}

pub fn appended(seq: u64, ts: Ts, repeat: bool) -> Reply {
    Reply::Appended {
        epoch: Epoch(1),
        seq: Seq(seq),
        ts,
        repeat,
    }
}

pub fn put(key: Bytes, record: &impl Record) -> Effect {
    Effect::Put {
        key,
        value: record.encode(),
    }
}

/// Runs a command that must be refused with `code`, and must do nothing.
pub fn refused(shard: &mut MapView, command: &Command, code: Code) {
    match shard.run(command) {
        (Reply::Refused { code: found, text }, effects) => {
            assert_eq!(found, code, "{text}");
            assert!(!text.is_empty());
            assert_eq!(effects, [], "a refusal has effects");
        }
        (reply, _) => panic!("{command:?} was answered {reply:?}"),
    }
}

/// Runs a command that must be answered with `reply`, and must do nothing.
pub fn unchanged(shard: &mut MapView, command: &Command, reply: &Reply) {
    assert_eq!(shard.run(command), (reply.clone(), vec![]));
}
