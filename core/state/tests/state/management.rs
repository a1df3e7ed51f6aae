//! The management plane: directory, groups, members, channels.

use throng_protocol::cluster::{ChannelInfo, ListedChannel, MEMBERS_PAGE_MAX, Permissions};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ChannelNumber, Epoch, ShardId, UserNumber};
use throng_protocol::placement::Plane;
use throng_state::command::ManagementCommand;
use throng_state::limits::{CHANNELS_PER_GROUP_MAX, NUMBER_RANGES_MAX, OUTBOX_PENDING_MAX};
use throng_state::outbox::Delivery;
use throng_state::query::{NumberStock, Standing};
use throng_state::record::{
    ChannelCounterRecord, ChannelRecord, GroupRecord, GroupShardRecord, LedgerRecord, MemberRecord,
    NumberRange, NumberStockRecord, OutboxRecord, OutgoingRecord, Record, UserRecord,
};
use throng_state::testing::MapView;
use throng_state::{Command, Effect, Outgoing, Reply, keys, query};

use crate::support::*;

fn management() -> MapView {
    MapView::new(Plane::Management)
}

fn group_record(version: u64, members: u64, channels: u32) -> GroupRecord {
    GroupRecord {
        creator: UserNumber(1),
        version,
        members,
        channels,
        fenced: 0,
    }
}

fn membership(version: u64, changed: bool) -> Reply {
    Reply::Membership { version, changed }
}

#[test]
fn a_user_gets_the_next_number_in_stock_once() {
    let mut shard = management();
    unchanged(&mut shard, &register(1), &Reply::NumbersExhausted);
    let stock = |start, added| NumberStockRecord {
        ranges: if start < 12 {
            vec![NumberRange { start, end: 12 }]
        } else {
            vec![]
        },
        end: 12,
        added,
    };
    assert_eq!(
        shard.run(&add_range(10, 12)),
        (Reply::Done, vec![put(keys::number_stock(), &stock(10, 1))])
    );
    assert_eq!(
        shard.run(&register(1)),
        (
            Reply::User(UserNumber(10)),
            vec![
                put(keys::number_stock(), &stock(11, 1)),
                put(
                    keys::user(&app(), &user(1)),
                    &UserRecord {
                        number: UserNumber(10)
                    }
                ),
            ]
        )
    );
    unchanged(&mut shard, &register(1), &Reply::User(UserNumber(10)));
    assert_eq!(shard.reply(&register(2)), Reply::User(UserNumber(11)));
    unchanged(&mut shard, &register(3), &Reply::NumbersExhausted);
    unchanged(&mut shard, &register(2), &Reply::User(UserNumber(11)));
    assert_eq!(
        query::user_number(&shard, &app(), &user(2)).unwrap(),
        Some(UserNumber(11))
    );
    assert_eq!(query::user_number(&shard, &app(), &user(3)).unwrap(), None);
}

#[test]
fn ranges_are_used_up_in_the_order_they_were_added() {
    let mut shard = management();
    for range in [(1, 2), (5, 7)] {
        assert_eq!(shard.reply(&add_range(range.0, range.1)), Reply::Done);
    }
    let numbers: Vec<Reply> = (1..=4).map(|name| shard.reply(&register(name))).collect();
    let issued = |number| Reply::User(UserNumber(number));
    assert_eq!(
        numbers,
        [issued(1), issued(5), issued(6), Reply::NumbersExhausted]
    );
}

#[test]
fn the_same_user_of_two_apps_has_two_numbers() {
    let mut shard = management();
    shard.reply(&add_range(1, 10));
    let other = AppId::new("other").unwrap();
    let elsewhere = Command::Management(ManagementCommand::RegisterUser {
        app: other,
        user: user(1),
    });
    assert_eq!(shard.reply(&register(1)), Reply::User(UserNumber(1)));
    assert_eq!(shard.reply(&elsewhere), Reply::User(UserNumber(2)));
}

#[test]
fn a_range_that_was_added_before_is_not_added_again() {
    let mut shard = management();
    shard.reply(&add_range(10, 20));
    shard.reply(&register(1));
    unchanged(&mut shard, &add_range(10, 20), &Reply::Done);
    unchanged(&mut shard, &add_range(1, 5), &Reply::Done);
    refused(&mut shard, &add_range(19, 30), Code::Internal);
    assert_eq!(
        query::number_stock(&shard).unwrap(),
        NumberStock {
            left: 9,
            next_request: 2
        }
    );
}

