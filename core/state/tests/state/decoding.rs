//! Bytes that are not commands, records or replies: errors, never panics.

use bytes::Bytes;
use throng_protocol::cluster::{Anchor, Change, Direction, FenceKind, Permissions};
use throng_protocol::ids::{ChannelNumber, Epoch, Seq, Ts, UserNumber};
use throng_protocol::placement::Plane;
use throng_state::codec::DecodeError;
use throng_state::outbox::Delivery;
use throng_state::query::{FeedPosition, PageWanted};
use throng_state::testing::MapView;
use throng_state::{ApplyError, Command, Reply, apply, query};

use crate::changes::{change, command, expand, modify};
use crate::support::*;

const PLANES: [Plane; 4] = [Plane::Meta, Plane::Management, Plane::Message, Plane::Session];

/// SplitMix64: enough to vary bytes, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// A byte replaced, inserted or removed, or the end cut off; once or a few times.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let place = self.below(bytes.len());
            match self.below(4) {
                0 => bytes.truncate(place),
                1 => bytes.insert(place, self.next() as u8),
                _ if bytes.is_empty() => {}
                2 => drop(bytes.remove(place)),
                _ => bytes[place] = [0, 0xff, self.next() as u8][self.below(3)],
            }
        }
        bytes
    }
}

/// Commands that do something, by plane.
fn commands() -> Vec<(Plane, Command)> {
    let meta = [
        bootstrap(1),
        put_app(vec![app_key("a", 32)]),
        add_api_key("one", 7),
        remove_api_key("one"),
        put_map(2),
        lease(1, 10, 1),
        lease(1, 10, 2),
    ];
    let management = [
        add_range(1, 10),
        register(1),
        register(2),
        create_group("g", 1),
        join("g", 2),
        create_channel("g", "c", 1),
        create_channel("g", "d", 1),
        acked(1),
        mute("g", 2, NOW, Some(1)),
        kick("g", 2, None),
        join_all("g", &[2, 3]),
        create_channel_by("g", "e", None),
        kick_since("g", 3, None, Some(7)),
        archive("c", true),
        put_role("helper", Permissions::MUTE),
        assign(2, &["helper"]),
        put_role("everyone", Permissions::NONE),
        assign(2, &[]),
        assign(3, &["helper"]),
        remove_role("helper"),
        leave("g", 2),
    ];
    let message = [
        deliver(1, info(1)),
        append(&message(1, 1, "hello")),
        delivered(2, fence(5, 2, FenceKind::Kick)),
        delivered(3, fence(6, 2, FenceKind::Mute)),
        delivered(4, fence(7, 2, FenceKind::Rights)),
        delivered(5, rights_lost(1)),
        delivered(6, archive_told(ChannelNumber(1), false, 3)),
        append(&message(2, 1, "hello")),
        append(&message(1, 1, "hello")),
        command(&change(1, 7, 1, modify("better"))),
        command(&change(1, 8, 1, expand(&[("key", "value")], &["other"]))),
        command(&change(1, 9, 1, Change::Recall)),
        append(&at(
            NOW + throng_state::limits::SENT_VALID_MS + 1,
            message(1, 1, "hello"),
        )),
    ];
    let of = |plane, commands: &[Command]| commands.iter().map(|c| (plane, c.clone())).collect::<Vec<_>>();
    [
        of(Plane::Meta, &meta),
        of(Plane::Management, &management),
        of(Plane::Message, &message),
    ]
    .concat()
}

/// A shard of each plane on which all the commands ran.
fn shards() -> Vec<MapView> {
    let mut shards: Vec<MapView> = PLANES.into_iter().map(MapView::new).collect();
    for (plane, command) in commands() {
        let shard = shards
            .iter_mut()
            .find(|shard| shard.plane == plane)
            .expect("a shard of each plane");
        shard.apply(&command.encode()).expect("applies");
    }
    shards
}

#[test]
fn commands_and_replies_and_deliveries_are_read_as_they_were_written() {
    for (_, command) in commands() {
        let bytes = command.encode();
        assert_eq!(bytes[0], 4);
        assert_eq!(Command::decode(&bytes), Ok(command));
    }
    let reply = Reply::OutOfOrder { expected: 7 };
    assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    let delivery = Delivery::OpenChannel {
        info: info(1),
        epoch: Epoch(1),
        floor: 7,
    };
    for delivery in [
        delivery,
        fence(5, 2, FenceKind::Left),
        rights_lost(9),
        archive_told(ChannelNumber(1), true, 3),
    ] {
        assert_eq!(Delivery::decode(&delivery.encode()), Ok(delivery));
    }
}

