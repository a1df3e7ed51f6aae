//! The inputs that corpora begin with: real encodings of what a target reads.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;
use throng_fuzz::token as tokens;
use throng_protocol::cluster::{
    self, Answer, Change, ChannelInfo, ClusterHello, Direction, FeedEvent, FeedRequest, Fence, FenceKind,
    GrantClaims, Permissions, Refusal, Reply, Request,
};
use throng_protocol::code::Code;
use throng_protocol::ids::{
    AppId, ChannelId, ChannelNumber, ClientMessageId, Epoch, GroupId, NodeId, Position, RoleId, Seq, ShardId,
    UserId, UserNumber,
};
use throng_protocol::placement::{ClusterMap, NodeInfo};
use throng_raft_store::{record, wire};
use throng_state::Command;
use throng_state::command::{AppendMessage, ChangeMessage, ManagementCommand, MessageCommand, RoleChange};
use throng_state::outbox::Delivery;

const NOW_MS: u64 = 1_700_000_000_000;

/// Larger vectors say nothing more to a fuzzer.
const SEED_BYTES_MAX: usize = 4 * 1024;

type Seed = (String, Vec<u8>);

/// The seeds of a target.
pub fn of(target: &str) -> Vec<Seed> {
    match target {
        "frame" => frames(),
        "message" => messages(),
        "session" => sessions(),
        "token" => token_texts(),
        "record" => records(),
        "cluster" => cluster_messages(),
        other => panic!("no seeds for {other}"),
    }
}

/// The whole frames of the vectors, with a name for each.
fn vectors() -> Vec<Seed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocol/vectors");
    let mut all = Vec::new();
    for kind in ["messages", "malformed"] {
        let mut files: Vec<_> = fs::read_dir(root.join(kind))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for path in files {
            let vectors: Vec<Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            for vector in vectors {
                let bytes = unhex(vector["hex"].as_str().unwrap());
                if bytes.len() <= SEED_BYTES_MAX {
                    all.push((format!("{kind}-{}", vector["name"].as_str().unwrap()), bytes));
                }
            }
        }
    }
    all
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|digit| char::from(digit).to_digit(16).unwrap() as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Some frames behind each other, cut in three ways.
fn frames() -> Vec<Seed> {
    let vectors = vectors();
    let seeds = vectors.chunks(7).enumerate().map(|(place, group)| {
        let stream: Vec<u8> = group.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        (format!("stream-{place}"), [&[place as u8][..], &stream].concat())
    });
    seeds.collect()
}

/// The vectors without their lengths: type and payload.
fn messages() -> Vec<Seed> {
    let payload = |(name, bytes): Seed| {
        let length = 1 + bytes.iter().take_while(|byte| **byte & 0x80 != 0).count();
        (name, bytes.get(length..).unwrap_or_default().to_vec())
    };
    vectors()
        .into_iter()
        .map(payload)
        .filter(|(_, bytes)| bytes.len() > 1)
        .collect()
}

/// Lists of operations nobody chose: the fuzzer finds better ones from here.
fn sessions() -> Vec<Seed> {
    let seeds = (0..48u32).map(|place| {
        let mut state = place.wrapping_mul(2_654_435_761).wrapping_add(12_345);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        // Every fourth one is hostile.
        let mode = u8::from(place % 4 == 3);
        let input = std::iter::once(mode).chain((0..200 + 40 * place).map(|_| next()));
        (format!("operations-{place:02}"), input.collect())
    });
    seeds.collect()
}

/// An input of the token target that signs claims.
pub fn token(mode: u8, app: &str, issued: u64, expires: u64) -> Vec<u8> {
    let claims = serde_json::json!({ "app": app, "sub": "ann", "iat": issued, "exp": expires });
    signed(
        mode,
        &serde_json::json!({ "alg": "HS256", "kid": tokens::KID }),
        &claims,
    )
}

fn signed(mode: u8, header: &Value, claims: &Value) -> Vec<u8> {
    let mut input = vec![mode];
    input.extend(format!("{header}\n{claims}").into_bytes());
    input
}

