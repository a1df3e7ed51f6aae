//! Fences on the management plane: who may take which right from whom, what is left in the ledger,
//! and which shards are told.

use throng_protocol::cluster::{Fence, FenceKind, Permissions};
use throng_protocol::code::Code;
use throng_protocol::ids::{ShardId, UserNumber};
use throng_protocol::placement::Plane;
use throng_state::command::ManagementCommand;
use throng_state::limits::OUTBOX_PENDING_MAX;
use throng_state::outbox::Delivery;
use throng_state::query::{self, Standing};
use throng_state::record::{GroupRecord, LedgerRecord, OutboxRecord, OutgoingRecord, Record};
use throng_state::testing::MapView;
use throng_state::{Command, Effect, Outgoing, Reply, keys};

use crate::support::*;

const OTHER: ShardId = ShardId(102);

/// Group `g` of user 1 with members 1 to 3 at version 3, and no channels.
fn members() -> MapView {
    let mut shard = MapView::new(Plane::Management);
    shard.reply(&create_group("g", 1));
    for number in 2..=3 {
        shard.reply(&join("g", number));
    }
    shard
}

fn create_channel_on(target: ShardId, name: &str) -> Command {
    Command::Management(ManagementCommand::CreateChannel {
        app: app(),
        group: group("g"),
        channel: channel(name),
        by: Some(UserNumber(1)),
        issuer: MANAGEMENT,
        target,
    })
}

/// [`members`] with a channel on each of two shards, at version 5.
fn two_shards() -> MapView {
    let mut shard = members();
    for (target, name) in [(MESSAGE, "c"), (OTHER, "d")] {
        shard.reply(&create_channel_on(target, name));
    }
    shard
}

fn fenced(version: u64, changed: bool, sent: &[(ShardId, u64)]) -> Reply {
    let sent = sent.iter().map(|(target, number)| Outgoing {
        number: *number,
        target: *target,
    });
    Reply::Fenced {
        version,
        changed,
        sent: sent.collect(),
    }
}

fn standing(shard: &MapView, number: u64) -> Standing {
    query::standing(shard, &app(), &group("g"), UserNumber(number)).expect("readable")
}

fn ledger(number: u64) -> LedgerRecord {
    LedgerRecord {
        name: user(number),
        fenced: 0,
        kicked: 0,
        muted: 0,
        muted_until: 0,
    }
}

/// What each shard was told, in order.
fn told(shard: &MapView, target: ShardId) -> Vec<Delivery> {
    let pending = query::outbox_pending(shard, target, 0, 100).expect("readable");
    pending.into_iter().map(|pending| pending.delivery).collect()
}

#[test]
fn a_kick_ends_the_membership_and_tells_each_shard_with_channels_once() {
    let mut shard = two_shards();
    // A second channel there is no second record.
    shard.reply(&create_channel_on(MESSAGE, "e"));
    let fence = fence(7, 2, FenceKind::Kick);
    let outgoing = |target, number| Outgoing { number, target };
    assert_eq!(
        shard.run(&kick("g", 2, Some(1))),
        (
            fenced(7, true, &[(MESSAGE, 3), (OTHER, 2)]),
            vec![
                Effect::Delete {
                    key: keys::member(&app(), &group("g"), UserNumber(2))
                },
                Effect::Delete {
                    key: keys::member_roles(&app(), &group("g"), UserNumber(2))
                },
                put(
                    keys::group(&app(), &group("g")),
                    &GroupRecord {
                        creator: UserNumber(1),
                        version: 7,
                        members: 2,
                        channels: 3,
                        fenced: 7,
                    }
                ),
                put(
                    keys::ledger(&app(), &group("g"), UserNumber(2)),
                    &LedgerRecord {
                        fenced: 7,
                        kicked: 7,
                        ..ledger(2)
                    }
                ),
                put(
                    keys::outgoing(MESSAGE, 3),
                    &OutgoingRecord {
                        delivery: fence.clone()
                    }
                ),
                put(keys::outbox(MESSAGE), &OutboxRecord { last: 3, acked: 0 }),
                Effect::Outbox(outgoing(MESSAGE, 3)),
                put(keys::outgoing(OTHER, 2), &OutgoingRecord { delivery: fence }),
                put(keys::outbox(OTHER), &OutboxRecord { last: 2, acked: 0 }),
                Effect::Outbox(outgoing(OTHER, 2)),
            ]
        )
    );
    assert_eq!(standing(&shard, 2), Standing::NotMember { version: 7 });
}

