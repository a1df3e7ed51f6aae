//! The message plane against a model without indexes, cursors or expiry: it keeps every entry and
//! looks through all of them.

use proptest::prelude::*;
use throng_protocol::cluster::{Anchor, Direction};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Epoch, Seq, Ts};
use throng_protocol::limits::{IDEMPOTENCY_WINDOW_MS, PAGE_ENTRIES_MAX};
use throng_state::command::AppendMessage;
use throng_state::limits::{CLOCK_SLACK_MS, SENT_VALID_MS};
use throng_state::testing::MapView;
use throng_state::{Effect, Reply, query};

use crate::support::*;

const CHANNELS: u64 = 2;

/// One entry of the model.
#[derive(Debug, Clone)]
struct Kept {
    message: AppendMessage,
    ts: Ts,
}

/// The logs of channels 1 and 2.
#[derive(Debug, Default)]
struct Model([Vec<Kept>; CHANNELS as usize]);

impl Model {
    /// What an append must be answered; appends if it must be.
    fn append(&mut self, message: &AppendMessage) -> Result<Reply, Code> {
        let log = message
            .channel
            .0
            .checked_sub(1)
            .and_then(|place| self.0.get_mut(place as usize));
        let Some(log) = log else {
            return Err(Code::ChannelUnknown);
        };
        let last = log.last().map_or(Ts(0), |kept| kept.ts);
        let ts = Ts(Ts::from_millis(message.proposed_ms).0.max(last.0 + 1));
        let same_key = |kept: &Kept| {
            kept.message.claims.number == message.claims.number
                && kept.message.client_message_id == message.client_message_id
        };
        if let Some(place) = log.iter().rposition(same_key)
            && log[place].ts.millis() + SENT_VALID_MS >= ts.millis()
        {
            return if log[place].message.body == message.body {
                Ok(appended(place as u64 + 1, log[place].ts, true))
            } else {
                Err(Code::IdempotencyConflict)
            };
        }
        if message.first_attempt_ms + IDEMPOTENCY_WINDOW_MS < ts.millis() {
            return Err(Code::RetryTooOld);
        }
        if message.first_attempt_ms > ts.millis() + CLOCK_SLACK_MS {
            return Err(Code::InvalidField);
        }
        log.push(Kept {
            message: message.clone(),
            ts,
        });
        Ok(appended(log.len() as u64, ts, false))
    }
}

/// Runs a message through both and compares the answers.
fn compare(shard: &mut MapView, model: &mut Model, message: &AppendMessage) -> Result<(), TestCaseError> {
    let expected = model.append(message);
    let (reply, effects) = shard.run(&append(message));
    match (&reply, &expected) {
        (Reply::Refused { code, .. }, Err(expected)) => prop_assert_eq!(code, expected),
        (reply, Ok(expected)) => prop_assert_eq!(reply, expected),
        (reply, Err(code)) => prop_assert!(false, "{:?} instead of {:?}", reply, code),
    }
    let advanced: Vec<_> = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Advanced { .. }))
        .collect();
    if let Reply::Appended {
        seq, repeat: false, ..
    } = reply
    {
        prop_assert_eq!(
            advanced,
            [&Effect::Advanced {
                channel: message.channel,
                head: seq
            }]
        );
    } else {
        prop_assert_eq!(effects, []);
    }
    Ok(())
}

/// Reads a channel's whole log by pages.
fn whole_log(shard: &MapView, channel: u64) -> Vec<throng_protocol::cluster::Entry> {
    let mut entries = Vec::new();
    loop {
        let anchor = Seq(entries.len() as u64);
        let page = query::page(
            shard,
            ChannelNumber(channel),
            &entries_at(Anchor::Seq(anchor), Direction::After, PAGE_ENTRIES_MAX, 2_000),
        );
        let page = page.expect("readable").expect("the channel is here");
        assert_eq!((page.epoch, page.prev), (Epoch(1), anchor));
        if page.entries.is_empty() {
            assert_eq!(page.head, anchor);
            return entries;
        }
        entries.extend(page.entries);
    }
}

/// The log holds what the model holds: dense, in order, each message once.
fn same_logs(shard: &MapView, model: &Model) -> Result<(), TestCaseError> {
    for channel in 1..=CHANNELS {
        let (entries, kept) = (whole_log(shard, channel), &model.0[channel as usize - 1]);
        prop_assert_eq!(entries.len(), kept.len());
        for (place, (entry, kept)) in entries.iter().zip(kept).enumerate() {
            prop_assert_eq!(entry.seq, Seq(place as u64 + 1));
            prop_assert_eq!(entry.ts, kept.ts);
            prop_assert_eq!(entry.sender_number, kept.message.claims.number);
            prop_assert_eq!(&entry.sender, &kept.message.claims.user);
            prop_assert_eq!(entry.client_message_id, kept.message.client_message_id);
            prop_assert_eq!(&entry.body, &kept.message.body);
        }
        prop_assert!(entries.is_sorted_by(|a, b| a.ts < b.ts));
    }
    Ok(())
}

