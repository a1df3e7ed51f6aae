//! `--changes P`: behind each message, by chance, somebody changes an earlier one; and the verdict over what
//! every message has become at every observer.

pub mod model;

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use throng_client::{
    Change, ChannelId, Client, ClientMessageId, Code, Entry, Hole, Position, RequestError, Timeline,
};

use self::model::{Deed, Left, Made, Model, State, Wrong};
use super::observers::Seen;
use super::stage::Stage;
use crate::cli::failure::Failure;
use crate::cli::sdk;

/// Ids of changes: above those of messages, which are numbers of lines.
const FIRST_ID: u64 = 1 << 40;

/// How far back a message may lie that is changed: half of the changes meet others on the same message.
const BACK: usize = 400;

/// The keys that are set and removed: few, so that writers meet.
const KEYS: [&str; 6] = ["like", "seen", "☕", "ключ", "a b", "z"];

/// What the changes of a replay have come to.
#[derive(Debug, Default)]
pub struct Changes {
    /// The chance behind each message.
    chance: f64,
    seed: u64,
    /// By channel, and for the whole.
    made: Mutex<BTreeMap<ChannelId, Vec<Made>>>,
    /// Refused because nothing was left of the message: which, by channel.
    gone: Mutex<Vec<(ChannelId, u64)>>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    asked: u64,
    refused_wrong: u64,
}

/// What is reported of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ChangeReport {
    /// Changes that were asked for.
    #[serde(rename = "changes_asked")]
    pub asked: u64,
    /// Changes that were made.
    #[serde(rename = "changes_made")]
    pub made: u64,
    /// Changes that came when nothing was left of their message.
    #[serde(rename = "changes_too_late")]
    pub too_late: u64,
    /// Modifications made.
    pub modified: u64,
    /// Recalls made.
    pub recalled: u64,
    /// Deletions made.
    pub deleted: u64,
    /// Expansions made.
    pub expanded: u64,
    /// Messages compared with the model, at all observers together.
    pub messages_checked: u64,
    /// Of these, with a body that is not what the changes made of it.
    pub bodies_wrong: u64,
    /// With a recall that does not show, or shows where there is none.
    pub recalls_wrong: u64,
    /// With a deletion, the same.
    pub deletions_wrong: u64,
    /// With another expansion.
    pub expansions_wrong: u64,
    /// With another last change.
    pub versions_wrong: u64,
    /// Messages that an observer should hold and does not.
    pub messages_missing: u64,
    /// Messages compared at observers that were away and asked what had changed meanwhile.
    pub since_checked: u64,
    /// Changes that were refused for no good reason.
    pub refusals_wrong: u64,
}

impl ChangeReport {
    /// A line for people.
    pub fn line(&self) -> String {
        let Self {
            asked,
            made,
            too_late,
            messages_checked,
            ..
        } = self;
        let verdict = if self.holds() {
            "all as they must be"
        } else {
            "NOT as they must be, see --json"
        };
        format!(
            "changes: {made} of {asked} made, {too_late} too late; {messages_checked} messages checked, {verdict}"
        )
    }

    /// Whether everything is as the changes made it.
    pub fn holds(&self) -> bool {
        let wrong = self.bodies_wrong
            + self.recalls_wrong
            + self.deletions_wrong
            + self.expansions_wrong
            + self.versions_wrong
            + self.messages_missing
            + self.refusals_wrong;
        wrong == 0 && self.made + self.too_late == self.asked && self.messages_checked > 0
    }
}

impl Changes {
    /// Changes by chance.
    pub fn new(chance: f64, seed: u64) -> Self {
        Self {
            chance,
            seed,
            ..Self::default()
        }
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.chance > 0.0
    }

    /// The last position of a change in each channel.
    pub fn heads(&self) -> BTreeMap<ChannelId, u64> {
        let made = self.made.lock();
        let last = |made: &Vec<Made>| made.iter().map(|made| made.seq).max().unwrap_or_default();
        made.iter()
            .map(|(channel, made)| (channel.clone(), last(made)))
            .collect()
    }

    /// The positions of changes in a channel, with the keys they were made under.
    pub fn in_channel(&self, channel: &ChannelId) -> Vec<(u64, u64)> {
        let made = self.made.lock();
        let of_channel = made.get(channel).into_iter().flatten();
        of_channel.map(|made| (made.seq, made.id)).collect()
    }