fn token_texts() -> Vec<Seed> {
    let now = tokens::NOW_S;
    let mut seeds: Vec<Seed> = (1..4)
        .map(|mode| (format!("signed-{mode}"), token(mode, "app", now, now + 60)))
        .collect();
    let claims = serde_json::json!({ "app": "app", "sub": "ann", "iat": now, "exp": now + 60 });
    for header in [
        serde_json::json!({ "alg": "none", "kid": "1" }),
        serde_json::json!({ "alg": "HS512", "kid": "1" }),
        serde_json::json!({ "alg": "RS256", "kid": "1", "jwk": {} }),
        serde_json::json!({ "alg": "HS256" }),
        serde_json::json!({ "alg": "HS256", "kid": "2", "typ": "JWT", "crit": ["exp"] }),
    ] {
        seeds.push((format!("header-{}", seeds.len()), signed(1, &header, &claims)));
    }
    for claims in [
        serde_json::json!({ "app": "app", "sub": "ann", "iat": now, "exp": now }),
        serde_json::json!({ "app": "app", "sub": "ann", "iat": now + 6, "exp": now + 60 }),
        serde_json::json!({ "app": "app", "sub": "ann", "iat": 0, "exp": u64::MAX }),
        serde_json::json!({ "app": "app", "sub": "", "iat": now, "exp": now + 60 }),
        serde_json::json!({ "app": "app", "sub": "ann", "iat": now, "exp": now + 60, "nbf": now + 50, "aud": "x" }),
        serde_json::json!({ "app": "other", "sub": "ann", "iat": -1, "exp": 1.5 }),
    ] {
        let header = serde_json::json!({ "alg": "HS256", "kid": "1" });
        seeds.push((format!("claims-{}", seeds.len()), signed(1, &header, &claims)));
    }
    let good = token(1, "app", now, now + 60);
    let (header, claims) = std::str::from_utf8(&good[1..]).unwrap().split_once('\n').unwrap();
    let parts = [header, claims].map(|part| throng_fuzz::base64::encode(part.as_bytes()));
    let text = parts.join(".");
    let whole = format!("{text}.{}", tokens::sign(&text, tokens::SECRET));
    for (name, text) in [
        ("whole", whole),
        ("unsigned", format!("{text}.")),
        ("dots", "...".to_owned()),
    ] {
        seeds.push((name.to_owned(), [&[0], text.as_bytes()].concat()));
    }
    seeds
}

fn app() -> AppId {
    AppId::new("app").unwrap()
}

fn group() -> GroupId {
    GroupId::new("group").unwrap()
}

fn user() -> UserId {
    UserId::new("ann").unwrap()
}

fn bob() -> UserId {
    UserId::new("bob").unwrap()
}

/// A message of bob, by a grant of a version.
fn append(id: u64, version: u64) -> AppendMessage {
    AppendMessage {
        channel: ChannelNumber(7),
        claims: GrantClaims {
            app: app(),
            group: group(),
            user: bob(),
            number: UserNumber(2),
            version,
            since: 1,
            issued_ms: NOW_MS,
            muted_until: 0,
            fenced: 0,
            permissions: Permissions::ALL,
        },
        client_message_id: ClientMessageId(id),
        first_attempt_ms: NOW_MS,
        proposed_ms: NOW_MS + id,
        body: Bytes::from_static(b"hi"),
    }
}

/// A change by bob.
fn change(id: u64, target: u64, change: Change) -> MessageCommand {
    let message = append(id, 2);
    MessageCommand::Change(ChangeMessage {
        channel: message.channel,
        claims: message.claims,
        client_message_id: message.client_message_id,
        first_attempt_ms: message.first_attempt_ms,
        proposed_ms: message.proposed_ms,
        target: Position {
            epoch: Epoch(1),
            seq: Seq(target),
        },
        change,
    })
}

fn expand(set: &[&str], remove: &[&str]) -> Change {
    Change::Expand {
        set: set
            .iter()
            .map(|key| ((*key).to_owned(), "value".to_owned()))
            .collect(),
        remove: remove.iter().map(|key| (*key).to_owned()).collect(),
    }
}

