//! What every client was entitled to, against what it got.
//!
//! Pure, and a stranger to gateway and core: it knows the trace, where each observer joined, what
//! was acked and what was delivered, and nothing of how it was done.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

/// The ack of one message of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// The incarnation of the log.
    pub epoch: u32,
    /// The position the message got.
    pub seq: u64,
    /// Whether an earlier attempt had stored it.
    pub repeat: bool,
}

/// One delivery to one observer, as its SDK gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The position.
    pub seq: u64,
    /// The sender's key: the trace's `n`.
    pub client_id: u64,
    /// Whether sender and body were those of the trace.
    pub intact: bool,
}

/// One observer in one channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watched {
    /// Entitled to everything behind this position.
    pub from_seq: u64,
    /// Entitled up to this position: where the membership ended.
    pub until: Option<u64>,
    /// In the order of delivery.
    pub delivered: Vec<Delivered>,
}

impl Watched {
    /// The last position it was given; where it began if it was given nothing.
    pub fn last(&self) -> u64 {
        self.delivered
            .last()
            .map_or(self.from_seq, |delivered| delivered.seq)
    }
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Entries that observers were entitled to.
    pub expected: u64,
    /// Entries they were given, each counted once.
    pub delivered: u64,
    /// Entitled, and never given (or not as sent).
    pub lost: u64,
    /// Given again.
    pub duplicated: u64,
    /// Given behind a later one, or placed by the log against the sender's order.
    pub reordered: u64,
}

/// The messages of one channel in the order of the trace: sender and ack.
#[derive(Debug, Clone, Default)]
pub struct ChannelTruth<'a> {
    /// `(n, sender, ack)`; an unacked message has none.
    pub messages: Vec<(u64, &'a str, Option<Acked>)>,
    /// Entries that are no messages: positions with the keys they were written under.
    pub changes: Vec<(u64, u64)>,
}

/// Judges one channel.
pub fn judge(truth: &ChannelTruth<'_>, observers: &[&Watched]) -> Verdict {
    let mut verdict = Verdict {
        reordered: sender_order_broken(truth),
        ..Verdict::default()
    };
    let log: BTreeMap<u64, u64> = truth
        .messages
        .iter()
        .filter_map(|(n, _, ack)| Some((ack.as_ref()?.seq, *n)))
        .chain(truth.changes.iter().copied())
        .collect();
    let acked = truth.messages.iter().filter(|(_, _, ack)| ack.is_some()).count() + truth.changes.len();
    // Two messages acked at one position: one of them is lost.
    verdict.lost += (acked - log.len()) as u64;
    for watched in observers {
        judge_observer(&log, watched, &mut verdict);
    }
    verdict
}

fn judge_observer(log: &BTreeMap<u64, u64>, watched: &Watched, verdict: &mut Verdict) {
    let until = watched.until.unwrap_or(u64::MAX).max(watched.from_seq);
    let entitled = log.range((Excluded(watched.from_seq), Included(until)));
    verdict.expected += entitled.clone().count() as u64;
    let mut got: BTreeMap<u64, bool> = BTreeMap::new();
    let mut last = 0;
    for delivery in &watched.delivered {
        let right = delivery.intact && log.get(&delivery.seq) == Some(&delivery.client_id);
        match got.get_mut(&delivery.seq) {
            Some(was_right) => {
                verdict.duplicated += 1;
                *was_right &= right;
            }
            None => {
                // An entry that is not of this trace (somebody else's chat) is nobody's due.
                if log.contains_key(&delivery.seq) && delivery.seq > watched.from_seq {
                    got.insert(delivery.seq, right);
                }
                verdict.reordered += u64::from(delivery.seq < last);
            }
        }
        last = last.max(delivery.seq);
    }
    let right = entitled
        .clone()
        .filter(|(seq, _)| got.get(seq) == Some(&true))
        .count() as u64;
    verdict.delivered += right;
    verdict.lost += entitled.count() as u64 - right;
}

/// How often the log has a sender's message before an earlier one of the same sender.
fn sender_order_broken(truth: &ChannelTruth<'_>) -> u64 {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut broken = 0;
    for (_, sender, ack) in &truth.messages {
        let Some(ack) = ack else { continue };
        let last = last.entry(sender).or_default();
        broken += u64::from(ack.seq < *last);
        *last = (*last).max(ack.seq);
    }
    broken
}

