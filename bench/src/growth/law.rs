//! The law of what a load costs, fitted to measurements, and what ten million need by it.

use std::fmt;
use std::ops::Range;

use serde::Serialize;
use throng_transport::settings::{CLIENT_ACK_DATAGRAMS, CLIENT_ACK_DELAY};

/// Connections of an edge: the default of `connections_max` of a gateway.
pub const EDGE_CONNECTIONS: u32 = 100_000;

/// Online members for whom the law is worked out.
const TEN_MILLION: f64 = 1e7;
/// Messages a second that each of them gets.
const RATES: [f64; 3] = [0.1, 1.0, 10.0];
/// Bytes of an entry beside its body on the way from the core to an edge: names, numbers and frames.
const ENTRY_OVERHEAD: f64 = 150.0;
/// Feeds of one node: the lanes that `throng_transport::settings::CLUSTER_LANES_MAX` allows.
const FEEDS_OF_A_NODE: f64 = 256.0;

/// What is asked of a system, a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Messages sent.
    pub messages: f64,
    pub subscribers: f64,
    /// Messages that each subscriber gets.
    pub each: f64,
    /// How much of that really came a second.
    pub pace: f64,
}

impl Load {
    pub fn deliveries(&self) -> f64 {
        self.subscribers * self.each * self.pace
    }

    /// Datagrams with which clients acknowledge deliveries: one for all that come within the delay that an
    /// edge asks for, and within so many datagrams.
    pub fn acknowledgements(&self) -> f64 {
        let Range { start, end } = CLIENT_ACK_DELAY;
        let delay_s = (start + end).as_secs_f64() / 2.0;
        let at_once = (1.0 + (self.each * delay_s).floor()).min(f64::from(CLIENT_ACK_DATAGRAMS));
        self.deliveries() / at_once
    }

    /// What the law multiplies its figures with.
    fn shape(&self) -> [f64; FIGURES] {
        [
            1.0,
            self.messages * self.pace,
            self.deliveries(),
            self.acknowledgements(),
        ]
    }
}

/// Figures of the law.
const FIGURES: usize = 4;

/// Processors = `idle_cpus` + `us_per_message` × messages + `us_per_delivery` × deliveries +
/// `us_per_acknowledgement` × acknowledgements, all of them a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Law {
    /// Processors of three core nodes and an edge that do nothing.
    pub idle_cpus: f64,
    /// Microseconds of processor for a message, whoever gets it.
    pub us_per_message: f64,
    /// Microseconds of processor for a delivery.
    pub us_per_delivery: f64,
    /// Microseconds of processor for the transport's acknowledgement of deliveries.
    pub us_per_acknowledgement: f64,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "processors = {:.3} + {:.0} µs × messages/s + {:.2} µs × deliveries/s + {:.2} µs × acknowledgements/s",
            self.idle_cpus, self.us_per_message, self.us_per_delivery, self.us_per_acknowledgement
        )
    }
}

impl Law {
    /// The law that fits best, by relative error; none if the loads do not tell its figures apart.
    pub fn fit(measured: &[(Load, f64)]) -> Option<Self> {
        let (mut normal, mut right) = ([[0.0; FIGURES]; FIGURES], [0.0; FIGURES]);
        for (load, cpus) in measured {
            let row = load.shape().map(|value| value / cpus);
            for ((line, sum), one) in normal.iter_mut().zip(&mut right).zip(row) {
                for (cell, other) in line.iter_mut().zip(row) {
                    *cell += one * other;
                }
                *sum += one;
            }
        }
        let [idle_cpus, message, delivery, acknowledgement] = solve(normal, right)?;
        Some(Self {
            idle_cpus,
            us_per_message: message * 1e6,
            us_per_delivery: delivery * 1e6,
            us_per_acknowledgement: acknowledgement * 1e6,
        })
    }

    /// Processors that a load keeps busy.
    pub fn cpus(&self, load: &Load) -> f64 {
        let [idle, messages, deliveries, acknowledgements] = load.shape();
        let busy_us = self.us_per_message * messages
            + self.us_per_delivery * deliveries
            + self.us_per_acknowledgement * acknowledgements;
        self.idle_cpus * idle + busy_us / 1e6
    }
}

/// Solves linear equations by elimination; none if they do not say enough.
fn solve(mut lines: [[f64; FIGURES]; FIGURES], mut right: [f64; FIGURES]) -> Option<[f64; FIGURES]> {
    for step in 0..FIGURES {
        let size = |line: &usize| lines[*line][step].abs();
        let best = (step..FIGURES).max_by(|one, other| size(one).total_cmp(&size(other)))?;
        // Beside what was there before anything was taken from it, a rest of rounding is nothing.
        let most = lines.iter().map(|line| line[step].abs()).fold(0.0, f64::max);
        if lines[best][step].abs() <= 1e-12 * most.max(1e-12) {
            return None;
        }
        lines.swap(step, best);
        right.swap(step, best);
        let (pivot, value) = (lines[step], right[step]);
        for other in (0..FIGURES).filter(|other| *other != step) {
            let factor = lines[other][step] / pivot[step];
            for (cell, from) in lines[other].iter_mut().zip(pivot) {
                *cell -= factor * from;
            }
            right[other] -= factor * value;
        }
    }
    let values = std::array::from_fn(|line| right[line] / lines[line][line]);
    values
        .iter()
        .all(|value: &f64| value.is_finite())
        .then_some(values)
}