/// Steps of the leader's clock, some of them over the edges of the window.
fn clock_step() -> impl Strategy<Value = i64> {
    let (window, slack) = (IDEMPOTENCY_WINDOW_MS as i64, CLOCK_SLACK_MS as i64);
    prop_oneof![
        8 => 0..3_i64,
        2 => -2_000..2_000_i64,
        2 => Just(window / 3),
        1 => prop::sample::select(vec![window - 1, window, window + 1]),
        1 => prop::sample::select(vec![window + slack - 1, window + slack, window + slack + 1]),
        1 => Just(-window / 2),
    ]
}

prop_compose! {
    /// Any message at all: keys collide, bodies differ, first attempts lie anywhere.
    fn any_append()(
        channel in 0..=CHANNELS + 1,
        sender in 1..4_u64,
        id in 0..4_u64,
        body in prop::sample::select(vec!["", "a", "b"]),
        age in prop_oneof![4 => Just(0), 1 => clock_step()],
        step in clock_step(),
    ) -> (AppendMessage, i64, i64) {
        (AppendMessage { channel: ChannelNumber(channel), ..message(sender, id, body) }, age, step)
    }
}

/// A step of an honest sender: a new message, or a retry of one of the earlier ones.
#[derive(Debug, Clone)]
enum Honest {
    New { channel: u64, sender: u64, ahead: i64 },
    Retry(prop::sample::Index),
}

fn honest() -> impl Strategy<Value = (Honest, i64)> {
    let slack = CLOCK_SLACK_MS as i64;
    let new = (
        1..=CHANNELS,
        1..4_u64,
        prop_oneof![3 => Just(0), 1 => -slack..=slack],
    )
        .prop_map(|(channel, sender, ahead)| Honest::New {
            channel,
            sender,
            ahead,
        });
    let retry = any::<prop::sample::Index>().prop_map(Honest::Retry);
    (prop_oneof![1 => new, 2 => retry], clock_step())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_appends_are_judged_as_by_a_model_that_never_forgets(steps in prop::collection::vec(any_append(), 1..80)) {
        let (mut shard, mut model, mut now) = (message_shard(CHANNELS), Model::default(), NOW);
        for (message, age, step) in steps {
            now = now.saturating_add_signed(step);
            let message = AppendMessage {
                proposed_ms: now,
                first_attempt_ms: now.saturating_add_signed(-age),
                ..message
            };
            compare(&mut shard, &mut model, &message)?;
        }
        same_logs(&shard, &model)?;
    }

    #[test]
    fn whatever_clocks_do_no_retry_becomes_a_second_entry(steps in prop::collection::vec(honest(), 1..80)) {
        let (mut shard, mut model, mut now) = (message_shard(CHANNELS), Model::default(), NOW);
        let mut sends: Vec<(AppendMessage, Option<Reply>)> = Vec::new();
        for (step, clock) in steps {
            now = now.saturating_add_signed(clock);
            let place = match step {
                Honest::Retry(index) if !sends.is_empty() => index.index(sends.len()),
                Honest::Retry(_) => continue,
                Honest::New { channel, sender, ahead } => {
                    let id = sends.len() as u64;
                    let message = message(sender, id, "body");
                    let first_attempt_ms = now.saturating_add_signed(ahead);
                    let channel = ChannelNumber(channel);
                    sends.push((AppendMessage { channel, first_attempt_ms, ..message }, None));
                    sends.len() - 1
                }
            };
            let (message, first) = &mut sends[place];
            message.proposed_ms = now;
            compare(&mut shard, &mut model, message)?;
            let reply = shard.reply(&append(message));
            match (&*first, reply) {
                (Some(Reply::Appended { seq, ts, .. }), Reply::Appended { seq: again, ts: then, repeat, .. }) => {
                    prop_assert_eq!((*seq, *ts, true), (again, then, repeat));
                }
                (None, reply @ Reply::Appended { .. }) => *first = Some(reply),
                (_, Reply::Refused { code, .. }) => {
                    prop_assert!(matches!(code, Code::RetryTooOld | Code::InvalidField), "{:?}", code);
                }
                (first, reply) => prop_assert!(false, "{:?} after {:?}", reply, first),
            }
        }
        same_logs(&shard, &model)?;
        for channel in 1..=CHANNELS {
            let log = whole_log(&shard, channel);
            let mut ids: Vec<_> = log.iter().map(|entry| entry.client_message_id).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), log.len(), "a message is twice in channel {}", channel);
        }
    }
}
