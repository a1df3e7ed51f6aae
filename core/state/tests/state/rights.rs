//! Fences on the message plane: which grants they end, where they lie, and what folding leaves.

use throng_protocol::cluster::{FenceKind, GrantClaims};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ChannelNumber, Epoch, Seq, Ts, UserNumber};
use throng_protocol::placement::Plane;
use throng_state::command::AppendMessage;
use throng_state::limits::{Bounds, FENCES_PER_GROUP_MAX};
use throng_state::outbox::Delivery;
use throng_state::query::{self, Right};
use throng_state::record::{FenceRecord, FencedUserRecord, FencesRecord, InboxRecord, read};
use throng_state::testing::MapView;
use throng_state::{Command, Effect, Reply, keys};

use crate::support::*;
use FenceKind::{Kick, Left, Mute};

/// A message of a user whose grant was made at `version`, behind the user's fence `fenced`.
fn granted(sender: u64, id: u64, version: u64, fenced: u64) -> AppendMessage {
    let message = message(sender, id, "x");
    AppendMessage {
        claims: GrantClaims {
            version,
            fenced,
            ..message.claims
        },
        ..message
    }
}

fn send(shard: &mut MapView, message: &AppendMessage) -> Reply {
    shard.reply(&append(message))
}

/// Whether a grant of user 2 made at `version` sends.
fn sends(shard: &MapView, version: u64, fenced: u64) -> bool {
    let mut shard = shard.clone();
    match send(&mut shard, &granted(2, 99, version, fenced)) {
        Reply::Appended { .. } => true,
        Reply::GrantStale => false,
        other => panic!("{other:?}"),
    }
}

fn reads(shard: &MapView, version: u64, fenced: u64) -> Right {
    query::right_to_read(shard, &granted(2, 1, version, fenced).claims).expect("readable")
}

fn ends(shard: &MapView) -> Option<FencesRecord> {
    read(shard, &keys::fences(&app(), &group("g"))).expect("readable")
}

#[test]
fn a_fence_is_one_record_with_the_log_index_whatever_channels_there_are() {
    let mut shard = message_shard(3);
    assert_eq!(
        shard.run(&delivered(4, fence(5, 2, Kick))),
        (
            Reply::Done,
            vec![
                put(
                    keys::fenced_user(&app(), &group("g"), UserNumber(2)),
                    &FencedUserRecord { ended: 5, muted: 0 }
                ),
                put(
                    keys::fence(&app(), &group("g"), 5),
                    &FenceRecord {
                        number: UserNumber(2),
                        user: user(2),
                        kind: Kick,
                        index: 4,
                        at_ms: NOW,
                    }
                ),
                put(
                    keys::fences(&app(), &group("g")),
                    &FencesRecord {
                        floor: 0,
                        last: 5,
                        count: 1,
                        rights: 0,
                    }
                ),
                Effect::Fenced {
                    app: app(),
                    group: group("g")
                },
                put(keys::inbox(MANAGEMENT), &InboxRecord { last: 4 }),
            ]
        )
    );
}

#[test]
fn a_fence_that_comes_again_or_late_changes_nothing_but_the_inbox() {
    let mut shard = message_shard(1);
    take(&mut shard, fence(5, 2, Kick));
    let inbox = |last| put(keys::inbox(MANAGEMENT), &InboxRecord { last });
    assert_eq!(
        shard.run(&delivered(3, fence(5, 2, Kick))),
        (Reply::Done, vec![inbox(3)])
    );
    assert_eq!(
        shard.run(&delivered(4, fence(4, 3, Kick))),
        (Reply::Done, vec![inbox(4)])
    );
    assert!(matches!(
        send(&mut shard, &granted(3, 1, 3, 0)),
        Reply::Appended { .. }
    ));
}

#[test]
fn every_fence_ends_older_grants_of_its_user_alone() {
    for kind in [Kick, Left, Mute] {
        let mut shard = message_shard(1);
        take(&mut shard, fence(5, 2, kind));
        assert_eq!(
            shard.run(&append(&granted(2, 1, 4, 0))),
            (Reply::GrantStale, vec![])
        );
        assert!(sends(&shard, 5, 5) && sends(&shard, 6, 5));
        assert_eq!(
            send(&mut shard, &granted(3, 1, 4, 0)),
            appended(1, Ts::from_millis(NOW), false)
        );
        // A user of the same number in another app is another user.
        let mut elsewhere = granted(2, 2, 4, 0);
        elsewhere.claims.app = AppId::new("other").unwrap();
        refused(&mut shard, &append(&elsewhere), Code::Forbidden);
    }
}

