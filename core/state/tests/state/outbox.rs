//! Outbox and inbox: what a management shard tells a message shard, once and in order.

use throng_protocol::code::Code;
use throng_protocol::ids::ShardId;
use throng_protocol::placement::Plane;
use throng_state::limits::OUTBOX_ACKED_MAX;
use throng_state::query::{self, OutboxStatus};
use throng_state::record::{OutboxRecord, Record};
use throng_state::testing::MapView;
use throng_state::{Effect, Reply, keys};

use crate::support::*;

fn with_channels(count: u64) -> MapView {
    let mut shard = MapView::new(Plane::Management);
    shard.reply(&create_group("g", 1));
    for n in 1..=count {
        shard.reply(&create_channel("g", &format!("c{n}"), 1));
    }
    shard
}

fn pending(shard: &MapView, after: u64, limit: usize) -> Vec<u64> {
    let found = query::outbox_pending(shard, MESSAGE, after, limit).expect("readable");
    found.iter().map(|record| record.number).collect()
}

#[test]
fn what_was_not_acknowledged_is_listed_in_order() {
    let shard = with_channels(5);
    assert_eq!(pending(&shard, 0, 100), [1, 2, 3, 4, 5]);
    assert_eq!(pending(&shard, 0, 2), [1, 2]);
    assert_eq!(pending(&shard, 3, 100), [4, 5]);
    assert_eq!(pending(&shard, 5, 100), [0; 0]);
    assert_eq!(pending(&shard, u64::MAX, 100), [0; 0]);
    assert_eq!(query::outbox_pending(&shard, ShardId(102), 0, 100).unwrap(), []);
    assert_eq!(
        query::outboxes(&shard, 100).unwrap(),
        [OutboxStatus {
            target: MESSAGE,
            last: 5,
            acked: 0
        }]
    );
}

#[test]
fn an_acknowledgement_deletes_what_it_covers_and_a_repeat_nothing() {
    let mut shard = with_channels(3);
    assert_eq!(
        shard.run(&acked(2)),
        (
            Reply::OutboxAcked { through: 2 },
            vec![
                Effect::Delete {
                    key: keys::outgoing(MESSAGE, 1)
                },
                Effect::Delete {
                    key: keys::outgoing(MESSAGE, 2)
                },
                put(keys::outbox(MESSAGE), &OutboxRecord { last: 3, acked: 2 }),
            ]
        )
    );
    unchanged(&mut shard, &acked(2), &Reply::OutboxAcked { through: 2 });
    unchanged(&mut shard, &acked(0), &Reply::OutboxAcked { through: 2 });
    assert_eq!(pending(&shard, 0, 100), [3]);
    shard.reply(&create_channel("g", "one more", 1));
    assert_eq!(pending(&shard, 0, 100), [3, 4]);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_refused() {
    let mut shard = with_channels(3);
    refused(&mut shard, &acked(4), Code::Internal);
    refused(&mut shard, &acked(u64::MAX), Code::Internal);
    assert_eq!(pending(&shard, 0, 100), [1, 2, 3]);
}

#[test]
fn a_long_acknowledgement_takes_several_commands() {
    let mut shard = MapView::new(Plane::Management);
    let last = OUTBOX_ACKED_MAX + 7;
    shard
        .records
        .insert(keys::outbox(MESSAGE), OutboxRecord { last, acked: 0 }.encode());
    assert_eq!(
        shard.reply(&acked(last)),
        Reply::OutboxAcked {
            through: OUTBOX_ACKED_MAX
        }
    );
    assert_eq!(shard.reply(&acked(last)), Reply::OutboxAcked { through: last });
}

#[test]
fn records_sent_over_and_over_open_each_channel_once() {
    let source = with_channels(4);
    let mut target = MapView::new(Plane::Message);
    for after in [0, 0, 2, 1, 0] {
        for record in query::outbox_pending(&source, MESSAGE, after, 3).unwrap() {
            let command = throng_state::command::MessageCommand::Deliver {
                source: MANAGEMENT,
                number: record.number,
                delivery: record.delivery,
            };
            assert_eq!(
                target.reply(&throng_state::Command::Message(command)),
                Reply::Done
            );
        }
    }
    assert_eq!(query::inbox_position(&target, MANAGEMENT).unwrap(), 4);
    assert_eq!(query::inbox_position(&target, ShardId(4)).unwrap(), 0);
    for n in 1..=4 {
        let name = channel(&format!("c{n}"));
        let info = query::channel_by_name(&source, &app(), &group("g"), &name)
            .unwrap()
            .unwrap();
        assert_eq!(query::channel(&target, info.number).unwrap(), Some(info));
    }
}