#[test]
fn a_kick_asked_for_again_is_answered_the_same_until_the_user_comes_back() {
    let mut shard = two_shards();
    let first = shard.reply(&kick("g", 2, Some(1)));
    assert_eq!(first, fenced(6, true, &[(MESSAGE, 2), (OTHER, 2)]));
    unchanged(&mut shard, &kick("g", 2, Some(1)), &fenced(6, false, &[]));
    unchanged(&mut shard, &kick("g", 2, None), &fenced(6, false, &[]));
    shard.reply(&join("g", 3));
    unchanged(&mut shard, &kick("g", 2, None), &fenced(6, false, &[]));
    // Back, and gone of the user's own will: there is no kick to repeat.
    assert_eq!(
        shard.reply(&join("g", 2)),
        Reply::Membership {
            version: 7,
            changed: true
        }
    );
    assert_eq!(
        shard.reply(&leave("g", 2)),
        Reply::Membership {
            version: 8,
            changed: true
        }
    );
    refused(&mut shard, &kick("g", 2, None), Code::NotMember);
    // Back again, muted, and kicked anew.
    shard.reply(&join("g", 2));
    shard.reply(&mute("g", 2, NOW, None));
    assert_eq!(
        shard.reply(&kick("g", 2, None)),
        fenced(11, true, &[(MESSAGE, 5), (OTHER, 5)])
    );
    unchanged(&mut shard, &kick("g", 2, None), &fenced(11, false, &[]));
}

#[test]
fn the_records_a_repeated_kick_waits_for_are_found_until_they_are_acknowledged() {
    let mut shard = two_shards();
    shard.reply(&kick("g", 3, None));
    shard.reply(&kick("g", 2, None));
    let waits = |shard: &MapView, version| {
        let waits = query::fence_waits(shard, &app(), &group("g"), version).expect("readable");
        waits
            .iter()
            .map(|wait| (wait.target, wait.number))
            .collect::<Vec<_>>()
    };
    assert_eq!(waits(&shard, 6), [(MESSAGE, 2), (OTHER, 2)]);
    assert_eq!(waits(&shard, 7), [(MESSAGE, 3), (OTHER, 3)]);
    shard.reply(&acked(2));
    assert_eq!(waits(&shard, 6), [(OTHER, 2)]);
    assert_eq!(waits(&shard, 7), [(MESSAGE, 3), (OTHER, 3)]);
    assert_eq!(query::outbox_acked(&shard, MESSAGE).unwrap(), 2);
    assert_eq!(query::outbox_acked(&shard, OTHER).unwrap(), 0);
    shard.reply(&acked(3));
    assert_eq!(waits(&shard, 7), [(OTHER, 3)]);
    assert_eq!(waits(&shard, 8), [(OTHER, 3)], "what was lost before it");
    assert_eq!(waits(&shard, 5), []);
    let late = |shards: &[ShardId]| query::channels_on(&shard, &app(), &group("g"), shards).unwrap();
    assert_eq!(late(&[OTHER]), [channel("d")]);
    assert_eq!(late(&[MESSAGE, OTHER]), [channel("c"), channel("d")]);
    assert_eq!(late(&[ShardId(7)]), []);
}

