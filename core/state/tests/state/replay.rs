//! The same log gives the same records, from the beginning or from a snapshot.

use bytes::Bytes;
use proptest::prelude::*;
use throng_protocol::cluster::FenceKind;
use throng_protocol::ids::ChannelNumber;
use throng_protocol::placement::Plane;
use throng_state::command::AppendMessage;
use throng_state::limits::{Bounds, SENT_VALID_MS};
use throng_state::testing::MapView;
use throng_state::{Command, View};

use crate::support::*;

/// A command of a plane, from a few numbers.
fn command(plane: Plane, (kind, a, b, c): (u8, u64, u64, u64)) -> Command {
    let name = ["g", "h"][(a % 2) as usize];
    let fence_kind = [FenceKind::Kick, FenceKind::Left, FenceKind::Mute][(c % 3) as usize];
    match (plane, kind % 8) {
        (Plane::Meta, 0) => bootstrap(a as u32),
        (Plane::Meta, 1) => put_app(vec![app_key("k", 30 + a as usize)]),
        (Plane::Meta, 2) => put_map(a),
        (Plane::Meta, _) => lease(a as u32 % 2, c as u32, b),
        (Plane::Management, 0) => create_group(name, b),
        (Plane::Management, 1) => create_channel(name, &format!("c{c}"), b),
        (Plane::Management, 2) => join(name, b),
        (Plane::Management, 3) => leave(name, b),
        (Plane::Management, 4) => add_range(a * 3, a * 3 + b),
        (Plane::Management, 5) => kick(name, b, None),
        (Plane::Management, 6) => mute(name, b, c, Some(a)),
        (Plane::Management, _) => {
            if c == 0 {
                acked(a)
            } else {
                register(b)
            }
        }
        (_, 0) => deliver(a, info(a)),
        (_, 1) => delivered(a, fence(1 + b + c, b, fence_kind)),
        (_, _) => {
            let now = NOW + c * (SENT_VALID_MS / 3);
            append(&AppendMessage {
                channel: ChannelNumber(1 + a % 3),
                ..at(now, message(b, a, "x"))
            })
        }
    }
}

fn log(plane: Plane) -> impl Strategy<Value = (Plane, Vec<Command>)> {
    prop::collection::vec((any::<u8>(), 0..5_u64, 0..4_u64, 0..6_u64), 0..60).prop_map(move |parts| {
        (
            plane,
            parts.into_iter().map(|part| command(plane, part)).collect(),
        )
    })
}

/// A new shard with what another one's records are, read as a snapshot is.
fn restored(from: &MapView) -> MapView {
    let mut to = MapView::new(from.plane);
    (to.index, to.bounds) = (from.index, from.bounds);
    let mut low = Bytes::new();
    loop {
        let chunk = from.scan(&low, &[0xff], 3).expect("readable");
        let Some((last, _)) = chunk.last() else { return to };
        low = [last, &[0][..]].concat().into();
        to.records.extend(chunk);
    }
}

proptest! {
    #[test]
    fn a_log_and_its_rest_on_a_snapshot_come_to_the_same_records_and_effects(
        (plane, commands) in prop_oneof![log(Plane::Meta), log(Plane::Management), log(Plane::Message)],
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(commands.len() + 1);
        let shard = || MapView {
            bounds: Bounds { fences_per_group: 2 },
            ..MapView::new(plane)
        };
        let mut first = shard();
        let mut snapshot = None;
        let mut effects = Vec::new();
        for (place, command) in commands.iter().enumerate() {
            if place == cut {
                snapshot = Some(restored(&first));
            }
            effects.push(first.apply(&command.encode()).expect("applies"));
        }
        let mut second = shard();
        let mut third = snapshot.unwrap_or_else(|| restored(&first));
        for (place, command) in commands.iter().enumerate() {
            prop_assert_eq!(&second.apply(&command.encode()).expect("applies"), &effects[place]);
            if place >= cut {
                prop_assert_eq!(&third.apply(&command.encode()).expect("applies"), &effects[place]);
            }
        }
        prop_assert_eq!(&second, &first);
        prop_assert_eq!(&third, &first);
    }
}
