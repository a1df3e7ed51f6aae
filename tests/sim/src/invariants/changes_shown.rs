//! A message is shown as the changes up to the version it is shown with have made it, wherever it is read;
//! and a change names the one before it.

use std::collections::BTreeMap;

use throng_protocol::ids::Seq;

use super::{Invariant, Violation, log};
use crate::changes::{Message, Shown};
use crate::history::{Ask, Channel};
use crate::run::{Key, Run};
use crate::{workload, world};

pub const INVARIANT: Invariant = Invariant {
    name: "changes_shown",
    clause: "CH-5.2-M4",
    check,
};

/// How a message must be shown with each of its versions.
type Versions = BTreeMap<Seq, Shown>;

fn check(run: &Run) -> Result<(), Violation> {
    let channels: Result<BTreeMap<Channel, BTreeMap<Seq, Versions>>, Violation> = world::channels()
        .map(|channel| Ok((channel, versions(run, channel)?)))
        .collect();
    let channels = channels?;
    for sighting in run.sightings() {
        let seq = sighting.entry.seq;
        let Some(messages) = channels.get(&sighting.channel) else {
            continue;
        };
        let shown = sighting.shown;
        if shown.kind != 1 {
            let Some(versions) = messages.get(&shown.target) else {
                let text = format!("entry {seq} changes {}, which is no message", shown.target);
                return Err(Violation::at(sighting.event, text));
            };
            let before = versions.range(..seq).next_back().map(|(version, _)| *version);
            if before != Some(shown.version) {
                let text = format!(
                    "change {seq} of {} names {} as the one before",
                    shown.target, shown.version
                );
                return Err(Violation::at(sighting.event, text));
            }
            continue;
        }
        // A message that nobody sent is not judged here.
        let Some(versions) = messages.get(&seq) else {
            continue;
        };
        let expected = versions.get(&shown.version);
        if expected != Some(&shown) {
            let text = format!(
                "message {seq} of {} is shown as {shown:?} to {}; its changes make it {expected:?}",
                sighting.channel, sighting.client
            );
            return Err(Violation::at(sighting.event, text));
        }
    }
    Ok(())
}

/// The versions of each message of a channel, from its log and what was asked for.
fn versions(run: &Run, channel: Channel) -> Result<BTreeMap<Seq, Versions>, Violation> {
    let asked: BTreeMap<Key, crate::changes::Deed> = run
        .ops
        .values()
        .filter_map(|asked| match asked.ask {
            Ask::Change { channel, key, change } => Some(((channel, asked.client.user(), key), change.deed)),
            _ => None,
        })
        .collect();
    let mut messages = BTreeMap::new();
    let mut shown: BTreeMap<Seq, Versions> = BTreeMap::new();
    for stored in &log(run, channel)?.entries {
        let seen = stored.seen;
        if stored.shown.kind == 1 {
            let Some(first) = workload::body_of(seen.key, seen.hash) else {
                continue;
            };
            let message = Message::new(first);
            shown.entry(seen.seq).or_default().insert(Seq(0), message.shown());
            messages.insert(seen.seq, message);
            continue;
        }
        let target = stored.shown.target;
        let deed = asked.get(&(channel, seen.sender, seen.key));
        let (Some(message), Some(deed)) = (messages.get_mut(&target), deed) else {
            let text = format!(
                "entry {} of {channel} changes {target}, which nobody asked for",
                seen.seq
            );
            return Err(Violation::in_logs(text));
        };
        message.make(seen.seq, seen.key, *deed);
        shown.entry(target).or_default().insert(seen.seq, message.shown());
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, Story, seen, spoken};
    use super::*;
    use crate::changes::Deed;
    use crate::history::{BodyHash, Seen, User};

    /// Message 1 of user 1, which is modified at 2 and recalled at 3; how it is shown with each version.
    fn story() -> (Story, Vec<(Seen, Shown)>) {
        let mut story = Story::new();
        let (sent, first) = spoken(User(1), 1);
        let mut message = Message::new(workload::body(sent.key, 0));
        let (mut shown, mut stored) = (vec![(sent, first)], vec![(sent, first)]);
        for (seq, deed) in [(2, Deed::Modify), (3, Deed::Recall)] {
            let change = story.changed(D1, seq, (User(1), 1), deed);
            let entry = Seen {
                hash: change.identity(),
                ..seen(User(1), seq)
            };
            let kind = if deed == Deed::Modify { 2 } else { 3 };
            let of_entry = Shown {
                kind,
                target: Seq(1),
                version: Seq(seq - 1),
                ..Shown::default()
            };
            stored.push((entry, of_entry));
            message.make(Seq(seq), entry.key, deed);
            shown.push((sent, message.shown()));
        }
        // The first change has none before it.
        stored[1].1.version = Seq(0);
        story.stored(&stored);
        (story, shown)
    }

    fn judged(change: impl Fn(&mut Shown)) -> Result<(), Violation> {
        let (mut story, shown) = story();
        for (seen, mut shown) in shown {
            change(&mut shown);
            story.paged(D1, &[(seen, shown)]);
        }
        story.judged(INVARIANT)
    }

    #[test]
    fn a_message_may_be_shown_with_any_of_its_versions_and_as_that_one() {
        assert_eq!(judged(|_| {}), Ok(()));
        assert!(judged(|shown| shown.content = BodyHash(9)).is_err());
        assert!(
            judged(|shown| shown.hole = 0).is_err(),
            "a recall that does not show"
        );
        assert!(
            judged(|shown| shown.version = Seq(0)).is_err(),
            "a change that has no version"
        );
        assert!(
            judged(|shown| shown.version = Seq(8)).is_err(),
            "a version that is no change"
        );
    }

    #[test]
    fn a_change_names_the_one_before_it() {
        for (version, fine) in [(2, true), (0, false), (1, false)] {
            let (mut story, _) = story();
            let entry = Seen {
                hash: BodyHash(0),
                ..seen(User(1), 3)
            };
            let shown = Shown {
                kind: 3,
                target: Seq(1),
                version: Seq(version),
                hole: 1,
                content: BodyHash::of(b""),
            };
            story.paged(D1, &[(entry, shown)]);
            assert_eq!(story.judged(INVARIANT).is_ok(), fine, "{version}");
        }
    }
}