#[test]
fn only_the_creator_and_operators_take_rights_away_and_never_the_creators() {
    for command in [kick, |name: &str, number, by| mute(name, number, NOW, by)] {
        let mut shard = two_shards();
        refused(&mut shard, &command("h", 2, Some(1)), Code::GroupUnknown);
        refused(&mut shard, &command("g", 2, Some(3)), Code::Forbidden);
        refused(&mut shard, &command("g", 2, Some(2)), Code::Forbidden);
        refused(&mut shard, &command("g", 1, Some(1)), Code::Forbidden);
        refused(&mut shard, &command("g", 1, None), Code::Forbidden);
        refused(&mut shard, &command("g", 4, None), Code::NotMember);
        assert!(matches!(
            shard.reply(&command("g", 2, Some(1))),
            Reply::Fenced { version: 6, .. }
        ));
        assert!(matches!(
            shard.reply(&command("g", 3, None)),
            Reply::Fenced { version: 7, .. }
        ));
    }
}

#[test]
fn a_kick_out_of_one_membership_leaves_the_next_one_alone() {
    let mut shard = two_shards();
    let since = |shard: &MapView| match query::standing(shard, &app(), &group("g"), UserNumber(2)).unwrap() {
        Standing::Member { since, .. } => since,
        other => panic!("{other:?}"),
    };
    let first = since(&shard);
    refused(
        &mut shard,
        &kick_since("g", 2, None, Some(first + 1)),
        Code::NotMember,
    );
    assert!(matches!(
        shard.reply(&kick_since("g", 2, None, Some(first))),
        Reply::Fenced {
            version: 6,
            changed: true,
            ..
        }
    ));
    unchanged(
        &mut shard,
        &kick_since("g", 2, None, Some(first)),
        &fenced(6, false, &[]),
    );
    shard.reply(&join("g", 2));
    unchanged(
        &mut shard,
        &kick_since("g", 2, None, Some(first)),
        &fenced(6, false, &[]),
    );
    let second = since(&shard);
    assert!(matches!(
        shard.reply(&kick_since("g", 2, None, Some(second))),
        Reply::Fenced {
            version: 8,
            changed: true,
            ..
        }
    ));
    // Who left by themselves was not kicked.
    shard.reply(&join("g", 2));
    let third = since(&shard);
    shard.reply(&leave("g", 2));
    refused(
        &mut shard,
        &kick_since("g", 2, None, Some(third)),
        Code::NotMember,
    );
}

#[test]
fn a_name_that_is_not_the_numbers_is_no_member() {
    let of_another = |name: u64| {
        Command::Management(ManagementCommand::Kick {
            app: app(),
            group: group("g"),
            user: user(name),
            number: UserNumber(2),
            by: None,
            since: None,
            proposed_ms: NOW,
        })
    };
    let mut shard = two_shards();
    refused(&mut shard, &of_another(3), Code::NotMember);
    shard.reply(&of_another(2));
    refused(&mut shard, &of_another(3), Code::NotMember);
    unchanged(&mut shard, &of_another(2), &fenced(6, false, &[]));
    let muted = Command::Management(ManagementCommand::Mute {
        app: app(),
        group: group("g"),
        user: user(2),
        number: UserNumber(3),
        until_ms: NOW,
        by: None,
        proposed_ms: NOW,
    });
    refused(&mut shard, &muted, Code::NotMember);
}

#[test]
fn leaving_tells_the_shards_like_a_kick_does() {
    let mut shard = two_shards();
    assert_eq!(
        shard.reply(&leave("g", 2)),
        Reply::Membership {
            version: 6,
            changed: true
        }
    );
    for target in [MESSAGE, OTHER] {
        assert_eq!(told(&shard, target)[1..], [fence(6, 2, FenceKind::Left)]);
    }
    unchanged(
        &mut shard,
        &leave("g", 2),
        &Reply::Membership {
            version: 6,
            changed: false,
        },
    );
}

