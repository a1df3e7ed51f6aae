//! Changes to messages: who may make which, what they leave, and what readers are shown.

use bytes::Bytes;
use throng_protocol::cluster::{Anchor, Change, Direction, Entry, EntryKind, FenceKind, Hole, Permissions};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, ClientMessageId, Epoch, Position, Seq, UserNumber};
use throng_protocol::limits::{EXPANSION_INLINE_BYTES_MAX, EXPANSION_KEYS_MAX, PAGE_ENTRIES_MAX};
use throng_state::command::{ChangeMessage, MessageCommand};
use throng_state::query::{self, ChangesWanted};
use throng_state::testing::MapView;
use throng_state::{Command, Reply};

use crate::support::*;

const CHANNEL: ChannelNumber = ChannelNumber(1);
const ANN: u64 = 1;
const BOB: u64 = 2;

fn at_seq(seq: u64) -> Position {
    Position {
        epoch: Epoch(1),
        seq: Seq(seq),
    }
}

/// A change by `sender` to an entry of channel 1, first tried and proposed at [`NOW`].
pub fn change(sender: u64, id: u64, target: u64, change: Change) -> ChangeMessage {
    let message = message(sender, id, "");
    ChangeMessage {
        channel: message.channel,
        claims: message.claims,
        client_message_id: message.client_message_id,
        first_attempt_ms: message.first_attempt_ms,
        proposed_ms: message.proposed_ms,
        target: at_seq(target),
        change,
    }
}

pub fn command(change: &ChangeMessage) -> Command {
    Command::Message(MessageCommand::Change(change.clone()))
}

/// The same with permissions.
fn may(permissions: Permissions, mut change: ChangeMessage) -> ChangeMessage {
    change.claims.permissions = change.claims.permissions.with(permissions);
    change
}

pub fn modify(body: &str) -> Change {
    Change::Modify {
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub fn expand(set: &[(&str, &str)], remove: &[&str]) -> Change {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Change::Expand {
        set: set.iter().map(pair).collect(),
        remove: remove.iter().map(|key| (*key).to_owned()).collect(),
    }
}

/// Makes a change that must be made; its position and the version before it.
fn made(shard: &mut MapView, change: &ChangeMessage) -> (u64, u64) {
    match shard.reply(&command(change)) {
        Reply::Changed {
            epoch: Epoch(1),
            seq,
            repeat: false,
            before,
            ..
        } => (seq.0, before.0),
        other => panic!("{change:?} was answered {other:?}"),
    }
}

fn refuse(shard: &mut MapView, change: &ChangeMessage, code: Code) {
    refused(shard, &command(change), code);
}

/// A shard whose channel 1 holds messages of ann at 1 and of bob at 2.
fn two_messages() -> MapView {
    let mut shard = message_shard(2);
    shard.reply(&append(&message(ANN, 1, "from ann")));
    shard.reply(&append(&message(BOB, 2, "from bob")));
    shard
}

/// Everything that readers are shown of channel 1.
pub fn shown(shard: &MapView) -> Vec<Entry> {
    let wanted = entries_at(
        Anchor::Seq(Seq(0)),
        Direction::After,
        PAGE_ENTRIES_MAX,
        usize::MAX,
    );
    let page = query::page(shard, CHANNEL, &wanted).expect("readable");
    page.expect("the channel is here").entries
}

fn body(shard: &MapView, seq: usize) -> (String, u64, Hole) {
    let entry = &shown(shard)[seq - 1];
    let body = String::from_utf8_lossy(&entry.body).into_owned();
    (body, entry.version.0, entry.hole)
}

#[test]
fn a_change_is_an_entry_that_names_its_target_and_the_message_is_shown_changed() {
    let mut shard = two_messages();
    assert_eq!(made(&mut shard, &change(ANN, 3, 1, modify("better"))), (3, 0));
    assert_eq!(made(&mut shard, &change(ANN, 4, 1, modify("best"))), (4, 3));
    let entries = shown(&shard);
    let kinds: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.target.0)).collect();
    assert_eq!(
        kinds,
        [
            (EntryKind::Message, 0),
            (EntryKind::Message, 0),
            (EntryKind::Modify, 1),
            (EntryKind::Modify, 1)
        ]
    );
    assert_eq!(body(&shard, 1), ("best".to_owned(), 4, Hole::None));
    assert_eq!(body(&shard, 2), ("from bob".to_owned(), 0, Hole::None));
    assert_eq!(
        body(&shard, 3),
        ("best".to_owned(), 0, Hole::None),
        "as it is now"
    );
    assert_eq!(
        body(&shard, 4),
        ("best".to_owned(), 3, Hole::None),
        "behind change 3"
    );
    assert!(entries.is_sorted_by(|a, b| a.ts < b.ts));
}

