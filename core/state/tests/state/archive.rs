//! Archived channels: what the management shard decides, and what the message shard lets through.

use throng_protocol::cluster::{Anchor, Change, Direction};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Ts, UserNumber};
use throng_protocol::placement::Plane;
use throng_state::limits::OUTBOX_PENDING_MAX;
use throng_state::query;
use throng_state::record::{OutboxRecord, Record};
use throng_state::testing::MapView;
use throng_state::{Outgoing, Reply, keys};

use crate::changes::{change, command, modify};
use crate::support::*;

/// Group `g` of user 1 with channel `c`, at version 2.
fn one_channel() -> MapView {
    let mut shard = MapView::new(Plane::Management);
    shard.reply(&create_group("g", 1));
    shard.reply(&create_channel("g", "c", 1));
    shard
}

fn decided(version: u64, changed: bool, sent: &[u64]) -> Reply {
    let target = MESSAGE;
    Reply::Fenced {
        version,
        changed,
        sent: sent
            .iter()
            .map(|number| Outgoing {
                number: *number,
                target,
            })
            .collect(),
    }
}

fn is_archived(shard: &MapView) -> bool {
    query::channels(shard, &app(), &group("g"), None, 9).expect("readable")[0].archived
}

#[test]
fn a_decision_tells_the_channels_shard_once_and_in_order() {
    let mut shard = one_channel();
    assert!(!is_archived(&shard));
    unchanged(&mut shard, &archive("c", false), &decided(0, false, &[]));
    assert_eq!(shard.reply(&archive("c", true)), decided(3, true, &[2]));
    assert!(is_archived(&shard));
    unchanged(&mut shard, &archive("c", true), &decided(3, false, &[]));
    let waits = query::fence_waits(&shard, &app(), &group("g"), 3).expect("readable");
    assert_eq!(
        waits,
        [Outgoing {
            number: 2,
            target: MESSAGE
        }]
    );
    assert_eq!(shard.reply(&archive("c", false)), decided(4, true, &[3]));
    assert!(!is_archived(&shard));
    let told = query::outbox_pending(&shard, MESSAGE, 1, 9).expect("readable");
    let told: Vec<_> = told.into_iter().map(|pending| pending.delivery).collect();
    let number = ChannelNumber(3 << 40 | 1);
    assert_eq!(
        told,
        [archive_told(number, true, 3), archive_told(number, false, 4)]
    );
    // Who creates it again finds it as it is.
    assert!(matches!(
        shard.reply(&create_channel("g", "c", 1)),
        Reply::Channel { created: false, .. }
    ));
}

#[test]
fn what_cannot_be_archived_is_refused() {
    let mut none = MapView::new(Plane::Management);
    refused(&mut none, &archive("c", true), Code::GroupUnknown);
    let mut shard = one_channel();
    refused(&mut shard, &archive("d", true), Code::ChannelUnknown);
    let full = OutboxRecord {
        last: OUTBOX_PENDING_MAX + 5,
        acked: 5,
    };
    shard.records.insert(keys::outbox(MESSAGE), full.encode());
    refused(&mut shard, &archive("c", true), Code::Unavailable);
}

/// A message shard whose channel 1 has a message of user 1 and is archived.
fn archived() -> MapView {
    let mut shard = message_shard(2);
    shard.reply(&append(&message(1, 1, "before")));
    take(&mut shard, archive_told(ChannelNumber(1), true, 3));
    shard
}

#[test]
fn members_write_nothing_to_an_archived_channel_until_it_is_opened_again() {
    let mut shard = archived();
    refused(&mut shard, &append(&message(1, 2, "late")), Code::ChannelArchived);
    for late in [modify("late"), Change::Recall] {
        refused(
            &mut shard,
            &command(&change(1, 3, 1, late)),
            Code::ChannelArchived,
        );
    }
    let mut elsewhere = message(1, 2, "another channel");
    elsewhere.channel = ChannelNumber(2);
    assert!(matches!(shard.reply(&append(&elsewhere)), Reply::Appended { .. }));
    let mut by_app = message(1, 4, "closed");
    by_app.claims.number = UserNumber(0);
    assert!(matches!(shard.reply(&append(&by_app)), Reply::Appended { .. }));
    // What was delivered before comes again and opens nothing.
    let opening = delivered(
        1,
        match deliver(1, info(1)) {
            throng_state::Command::Message(throng_state::command::MessageCommand::Deliver {
                delivery,
                ..
            }) => delivery,
            other => panic!("{other:?}"),
        },
    );
    assert_eq!(shard.reply(&opening), Reply::Done);
    refused(&mut shard, &append(&message(1, 2, "late")), Code::ChannelArchived);
    take(&mut shard, archive_told(ChannelNumber(1), false, 4));
    assert!(matches!(
        shard.reply(&append(&message(1, 2, "late"))),
        Reply::Appended { repeat: false, .. }
    ));
}

#[test]
fn an_archived_channel_is_read_and_answers_what_was_acked_before() {
    let mut shard = archived();
    assert_eq!(
        shard.reply(&append(&message(1, 1, "before"))),
        appended(1, Ts::from_millis(NOW), true)
    );
    let wanted = entries_at(
        Anchor::Seq(throng_protocol::ids::Seq(0)),
        Direction::After,
        9,
        usize::MAX,
    );
    let page = query::page(&shard, ChannelNumber(1), &wanted).expect("readable");
    assert_eq!(page.expect("it is there").entries.len(), 1);
}

#[test]
fn a_channel_that_was_never_opened_holds_the_outbox_up() {
    let mut shard = message_shard(1);
    let told = delivered(2, archive_told(ChannelNumber(9), true, 3));
    refused(&mut shard, &told, Code::Internal);
}
