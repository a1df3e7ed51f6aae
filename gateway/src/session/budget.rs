//! What one session may ask of its edge before it is read more slowly.
//!
//! A session above a rate is not refused and not closed: its control stream is read no further until
//! it is within the rate again, and QUIC's flow control holds its client back. Honest clients never
//! come near; a hostile one gets a bounded share of the edge.

use throng_protocol::rate::Bucket;
use throng_protocol::session::server::ServerRequest;

use crate::limits::{FRAMES_RATE, PLACES_RATE, SIGNALS_RATE};

/// Frame types that ask for nothing but attention: ping, pong, error.
const SIGNALS: [u8; 3] = [20, 21, 23];

/// What a session has asked lately. Methods return the milliseconds to read nothing for.
#[derive(Debug, Default)]
pub(super) struct Budget {
    frames: Bucket,
    signals: Bucket,
    places: Bucket,
}

impl Budget {
    /// A frame came. Types this version does not know count as signals.
    pub fn frame(&mut self, now_ms: u64, kind: u8) -> u64 {
        let wait = self.frames.owe(FRAMES_RATE, now_ms, 1);
        let known = throng_protocol::message::Message::kind_name(kind).is_some();
        if known && !SIGNALS.contains(&kind) {
            return wait;
        }
        wait.max(self.signals.owe(SIGNALS_RATE, now_ms, 1))
    }

    /// A request came: what it subscribes and unsubscribes counts.
    pub fn request(&mut self, now_ms: u64, request: &ServerRequest) -> u64 {
        let places = match request {
            ServerRequest::Subscribe(_) | ServerRequest::Unsubscribe(_) => 1,
            ServerRequest::Resume(resume) => u32::try_from(resume.places.len()).unwrap_or(u32::MAX),
            _ => return 0,
        };
        self.places.owe(PLACES_RATE, now_ms, places)
    }
}

#[cfg(test)]
mod tests {
    use throng_protocol::ids::{ChannelId, ChannelNumber, GroupId, Position, Ts};
    use throng_protocol::limits::{RESUME_POSITIONS_MAX, SUBSCRIPTIONS_MAX};
    use throng_protocol::message::{Place, Resume, Unsubscribe};

    use super::*;

    fn resume(places: usize) -> ServerRequest {
        let place = Place {
            group: GroupId::new("g").expect("valid"),
            channel: ChannelId::new("c").expect("valid"),
            position: Position::default(),
            ts: Ts(0),
        };
        ServerRequest::Resume(Resume {
            request: 1,
            places: vec![place; places],
        })
    }

    #[test]
    fn a_client_that_keeps_the_rules_is_never_held_back() {
        let mut budget = Budget::default();
        // Comes back with all its subscriptions, twice, then works for an hour.
        for _ in 0..2 * SUBSCRIPTIONS_MAX / RESUME_POSITIONS_MAX {
            assert_eq!(budget.request(0, &resume(RESUME_POSITIONS_MAX)), 0);
        }
        for second in 0..3_600 {
            assert_eq!(budget.frame(second * 1_000, 20), 0);
            assert!((0..5_000).all(|_| budget.frame(second * 1_000, 16) == 0));
        }
    }

    #[test]
    fn signals_frames_and_places_have_rates_of_their_own() {
        let mut budget = Budget::default();
        let pings = (0..SIGNALS_RATE.burst).map(|_| budget.frame(0, 20)).max();
        assert_eq!(pings, Some(0));
        assert_eq!(budget.frame(0, 20), 1_000 / u64::from(SIGNALS_RATE.per_second));
        assert!(budget.frame(0, 100) > 0, "an unknown type is a signal");
        assert_eq!(budget.frame(0, 10), 0, "sends go on");
        let channel = ChannelNumber(1);
        let leave = ServerRequest::Unsubscribe(Unsubscribe { request: 1, channel });
        let churn = (0..PLACES_RATE.burst).map(|_| budget.request(0, &leave)).max();
        assert_eq!(churn, Some(0));
        assert!(budget.request(0, &leave) > 0);
        let frames = (0..2 * FRAMES_RATE.burst).map(|_| budget.frame(0, 16)).max();
        assert!(frames > Some(0));
    }
}