#[test]
fn a_repeat_is_answered_as_the_first_attempt_was_and_changes_nothing() {
    let mut shard = two_messages();
    let first = change(ANN, 3, 1, modify("better"));
    let (seq, _) = made(&mut shard, &first);
    made(&mut shard, &change(ANN, 4, 1, Change::Recall));
    let (reply, effects) = shard.run(&command(&first));
    assert!(
        matches!(reply, Reply::Changed { seq: Seq(found), repeat: true, before: Seq(0), .. } if found == seq)
    );
    assert_eq!(effects, []);
    refuse(
        &mut shard,
        &change(ANN, 3, 1, modify("other")),
        Code::IdempotencyConflict,
    );
    refuse(
        &mut shard,
        &change(ANN, 3, 2, modify("better")),
        Code::IdempotencyConflict,
    );
    refuse(
        &mut shard,
        &change(ANN, 3, 1, Change::Recall),
        Code::IdempotencyConflict,
    );
    // Messages and changes have their keys from the same numbers.
    refuse(
        &mut shard,
        &change(ANN, 1, 1, modify("from ann")),
        Code::IdempotencyConflict,
    );
    refused(
        &mut shard,
        &append(&message(ANN, 3, "better")),
        Code::IdempotencyConflict,
    );
}

#[test]
fn a_repeat_tells_which_change_came_before_and_the_order_of_keys_does_not_count() {
    let mut shard = two_messages();
    made(&mut shard, &change(ANN, 3, 1, modify("better")));
    let mut first = change(ANN, 4, 1, expand(&[("a", "1"), ("b", "2")], &["c", "d"]));
    assert_eq!(made(&mut shard, &first), (4, 3));
    made(&mut shard, &change(BOB, 5, 1, expand(&[("a", "3")], &[])));
    for _ in 0..2 {
        let reply = shard.reply(&command(&first));
        let known = matches!(
            reply,
            Reply::Changed {
                seq: Seq(4),
                repeat: true,
                before: Seq(3),
                ..
            }
        );
        assert!(known, "{reply:?}");
        first.change = expand(&[("b", "2"), ("a", "1")], &["d", "c"]);
    }
}

#[test]
fn sets_and_removals_of_the_same_keys_are_different_changes() {
    let mut shard = two_messages();
    made(&mut shard, &change(ANN, 3, 1, expand(&[("a", "b")], &["c"])));
    for other in [
        expand(&[("a", "b")], &[]),
        expand(&[("a", "b"), ("c", "")], &[]),
        expand(&[("a", "bc")], &[]),
        expand(&[], &["a", "b", "c"]),
    ] {
        refuse(&mut shard, &change(ANN, 3, 1, other), Code::IdempotencyConflict);
    }
}

#[test]
fn only_messages_of_this_log_and_epoch_can_be_changed() {
    let mut shard = two_messages();
    made(&mut shard, &change(ANN, 3, 1, modify("better")));
    for target in [0, 3, 4, u64::MAX] {
        refuse(
            &mut shard,
            &change(ANN, 9, target, Change::Recall),
            Code::TargetUnknown,
        );
    }
    let mut elsewhen = change(ANN, 9, 1, Change::Recall);
    elsewhen.target.epoch = Epoch(2);
    refuse(&mut shard, &elsewhen, Code::TargetUnknown);
    let elsewhere = ChangeMessage {
        channel: ChannelNumber(9),
        ..change(ANN, 9, 1, Change::Recall)
    };
    refuse(&mut shard, &elsewhere, Code::ChannelUnknown);
    let empty = ChangeMessage {
        channel: ChannelNumber(2),
        ..change(ANN, 9, 1, Change::Recall)
    };
    refuse(&mut shard, &empty, Code::TargetUnknown);
}