#[test]
fn the_request_of_the_next_lease_changes_only_when_its_range_is_added() {
    let mut shard = management();
    assert_eq!(
        query::number_stock(&shard).unwrap(),
        NumberStock {
            left: 0,
            next_request: 1
        }
    );
    shard.reply(&register(1));
    assert_eq!(query::number_stock(&shard).unwrap().next_request, 1);
    shard.reply(&add_range(1, 3));
    assert_eq!(
        query::number_stock(&shard).unwrap(),
        NumberStock {
            left: 2,
            next_request: 2
        }
    );
}

#[test]
fn a_range_of_nothing_is_refused_and_the_stock_is_bounded() {
    let mut shard = management();
    for (start, end) in [(0, 5), (5, 5), (6, 5)] {
        refused(&mut shard, &add_range(start, end), Code::InvalidField);
    }
    for n in 1..=NUMBER_RANGES_MAX as u64 {
        assert_eq!(shard.reply(&add_range(n, n + 1)), Reply::Done);
    }
    refused(&mut shard, &add_range(100, 200), Code::Overloaded);
}

#[test]
fn a_groups_creator_is_its_first_member() {
    let mut shard = management();
    assert_eq!(
        shard.run(&create_group("g", 1)),
        (
            Reply::Group {
                version: 1,
                created: true
            },
            vec![
                put(keys::group(&app(), &group("g")), &group_record(1, 1, 0)),
                put(
                    keys::member(&app(), &group("g"), UserNumber(1)),
                    &MemberRecord {
                        since: 1,
                        name: user(1)
                    }
                ),
            ]
        )
    );
    unchanged(
        &mut shard,
        &create_group("g", 1),
        &Reply::Group {
            version: 1,
            created: false,
        },
    );
    refused(&mut shard, &create_group("g", 2), Code::AlreadyExists);
    assert_eq!(
        shard.reply(&create_group("other", 2)),
        Reply::Group {
            version: 1,
            created: true
        }
    );
}

#[test]
fn joining_and_leaving_each_change_the_version_once() {
    let mut shard = management();
    shard.reply(&create_group("g", 1));
    let member = keys::member(&app(), &group("g"), UserNumber(2));
    let group_key = keys::group(&app(), &group("g"));
    assert_eq!(
        shard.run(&join("g", 2)),
        (
            membership(2, true),
            vec![
                put(
                    member.clone(),
                    &MemberRecord {
                        since: 2,
                        name: user(2)
                    }
                ),
                put(group_key.clone(), &group_record(2, 2, 0)),
            ]
        )
    );
    unchanged(&mut shard, &join("g", 2), &membership(2, false));
    assert_eq!(
        shard.run(&leave("g", 2)),
        (
            membership(3, true),
            vec![
                Effect::Delete { key: member },
                Effect::Delete {
                    key: keys::member_roles(&app(), &group("g"), UserNumber(2))
                },
                put(
                    group_key,
                    &GroupRecord {
                        fenced: 3,
                        ..group_record(3, 1, 0)
                    }
                ),
                put(
                    keys::ledger(&app(), &group("g"), UserNumber(2)),
                    &LedgerRecord {
                        name: user(2),
                        fenced: 3,
                        kicked: 0,
                        muted: 0,
                        muted_until: 0,
                    }
                ),
            ]
        )
    );
    unchanged(&mut shard, &leave("g", 2), &membership(3, false));
    assert_eq!(shard.reply(&join("g", 2)), membership(4, true));
    let standing = query::standing(&shard, &app(), &group("g"), UserNumber(2)).unwrap();
    assert_eq!(
        standing,
        Standing::Member {
            version: 4,
            since: 4,
            name: user(2),
            fenced: 3,
            muted_until: 0,
            permissions: Permissions::EVERYONE,
        }
    );
}

#[test]
fn a_group_survives_its_last_member_and_its_creator_comes_back_by_joining_only() {
    let mut shard = management();
    shard.reply(&create_group("g", 1));
    assert_eq!(shard.reply(&leave("g", 1)), membership(2, true));
    unchanged(
        &mut shard,
        &create_group("g", 1),
        &Reply::Group {
            version: 2,
            created: false,
        },
    );
    let standing = |shard: &MapView| query::standing(shard, &app(), &group("g"), UserNumber(1)).unwrap();
    assert_eq!(standing(&shard), Standing::NotMember { version: 2 });
    assert_eq!(shard.reply(&join("g", 1)), membership(3, true));
    assert_eq!(
        standing(&shard),
        Standing::Member {
            version: 3,
            since: 3,
            name: user(1),
            fenced: 2,
            muted_until: 0,
            permissions: Permissions::ALL,
        }
    );
}

