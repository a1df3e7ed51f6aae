//! What came of all runs: medians by system, ratios, and what does not hold.

use serde::{Deserialize, Serialize};

use super::meter::Seen;
use super::scenario::Scenario;
use super::systems::Kind;

/// A delivery's p99 may be so many times a peer's.
pub const P99_RATIO_MAX: f64 = 1.5;

/// One run of one system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    pub system: Kind,
    pub round: usize,
    /// Microseconds of processor, user and system, of all server processes for each delivery.
    pub cpu_us_per_delivery: f64,
    /// What of it core nodes used; 0 for a system without any.
    pub core_us_per_delivery: f64,
    /// Processors that the servers kept busy.
    pub busy_cpus: f64,
    /// Of the load's processors, what it used: near 1 it is the load that is late.
    pub load_share: f64,
    /// Seconds from the first message due to the last delivery.
    pub wall_s: f64,
    /// Resident bytes of all server processes for each connection: with everybody connected, less
    /// before.
    pub rss_per_conn: f64,
    /// UDP datagrams or TCP segments, of both sides, for each delivery.
    pub packets_per_delivery: f64,
    /// Of the machine's processors, what others took.
    pub foreign_cpu: f64,
    pub seen: Seen,
}

/// Milliseconds until subscribers had a message, medians of the runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Delivery {
    pub p50: f64,
    pub p99: f64,
    /// Until the last subscriber had a message, the median message.
    pub last: f64,
}

/// A system over all its runs: medians, and the spread of what is compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub system: Kind,
    pub runs: usize,
    pub cpu_us_per_delivery: f64,
    pub cpu_us_min: f64,
    pub cpu_us_max: f64,
    pub core_us_per_delivery: f64,
    pub delivery_ms: Delivery,
    pub rss_per_conn: f64,
    pub packets_per_delivery: f64,
    pub expected: u64,
    pub delivered: u64,
}

/// A peer that could not run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Skipped {
    pub system: Kind,
    pub reason: String,
}

/// Everything, for people and programs.
#[derive(Debug, Serialize)]
pub struct Report {
    pub scenario: String,
    pub seconds: u32,
    pub rows: Vec<Row>,
    /// Our processor time over theirs, by system.
    pub ratios: std::collections::BTreeMap<String, f64>,
    pub skipped: Vec<Skipped>,
    /// Runs that were done again because others used the machine.
    pub void_runs: usize,
    pub failures: Vec<String>,
    pub wall_s: f64,
}

impl Report {
    /// From all runs that count; `samples` may be in any order.
    pub fn new(scenario: &Scenario, systems: &[Kind], samples: &[Sample]) -> Self {
        let rows: Vec<Row> = systems.iter().filter_map(|kind| row(*kind, samples)).collect();
        let ours = rows.iter().find(|row| row.system == Kind::Throng);
        let peers = || rows.iter().filter(|row| row.system != Kind::Throng);
        let mut failures: Vec<String> = samples.iter().filter_map(missing).collect();
        let mut ratios = std::collections::BTreeMap::new();
        for (ours, peer) in peers().filter_map(|peer| Some((ours?, peer))) {
            ratios.insert(
                peer.system.to_string(),
                ours.cpu_us_per_delivery / peer.cpu_us_per_delivery,
            );
            let (our_p99, their_p99) = (ours.delivery_ms.p99, peer.delivery_ms.p99);
            if our_p99 > P99_RATIO_MAX * their_p99 {
                failures.push(format!(
                    "the p99 of a delivery is {our_p99:.1} ms, over {P99_RATIO_MAX} times the {their_p99:.1} ms of {}",
                    peer.system
                ));
            }
        }
        Self {
            scenario: scenario.name(),
            seconds: scenario.seconds,
            rows,
            ratios,
            skipped: Vec::new(),
            void_runs: 0,
            failures,
            wall_s: 0.0,
        }
    }
}

fn missing(sample: &Sample) -> Option<String> {
    let Seen {
        expected,
        delivered,
        uneven,
        ..
    } = sample.seen;
    (delivered != expected || uneven > 0).then(|| {
        format!(
            "{}, round {}: {delivered} of {expected} deliveries, {uneven} messages not once for everybody",
            sample.system, sample.round
        )
    })
}