#[test]
fn messages_of_others_are_changed_by_those_who_may() {
    let mut shard = two_messages();
    for of_other in [modify("mine"), Change::Recall, Change::Delete] {
        refuse(&mut shard, &change(ANN, 9, 2, of_other), Code::Forbidden);
    }
    refuse(&mut shard, &change(ANN, 9, 1, Change::Delete), Code::Forbidden);
    let wrong = may(Permissions::RECALL_OTHERS, change(ANN, 9, 2, modify("mine")));
    refuse(&mut shard, &wrong, Code::Forbidden);
    made(
        &mut shard,
        &may(Permissions::MODIFY_OTHERS, change(ANN, 3, 2, modify("edited"))),
    );
    assert_eq!(body(&shard, 2).0, "edited");
    made(
        &mut shard,
        &may(Permissions::RECALL_OTHERS, change(ANN, 4, 2, Change::Recall)),
    );
    made(
        &mut shard,
        &may(Permissions::DELETE, change(BOB, 5, 1, Change::Delete)),
    );
    assert_eq!(body(&shard, 2).2, Hole::Recalled);
    assert_eq!(body(&shard, 1).2, Hole::Deleted);
}

#[test]
fn every_member_sets_and_removes_keys_and_the_last_in_the_log_wins() {
    let mut shard = two_messages();
    made(
        &mut shard,
        &change(ANN, 3, 1, expand(&[("like", "1"), ("seen", "ann")], &[])),
    );
    assert_eq!(
        made(
            &mut shard,
            &change(BOB, 4, 1, expand(&[("like", "2")], &["seen"]))
        ),
        (4, 3)
    );
    made(&mut shard, &change(BOB, 5, 1, expand(&[], &["nothing"])));
    let entries = shown(&shard);
    let pairs = |seq: usize| entries[seq - 1].expansion.clone();
    let like = vec![("like".to_owned(), "2".to_owned())];
    assert_eq!(pairs(1), like);
    assert_eq!(
        (pairs(3), entries[2].removed.clone()),
        (like.clone(), vec!["seen".to_owned()])
    );
    assert_eq!(
        (pairs(4), entries[3].removed.clone()),
        (like, vec!["seen".to_owned()])
    );
    assert_eq!(
        (pairs(5), entries[4].removed.clone()),
        (vec![], vec!["nothing".to_owned()])
    );
    assert_eq!(entries[0].version, Seq(5));
}

#[test]
fn nothing_of_a_message_is_shown_after_its_recall() {
    let mut shard = two_messages();
    made(&mut shard, &change(ANN, 3, 1, modify("a secret")));
    made(
        &mut shard,
        &change(ANN, 4, 1, expand(&[("key", "a secret")], &[])),
    );
    made(&mut shard, &change(ANN, 5, 1, Change::Recall));
    let entries = shown(&shard);
    for entry in entries.iter().filter(|entry| entry.seq != Seq(2)) {
        assert_eq!(
            (entry.body.len(), entry.expansion.len(), entry.removed.len()),
            (0, 0, 0)
        );
        assert_eq!(entry.hole, Hole::Recalled, "{entry:?}");
    }
    let found = query::expansion(&shard, CHANNEL, at_seq(1), "")
        .expect("readable")
        .expect("there");
    assert_eq!((found.expansion, found.version), (vec![], Seq(5)));
}

#[test]
fn a_message_that_is_gone_is_not_changed_and_a_recalled_one_may_still_be_deleted() {
    let mut shard = two_messages();
    made(&mut shard, &change(ANN, 3, 1, Change::Recall));
    for gone in [modify("again"), Change::Recall, expand(&[("k", "v")], &[])] {
        refuse(&mut shard, &change(ANN, 9, 1, gone), Code::TargetGone);
    }
    made(
        &mut shard,
        &may(Permissions::ALL, change(BOB, 4, 1, Change::Delete)),
    );
    assert_eq!(body(&shard, 1), (String::new(), 4, Hole::Deleted));
    for gone in [
        modify("again"),
        Change::Recall,
        Change::Delete,
        expand(&[("k", "v")], &[]),
    ] {
        refuse(
            &mut shard,
            &may(Permissions::ALL, change(ANN, 9, 1, gone)),
            Code::TargetGone,
        );
    }
    // Who may not is told so, whatever has become of the message.
    refuse(&mut shard, &change(BOB, 9, 1, Change::Recall), Code::Forbidden);
}

