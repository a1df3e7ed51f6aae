//! What kicks promise, against what was stored and delivered.
//!
//! Pure, like the audit beside it: it knows when a user was kicked and let in again, where the
//! exported logs have the fences, what was acked and what reached the user's devices, and nothing
//! of how it was done. Between a fence and the user's return no message of theirs may be in the log,
//! and nothing may reach them.

use std::collections::BTreeMap;

use throng_client::ChannelId;

use super::audit::Watched;

/// One kick, and the return behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kick {
    /// Who was kicked.
    pub user: String,
    /// The version the cluster gave the fence.
    pub version: u64,
    /// When the user was let in again, microseconds of the replay: before the request was sent.
    pub joined_us: u64,
    /// Per channel a position that was in the log before the user was let in again.
    pub known: BTreeMap<ChannelId, u64>,
}

/// An acked message of somebody who was kicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The channel.
    pub channel: ChannelId,
    /// Its position.
    pub seq: u64,
    /// When the ack came, microseconds of the replay.
    pub acked_us: u64,
}

/// What one device of a kicked user was given from one return to the next kick.
pub type Stay = BTreeMap<ChannelId, Watched>;

/// Where the exported logs have the fences: per channel, version to the position in front of it.
pub type Places = BTreeMap<ChannelId, BTreeMap<u64, u64>>;

/// Counts what breaks the promises of one user's kicks. `stays` has for each device its stays, the
/// first one ended by the first kick, the last one by nothing.
pub fn violations(kicks: &[Kick], places: &Places, stored: &[Stored], stays: &[&[Stay]]) -> u64 {
    let mut found = 0;
    for (ordinal, kick) in kicks.iter().enumerate() {
        for (channel, fences) in places {
            let Some(place) = fences.get(&kick.version) else {
                tracing::error!(user = kick.user, %channel, version = kick.version, "the log has no such fence");
                found += 1;
                continue;
            };
            found += behind(kick, channel, *place, stored);
            let stays = stays
                .iter()
                .filter_map(|device| device.get(ordinal)?.get(channel));
            found += stays
                .map(|stay| reached(kick, channel, *place, stay))
                .sum::<u64>();
        }
    }
    found
}

/// Messages of the user that got a position behind the fence before the return.
fn behind(kick: &Kick, channel: &ChannelId, place: u64, stored: &[Stored]) -> u64 {
    let known = kick.known.get(channel).copied().unwrap_or_default();
    let breaks = |one: &&Stored| {
        one.channel == *channel && one.seq > place && (one.seq <= known || one.acked_us < kick.joined_us)
    };
    let broken: Vec<u64> = stored.iter().filter(breaks).map(|one| one.seq).collect();
    if !broken.is_empty() {
        tracing::error!(user = kick.user, %channel, place, seqs = ?broken, "messages are behind their sender's fence");
    }
    broken.len() as u64
}

/// Entries behind the fence that reached a device before the return.
fn reached(kick: &Kick, channel: &ChannelId, place: u64, stay: &Watched) -> u64 {
    let broken: Vec<u64> = stay
        .delivered
        .iter()
        .map(|delivered| delivered.seq)
        .filter(|seq| *seq > place)
        .collect();
    if !broken.is_empty() {
        tracing::error!(user = kick.user, %channel, place, seqs = ?broken, "entries behind a fence reached the user");
    }
    broken.len() as u64
}

#[cfg(test)]
mod tests {
    use super::super::audit::Delivered;
    use super::*;

    fn channel() -> ChannelId {
        ChannelId::new("a").expect("valid")
    }

    fn kick() -> Kick {
        Kick {
            user: "ann".to_owned(),
            version: 7,
            joined_us: 1_000,
            known: [(channel(), 12)].into(),
        }
    }

    fn places() -> Places {
        [(channel(), [(7, 10)].into())].into()
    }

    fn stored(seq: u64, acked_us: u64) -> Stored {
        Stored {
            channel: channel(),
            seq,
            acked_us,
        }
    }

    fn stays(seqs: &[u64]) -> Vec<Stay> {
        let delivered = seqs
            .iter()
            .map(|seq| Delivered {
                seq: *seq,
                client_id: *seq,
                intact: true,
            })
            .collect();
        let watched = Watched {
            delivered,
            ..Watched::default()
        };
        vec![[(channel(), watched)].into()]
    }

    #[test]
    fn messages_and_deliveries_up_to_the_fence_and_behind_the_return_are_right() {
        let messages = [stored(9, 500), stored(10, 2_000), stored(13, 1_500)];
        let stays = stays(&[8, 9, 10]);
        assert_eq!(violations(&[kick()], &places(), &messages, &[&stays]), 0);
    }

    #[test]
    fn a_message_behind_the_fence_and_before_the_return_is_a_violation() {
        for one in [stored(11, 5_000), stored(12, 5_000), stored(13, 999)] {
            assert_eq!(
                violations(&[kick()], &places(), std::slice::from_ref(&one), &[]),
                1,
                "{one:?}"
            );
        }
    }

    #[test]
    fn a_delivery_behind_the_fence_is_a_violation() {
        let stays = stays(&[9, 10, 11, 12]);
        assert_eq!(violations(&[kick()], &places(), &[], &[&stays]), 2);
    }

    #[test]
    fn deliveries_of_a_later_stay_are_not_judged_by_an_earlier_kick() {
        let mut two = stays(&[10]);
        two.extend(stays(&[11, 12]));
        assert_eq!(violations(&[kick()], &places(), &[], &[&two]), 0);
    }

    #[test]
    fn a_fence_that_is_in_no_log_is_a_violation() {
        let none: Places = [(channel(), BTreeMap::new())].into();
        assert_eq!(violations(&[kick()], &none, &[], &[]), 1);
    }
}