/// A channel is opened, written to, its writer fenced, and written to again.
fn message_commands() -> Vec<Command> {
    let channel = ChannelNumber(7);
    let info = ChannelInfo {
        app: app(),
        group: group(),
        channel: ChannelId::new("channel").unwrap(),
        number: channel,
        shard: ShardId(101),
    };
    let deliver = |number, delivery| MessageCommand::Deliver {
        source: ShardId(3),
        number,
        delivery,
    };
    let body = Bytes::from_static(b"better");
    let fence = Delivery::Fence {
        app: app(),
        group: group(),
        fence: Fence {
            version: 5,
            number: UserNumber(2),
            kind: FenceKind::Kick,
        },
        user: bob(),
        at_ms: NOW_MS,
    };
    let rights = Delivery::Rights {
        app: app(),
        group: group(),
        version: 4,
    };
    let epoch = Epoch(1);
    let commands = [
        deliver(
            1,
            Delivery::OpenChannel {
                info,
                epoch,
                floor: 0,
            },
        ),
        MessageCommand::Append(append(1, 2)),
        MessageCommand::Append(append(1, 2)),
        MessageCommand::Append(append(2, 2)),
        change(11, 1, Change::Modify { body }),
        change(12, 2, expand(&["a", "b"], &["c"])),
        change(13, 2, expand(&["a"], &["b"])),
        change(14, 2, Change::Recall),
        change(15, 2, expand(&["a"], &[])),
        change(16, 1, Change::Delete),
        deliver(2, fence),
        deliver(3, rights),
        MessageCommand::Append(append(3, 2)),
        MessageCommand::Append(append(3, 6)),
    ];
    commands.into_iter().map(Command::Message).collect()
}

fn role_change(change: RoleChange) -> ManagementCommand {
    ManagementCommand::Roles {
        app: app(),
        group: group(),
        change,
    }
}

fn put_role(permissions: Permissions) -> ManagementCommand {
    let role = RoleId::new("helper").unwrap();
    role_change(RoleChange::Put { role, permissions })
}

fn assign_roles() -> ManagementCommand {
    role_change(RoleChange::Assign {
        user: bob(),
        number: UserNumber(2),
        roles: vec![RoleId::new("helper").unwrap()],
        proposed_ms: NOW_MS,
    })
}

fn kick(by: Option<UserNumber>, since: Option<u64>) -> ManagementCommand {
    ManagementCommand::Kick {
        app: app(),
        group: group(),
        user: bob(),
        number: UserNumber(2),
        by,
        since,
        proposed_ms: NOW_MS,
    }
}

fn commands() -> Vec<Command> {
    let (number, shard) = (UserNumber(1), ShardId(3));
    let commands = [
        ManagementCommand::AddNumberRange { start: 1, end: 100 },
        ManagementCommand::RegisterUser {
            app: app(),
            user: user(),
        },
        ManagementCommand::CreateGroup {
            app: app(),
            group: group(),
            user: user(),
            number,
        },
        ManagementCommand::Join {
            app: app(),
            group: group(),
            user: bob(),
            number: UserNumber(2),
        },
        ManagementCommand::CreateChannel {
            app: app(),
            group: group(),
            channel: ChannelId::new("channel").unwrap(),
            by: Some(number),
            issuer: shard,
            target: ShardId(101),
        },
        ManagementCommand::OutboxAcked {
            target: ShardId(101),
            through: 1,
        },
        ManagementCommand::Mute {
            app: app(),
            group: group(),
            user: bob(),
            number: UserNumber(2),
            until_ms: NOW_MS + 1_000,
            by: Some(number),
            proposed_ms: NOW_MS,
        },
        kick(None, None),
        ManagementCommand::Leave {
            app: app(),
            group: group(),
            number,
            proposed_ms: NOW_MS,
        },
        ManagementCommand::JoinAll {
            app: app(),
            group: group(),
            members: vec![(user(), number), (bob(), UserNumber(2))],
        },
        ManagementCommand::ArchiveChannel {
            app: app(),
            group: group(),
            channel: ChannelId::new("hall").unwrap(),
            archived: true,
        },
        put_role(Permissions::MUTE),
        assign_roles(),
        put_role(Permissions::NONE),
        kick(Some(number), Some(3)),
    ];
    commands.into_iter().map(Command::Management).collect()
}