#[test]
fn an_expansion_has_a_bounded_number_of_keys_and_stays_as_it_is_when_it_is_full() {
    let mut shard = two_messages();
    let keys: Vec<String> = (0..EXPANSION_KEYS_MAX).map(|n| format!("k{n:03}")).collect();
    for (id, keys) in (10..).zip(keys.chunks(20)) {
        let set: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "v")).collect();
        made(&mut shard, &change(ANN, id, 1, expand(&set, &[])));
    }
    let one_more = expand(&[("one", "v"), ("k000", "changed")], &[]);
    refuse(&mut shard, &change(BOB, 90, 1, one_more), Code::ExpansionFull);
    // Room is made in the same step.
    made(
        &mut shard,
        &change(BOB, 91, 1, expand(&[("one", "v")], &["k001"])),
    );
    refuse(
        &mut shard,
        &change(BOB, 92, 1, expand(&[("k001", "v")], &["absent"])),
        Code::ExpansionFull,
    );
    let message = &shown(&shard)[0];
    assert_eq!(message.expansion.len(), EXPANSION_KEYS_MAX);
    assert!(message.expansion.is_sorted());
    assert!(message.expansion.contains(&("k000".to_owned(), "v".to_owned())));
    made(&mut shard, &change(ANN, 93, 1, Change::Recall));
    let left = query::expansion(&shard, CHANNEL, at_seq(1), "")
        .expect("readable")
        .expect("there");
    assert_eq!(left.expansion, vec![], "all of them are gone");
}

#[test]
fn a_large_expansion_is_read_by_itself_in_pages() {
    let mut shard = two_messages();
    let value = "v".repeat(4_000);
    let keys: Vec<String> = (0..60).map(|n| format!("k{n:02}")).collect();
    let mut bytes = 0;
    for (id, key) in (10..).zip(&keys) {
        made(&mut shard, &change(ANN, id, 1, expand(&[(key, &value)], &[])));
        bytes += key.len() + value.len();
        let message = &shown(&shard)[0];
        let elsewhere = bytes > EXPANSION_INLINE_BYTES_MAX;
        assert_eq!(
            (message.keys_elsewhere, message.expansion.is_empty()),
            (elsewhere, elsewhere)
        );
    }
    let (mut read, mut after) = (Vec::new(), String::new());
    loop {
        let page = query::expansion(&shard, CHANNEL, at_seq(1), &after)
            .expect("readable")
            .expect("there");
        assert!(
            (1..=8).contains(&page.expansion.len()),
            "a page has a bounded size"
        );
        read.extend(page.expansion.into_iter().map(|(key, _)| key));
        after = read.last().cloned().expect("at least one");
        if !page.more {
            break;
        }
    }
    assert_eq!(read, keys);
    // A value that shrinks brings it back.
    for (id, key) in (100..).zip(&keys) {
        made(&mut shard, &change(ANN, id, 1, expand(&[(key, "")], &[])));
    }
    let message = &shown(&shard)[0];
    assert_eq!((message.keys_elsewhere, message.expansion.len()), (false, 60));
    assert_eq!(
        query::expansion(&shard, CHANNEL, at_seq(61), "").expect("readable"),
        None
    );
}

#[test]
fn limits_are_judged_when_a_change_is_applied_too() {
    let mut shard = two_messages();
    let long = "x".repeat(4_097);
    let many: Vec<String> = (0..21).map(|n| n.to_string()).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "")).collect();
    for wrong in [
        expand(&[], &[]),
        expand(&[("", "v")], &[]),
        expand(&[("a\u{0}b", "v")], &[]),
        expand(&[("a", "1"), ("a", "2")], &[]),
        expand(&[("a", "1")], &["a"]),
        expand(&[("a", &long)], &[]),
        expand(&many, &[]),
    ] {
        refuse(&mut shard, &change(ANN, 9, 1, wrong), Code::InvalidField);
    }
    let large = modify(&"x".repeat(131_073));
    refuse(&mut shard, &change(ANN, 9, 1, large), Code::MessageTooLarge);
}

