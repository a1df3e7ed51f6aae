//! The message plane: opening a channel, appending, idempotency and its expiry.

use bytes::Bytes;
use throng_protocol::cluster::EntryKind;
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ChannelNumber, ClientMessageId, Epoch, Seq, Ts, UserNumber};
use throng_protocol::limits::{BODY_BYTES_MAX, IDEMPOTENCY_WINDOW_MS};
use throng_protocol::placement::Plane;
use throng_state::command::AppendMessage;
use throng_state::limits::{CLOCK_SLACK_MS, SENT_VALID_MS};
use throng_state::query::{self, ChannelHead};
use throng_state::record::{EntryRecord, InboxRecord, LogRecord, SentRecord, TailRecord, read};
use throng_state::testing::MapView;
use throng_state::{Effect, Reply, keys};

use crate::support::*;

const C: ChannelNumber = ChannelNumber(1);

fn ms(ms: u64) -> Ts {
    Ts::from_millis(ms)
}

fn sent_key(sender: u64, id: u64) -> Bytes {
    keys::sent(C, UserNumber(sender), ClientMessageId(id))
}

#[test]
fn a_channel_opens_with_an_empty_log() {
    let mut shard = MapView::new(Plane::Message);
    assert_eq!(query::channel_head(&shard, C).unwrap(), None);
    let tail = TailRecord {
        head: Seq(0),
        last_ts: Ts(0),
        oldest: Seq(1),
        expired: Seq(0),
        due: Ts(0),
    };
    assert_eq!(
        shard.run(&deliver(1, info(1))),
        (
            Reply::Done,
            vec![
                put(
                    keys::log(C),
                    &LogRecord {
                        info: info(1),
                        epoch: Epoch(1),
                        archived: false,
                    }
                ),
                put(keys::tail(C), &tail),
                put(keys::inbox(MANAGEMENT), &InboxRecord { last: 1 }),
            ]
        )
    );
    let head = ChannelHead {
        epoch: Epoch(1),
        head: Seq(0),
        oldest: Seq(1),
        last_ts: Ts(0),
    };
    assert_eq!(query::channel_head(&shard, C).unwrap(), Some(head));
    assert_eq!(query::channel(&shard, C).unwrap(), Some(info(1)));
}

#[test]
fn an_outbox_record_is_taken_once_and_in_its_turn_only() {
    let mut shard = MapView::new(Plane::Message);
    unchanged(
        &mut shard,
        &deliver(2, info(2)),
        &Reply::OutOfOrder { expected: 1 },
    );
    refused(&mut shard, &deliver(0, info(1)), Code::InvalidField);
    shard.reply(&deliver(1, info(1)));
    unchanged(&mut shard, &deliver(1, info(1)), &Reply::Done);
    unchanged(
        &mut shard,
        &deliver(u64::MAX, info(2)),
        &Reply::OutOfOrder { expected: 2 },
    );
    assert_eq!(shard.reply(&deliver(2, info(2))), Reply::Done);
    unchanged(&mut shard, &deliver(1, info(9)), &Reply::Done);
}

#[test]
fn a_repeated_opening_does_not_empty_a_log() {
    let mut shard = message_shard(1);
    shard.reply(&append(&message(1, 1, "hello")));
    assert_eq!(
        shard.run(&deliver(2, info(1))),
        (
            Reply::Done,
            vec![put(keys::inbox(MANAGEMENT), &InboxRecord { last: 2 })]
        )
    );
    assert_eq!(query::channel_head(&shard, C).unwrap().unwrap().head, Seq(1));
}

#[test]
fn a_number_that_another_channel_has_holds_the_outbox_up() {
    let mut shard = message_shard(1);
    let mut taken = info(1);
    taken.channel = channel("another");
    refused(&mut shard, &deliver(2, taken), Code::Internal);
    assert_eq!(query::inbox_position(&shard, MANAGEMENT).unwrap(), 1);
}

#[test]
fn a_message_is_stored_once_with_its_key_and_the_new_head() {
    let mut shard = message_shard(1);
    let hello = message(4, 77, "hello");
    let entry = EntryRecord {
        ts: ms(NOW),
        index: 2,
        kind: EntryKind::Message,
        sender_number: UserNumber(4),
        sender: user(4),
        client_message_id: ClientMessageId(77),
        body: Bytes::from_static(b"hello"),
        target: Seq(0),
        before: Seq(0),
    };
    let (reply, effects) = shard.run(&append(&hello));
    assert_eq!(reply, appended(1, ms(NOW), false));
    let sent: SentRecord = read(&shard, &sent_key(4, 77)).unwrap().unwrap();
    let tail = TailRecord {
        head: Seq(1),
        last_ts: ms(NOW),
        oldest: Seq(1),
        expired: Seq(0),
        due: ms(NOW),
    };
    assert_eq!(
        effects,
        [
            put(keys::entry(C, Seq(1)), &entry),
            put(
                sent_key(4, 77),
                &SentRecord {
                    seq: Seq(1),
                    ts: ms(NOW),
                    fields: sent.fields
                }
            ),
            put(keys::tail(C), &tail),
            Effect::Advanced {
                channel: C,
                head: Seq(1)
            },
        ]
    );
}