fn records() -> Vec<Seed> {
    let encoded = |commands: Vec<Command>| -> Vec<Bytes> { commands.iter().map(Command::encode).collect() };
    let (commands, messages) = (encoded(commands()), encoded(message_commands()));
    let mut seeds: Vec<Seed> = Vec::new();
    let mut seed = |name: &str, what: u8, bytes: &[u8]| {
        seeds.push((format!("{name}-{what}"), [&[what], bytes].concat()));
    };
    let sealed = record::seal(b"key", b"payload");
    seed("record", 0, &[&[3], &b"key"[..], &sealed].concat());
    for (place, payload) in [&[0][..], &[1, 9, 9], &[2, 1, 1, 0, 0]].into_iter().enumerate() {
        let entry = [&7u64.to_be_bytes()[..], &9u64.to_be_bytes(), payload].concat();
        seed(&format!("entry-{place}"), 1, &entry);
    }
    seed(
        "malformed",
        3,
        &wire::Response::Refused(wire::Refusal::Malformed("x".to_owned())).encode(),
    );
    seed(
        "stopped",
        3,
        &wire::Response::Refused(wire::Refusal::Stopped("x".to_owned())).encode(),
    );
    for kind in 0..6u8 {
        seed(
            &format!("request-{kind}"),
            2,
            &[wire::WIRE_VERSION, kind, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0],
        );
        seed(
            &format!("response-{kind}"),
            3,
            &[wire::WIRE_VERSION, kind, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0],
        );
    }
    for (place, command) in commands.iter().enumerate() {
        seed(&format!("command-{place}"), 4, command);
    }
    for which in 0..23 {
        seed(
            &format!("stored-{which}"),
            5,
            &[which, 1, 1, b'a', 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        );
    }
    for (place, command) in messages.iter().enumerate() {
        seed(&format!("message-{place}"), 4, command);
    }
    let log = |commands: &[Bytes]| -> Vec<u8> {
        let framed = |command: &Bytes| [&(command.len() as u16).to_le_bytes()[..], command].concat();
        commands.iter().flat_map(framed).collect()
    };
    seed("log", 6, &log(&commands));
    seed("log", 7, &log(&messages));
    seeds
}

fn map() -> ClusterMap {
    let node = |id: u64| NodeInfo {
        id: NodeId(id),
        address: format!("127.0.0.1:{id}"),
    };
    ClusterMap::initial(vec![node(1), node(2)], 1, 2, 2)
}

fn cluster_messages() -> Vec<Seed> {
    let channel = ChannelNumber(7);
    let requests = [
        Request::Map,
        Request::App { app: app() },
        Request::User {
            app: app(),
            user: user(),
        },
        Request::CreateGroup {
            app: app(),
            group: group(),
            user: user(),
            number: UserNumber(1),
        },
        Request::Join {
            app: app(),
            group: group(),
            user: user(),
            number: UserNumber(1),
        },
    ];
    let answers: [Answer; 5] = [
        Ok(Reply::Done),
        Ok(Reply::Map(map())),
        Ok(Reply::App(None)),
        Err(Refusal::NotLeader {
            leader: Some(NodeId(2)),
        }),
        Err(Refusal::Code {
            code: Code::NotMember,
            text: "no".to_owned(),
        }),
    ];
    let hello = ClusterHello {
        versions: vec![1],
        cluster: "throng".to_owned(),
    };
    let unfollow = FeedRequest::Unfollow { channel };
    let batch = FeedEvent::Batch {
        channel,
        epoch: Epoch(1),
        prev: Seq(3),
        entries: vec![],
    };
    let mut all: Vec<(u8, Bytes)> = requests
        .iter()
        .map(|request| (0, cluster::encode(request)))
        .collect();
    all.extend(answers.iter().map(|answer| (1, cluster::encode(answer))));
    all.push((2, cluster::encode(&unfollow)));
    all.push((3, cluster::encode(&batch)));
    all.push((4, cluster::encode(&hello)));
    all.push((
        5,
        cluster::encode(&(7u32, Bytes::from_static(b"claims"), [9u8; 32])),
    ));
    all.push((
        6,
        cluster::encode(&("app", "group", "ann", 1u64, 2u64, 3u64, 4u64, 0u64, 0u64)),
    ));
    all.push((7, cluster::encode(&map())));
    all.push((
        0,
        cluster::encode(&(12u32, Position::default(), Direction::After)),
    ));
    let seeds = all.into_iter().enumerate();
    seeds
        .map(|(place, (which, bytes))| (format!("message-{place:02}"), [&[which], &bytes[..]].concat()))
        .collect()
}