#[test]
fn a_mute_forbids_what_says_something_and_a_fence_everything() {
    let mut shard = two_messages();
    let muted = |mut change: ChangeMessage| {
        change.claims.muted_until = NOW + 1_000;
        change
    };
    refuse(&mut shard, &muted(change(ANN, 9, 1, modify("more"))), Code::Muted);
    refuse(
        &mut shard,
        &muted(change(ANN, 9, 1, expand(&[("k", "v")], &[]))),
        Code::Muted,
    );
    made(&mut shard, &muted(change(ANN, 3, 1, Change::Recall)));
    take(&mut shard, fence(5, BOB, FenceKind::Kick));
    let (reply, effects) = shard.run(&command(&change(BOB, 9, 2, Change::Recall)));
    assert_eq!((reply, effects), (Reply::GrantStale, vec![]));
}

#[test]
fn who_may_not_expand_or_send_changes_nothing() {
    let mut shard = two_messages();
    let without = |permission: Permissions, mut change: ChangeMessage| {
        change.claims.permissions = Permissions(Permissions::ALL.0 & !permission.0);
        change
    };
    let key = || expand(&[("k", "v")], &[]);
    let silent = without(Permissions::SEND, change(ANN, 9, 1, modify("more")));
    refuse(&mut shard, &silent, Code::Forbidden);
    refuse(
        &mut shard,
        &without(Permissions::EXPAND, change(ANN, 9, 1, key())),
        Code::Forbidden,
    );
    made(&mut shard, &without(Permissions::SEND, change(ANN, 3, 1, key())));
    made(
        &mut shard,
        &without(Permissions::EXPAND, change(ANN, 4, 1, modify("more"))),
    );
    let mut nothing = change(ANN, 5, 1, Change::Recall);
    nothing.claims.permissions = Permissions::NONE;
    made(&mut shard, &nothing);
}

#[test]
fn the_app_itself_changes_everything_under_the_number_of_nobody() {
    let mut shard = two_messages();
    let mut by_app = may(Permissions::ALL, change(BOB, 3, 1, Change::Delete));
    by_app.claims.number = UserNumber(0);
    by_app.claims.version = u64::MAX;
    take(&mut shard, fence(5, BOB, FenceKind::Kick));
    made(&mut shard, &by_app);
    let entry = &shown(&shard)[2];
    assert_eq!(
        (entry.sender_number, entry.kind),
        (UserNumber(0), EntryKind::Delete)
    );
}

#[test]
fn changes_since_an_entry_are_the_messages_changed_behind_it() {
    let mut shard = message_shard(1);
    for id in 1..=6 {
        shard.reply(&append(&message(ANN, id, "x")));
    }
    made(&mut shard, &change(ANN, 11, 2, modify("changed")));
    made(&mut shard, &change(ANN, 12, 5, Change::Recall));
    made(&mut shard, &change(ANN, 13, 2, expand(&[("k", "v")], &[])));
    let changed = |from, to, since| {
        let wanted = ChangesWanted {
            from: at_seq(from),
            to: Seq(to),
            since: Seq(since),
        };
        let page = query::changes(&shard, CHANNEL, &wanted)
            .expect("readable")
            .expect("there");
        assert_eq!(
            (page.epoch, page.prev, page.head),
            (Epoch(1), Seq(from - 1), Seq(9))
        );
        let shown = page.entries.iter().map(|entry| (entry.seq.0, entry.version.0));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(changed(1, 9, 0), [(2, 9), (5, 8)]);
    assert_eq!(changed(1, 9, 8), [(2, 9)]);
    assert_eq!(changed(1, 9, 9), []);
    assert_eq!(changed(3, 6, 0), [(5, 8)]);
    assert_eq!(changed(2, 2, 7), [(2, 9)]);
    assert_eq!(changed(7, 300, 0), []);
    let other_epoch = ChangesWanted {
        from: Position {
            epoch: Epoch(2),
            seq: Seq(1),
        },
        to: Seq(9),
        since: Seq(0),
    };
    assert_eq!(
        query::changes(&shard, CHANNEL, &other_epoch).expect("readable"),
        None
    );
    assert_eq!(ClientMessageId(11), shown(&shard)[6].client_message_id);
}