#[test]
fn a_mute_outlives_the_membership_and_ends_without_a_fence() {
    let mut shard = two_shards();
    assert_eq!(
        shard.reply(&mute("g", 2, NOW + 5, Some(1))),
        fenced(6, true, &[(MESSAGE, 2), (OTHER, 2)])
    );
    assert_eq!(told(&shard, MESSAGE)[1..], [fence(6, 2, FenceKind::Mute)]);
    let member = |version, since, fenced, muted_until| Standing::Member {
        version,
        since,
        name: user(2),
        fenced,
        muted_until,
        permissions: Permissions::EVERYONE,
    };
    assert_eq!(standing(&shard, 2), member(6, 2, 6, NOW + 5));
    unchanged(&mut shard, &mute("g", 2, NOW + 5, None), &fenced(6, false, &[]));
    shard.reply(&leave("g", 2));
    refused(&mut shard, &mute("g", 2, 0, None), Code::NotMember);
    shard.reply(&join("g", 2));
    assert_eq!(standing(&shard, 2), member(8, 8, 7, NOW + 5));
    assert_eq!(shard.reply(&mute("g", 2, 0, None)), fenced(9, true, &[]));
    assert_eq!(told(&shard, MESSAGE).len(), 3, "an end of a mute was told");
    assert_eq!(standing(&shard, 2), member(9, 8, 7, 0));
    unchanged(&mut shard, &mute("g", 2, 0, None), &fenced(9, false, &[]));
    // Whoever was never muted has nothing to be given back.
    unchanged(&mut shard, &mute("g", 3, 0, None), &fenced(9, false, &[]));
}

#[test]
fn nothing_is_taken_away_while_one_shard_cannot_be_told() {
    let mut shard = two_shards();
    shard.reply(&mute("g", 3, NOW, None));
    let waiting = |last| OutboxRecord { last, acked: 5 }.encode();
    let full = |shard: &mut MapView, over| {
        let record = waiting(OUTBOX_PENDING_MAX + over);
        shard.records.insert(keys::outbox(OTHER), record);
    };
    full(&mut shard, 5);
    for command in [kick("g", 2, None), leave("g", 2), mute("g", 2, NOW, None)] {
        refused(&mut shard, &command, Code::Unavailable);
    }
    // Who was kicked before hears so, and a right is given back: neither tells any shard.
    assert_eq!(shard.reply(&mute("g", 3, 0, None)), fenced(7, true, &[]));
    full(&mut shard, 4);
    assert!(matches!(
        shard.reply(&kick("g", 2, None)),
        Reply::Fenced { changed: true, .. }
    ));
}

#[test]
fn a_shard_that_hears_of_the_group_later_is_told_the_last_fence_as_a_floor() {
    let mut shard = members();
    let floor = |shard: &MapView, target| match told(shard, target).last() {
        Some(Delivery::OpenChannel { floor, .. }) => *floor,
        other => panic!("{other:?}"),
    };
    assert_eq!(shard.reply(&kick("g", 2, None)), fenced(4, true, &[]));
    shard.reply(&join("g", 4));
    shard.reply(&create_channel_on(MESSAGE, "c"));
    assert_eq!(floor(&shard, MESSAGE), 4);
    shard.reply(&leave("g", 4));
    // The shard knows that fence by itself.
    shard.reply(&create_channel_on(MESSAGE, "d"));
    assert_eq!(floor(&shard, MESSAGE), 0);
    assert_eq!(told(&shard, OTHER), []);
    shard.reply(&create_channel_on(OTHER, "e"));
    assert_eq!(floor(&shard, OTHER), 7);
}

#[test]
fn fences_of_one_group_are_told_to_no_other_groups_shards() {
    let mut shard = two_shards();
    shard.reply(&create_group("gg", 1));
    shard.reply(&join("gg", 2));
    assert_eq!(shard.reply(&kick("gg", 2, None)), fenced(3, true, &[]));
    assert!(matches!(standing(&shard, 2), Standing::Member { fenced: 0, .. }));
    let kicked = Fence {
        version: 6,
        number: UserNumber(2),
        kind: FenceKind::Kick,
    };
    shard.reply(&kick("g", 2, None));
    assert!(matches!(&told(&shard, OTHER)[1], Delivery::Fence { fence, .. } if *fence == kicked));
}