    /// Behind the message at a place: maybe changes an earlier one of its channel.
    pub async fn behind(&self, stage: &Stage, founder: &Client, place: usize) -> Result<(), Failure> {
        // By place, so that what is changed does not depend on who comes first.
        let mut random = StdRng::seed_from_u64(
            self.seed ^ 0xc4a6_0000 ^ (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        if !random.random_bool(self.chance) {
            return Ok(());
        }
        let channel = &stage.trace.lines[place].ch;
        let earlier =
            (place.saturating_sub(BACK)..=place).filter(|earlier| stage.trace.lines[*earlier].ch == *channel);
        let earlier: Vec<usize> = earlier.collect();
        let target = earlier[random.random_range(0..earlier.len())];
        let Some(ack) = stage.acked(target).await else {
            return Ok(());
        };
        let (deed, by_sender) = deed(&mut random, place);
        let client = match stage.senders.get(&stage.trace.lines[target].u) {
            Some(sender) if by_sender => sender,
            _ => founder,
        };
        self.make(stage, client, place, (ack.epoch, ack.seq), deed).await
    }

    async fn make(
        &self,
        stage: &Stage,
        client: &Client,
        place: usize,
        (epoch, target): (u32, u64),
        deed: Deed,
    ) -> Result<(), Failure> {
        let channel = &stage.trace.lines[place].ch;
        self.counts.lock().asked += 1;
        let position = Position {
            epoch: throng_client::Epoch(epoch),
            seq: throng_client::Seq(target),
        };
        let id = ClientMessageId(FIRST_ID + place as u64);
        let change = client.change_with_id(&stage.group, channel, id, position, wire(&deed));
        match change.await {
            Ok(changed) => {
                let seq = changed.position.seq.0;
                let mut made = self.made.lock();
                let of_channel = made.entry(channel.clone()).or_default();
                let id = id.0;
                of_channel.push(Made {
                    id,
                    seq,
                    target,
                    deed,
                });
                Ok(())
            }
            Err(error) if error.code == Some(Code::TargetGone) => {
                self.gone.lock().push((channel.clone(), target));
                Ok(())
            }
            Err(error) => {
                let RequestError { text, .. } = &error;
                tracing::error!(%channel, target, ?deed, text, "a change was refused");
                self.counts.lock().refused_wrong += 1;
                Ok(())
            }
        }
    }

    /// The verdict over all observers.
    pub fn judge(&self, stage: &Stage, seen: &[Seen]) -> ChangeReport {
        let made = self.made.lock().clone();
        let all = || made.values().flatten();
        let count = |is: fn(&Deed) -> bool| all().filter(|made| is(&made.deed)).count() as u64;
        let gone = self.gone.lock();
        let counts = *self.counts.lock();
        let mut report = ChangeReport {
            asked: counts.asked,
            made: all().count() as u64,
            too_late: gone.len() as u64,
            modified: count(|deed| matches!(deed, Deed::Modify(_))),
            recalled: count(|deed| matches!(deed, Deed::Recall)),
            deleted: count(|deed| matches!(deed, Deed::Delete)),
            expanded: count(|deed| matches!(deed, Deed::Expand { .. })),
            refusals_wrong: counts.refused_wrong + without_reason(&gone, &made),
            ..ChangeReport::default()
        };
        let mut wrong = Wrong::default();
        for channel in stage.trace.channels() {
            let lines = stage.trace.lines.iter().enumerate();
            let sent = lines
                .filter(|(_, line)| line.ch == channel)
                .filter_map(|(place, line)| Some((stage.ack(place)?.seq, line.body().to_vec())));
            let model = Model::new(sent, made.get(&channel).cloned().unwrap_or_default());
            for seen in seen {
                let Some(watched) = seen.channels.get(&channel) else {
                    continue;
                };
                if let Some(held) = seen.timelines.get(&channel) {
                    let (checked, found) = model.compare(watched.from_seq, &states(held));
                    report.messages_checked += checked;
                    wrong += found;
                }
                if let Some(held) = seen.refreshed.get(&channel) {
                    let (checked, found) = model.compare_held(&states(held));
                    report.since_checked += checked;
                    wrong += found;
                }
            }
        }
        report.bodies_wrong = wrong.bodies;
        report.recalls_wrong = wrong.recalls;
        report.deletions_wrong = wrong.deletions;
        report.expansions_wrong = wrong.expansions;
        report.versions_wrong = wrong.versions;
        report.messages_missing = wrong.missing;
        report
    }
}

/// Refusals for a message of which nothing is left, where everything is.
fn without_reason(gone: &[(ChannelId, u64)], made: &BTreeMap<ChannelId, Vec<Made>>) -> u64 {
    let ended = |channel: &ChannelId, target: u64| {
        let of_channel = made.get(channel).into_iter().flatten();
        let mut of_target = of_channel.filter(|made| made.target == target);
        of_target.any(|made| matches!(made.deed, Deed::Recall | Deed::Delete))
    };
    let wrong = gone.iter().filter(|(channel, target)| !ended(channel, *target));
    wrong.count() as u64
}

/// What is done behind the message at a place, and whether by the sender of the message it is done to or by the
/// founder of the group, who may do everything.
fn deed(random: &mut StdRng, place: usize) -> (Deed, bool) {
    let by_sender = random.random_bool(0.7);
    match random.random_range(0..10) {
        0..4 => (Deed::Modify(format!("modified behind {place}")), by_sender),
        4 => (Deed::Recall, by_sender),
        5 => (Deed::Delete, false),
        _ => {
            let mut keys = KEYS.to_vec();
            let mut pick =
                |random: &mut StdRng| keys.swap_remove(random.random_range(0..keys.len())).to_owned();
            let set = (0..random.random_range(1..=3))
                .map(|n| (pick(random), format!("{place}.{n}")))
                .collect();
            let remove = (0..random.random_range(0..=2)).map(|_| pick(random)).collect();
            (Deed::Expand { set, remove }, by_sender)
        }
    }
}

/// A deed as the SDK asks for it.
fn wire(deed: &Deed) -> Change {
    match deed.clone() {
        Deed::Modify(body) => Change::Modify { body: body.into() },
        Deed::Recall => Change::Recall,
        Deed::Delete => Change::Delete,
        Deed::Expand { set, remove } => Change::Expand { set, remove },
    }
}

/// What a client holds, as the model says it.
fn states(timeline: &Timeline) -> BTreeMap<u64, State> {
    timeline
        .messages()
        .map(|entry| (entry.seq.0, state(entry)))
        .collect()
}

fn state(entry: &Entry) -> State {
    let left = match entry.hole {
        0 => Left::All,
        hole if hole == Hole::Recalled.number() => Left::Recalled,
        _ => Left::Deleted,
    };
    State {
        body: entry.body.to_vec(),
        left,
        version: entry.version.0,
        keys: entry.expansion.iter().cloned().collect(),
    }
}

/// Brings what was held before a client went away up to date, by asking what has changed.
pub async fn refresh(
    stage: &Stage,
    client: &Client,
    channel: &ChannelId,
    timeline: &mut Timeline,
    head: u64,
) -> Result<(), Failure> {
    let failed = |error: &RequestError| sdk::refused("changes cannot be read", channel.as_str(), error);
    let epoch = timeline.epoch();
    for stale in timeline.stale(throng_client::Seq(head)) {
        let mut from = stale.from;
        // A page ends early; the head of the first one is what is known when all were read.
        let (mut known, mut entries) = (None, Vec::new());
        while from <= stale.to {
            let to = stale.to.min(throng_client::Seq(from.0 + CHANGES_AT_ONCE - 1));
            let at = Position { epoch, seq: from };
            let page = client.changes(&stage.group, channel, at, to, stale.since).await;
            let page = page.map_err(|error| failed(&error))?;
            known.get_or_insert(page.head);
            from = match page.entries.last() {
                Some(last) => last.seq.next(),
                None => to.next(),
            };
            entries.extend(page.entries);
        }
        if let Some(known) = known {
            timeline.changes(epoch, stale, known, &entries);
        }
    }
    Ok(())
}

/// Entries asked for at once, as many as the protocol allows.
const CHANGES_AT_ONCE: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_needs_a_recall_or_a_deletion_that_was_made() {
        let (a, b) = (ChannelId::new("a").unwrap(), ChannelId::new("b").unwrap());
        let recall = Made {
            id: 1,
            seq: 9,
            target: 4,
            deed: Deed::Recall,
        };
        let made = BTreeMap::from([(a.clone(), vec![recall])]);
        assert_eq!(without_reason(&[(a.clone(), 4)], &made), 0);
        assert_eq!(without_reason(&[(a, 5), (b, 4)], &made), 2);
    }

    #[test]
    fn deeds_follow_the_seed_and_stay_within_the_limits() {
        let deeds = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            (0..200).map(|place| deed(&mut random, place)).collect::<Vec<_>>()
        };
        assert_eq!(deeds(1), deeds(1));
        assert_ne!(deeds(1), deeds(2));
        for (deed, by_sender) in deeds(3) {
            assert_eq!(wire(&deed).check(), Ok(()));
            assert!(!by_sender || deed != Deed::Delete, "senders may not delete");
        }
    }

    #[test]
    fn nothing_wrong_and_everything_answered_is_what_holds() {
        let good = ChangeReport {
            asked: 3,
            made: 2,
            too_late: 1,
            messages_checked: 9,
            ..ChangeReport::default()
        };
        assert!(good.holds());
        assert!(!ChangeReport { made: 1, ..good }.holds(), "one has no answer");
        assert!(
            !ChangeReport {
                versions_wrong: 1,
                ..good
            }
            .holds()
        );
        assert!(
            !ChangeReport {
                messages_checked: 0,
                ..good
            }
            .holds()
        );
    }
}