#[test]
fn a_mute_ends_no_reading_and_every_other_fence_does() {
    for (kind, right) in [(Kick, Right::Stale), (Left, Right::Stale), (Mute, Right::Held)] {
        let mut shard = message_shard(1);
        assert_eq!(reads(&shard, 1, 0), Right::Held);
        take(&mut shard, fence(5, 2, kind));
        assert_eq!(reads(&shard, 4, 0), right);
        assert_eq!(reads(&shard, 5, 5), Right::Held);
        assert_eq!(reads(&shard, 8, 7), Right::Early);
        // A later mute does not hide the fence before it.
        take(&mut shard, fence(6, 2, Mute));
        assert_eq!(reads(&shard, 4, 0), right);
    }
}

#[test]
fn what_was_acked_before_a_fence_is_answered_the_same_behind_it() {
    let mut shard = message_shard(1);
    let sent = granted(2, 1, 4, 0);
    let ts = Ts::from_millis(NOW);
    assert_eq!(send(&mut shard, &sent), appended(1, ts, false));
    take(&mut shard, fence(5, 2, Kick));
    unchanged(&mut shard, &append(&sent), &appended(1, ts, true));
    unchanged(&mut shard, &append(&granted(2, 2, 4, 0)), &Reply::GrantStale);
}

#[test]
fn a_readmitted_user_waits_for_the_fence_behind_which_the_message_must_lie() {
    let mut shard = message_shard(1);
    let back = granted(2, 1, 7, 5);
    refused(&mut shard, &append(&back), Code::Unavailable);
    assert_eq!(reads(&shard, 7, 5), Right::Early);
    take(&mut shard, fence(5, 2, Kick));
    assert!(matches!(send(&mut shard, &back), Reply::Appended { .. }));
    // Kicked and back twice: the first fence is not the last.
    take(&mut shard, fence(8, 2, Kick));
    unchanged(&mut shard, &append(&granted(2, 2, 7, 5)), &Reply::GrantStale);
    refused(&mut shard, &append(&granted(2, 2, 11, 10)), Code::Unavailable);
    take(&mut shard, fence(10, 2, Left));
    assert!(matches!(
        send(&mut shard, &granted(2, 2, 11, 10)),
        Reply::Appended { .. }
    ));
}

#[test]
fn a_mute_ends_by_the_time_stamp_of_the_entry() {
    let mut shard = message_shard(1);
    take(&mut shard, fence(5, 2, Mute));
    let muted = |id, now, until| {
        let mut message = at(now, granted(2, id, 6, 5));
        message.claims.muted_until = until;
        message
    };
    refused(&mut shard, &append(&muted(1, NOW, NOW + 10)), Code::Muted);
    refused(&mut shard, &append(&muted(1, NOW + 9, NOW + 10)), Code::Muted);
    let ts = Ts::from_millis(NOW + 10);
    assert_eq!(
        send(&mut shard, &muted(1, NOW + 10, NOW + 10)),
        appended(1, ts, false)
    );
    // The channel's time stands still while a leader's clock is behind: the stamp counts.
    assert_eq!(
        send(&mut shard, &muted(2, NOW, NOW + 10)),
        appended(2, Ts(ts.0 + 1), false)
    );
}

#[test]
fn a_floor_voids_the_grants_below_it_whatever_user_they_are_of() {
    let mut shard = MapView::new(Plane::Message);
    let open = |info, floor| Delivery::OpenChannel {
        info,
        epoch: Epoch(1),
        floor,
    };
    take(&mut shard, open(info(1), 6));
    let record = FencesRecord {
        floor: 6,
        last: 6,
        count: 0,
        rights: 0,
    };
    assert_eq!(ends(&shard), Some(record.clone()));
    assert!(!sends(&shard, 5, 0) && sends(&shard, 6, 6));
    assert_eq!(reads(&shard, 5, 0), Right::Stale);
    // It is raised by no channel that comes later, and a fence below it is not news.
    take(&mut shard, open(info(2), 0));
    take(&mut shard, fence(6, 2, Kick));
    assert_eq!(ends(&shard), Some(record));
    take(&mut shard, fence(7, 2, Kick));
    assert!(!sends(&shard, 6, 6) && sends(&shard, 7, 7));
    let table = query::fence_table(&shard, ChannelNumber(1), Seq(0))
        .unwrap()
        .unwrap();
    assert_eq!((table.floor, table.last, table.fenced.len()), (6, 7, 1));
}