#[test]
fn a_group_that_does_not_exist_has_no_members_and_no_channels() {
    let mut shard = management();
    for command in [join("g", 1), leave("g", 1), create_channel("g", "c", 1)] {
        refused(&mut shard, &command, Code::GroupUnknown);
    }
    let standing = query::standing(&shard, &app(), &group("g"), UserNumber(1)).unwrap();
    assert_eq!(standing, Standing::GroupUnknown);
}

fn first_channel() -> ChannelInfo {
    ChannelInfo {
        app: app(),
        group: group("g"),
        channel: channel("c"),
        number: ChannelNumber(3 << 40 | 1),
        shard: MESSAGE,
    }
}

#[test]
fn a_channel_and_the_order_to_open_it_are_committed_together() {
    let mut shard = management();
    shard.reply(&create_group("g", 1));
    let info = first_channel();
    let delivery = Delivery::OpenChannel {
        info: info.clone(),
        epoch: Epoch(1),
        floor: 0,
    };
    assert_eq!(
        shard.run(&create_channel("g", "c", 1)),
        (
            Reply::Channel {
                info: info.clone(),
                created: true
            },
            vec![
                put(
                    keys::group_shard(&app(), &group("g"), MESSAGE),
                    &GroupShardRecord { since: 2 }
                ),
                put(keys::group(&app(), &group("g")), &group_record(2, 1, 1)),
                put(
                    keys::channel(&app(), &group("g"), &channel("c")),
                    &ChannelRecord {
                        info: info.clone(),
                        archived: false,
                        decided: 0,
                    }
                ),
                put(
                    keys::channel_counter(),
                    &ChannelCounterRecord {
                        issuer: MANAGEMENT,
                        last: 1
                    }
                ),
                put(keys::outgoing(MESSAGE, 1), &OutgoingRecord { delivery }),
                put(keys::outbox(MESSAGE), &OutboxRecord { last: 1, acked: 0 }),
                Effect::Outbox(Outgoing {
                    number: 1,
                    target: MESSAGE
                }),
            ]
        )
    );
    let found = query::channel_by_name(&shard, &app(), &group("g"), &channel("c")).unwrap();
    assert_eq!(found, Some(info));
    assert_eq!(
        query::channel_by_name(&shard, &app(), &group("g"), &channel("d")).unwrap(),
        None
    );
}

#[test]
fn a_member_who_creates_a_channel_again_gets_the_one_there_is() {
    let mut shard = management();
    shard.reply(&create_group("g", 1));
    shard.reply(&join("g", 2));
    shard.reply(&create_channel("g", "c", 1));
    unchanged(
        &mut shard,
        &create_channel("g", "c", 2),
        &Reply::Channel {
            info: first_channel(),
            created: false,
        },
    );
    refused(&mut shard, &create_channel("g", "c", 3), Code::NotMember);
    refused(&mut shard, &create_channel("g", "d", 3), Code::NotMember);
}

