//! Roles: what members may do by them, what shards are told when permissions shrink, and what is refused.

use throng_protocol::cluster::{FenceKind, MEMBER_ROLES_MAX, Permissions, ROLES_MAX, RoleInfo};
use throng_protocol::code::Code;
use throng_protocol::ids::{ShardId, Ts, UserNumber};
use throng_protocol::placement::Plane;
use throng_state::limits::OUTBOX_PENDING_MAX;
use throng_state::outbox::Delivery;
use throng_state::query::{self, Right, Standing};
use throng_state::record::{OutboxRecord, Record};
use throng_state::testing::MapView;
use throng_state::{Outgoing, Reply, keys};

use crate::support::*;

/// Group `g` of user 1 with members 1 to 4 and two channels on one shard, at version 6.
fn members() -> MapView {
    let mut shard = MapView::new(Plane::Management);
    shard.reply(&create_group("g", 1));
    shard.reply(&join_all("g", &[2, 3, 4]));
    for number in 2..=3 {
        shard.reply(&create_channel("g", &format!("c{number}"), 1));
    }
    assert_eq!(version(&shard), 6);
    shard
}

fn version(shard: &MapView) -> u64 {
    let info = query::group_info(shard, &app(), &group("g")).expect("readable");
    info.expect("it is there").version
}

fn permissions(shard: &MapView, number: u64) -> Permissions {
    match query::standing(shard, &app(), &group("g"), UserNumber(number)).expect("readable") {
        Standing::Member { permissions, .. } => permissions,
        other => panic!("{other:?}"),
    }
}

fn fenced_at(shard: &MapView, number: u64) -> u64 {
    match query::standing(shard, &app(), &group("g"), UserNumber(number)).expect("readable") {
        Standing::Member { fenced, .. } => fenced,
        other => panic!("{other:?}"),
    }
}

fn told(shard: &MapView) -> Vec<Delivery> {
    let pending = query::outbox_pending(shard, MESSAGE, 0, 100).expect("readable");
    let deliveries = pending.into_iter().map(|pending| pending.delivery);
    deliveries
        .filter(|delivery| !matches!(delivery, Delivery::OpenChannel { .. }))
        .collect()
}

/// A change that is made: how many shards are told of it.
fn changed(shard: &mut MapView, command: &throng_state::Command) -> usize {
    let before = version(shard);
    match shard.reply(command) {
        Reply::Fenced {
            version,
            changed: true,
            sent,
        } => {
            assert_eq!(version, before + 1);
            assert!(sent.iter().all(|Outgoing { target, .. }| *target == MESSAGE));
            sent.len()
        }
        other => panic!("{command:?} was answered {other:?}"),
    }
}

/// Asked for again: nothing changes, and the answer waits for what the first one waits for.
fn asked_again(shard: &mut MapView, command: &throng_state::Command, waits_for: u64) {
    let (reply, effects) = shard.run(command);
    let expected = Reply::Fenced {
        version: waits_for,
        changed: false,
        sent: vec![],
    };
    assert_eq!((reply, effects), (expected, vec![]));
}

#[test]
fn a_member_has_what_everyone_has_and_what_the_members_roles_add() {
    let mut shard = members();
    assert_eq!(permissions(&shard, 1), Permissions::ALL);
    assert_eq!(permissions(&shard, 2), Permissions::EVERYONE);
    assert_eq!(changed(&mut shard, &put_role("helper", Permissions::MUTE)), 0);
    assert_eq!(
        changed(&mut shard, &put_role("janitor", Permissions::RECALL_OTHERS)),
        0
    );
    assert_eq!(permissions(&shard, 2), Permissions::EVERYONE);
    assert_eq!(
        changed(&mut shard, &assign(2, &["janitor", "helper", "helper"])),
        0
    );
    assert_eq!(changed(&mut shard, &assign(3, &["helper"])), 0);
    let helper = Permissions::EVERYONE.with(Permissions::MUTE);
    assert_eq!(permissions(&shard, 2), helper.with(Permissions::RECALL_OTHERS));
    assert_eq!(permissions(&shard, 3), helper);
    // What grows tells no shard: older grants do no harm.
    assert_eq!(
        changed(
            &mut shard,
            &put_role("helper", Permissions::MUTE.with(Permissions::KICK))
        ),
        0
    );
    assert_eq!(permissions(&shard, 3), helper.with(Permissions::KICK));
    assert_eq!(told(&shard), []);
    let roles = query::members(&shard, &app(), &group("g"), UserNumber(0), 10).expect("readable");
    assert_eq!(roles[1].roles, [role("helper"), role("janitor")]);
    assert_eq!(roles[2].roles, [role("helper")]);
    let listed = query::roles(&shard, &app(), &group("g")).expect("readable");
    let listed: Vec<_> = listed.iter().map(|info| info.role.as_str()).collect();
    assert_eq!(listed, ["helper", "janitor"]);
}