fn row(system: Kind, samples: &[Sample]) -> Option<Row> {
    let of_it: Vec<&Sample> = samples.iter().filter(|sample| sample.system == system).collect();
    let values =
        |of: &dyn Fn(&Sample) -> f64| -> Vec<f64> { of_it.iter().map(|sample| of(sample)).collect() };
    let (cpu_us_min, cpu_us_per_delivery, cpu_us_max) = spread(values(&|sample| sample.cpu_us_per_delivery))?;
    let median = |of: &dyn Fn(&Sample) -> f64| spread(values(of)).map_or(0.0, |(_, median, _)| median);
    Some(Row {
        system,
        runs: of_it.len(),
        cpu_us_per_delivery,
        cpu_us_min,
        cpu_us_max,
        core_us_per_delivery: median(&|sample| sample.core_us_per_delivery),
        delivery_ms: Delivery {
            p50: median(&|sample| sample.seen.p50_ms),
            p99: median(&|sample| sample.seen.p99_ms),
            last: median(&|sample| sample.seen.last_ms),
        },
        rss_per_conn: median(&|sample| sample.rss_per_conn),
        packets_per_delivery: median(&|sample| sample.packets_per_delivery),
        expected: of_it.iter().map(|sample| sample.seen.expected).sum(),
        delivered: of_it.iter().map(|sample| sample.seen.delivered).sum(),
    })
}

/// Minimum, median and maximum; none of nothing.
pub fn spread(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2)?;
    Some((*values.first()?, *middle, *values.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: Scenario = Scenario {
        publishers: 1,
        subscribers: 10,
        groups: 1,
        rate: 1,
        size: 64,
        seconds: 1,
    };

    fn sample(system: Kind, cpu: f64, p99_ms: f64) -> Sample {
        Sample {
            system,
            round: 0,
            cpu_us_per_delivery: cpu,
            core_us_per_delivery: 0.0,
            busy_cpus: 0.0,
            load_share: 0.0,
            wall_s: 1.0,
            rss_per_conn: 1.0,
            packets_per_delivery: 2.0,
            foreign_cpu: 0.0,
            seen: Seen {
                expected: 10,
                delivered: 10,
                p99_ms,
                ..Seen::default()
            },
        }
    }

    #[test]
    fn ratios_are_of_medians_and_a_median_has_its_spread() {
        let samples = [
            sample(Kind::Throng, 30.0, 1.0),
            sample(Kind::Quinn, 20.0, 1.0),
            sample(Kind::Throng, 10.0, 1.0),
            sample(Kind::Throng, 15.0, 1.0),
        ];
        let report = Report::new(&SCENARIO, &[Kind::Throng, Kind::Quinn, Kind::Nats], &samples);
        assert_eq!(report.ratios.get("quinn"), Some(&0.75));
        assert_eq!(report.ratios.len(), 1, "nats did not run");
        let ours = &report.rows[0];
        assert_eq!((ours.cpu_us_min, ours.cpu_us_max, ours.runs), (10.0, 30.0, 3));
        assert!(report.failures.is_empty());
    }

    #[test]
    fn a_late_or_missing_delivery_fails_the_run() {
        let late = [sample(Kind::Throng, 1.0, 1.6), sample(Kind::Quinn, 1.0, 1.0)];
        let report = Report::new(&SCENARIO, &[Kind::Throng, Kind::Quinn], &late);
        assert!(report.failures[0].contains("p99"), "{:?}", report.failures);
        let mut short = sample(Kind::Throng, 1.0, 1.0);
        short.seen.delivered = 9;
        let report = Report::new(&SCENARIO, &[Kind::Throng], &[short.clone()]);
        assert!(report.failures[0].contains("9 of 10"), "{:?}", report.failures);
        (short.seen.delivered, short.seen.uneven) = (10, 2);
        let report = Report::new(&SCENARIO, &[Kind::Throng], &[short]);
        assert!(report.failures[0].contains("2 messages"), "{:?}", report.failures);
    }
}