/// A shard that keeps two fences of a group.
fn small() -> MapView {
    MapView {
        bounds: Bounds { fences_per_group: 2 },
        ..message_shard(1)
    }
}

#[test]
fn the_oldest_fences_fold_into_the_floor_and_leave_no_records() {
    let mut shard = small();
    for (version, number) in [(5, 2), (7, 3), (9, 2), (12, 4)] {
        take(&mut shard, fence(version, number, Kick));
    }
    assert_eq!(
        ends(&shard),
        Some(FencesRecord {
            floor: 7,
            last: 12,
            count: 2,
            rights: 0,
        })
    );
    let fence_of = |version| read::<FenceRecord>(&shard, &keys::fence(&app(), &group("g"), version)).unwrap();
    assert!(fence_of(5).is_none() && fence_of(7).is_none());
    assert!(fence_of(9).is_some() && fence_of(12).is_some());
    let last_of = |number| {
        let key = keys::fenced_user(&app(), &group("g"), UserNumber(number));
        read::<FencedUserRecord>(&shard, &key)
            .unwrap()
            .map(|last| last.ended)
    };
    assert_eq!((last_of(2), last_of(3), last_of(4)), (Some(9), None, Some(12)));
    // The floor stands for what was folded.
    assert!(!sends(&shard, 6, 5) && !sends(&shard, 8, 5) && sends(&shard, 9, 9));
    assert_eq!(send(&mut shard.clone(), &granted(3, 1, 6, 0)), Reply::GrantStale);
    assert!(matches!(
        send(&mut shard, &granted(3, 1, 7, 7)),
        Reply::Appended { .. }
    ));
}

#[test]
fn a_fold_of_the_users_own_older_fence_does_not_take_the_new_one_along() {
    let mut shard = small();
    for (version, kind) in [(5, Kick), (6, Mute), (7, Left)] {
        take(&mut shard, fence(version, 2, kind));
    }
    let key = keys::fenced_user(&app(), &group("g"), UserNumber(2));
    assert_eq!(
        read::<FencedUserRecord>(&shard, &key).unwrap(),
        Some(FencedUserRecord { ended: 7, muted: 6 })
    );
    assert!(!sends(&shard, 6, 6) && sends(&shard, 7, 7));
    take(&mut shard, fence(8, 3, Kick));
    assert_eq!(
        read::<FencedUserRecord>(&shard, &key).unwrap(),
        Some(FencedUserRecord { ended: 7, muted: 0 })
    );
}

#[test]
fn a_table_over_its_bound_shrinks_by_one_more_with_each_fence() {
    let mut shard = message_shard(1);
    for version in 5..15 {
        take(&mut shard, fence(version, version, Kick));
    }
    shard.bounds.fences_per_group = 2;
    let counts: Vec<u64> = (15..24)
        .map(|version| {
            take(&mut shard, fence(version, 2, Kick));
            ends(&shard).unwrap().count
        })
        .collect();
    assert_eq!(counts, [9, 8, 7, 6, 5, 4, 3, 2, 2]);
    assert_eq!(Bounds::default().fences_per_group, FENCES_PER_GROUP_MAX);
}

#[test]
fn fences_of_another_group_or_a_group_without_any_touch_nobody() {
    let mut shard = message_shard(1);
    let Delivery::Fence {
        app,
        fence,
        user,
        at_ms,
        ..
    } = fence(5, 2, Kick)
    else {
        panic!("no fence")
    };
    let elsewhere = Delivery::Fence {
        app,
        group: group("gg"),
        fence,
        user,
        at_ms,
    };
    take(&mut shard, elsewhere);
    assert!(sends(&shard, 1, 0));
    assert_eq!(ends(&shard), None);
    let command: Command = append(&granted(2, 5, 1, 0));
    assert!(matches!(shard.reply(&command), Reply::Appended { .. }));
}