#[test]
fn what_a_role_loses_every_shard_with_channels_is_told() {
    let mut shard = members();
    shard.reply(&put_role("helper", Permissions::MUTE.with(Permissions::KICK)));
    shard.reply(&assign(2, &["helper"]));
    let lost = put_role("helper", Permissions::MUTE);
    let made = version(&shard) + 1;
    assert_eq!(changed(&mut shard, &lost), 1);
    assert_eq!(told(&shard), [rights_lost(made)]);
    asked_again(&mut shard, &lost, made);
    let pending = query::fence_waits(&shard, &app(), &group("g"), made).expect("readable");
    assert_eq!(pending.len(), 1, "an answer that is asked for again waits for it");
    // And what adds to the role meanwhile does so too: its answer says what the role is, and nothing else.
    let grown = version(&shard) + 1;
    assert_eq!(
        changed(
            &mut shard,
            &put_role("helper", Permissions::MUTE.with(Permissions::DELETE))
        ),
        0
    );
    let waits = |upto| query::fence_waits(&shard, &app(), &group("g"), upto).expect("readable");
    assert_eq!(waits(grown), pending);
    assert_eq!(waits(made - 1), []);

    let made = version(&shard) + 1;
    assert_eq!(
        changed(&mut shard, &put_role("everyone", Permissions::SEND)),
        1,
        "everyone has less than by default"
    );
    assert_eq!(told(&shard)[1..], [rights_lost(made)]);
    assert_eq!(permissions(&shard, 3), Permissions::SEND);
    let grown = version(&shard) + 1;
    assert_eq!(changed(&mut shard, &remove_role("everyone")), 0);
    assert_eq!(permissions(&shard, 3), Permissions::EVERYONE);
    assert!(grown > made);
    asked_again(&mut shard, &remove_role("everyone"), made);
}

#[test]
fn what_one_member_loses_is_a_fence_of_that_member() {
    let mut shard = members();
    shard.reply(&put_role("helper", Permissions::MUTE));
    shard.reply(&put_role("mirror", Permissions::EVERYONE));
    shard.reply(&assign(2, &["helper", "mirror"]));
    assert_eq!(fenced_at(&shard, 2), 0);
    let made = version(&shard) + 1;
    assert_eq!(changed(&mut shard, &assign(2, &["mirror"])), 1);
    assert_eq!(told(&shard), [fence(made, 2, FenceKind::Rights)]);
    assert_eq!(fenced_at(&shard, 2), made);
    assert_eq!(fenced_at(&shard, 3), 0);
    asked_again(&mut shard, &assign(2, &["mirror"]), made);
    // Nothing is lost with a role that adds nothing.
    assert_eq!(changed(&mut shard, &assign(2, &[])), 0);
    asked_again(&mut shard, &assign(2, &[]), made);
    // The creator keeps every right, whatever the roles.
    shard.reply(&assign(1, &["helper"]));
    assert_eq!(changed(&mut shard, &assign(1, &[])), 0);
    assert_eq!(permissions(&shard, 1), Permissions::ALL);
}

#[test]
fn a_removed_role_is_gone_from_all_and_one_of_its_name_is_another() {
    let mut shard = members();
    shard.reply(&put_role("helper", Permissions::MUTE));
    shard.reply(&assign(2, &["helper"]));
    let made = version(&shard) + 1;
    assert_eq!(changed(&mut shard, &remove_role("helper")), 1);
    asked_again(&mut shard, &remove_role("helper"), made);
    assert_eq!(permissions(&shard, 2), Permissions::EVERYONE);
    shard.reply(&put_role("helper", Permissions::ALL));
    assert_eq!(permissions(&shard, 2), Permissions::EVERYONE);
    let listed = query::members(&shard, &app(), &group("g"), UserNumber(0), 10).expect("readable");
    assert_eq!(listed[1].roles, []);
    assert_eq!(changed(&mut shard, &assign(2, &["helper"])), 0);
    assert_eq!(permissions(&shard, 2), Permissions::ALL);
}