#[test]
fn time_stamps_increase_while_clocks_stand_still_or_go_back() {
    let mut shard = message_shard(1);
    let stamps: Vec<Reply> = [NOW, NOW, NOW - 5_000, NOW + 1]
        .into_iter()
        .enumerate()
        .map(|(id, now)| shard.reply(&append(&at(now, message(1, id as u64, "x")))))
        .collect();
    let last = ms(NOW).0;
    let expected = [
        appended(1, Ts(last), false),
        appended(2, Ts(last + 1), false),
        appended(3, Ts(last + 2), false),
        appended(4, ms(NOW + 1), false),
    ];
    assert_eq!(stamps, expected);
}

#[test]
fn when_time_stamps_have_run_out_nothing_is_appended() {
    let mut shard = message_shard(1);
    let mut tail: TailRecord = read(&shard, &keys::tail(C)).unwrap().unwrap();
    tail.last_ts = Ts(u64::MAX);
    shard
        .records
        .insert(keys::tail(C), throng_state::record::Record::encode(&tail));
    refused(&mut shard, &append(&message(1, 1, "x")), Code::Internal);
}

#[test]
fn each_channel_counts_for_itself() {
    let mut shard = message_shard(2);
    let second = AppendMessage {
        channel: ChannelNumber(2),
        ..message(1, 1, "x")
    };
    assert_eq!(
        shard.reply(&append(&message(1, 1, "x"))),
        appended(1, ms(NOW), false)
    );
    assert_eq!(shard.reply(&append(&second)), appended(1, ms(NOW), false));
}

#[test]
fn what_does_not_belong_into_a_log_is_refused() {
    let mut shard = message_shard(1);
    let elsewhere = AppendMessage {
        channel: ChannelNumber(9),
        ..message(1, 1, "x")
    };
    refused(&mut shard, &append(&elsewhere), Code::ChannelUnknown);
    let mut foreign = message(1, 1, "x");
    foreign.claims.app = AppId::new("other").unwrap();
    refused(&mut shard, &append(&foreign), Code::Forbidden);
    let mut foreign = message(1, 1, "x");
    foreign.claims.group = group("other");
    refused(&mut shard, &append(&foreign), Code::Forbidden);
    let sized = |size| AppendMessage {
        body: Bytes::from(vec![0; size]),
        ..message(1, 1, "")
    };
    refused(
        &mut shard,
        &append(&sized(BODY_BYTES_MAX + 1)),
        Code::MessageTooLarge,
    );
    assert_eq!(
        shard.reply(&append(&sized(BODY_BYTES_MAX))),
        appended(1, ms(NOW), false)
    );
}

#[test]
fn a_repeat_is_answered_like_the_first_attempt_and_another_message_is_a_conflict() {
    let mut shard = message_shard(1);
    shard.reply(&append(&message(1, 1, "hello")));
    shard.reply(&append(&message(1, 2, "more")));
    let later = AppendMessage {
        proposed_ms: NOW + 60_000,
        ..message(1, 1, "hello")
    };
    unchanged(&mut shard, &append(&later), &appended(1, ms(NOW), true));
    refused(
        &mut shard,
        &append(&message(1, 1, "hello!")),
        Code::IdempotencyConflict,
    );
    refused(&mut shard, &append(&message(1, 1, "")), Code::IdempotencyConflict);
    assert_eq!(
        shard.reply(&append(&message(2, 1, "hello!"))),
        appended(3, Ts(ms(NOW).0 + 2), false)
    );
}

#[test]
fn a_retry_without_a_record_is_refused_from_the_first_millisecond_after_the_window() {
    let mut shard = message_shard(1);
    let first_tried = |first| AppendMessage {
        first_attempt_ms: first,
        ..message(1, 1, "x")
    };
    refused(
        &mut shard,
        &append(&first_tried(NOW - IDEMPOTENCY_WINDOW_MS - 1)),
        Code::RetryTooOld,
    );
    refused(&mut shard, &append(&first_tried(0)), Code::RetryTooOld);
    let just_in_time = append(&first_tried(NOW - IDEMPOTENCY_WINDOW_MS));
    assert_eq!(shard.reply(&just_in_time), appended(1, ms(NOW), false));
}