/// What ten million members online, all of one group, need.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TenMillion {
    pub messages_per_s: f64,
    pub edges: f64,
    pub edge_cpus: f64,
    /// Resident memory that all server processes grow by.
    pub gib: f64,
    /// Bytes a second that the leader of the channel sends to edges.
    pub core_egress_bytes_per_s: f64,
    /// Hops from the leader to an edge: 1 while a node feeds every edge itself.
    pub relay_depth: f64,
}

impl TenMillion {
    pub fn table(law: &Law, bytes_per_connection: f64, body: f64) -> Vec<Self> {
        let edges = (TEN_MILLION / f64::from(EDGE_CONNECTIONS)).ceil();
        let of_rate = |&each: &f64| {
            let load = Load {
                messages: each,
                subscribers: TEN_MILLION,
                each,
                pace: 1.0,
            };
            Self {
                messages_per_s: each,
                edges,
                edge_cpus: (law.us_per_delivery * load.deliveries()
                    + law.us_per_acknowledgement * load.acknowledgements())
                    / 1e6,
                gib: TEN_MILLION * bytes_per_connection / f64::from(1 << 30),
                core_egress_bytes_per_s: edges * each * (body + ENTRY_OVERHEAD),
                relay_depth: (edges.ln() / FEEDS_OF_A_NODE.ln()).ceil().max(1.0),
            }
        };
        RATES.iter().map(of_rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(messages: f64, subscribers: f64) -> Load {
        Load {
            messages,
            subscribers,
            each: messages,
            pace: 1.0,
        }
    }

    const LAW: Law = Law {
        idle_cpus: 0.05,
        us_per_message: 900.0,
        us_per_delivery: 12.0,
        us_per_acknowledgement: 8.0,
    };

    #[test]
    fn the_law_behind_exact_figures_is_found() {
        let loads = [
            load(20.0, 200.0),
            load(5.0, 1_000.0),
            load(20.0, 1_000.0),
            load(0.5, 8_000.0),
            load(1.0, 20_000.0),
        ];
        let measured: Vec<_> = loads.iter().map(|load| (*load, LAW.cpus(load))).collect();
        let found = Law::fit(&measured).unwrap();
        assert!((found.idle_cpus - LAW.idle_cpus).abs() < 1e-6, "{found:?}");
        assert!(
            (found.us_per_message - LAW.us_per_message).abs() < 1e-1,
            "{found:?}"
        );
        assert!(
            (found.us_per_delivery - LAW.us_per_delivery).abs() < 1e-3,
            "{found:?}"
        );
        assert!(
            (found.us_per_acknowledgement - LAW.us_per_acknowledgement).abs() < 1e-3,
            "{found:?}"
        );
    }

    #[test]
    fn loads_that_are_all_alike_have_no_law() {
        let same = (load(20.0, 200.0), 0.5);
        assert_eq!(Law::fit(&[same, same, same, same]), None);
        assert_eq!(Law::fit(&[]), None);
    }

    #[test]
    fn what_took_longer_came_more_slowly() {
        let slow = Load {
            pace: 0.5,
            ..load(20.0, 1_000.0)
        };
        assert!((slow.deliveries() - 10_000.0).abs() < f64::EPSILON);
        assert!((slow.acknowledgements() - 10_000.0 / 3.0).abs() < 1e-9);
        let expected = LAW.idle_cpus + (LAW.cpus(&load(20.0, 1_000.0)) - LAW.idle_cpus) / 2.0;
        assert!((LAW.cpus(&slow) - expected).abs() < 1e-12);
    }

    #[test]
    fn the_more_messages_come_the_fewer_are_acknowledged_alone() {
        for (rate, at_once) in [(0.5, 1.0), (5.0, 1.0), (10.0, 2.0), (20.0, 3.0), (100.0, 4.0)] {
            let found = load(rate, 1_000.0).acknowledgements();
            assert!((found - 1_000.0 * rate / at_once).abs() < 1e-9, "{rate}: {found}");
        }
    }

    #[test]
    fn ten_million_need_a_hundred_edges_and_no_relays() {
        let table = TenMillion::table(&LAW, 24_576.0, 256.0);
        let one = &table[1];
        assert!((one.edges - 100.0).abs() < f64::EPSILON && (one.relay_depth - 1.0).abs() < f64::EPSILON);
        assert!((one.edge_cpus - 200.0).abs() < 1e-6, "{one:?}");
        assert!((one.core_egress_bytes_per_s - 40_600.0).abs() < 1e-6, "{one:?}");
    }
}
