//! What each network has asked of a server in handshakes.
//!
//! Addresses and the time come in, a verdict goes out; no sockets. A network is an IPv4 /24 or an
//! IPv6 /56: whoever holds one address there can usually have all of them.
//!
//! The source address of a first packet may be forged. A flood with the addresses of a network must
//! not lock that network out, so first packets without a proof of their address are counted apart
//! from those with one, and above their share they are asked for the proof instead of refused. A
//! forged address never brings one.
//!
//! Memory is bounded: at most [`NETWORKS_MAX`] networks are held. One without open handshakes whose
//! buckets are full again is the same as one never seen, and goes when the table is full. Networks
//! that still find no place share one entry, with the limits of one network.

use std::collections::HashMap;
use std::net::IpAddr;

use throng_protocol::rate::{Bucket, Rate};

use crate::settings::NetworkLimits;

/// Networks held at once: about 2 MB. More than that within seconds is a flood from everywhere,
/// against which limits by network are no help, and those of the whole server hold.
pub const NETWORKS_MAX: usize = 16_384;
/// Shortest time between two searches for networks that can go: a search reads the whole table.
const SWEEP_INTERVAL_MS: u64 = 1_000;

/// The part of an address that is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4([u8; 3]),
    V6([u8; 7]),
}

impl Network {
    /// The network of an address; IPv4 mapped into IPv6 is IPv4.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g])
            }
        }
    }
}

/// What to do with a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Begin the handshake. [`Networks::ended`] must be called with the same place.
    Admit(Place),
    /// Ask for a proof of the address.
    Prove,
    /// Tell the client to go elsewhere.
    Refuse,
    /// Say nothing.
    Ignore,
}

/// Where a handshake is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Of(Network),
    Shared,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    open: usize,
    proven: Bucket,
    unproven: Bucket,
    refusals: Bucket,
}

impl Entry {
    fn is_idle(&mut self, rate: Rate, now_ms: u64) -> bool {
        self.open == 0
            && self.proven.is_untouched(rate, now_ms)
            && self.unproven.is_untouched(rate, now_ms)
            && self.refusals.is_untouched(rate, now_ms)
    }
}

/// The networks that have asked lately.
#[derive(Debug)]
pub(crate) struct Networks {
    limits: NetworkLimits,
    held: HashMap<Network, Entry>,
    shared: Entry,
    held_max: usize,
    swept_ms: u64,
}

impl Networks {
    pub fn new(limits: NetworkLimits) -> Self {
        Self::with_room(limits, NETWORKS_MAX)
    }

    fn with_room(limits: NetworkLimits, held_max: usize) -> Self {
        Self {
            limits,
            held: HashMap::new(),
            shared: Entry::default(),
            held_max,
            swept_ms: 0,
        }
    }

    /// Judges a first packet and counts what is done about it. `proven` says that its sender has
    /// shown to receive at the address.
    pub fn judge(&mut self, now_ms: u64, address: IpAddr, proven: bool) -> Verdict {
        let NetworkLimits {
            retry_above,
            handshakes_max,
            rate,
        } = self.limits;
        let (place, entry) = self.entry(now_ms, Network::of(address));
        let verdict = match proven {
            false if entry.open >= retry_above || !entry.unproven.take(rate, now_ms) => Verdict::Prove,
            true if entry.open >= handshakes_max || !entry.proven.take(rate, now_ms) => {
                // An answer costs about as much as the packet took to read; a network that goes on
                // all the same gets none.
                match entry.refusals.take(rate, now_ms) {
                    true => Verdict::Refuse,
                    false => Verdict::Ignore,
                }
            }
            _ => {
                entry.open += 1;
                Verdict::Admit(place)
            }
        };
        self.forget_if_idle(now_ms, place);
        verdict
    }

    /// A handshake that was admitted is over, whatever came of it.
    pub fn ended(&mut self, place: Place) {
        let entry = match place {
            Place::Of(network) => self.held.get_mut(&network),
            Place::Shared => Some(&mut self.shared),
        };
        if let Some(entry) = entry {
            entry.open = entry.open.saturating_sub(1);
        }
    }