#[test]
fn a_first_attempt_that_lies_in_the_future_is_refused_beyond_the_slack() {
    let mut shard = message_shard(1);
    let first_tried = |first| AppendMessage {
        first_attempt_ms: first,
        ..message(1, 1, "x")
    };
    refused(
        &mut shard,
        &append(&first_tried(NOW + CLOCK_SLACK_MS + 1)),
        Code::InvalidField,
    );
    refused(&mut shard, &append(&first_tried(u64::MAX)), Code::InvalidField);
    assert_eq!(
        shard.reply(&append(&first_tried(NOW + CLOCK_SLACK_MS))),
        appended(1, ms(NOW), false)
    );
}

#[test]
fn a_record_answers_until_its_last_millisecond_and_a_late_retry_is_never_new() {
    let mut shard = message_shard(1);
    // The sender's clock is as far ahead as allowed: the worst case for the record's lifetime.
    let first = AppendMessage {
        first_attempt_ms: NOW + CLOCK_SLACK_MS,
        ..message(1, 1, "x")
    };
    shard.reply(&append(&first));
    let retry = |now| {
        append(&AppendMessage {
            proposed_ms: now,
            ..first.clone()
        })
    };
    unchanged(
        &mut shard,
        &retry(NOW + SENT_VALID_MS),
        &appended(1, ms(NOW), true),
    );
    refused(&mut shard, &retry(NOW + SENT_VALID_MS + 1), Code::RetryTooOld);
    assert!(
        shard.records.contains_key(&sent_key(1, 1)),
        "the answer did not need the record to be gone"
    );
}

#[test]
fn an_expired_key_is_free_whether_or_not_its_record_is_gone() {
    let late = NOW + SENT_VALID_MS + 1;
    for appends_between in 0..3 {
        let mut shard = message_shard(1);
        for id in 0..3 {
            shard.reply(&append(&message(1, id, "x")));
        }
        for n in 0..appends_between {
            shard.reply(&append(&at(late, message(9, n, "between"))));
        }
        let reply = shard.reply(&append(&at(late, message(1, 2, "new"))));
        assert!(
            matches!(reply, Reply::Appended { seq, repeat: false, .. } if seq == Seq(4 + appends_between)),
            "{reply:?}"
        );
        for n in 10..15 {
            shard.reply(&append(&at(late, message(9, n, "after"))));
        }
        let again = shard.reply(&append(&at(late, message(1, 2, "new"))));
        assert!(
            matches!(again, Reply::Appended { seq, repeat: true, .. } if seq == Seq(4 + appends_between))
        );
    }
}

#[test]
fn a_key_used_again_in_the_append_that_expires_it_keeps_its_new_record() {
    let mut shard = message_shard(1);
    shard.reply(&append(&message(1, 1, "old")));
    let renewed = at(NOW + SENT_VALID_MS + 1, message(1, 1, "new"));
    let (_, effects) = shard.run(&append(&renewed));
    assert!(!effects.contains(&Effect::Delete { key: sent_key(1, 1) }));
    unchanged(
        &mut shard,
        &append(&renewed),
        &appended(2, ms(NOW + SENT_VALID_MS + 1), true),
    );
}

#[test]
fn each_append_removes_at_most_two_expired_records_until_none_are_left() {
    let mut shard = message_shard(1);
    for id in 1..=5 {
        shard.reply(&append(&message(1, id, "x")));
    }
    let deleted = |shard: &mut MapView, id| -> Vec<Effect> {
        let (_, effects) = shard.run(&append(&at(NOW + SENT_VALID_MS + 1, message(2, id, "late"))));
        effects
            .into_iter()
            .filter(|effect| matches!(effect, Effect::Delete { .. }))
            .collect()
    };
    let gone = |id| Effect::Delete { key: sent_key(1, id) };
    assert_eq!(deleted(&mut shard, 1), [gone(1), gone(2)]);
    assert_eq!(deleted(&mut shard, 2), [gone(3), gone(4)]);
    assert_eq!(deleted(&mut shard, 3), [gone(5)]);
    assert_eq!(deleted(&mut shard, 4), []);
    let tail: TailRecord = read(&shard, &keys::tail(C)).unwrap().unwrap();
    assert_eq!((tail.head, tail.expired), (Seq(9), Seq(5)));
}

#[test]
fn an_entry_expires_by_its_own_time_stamp() {
    let mut shard = message_shard(1);
    shard.reply(&append(&message(1, 1, "first")));
    shard.reply(&append(&at(NOW + 1_000, message(1, 2, "second"))));
    shard.reply(&append(&at(NOW + SENT_VALID_MS, message(1, 3, "third"))));
    assert!(shard.records.contains_key(&sent_key(1, 1)));
    shard.reply(&append(&at(NOW + SENT_VALID_MS + 1, message(1, 4, "fourth"))));
    assert!(!shard.records.contains_key(&sent_key(1, 1)));
    assert!(shard.records.contains_key(&sent_key(1, 2)));
}