#[test]
fn roles_end_with_the_membership() {
    for end in [leave("g", 2), kick("g", 2, None)] {
        let mut shard = members();
        shard.reply(&put_role("helper", Permissions::MUTE));
        shard.reply(&assign(2, &["helper"]));
        shard.reply(&end);
        shard.reply(&join("g", 2));
        assert_eq!(permissions(&shard, 2), Permissions::EVERYONE);
    }
}

#[test]
fn who_has_the_permission_kicks_and_mutes_who_has_it_not() {
    type Make = fn(u64, Option<u64>) -> throng_state::Command;
    let kinds: [(Permissions, Make); 2] = [
        (Permissions::KICK, |number, by| kick("g", number, by)),
        (Permissions::MUTE, |number, by| {
            mute("g", number, NOW + 60_000, by)
        }),
    ];
    for (permission, command) in kinds {
        let mut shard = members();
        refused(&mut shard, &command(3, Some(2)), Code::Forbidden);
        let other = Permissions::ALL.0 & !permission.0;
        shard.reply(&put_role("other", Permissions(other)));
        shard.reply(&put_role("helper", permission));
        shard.reply(&assign(2, &["other"]));
        refused(&mut shard, &command(3, Some(2)), Code::Forbidden);
        shard.reply(&assign(2, &["helper"]));
        shard.reply(&assign(4, &["helper"]));
        refused(&mut shard, &command(1, Some(2)), Code::Forbidden);
        refused(&mut shard, &command(4, Some(2)), Code::Forbidden);
        refused(&mut shard, &command(2, Some(2)), Code::Forbidden);
        assert_eq!(changed(&mut shard, &command(3, Some(2))), 1);
        // A permission is a member's: who has left acts no more.
        shard.reply(&leave("g", 2));
        shard.reply(&join("g", 3));
        shard.reply(&put_role("everyone", permission));
        refused(&mut shard, &command(3, Some(2)), Code::NotMember);
        // The creator's as well.
        shard.reply(&put_role("everyone", Permissions::EVERYONE));
        shard.reply(&leave("g", 1));
        refused(&mut shard, &command(3, Some(1)), Code::NotMember);
    }
}