impl std::ops::AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(seqs: &[(u64, &'static str, u64)]) -> ChannelTruth<'static> {
        let messages = seqs
            .iter()
            .map(|&(n, sender, seq)| {
                (
                    n,
                    sender,
                    Some(Acked {
                        epoch: 1,
                        seq,
                        repeat: false,
                    }),
                )
            })
            .collect();
        let changes = Vec::new();
        ChannelTruth { messages, changes }
    }

    fn watched(from_seq: u64, entries: &[(u64, u64)]) -> Watched {
        let delivered = entries
            .iter()
            .map(|&(seq, client_id)| Delivered {
                seq,
                client_id,
                intact: true,
            })
            .collect();
        Watched {
            from_seq,
            until: None,
            delivered,
        }
    }

    fn three() -> ChannelTruth<'static> {
        truth(&[(10, "ann", 1), (11, "bob", 3), (12, "cid", 2)])
    }

    #[test]
    fn everything_behind_the_join_position_once_and_in_order_holds() {
        let all = watched(0, &[(1, 10), (2, 12), (3, 11)]);
        let late = watched(2, &[(3, 11)]);
        let verdict = judge(&three(), &[&all, &late]);
        assert_eq!(
            verdict,
            Verdict {
                expected: 4,
                delivered: 4,
                ..Verdict::default()
            }
        );
    }

    #[test]
    fn what_is_missing_or_not_as_sent_is_lost() {
        assert_eq!(judge(&three(), &[&watched(0, &[(1, 10), (3, 11)])]).lost, 1);
        assert_eq!(
            judge(&three(), &[&watched(0, &[(1, 10), (2, 99), (3, 11)])]).lost,
            1
        );
        let mut torn = watched(0, &[(1, 10), (2, 12), (3, 11)]);
        torn.delivered[1].intact = false;
        assert_eq!(judge(&three(), &[&torn]).lost, 1);
    }

    #[test]
    fn nobody_is_entitled_to_what_lies_behind_the_end_of_a_membership() {
        let mut kicked = watched(0, &[(1, 10)]);
        kicked.until = Some(1);
        let verdict = judge(&three(), &[&kicked]);
        assert_eq!((verdict.expected, verdict.delivered, verdict.lost), (1, 1, 0));
        kicked.until = Some(2);
        assert_eq!(judge(&three(), &[&kicked]).lost, 1);
        // A membership that ended where it began.
        kicked = watched(3, &[]);
        kicked.until = Some(2);
        assert_eq!(judge(&three(), &[&kicked]).expected, 0);
    }

    #[test]
    fn what_comes_twice_or_late_is_counted_apart() {
        let verdict = judge(&three(), &[&watched(0, &[(1, 10), (3, 11), (2, 12), (3, 11)])]);
        assert_eq!((verdict.duplicated, verdict.reordered, verdict.lost), (1, 1, 0));
    }

    #[test]
    fn a_log_against_the_senders_order_is_reordered() {
        let swapped = truth(&[(10, "ann", 2), (11, "ann", 1)]);
        assert_eq!(judge(&swapped, &[]).reordered, 1);
    }

    #[test]
    fn a_change_is_due_like_a_message() {
        let mut with_a_change = three();
        with_a_change.changes.push((4, 1 << 40));
        let all = watched(0, &[(1, 10), (2, 12), (3, 11), (4, 1 << 40)]);
        assert_eq!(judge(&with_a_change, &[&all]).delivered, 4);
        let without = watched(0, &[(1, 10), (2, 12), (3, 11)]);
        assert_eq!(judge(&with_a_change, &[&without]).lost, 1);
    }

    #[test]
    fn two_messages_at_one_position_are_a_loss() {
        assert_eq!(judge(&truth(&[(10, "ann", 1), (11, "bob", 1)]), &[]).lost, 1);
    }

    #[test]
    fn chat_of_others_in_the_channel_is_nobodys_due() {
        let verdict = judge(
            &truth(&[(10, "ann", 2)]),
            &[&watched(0, &[(1, 777), (2, 10), (3, 778)])],
        );
        assert_eq!(
            verdict,
            Verdict {
                expected: 1,
                delivered: 1,
                ..Verdict::default()
            }
        );
    }
}