    /// Networks held now.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    fn entry(&mut self, now_ms: u64, network: Network) -> (Place, &mut Entry) {
        if !self.held.contains_key(&network) {
            if self.held.len() >= self.held_max && now_ms >= self.swept_ms + SWEEP_INTERVAL_MS {
                self.swept_ms = now_ms;
                let rate = self.limits.rate;
                self.held.retain(|_, entry| !entry.is_idle(rate, now_ms));
            }
            if self.held.len() >= self.held_max {
                return (Place::Shared, &mut self.shared);
            }
        }
        (Place::Of(network), self.held.entry(network).or_default())
    }

    /// A packet that was only asked for a proof must not take a place in the table.
    fn forget_if_idle(&mut self, now_ms: u64, place: Place) {
        if let Place::Of(network) = place
            && let Some(entry) = self.held.get_mut(&network)
            && entry.is_idle(self.limits.rate, now_ms)
        {
            self.held.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const LIMITS: NetworkLimits = NetworkLimits {
        retry_above: 2,
        handshakes_max: 4,
        rate: Rate {
            per_second: 10,
            burst: 6,
        },
    };

    fn v4(c: u8, d: u8) -> IpAddr {
        Ipv4Addr::new(203, 0, c, d).into()
    }

    fn admitted(verdict: Verdict) -> Place {
        match verdict {
            Verdict::Admit(place) => place,
            other => panic!("not admitted: {other:?}"),
        }
    }

    #[test]
    fn addresses_of_one_network_are_counted_together_and_others_apart() {
        assert_eq!(Network::of(v4(1, 1)), Network::of(v4(1, 254)));
        assert_ne!(Network::of(v4(1, 1)), Network::of(v4(2, 1)));
        let mapped = IpAddr::V6(Ipv4Addr::new(203, 0, 1, 9).to_ipv6_mapped());
        assert_eq!(Network::of(mapped), Network::of(v4(1, 1)));
        let v6 = |text: &str| Network::of(text.parse::<Ipv6Addr>().expect("valid").into());
        assert_eq!(v6("2001:db8:1:1100::1"), v6("2001:db8:1:11ff:ffff::2"));
        assert_ne!(v6("2001:db8:1:1100::1"), v6("2001:db8:1:1200::1"));
    }

    #[test]
    fn above_its_share_a_network_proves_its_addresses_and_then_is_refused() {
        let mut networks = Networks::new(LIMITS);
        let first = admitted(networks.judge(0, v4(1, 1), false));
        admitted(networks.judge(0, v4(1, 2), false));
        assert_eq!(networks.judge(0, v4(1, 3), false), Verdict::Prove);
        admitted(networks.judge(0, v4(1, 3), true));
        admitted(networks.judge(0, v4(1, 4), true));
        assert_eq!(networks.judge(0, v4(1, 5), true), Verdict::Refuse);
        admitted(networks.judge(0, v4(2, 1), false));
        networks.ended(first);
        admitted(networks.judge(0, v4(1, 5), true));
    }

    #[test]
    fn forged_addresses_cost_the_network_they_name_a_round_trip_and_no_more() {
        let mut networks = Networks::new(LIMITS);
        for packet in 0..10_000u32 {
            // Each ends at once: the rate holds where the number of open ones does not.
            if let Verdict::Admit(place) = networks.judge(0, v4(1, packet as u8), false) {
                networks.ended(place);
            }
        }
        assert_eq!(networks.judge(0, v4(1, 1), false), Verdict::Prove);
        admitted(networks.judge(0, v4(1, 1), true));
    }

    #[test]
    fn a_network_that_goes_on_above_its_rate_is_refused_and_then_not_answered() {
        let mut networks = Networks::new(LIMITS);
        let verdicts: Vec<Verdict> = (0..20)
            .map(|_| {
                let verdict = networks.judge(1_000, v4(1, 1), true);
                if let Verdict::Admit(place) = verdict {
                    networks.ended(place);
                }
                verdict
            })
            .collect();
        let place = Place::Of(Network::of(v4(1, 1)));
        assert_eq!(verdicts[..6], [Verdict::Admit(place); 6]);
        assert_eq!(verdicts[6..12], [Verdict::Refuse; 6]);
        assert_eq!(verdicts[12..], [Verdict::Ignore; 8]);
        admitted(networks.judge(1_100, v4(1, 1), true));
    }

    #[test]
    fn memory_is_bounded_and_networks_that_left_make_room() {
        let mut networks = Networks::with_room(LIMITS, 3);
        let places: Vec<Place> = (0..3)
            .map(|c| admitted(networks.judge(0, v4(c, 1), true)))
            .collect();
        // Three hold their places; all others share one.
        let late = admitted(networks.judge(1_000, v4(10, 1), true));
        assert_eq!((late, networks.len()), (Place::Shared, 3));
        for c in 11..14 {
            admitted(networks.judge(1_000, v4(c, 1), true));
        }
        assert_eq!(networks.judge(1_000, v4(14, 1), true), Verdict::Refuse);
        networks.ended(late);
        admitted(networks.judge(1_000, v4(14, 1), true));
        // One has ended and its bucket is full again: its place is free at the next search.
        networks.ended(places[1]);
        assert_eq!(networks.judge(1_500, v4(20, 1), true), Verdict::Refuse);
        let place = admitted(networks.judge(2_000, v4(21, 1), true));
        assert_eq!(place, Place::Of(Network::of(v4(21, 1))));
        assert_eq!(networks.len(), 3);
    }

    #[test]
    fn a_packet_that_is_asked_for_a_proof_takes_no_place() {
        let mut networks = Networks::new(NetworkLimits {
            retry_above: 0,
            ..LIMITS
        });
        for c in 0..=255 {
            assert_eq!(networks.judge(0, v4(c, 1), false), Verdict::Prove);
        }
        assert_eq!(networks.len(), 0);
    }
}