#[test]
fn channel_numbers_differ_over_groups_and_carry_the_shard_that_issued_them() {
    let mut shard = management();
    let mut numbers = Vec::new();
    for name in ["g", "h"] {
        shard.reply(&create_group(name, 1));
        for channel in ["c", "d"] {
            match shard.reply(&create_channel(name, channel, 1)) {
                Reply::Channel { info, created: true } => numbers.push(info.number.0),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(numbers, [3 << 40 | 1, 3 << 40 | 2, 3 << 40 | 3, 3 << 40 | 4]);
}

#[test]
fn the_app_itself_creates_channels_without_being_a_member() {
    let mut shard = management();
    refused(&mut shard, &create_channel_by("g", "c", None), Code::GroupUnknown);
    shard.reply(&create_group("g", 1));
    let by_app = Reply::Channel {
        info: first_channel(),
        created: true,
    };
    assert_eq!(shard.reply(&create_channel_by("g", "c", None)), by_app);
    let listed = |after: Option<&str>, limit| {
        let after = after.map(channel);
        query::channels(&shard, &app(), &group("g"), after.as_ref(), limit).unwrap()
    };
    let first = ListedChannel {
        info: first_channel(),
        archived: false,
    };
    assert_eq!(listed(None, 2), [first]);
    assert!(listed(Some("c"), 2).is_empty() && listed(None, 0).is_empty());
    assert_eq!(listed(Some("b"), 2).len(), 1);
}

#[test]
fn the_number_of_nobody_becomes_a_member_by_no_way() {
    let mut shard = management();
    refused(&mut shard, &create_group("g", 0), Code::InvalidField);
    shard.reply(&create_group("g", 1));
    refused(&mut shard, &join("g", 0), Code::InvalidField);
    refused(&mut shard, &join_all("g", &[2, 0]), Code::InvalidField);
    let group = query::group_info(&shard, &app(), &group("g")).unwrap();
    assert_eq!(group.map(|group| group.members), Some(1));
}

#[test]
fn many_users_join_in_one_step_or_none_does() {
    let mut shard = management();
    refused(&mut shard, &join_all("g", &[1, 2]), Code::GroupUnknown);
    shard.reply(&create_group("g", 1));
    // One is a member, and one is named twice.
    let reply = shard.reply(&join_all("g", &[3, 1, 2, 3]));
    assert_eq!(reply, Reply::Joined { joined: 2 });
    let info = query::group_info(&shard, &app(), &group("g")).unwrap().unwrap();
    assert_eq!((info.members, info.version, info.creator), (3, 3, Some(user(1))));
    let listed = |after, limit| -> Vec<(u64, u64)> {
        let found = query::members(&shard, &app(), &group("g"), UserNumber(after), limit).unwrap();
        found
            .iter()
            .map(|member| (member.number.0, member.since))
            .collect()
    };
    assert_eq!(listed(0, 10), [(1, 1), (2, 3), (3, 2)]);
    assert_eq!((listed(1, 1), listed(3, 10)), (vec![(2, 3)], vec![]));
    unchanged(
        &mut shard,
        &join_all("g", &[1, 2, 3]),
        &Reply::Joined { joined: 0 },
    );
    let too_many: Vec<u64> = (1..=u64::from(MEMBERS_PAGE_MAX) + 1).collect();
    refused(&mut shard, &join_all("g", &too_many), Code::InvalidField);
    assert_eq!(query::group_info(&shard, &app(), &group("h")).unwrap(), None);
}

#[test]
fn a_group_has_at_most_so_many_channels() {
    let mut shard = management();
    shard.reply(&create_group("g", 1));
    let key = keys::group(&app(), &group("g"));
    let full = |channels| group_record(1, 1, channels).encode();
    shard.records.insert(key.clone(), full(CHANNELS_PER_GROUP_MAX));
    refused(&mut shard, &create_channel("g", "c", 1), Code::Forbidden);
    shard.records.insert(key, full(CHANNELS_PER_GROUP_MAX - 1));
    assert!(matches!(
        shard.reply(&create_channel("g", "c", 1)),
        Reply::Channel { created: true, .. }
    ));
}

#[test]
fn no_channel_is_created_while_too_much_waits_for_its_shard() {
    let mut shard = management();
    shard.reply(&create_group("g", 1));
    let waiting = |last| OutboxRecord { last, acked: 5 }.encode();
    shard
        .records
        .insert(keys::outbox(MESSAGE), waiting(OUTBOX_PENDING_MAX + 5));
    refused(&mut shard, &create_channel("g", "c", 1), Code::Unavailable);
    shard
        .records
        .insert(keys::outbox(MESSAGE), waiting(OUTBOX_PENDING_MAX + 4));
    assert!(matches!(
        shard.reply(&create_channel("g", "c", 1)),
        Reply::Channel { created: true, .. }
    ));
}

#[test]
fn channel_numbers_are_issued_by_one_shard_and_do_not_wrap_around() {
    let as_shard = |issuer| {
        Command::Management(ManagementCommand::CreateChannel {
            app: app(),
            group: group("g"),
            channel: channel("c"),
            by: Some(UserNumber(1)),
            issuer: ShardId(issuer),
            target: MESSAGE,
        })
    };
    let mut shard = management();
    shard.reply(&create_group("g", 1));
    refused(&mut shard, &as_shard(1 << 24), Code::Internal);
    let spent = ChannelCounterRecord {
        issuer: MANAGEMENT,
        last: (1 << 40) - 1,
    };
    shard.records.insert(keys::channel_counter(), spent.encode());
    refused(&mut shard, &as_shard(MANAGEMENT.0), Code::Internal);
    refused(&mut shard, &as_shard(MANAGEMENT.0 + 1), Code::Internal);
}
