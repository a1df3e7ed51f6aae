//! The shards of the load, and the commands they are given. One of each plane that holds records, and
//! a second message shard, so that commits of several shards share a sync as on a real node.

use bytes::Bytes;
use throng_protocol::cluster::{AppKey, ChannelInfo, GrantClaims, Permissions, TokenAlgorithm};
use throng_protocol::ids::{
    AppId, ChannelId, ChannelNumber, ClientMessageId, Epoch, GroupId, ShardId, UserId, UserNumber,
};
use throng_protocol::placement::Plane;
use throng_state::Command;
use throng_state::command::{AppendMessage, ManagementCommand, MessageCommand, MetaCommand};
use throng_state::outbox::Delivery;

/// The shards of the load and their planes.
pub const SHARDS: [(ShardId, Plane); 4] = [
    (ShardId(0), Plane::Meta),
    (MANAGEMENT, Plane::Management),
    (ShardId(101), Plane::Message),
    (ShardId(102), Plane::Message),
];

const MANAGEMENT: ShardId = ShardId(3);

/// A time for every message; time itself is not what is tested here.
const NOW: u64 = 1_700_000_000_000;

/// The command for an entry; `size` is about how long it is, `salt` makes it unique.
///
/// # Panics
/// Never: the names are valid.
pub fn command(plane: Plane, index: u64, salt: u64, size: usize) -> Bytes {
    let command = match plane {
        Plane::Meta => Command::Meta(MetaCommand::PutApp {
            app: AppId::new(&format!("app-{}", salt % 40)).expect("valid"),
            keys: vec![AppKey {
                kid: format!("k{salt}"),
                algorithm: TokenAlgorithm::Hs256,
                material: Bytes::from(vec![salt as u8; size.max(32)]),
            }],
        }),
        Plane::Management => management(index, salt),
        Plane::Message | Plane::Session => Command::Message(message(index, salt, size)),
    };
    command.encode()
}

fn app() -> AppId {
    AppId::new("app").expect("valid")
}

fn group() -> GroupId {
    GroupId::new("g").expect("valid")
}

fn management(index: u64, salt: u64) -> Command {
    let number = UserNumber(salt % 500 + 2);
    Command::Management(match index {
        1 => ManagementCommand::CreateGroup {
            app: app(),
            group: group(),
            user: UserId::new("u1").expect("valid"),
            number: UserNumber(1),
        },
        _ if salt.is_multiple_of(3) => ManagementCommand::Leave {
            app: app(),
            group: group(),
            number,
            proposed_ms: NOW,
        },
        _ => ManagementCommand::Join {
            app: app(),
            group: group(),
            user: UserId::new(&format!("u{}", number.0)).expect("valid"),
            number,
        },
    })
}

fn message(index: u64, salt: u64, size: usize) -> MessageCommand {
    if index == 1 {
        let info = ChannelInfo {
            app: app(),
            group: group(),
            channel: ChannelId::new("c").expect("valid"),
            number: ChannelNumber(1),
            shard: ShardId(101),
        };
        let delivery = Delivery::OpenChannel {
            info,
            epoch: Epoch(1),
            floor: 0,
        };
        return MessageCommand::Deliver {
            source: MANAGEMENT,
            number: 1,
            delivery,
        };
    }
    MessageCommand::Append(AppendMessage {
        channel: ChannelNumber(1),
        claims: GrantClaims {
            app: app(),
            group: group(),
            user: UserId::new(&format!("u{}", salt % 50)).expect("valid"),
            number: UserNumber(salt % 50),
            version: 1,
            since: 1,
            issued_ms: NOW,
            muted_until: 0,
            fenced: 0,
            permissions: Permissions::EVERYONE,
        },
        client_message_id: ClientMessageId(salt),
        first_attempt_ms: NOW,
        proposed_ms: NOW,
        body: Bytes::from(vec![salt as u8; size]),
    })
}