#[test]
fn channels_are_created_by_who_may() {
    let mut shard = members();
    shard.reply(&put_role("everyone", Permissions::SEND));
    refused(&mut shard, &create_channel("g", "new", 2), Code::Forbidden);
    // One there is already is found by every member still.
    assert!(matches!(
        shard.reply(&create_channel("g", "c2", 2)),
        Reply::Channel { created: false, .. }
    ));
    shard.reply(&put_role("architect", Permissions::CREATE_CHANNELS));
    shard.reply(&assign(2, &["architect"]));
    for by in [Some(2), Some(1), None] {
        let name = format!("of-{by:?}");
        assert!(matches!(
            shard.reply(&create_channel_by("g", &name, by)),
            Reply::Channel { created: true, .. }
        ));
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut shard = members();
    refused(&mut shard, &assign(2, &["helper"]), Code::RoleUnknown);
    refused(&mut shard, &assign(2, &["everyone"]), Code::RoleUnknown);
    shard.reply(&put_role("everyone", Permissions::EVERYONE));
    refused(&mut shard, &assign(2, &["everyone"]), Code::RoleUnknown);
    refused(&mut shard, &assign(9, &[]), Code::NotMember);
    let names: Vec<String> = (0..=ROLES_MAX).map(|n| format!("role-{n}")).collect();
    for name in &names[..ROLES_MAX - 1] {
        shard.reply(&put_role(name, Permissions::NONE));
    }
    let many: Vec<&str> = names[..=MEMBER_ROLES_MAX].iter().map(String::as_str).collect();
    refused(&mut shard, &assign(2, &many), Code::InvalidField);
    assert_eq!(changed(&mut shard, &assign(2, &many[1..])), 0);
    // Everyone's is not counted among the roles.
    shard.reply(&put_role(&names[ROLES_MAX - 1], Permissions::NONE));
    refused(
        &mut shard,
        &put_role(&names[ROLES_MAX], Permissions::NONE),
        Code::Forbidden,
    );
    let listed = query::roles(&shard, &app(), &group("g")).expect("readable");
    assert_eq!(listed.len(), ROLES_MAX + 1);
    assert!(listed.contains(&RoleInfo {
        role: role("everyone"),
        permissions: Permissions::EVERYONE
    }));
    assert_eq!(
        changed(&mut shard, &put_role(&names[0], Permissions::MUTE)),
        0,
        "one there is"
    );
}

#[test]
fn a_group_that_does_not_exist_has_no_roles() {
    let mut shard = MapView::new(Plane::Management);
    for command in [
        put_role("helper", Permissions::MUTE),
        remove_role("helper"),
        assign(2, &[]),
    ] {
        refused(&mut shard, &command, Code::GroupUnknown);
    }
}

#[test]
fn nothing_is_lost_while_a_shard_cannot_be_told_and_what_grows_needs_none() {
    let mut shard = members();
    shard.reply(&put_role("helper", Permissions::MUTE));
    shard.reply(&assign(2, &["helper"]));
    let full = OutboxRecord {
        last: OUTBOX_PENDING_MAX + 5,
        acked: 5,
    };
    shard.records.insert(keys::outbox(MESSAGE), full.encode());
    for command in [
        put_role("helper", Permissions::NONE),
        remove_role("helper"),
        assign(2, &[]),
        put_role("everyone", Permissions::NONE),
    ] {
        refused(&mut shard, &command, Code::Unavailable);
    }
    assert_eq!(changed(&mut shard, &put_role("helper", Permissions::ALL)), 0);
    assert_eq!(changed(&mut shard, &assign(3, &["helper"])), 0);
}

#[test]
fn a_shard_that_hears_of_the_group_later_takes_no_grant_from_before_a_loss() {
    let mut shard = members();
    let made = version(&shard) + 1;
    shard.reply(&put_role("everyone", Permissions::NONE));
    let create = throng_state::Command::Management(throng_state::command::ManagementCommand::CreateChannel {
        app: app(),
        group: group("g"),
        channel: channel("later"),
        by: None,
        issuer: MANAGEMENT,
        target: ShardId(102),
    });
    shard.reply(&create);
    let pending = query::outbox_pending(&shard, ShardId(102), 0, 10).expect("readable");
    assert!(
        matches!(&pending[0].delivery, Delivery::OpenChannel { floor, .. } if *floor == made),
        "{pending:?}"
    );
}

/// Whether a grant of this version acts, and whether it reads.
fn worth(shard: &MapView, number: u64, version: u64) -> (bool, Right) {
    let mut message = message(number, version, "x");
    message.claims.version = version;
    let acts = match shard.clone().reply(&append(&message)) {
        Reply::Appended { .. } => true,
        Reply::GrantStale => false,
        other => panic!("{other:?}"),
    };
    let reads = query::right_to_read(shard, &message.claims).expect("readable");
    (acts, reads)
}

#[test]
fn grants_from_before_a_loss_act_no_more_and_read_on() {
    let mut shard = message_shard(1);
    assert_eq!(worth(&shard, 2, 4), (true, Right::Held));
    take(&mut shard, rights_lost(5));
    for number in [2, 3] {
        assert_eq!(worth(&shard, number, 4), (false, Right::Held));
        assert_eq!(worth(&shard, number, 5), (true, Right::Held));
    }
    // One that was overtaken lowers nothing.
    take(&mut shard, rights_lost(3));
    assert_eq!(worth(&shard, 2, 4), (false, Right::Held));
    // Other fences and what is folded of them leave it as it is.
    take(&mut shard, fence(7, 2, FenceKind::Rights));
    assert!(!worth(&shard, 2, 6).0);
    assert_eq!(worth(&shard, 3, 6), (true, Right::Held));
    assert_eq!(worth(&shard, 3, 4), (false, Right::Held));
}

#[test]
fn who_may_not_send_is_refused_with_a_grant_that_is_new_enough() {
    let mut shard = message_shard(1);
    let mut message = message(2, 1, "x");
    message.claims.permissions = Permissions(Permissions::ALL.0 & !Permissions::SEND.0);
    refused(&mut shard, &append(&message), Code::Forbidden);
    message.claims.permissions = Permissions::SEND;
    assert_eq!(
        shard.reply(&append(&message)),
        appended(1, Ts::from_millis(NOW), false)
    );
    // What is in the log already is answered as it was.
    message.claims.permissions = Permissions::NONE;
    assert_eq!(
        shard.reply(&append(&message)),
        appended(1, Ts::from_millis(NOW), true)
    );
}