#[test]
fn a_command_of_another_version_or_plane_stops_the_replica() {
    let mut bytes = register(1).encode().to_vec();
    let stopped = |plane, bytes: &[u8]| match apply(plane, &MapView::new(plane), 42, bytes) {
        Err(ApplyError::Command { index: 42, reason }) => reason,
        other => panic!("{other:?}"),
    };
    for plane in [Plane::Meta, Plane::Message, Plane::Session] {
        assert!(stopped(plane, &bytes).contains("plane"));
    }
    bytes[0] = 1;
    assert_eq!(
        stopped(Plane::Management, &bytes),
        DecodeError::Version { found: 1, known: 4 }.to_string()
    );
    assert_eq!(stopped(Plane::Management, &[]), DecodeError::Empty.to_string());
}

#[test]
fn ten_thousand_damaged_commands_do_not_panic() {
    let (shards, mut random) = (shards(), Random(1));
    let valid: Vec<Bytes> = commands().iter().map(|(_, command)| command.encode()).collect();
    let (mut applied, mut refused) = (0, 0);
    for round in 0..10_000 {
        let bytes = if round % 4 == 0 {
            let len = random.below(80);
            [&[3], &random.bytes(len)[..]].concat()
        } else {
            let place = random.below(valid.len());
            random.damage(&valid[place])
        };
        for shard in &shards {
            match apply(shard.plane, shard, 1, &bytes) {
                Ok(_) => applied += 1,
                Err(ApplyError::Command { .. }) => refused += 1,
                Err(error) => panic!("the state is sound, and yet: {error}"),
            }
        }
        let _ = (Reply::decode(&bytes), Delivery::decode(&bytes));
    }
    assert!(
        applied > 100 && refused > 1_000,
        "{applied} applied, {refused} refused"
    );
}

#[test]
fn damaged_records_are_errors_of_the_record_or_are_read_as_something_else() {
    let (shards, mut random) = (shards(), Random(2));
    let commands = commands();
    let mut errors = 0;
    for _ in 0..3_000 {
        for shard in &shards[..3] {
            let mut damaged = shard.clone();
            let place = random.below(damaged.records.len());
            let (key, value) = damaged.records.iter().nth(place).expect("one of them");
            let (key, value) = (key.clone(), random.damage(value));
            damaged.records.insert(key, value.into());
            for (_, command) in commands.iter().filter(|(plane, _)| *plane == shard.plane) {
                match apply(damaged.plane, &damaged, 1, &command.encode()) {
                    Ok(_) => {}
                    Err(ApplyError::Record { .. }) => errors += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            read_everything(&damaged);
        }
    }
    assert!(errors > 1_000, "{errors}");
}

/// Asks a shard everything there is to ask, without regard to the answers.
fn read_everything(shard: &MapView) {
    let _ = (
        query::cluster_map(shard),
        query::cluster_keys(shard),
        query::app_keys(shard, &app()),
    );
    let _ = query::standing(shard, &app(), &group("g"), UserNumber(1));
    let _ = query::channel_by_name(shard, &app(), &group("g"), &channel("c"));
    let _ = (
        query::user_number(shard, &app(), &user(1)),
        query::number_stock(shard),
    );
    let _ = (
        query::outboxes(shard, 10),
        query::outbox_pending(shard, MESSAGE, 0, 10),
    );
    let _ = (
        query::inbox_position(shard, MANAGEMENT),
        query::channel_head(shard, ChannelNumber(1)),
    );
    for direction in [Direction::After, Direction::Before] {
        for anchor in [Anchor::Seq(Seq(1)), Anchor::Ts(Ts::from_millis(NOW))] {
            let wanted = PageWanted {
                fences: true,
                ..entries_at(anchor, direction, 10, 1_000)
            };
            let _ = query::page(shard, ChannelNumber(1), &wanted);
        }
    }
    let _ = query::channels_on(shard, &app(), &group("g"), &[MESSAGE]);
    let claims = message(2, 1, "").claims;
    let _ = query::right_to_read(shard, &claims);
    let _ = query::fence_waits(shard, &app(), &group("g"), 5);
    for seq in [Seq(0), Seq(1), Seq(9)] {
        let _ = query::fence_table(shard, ChannelNumber(1), seq);
        let at = FeedPosition {
            epoch: Epoch(1),
            sent: seq,
            fenced: 0,
        };
        let _ = query::feed_step(shard, ChannelNumber(1), &at);
    }
}

#[test]
fn a_damaged_record_is_named_by_its_key() {
    let mut shard = message_shard(1);
    let key = throng_state::keys::tail(ChannelNumber(1));
    shard.records.insert(key.clone(), Bytes::from_static(&[9]));
    let error = shard
        .apply(&append(&message(1, 1, "x")).encode())
        .expect_err("damaged");
    assert!(
        error.to_string().starts_with("record 410000000000000001 "),
        "{error}"
    );
    shard.records.remove(&key);
    let error = shard
        .apply(&append(&message(1, 1, "x")).encode())
        .expect_err("missing");
    assert!(error.to_string().contains("missing"), "{error}");
}
