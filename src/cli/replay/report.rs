//! What `replay` reports: one JSON object, its fields stable.

use std::collections::BTreeMap;
use std::io::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::audit::Verdict;
use super::changes::ChangeReport;
use crate::cli::failure::Exit;

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The group the trace was played into.
    pub group: String,
    /// Messages of the trace that were sent.
    pub sent: u64,
    /// Messages that were acked, each counted once.
    pub acked: u64,
    /// From the first attempt to the ack.
    pub ack_ms: Percentiles,
    /// Clients that watched.
    pub observers: usize,
    /// Entries that observers were entitled to.
    pub expected: u64,
    /// Entries they were given as sent.
    pub delivered: u64,
    /// Entitled and never given.
    pub lost: u64,
    /// Given again.
    pub duplicated: u64,
    /// Given or placed out of order.
    pub reordered: u64,
    /// From the first attempt to the application of observers that stayed.
    pub delivery_ms: Percentiles,
    /// Holes left at the end.
    pub holes: u64,
    /// How often a client came back to a session it had.
    pub resumes: u64,
    /// Faults asked for, by kind.
    pub chaos: BTreeMap<String, Chaos>,
    /// What kicks came to; absent when none was asked for.
    #[serde(flatten)]
    pub kicks: Option<KickReport>,
    /// What changes to messages came to; absent when none was asked for.
    #[serde(flatten)]
    pub changes: Option<ChangeReport>,
    /// Seconds of the whole run.
    pub wall_s: f64,
}

/// What came of kicking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KickReport {
    /// How many were asked for.
    #[serde(rename = "kicks_asked")]
    pub asked: u64,
    /// How many were done.
    pub kicks: u64,
    /// How many of them found sends of the user in flight.
    pub kicks_inflight: u64,
    /// How many were answered before every shard had the fence.
    pub kicks_pending: u64,
    /// Messages of kicked users behind their fences, and entries that reached them from there.
    pub fence_violations: u64,
}

/// Two percentiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// Ninety-nine in a hundred are below.
    pub p99: f64,
}

/// What became of one kind of fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Chaos {
    /// How many were asked for.
    pub asked: u64,
    /// How many were done.
    pub done: u64,
    /// How many of them found sends in flight.
    pub inflight_hit: u64,
    /// The longest time until all that was in flight was acked, in milliseconds.
    pub recovered_ms_max: u64,
}

impl Percentiles {
    /// From a histogram of microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |percentile| histogram.value_at_percentile(percentile) as f64 / 1_000.0;
        Self {
            p50: ms(50.0),
            p99: ms(99.0),
        }
    }
}

impl Report {
    /// Takes the audit's verdict in.
    pub fn judge(&mut self, verdict: Verdict) {
        self.expected = verdict.expected;
        self.delivered = verdict.delivered;
        self.lost = verdict.lost;
        self.duplicated = verdict.duplicated;
        self.reordered = verdict.reordered;
    }

    /// Whether every promise that was checked holds.
    pub fn exit(&self) -> Exit {
        let kept = self.sent == self.acked
            && self.expected == self.delivered
            && self.lost + self.duplicated + self.reordered + self.holes == 0;
        let faults = self.chaos.iter().all(|(kind, chaos)| {
            let hit = !kind.ends_with("-kill") || chaos.inflight_hit > 0;
            chaos.done >= chaos.asked && (hit || chaos.asked == 0)
        });
        let fences = self.kicks.is_none_or(|kicks| {
            kicks.kicks >= kicks.asked && kicks.kicks_inflight > 0 && kicks.fence_violations == 0
        });
        let changes = self.changes.is_none_or(|changes| changes.holds());
        if kept && faults && fences && changes {
            Exit::Holds
        } else {
            Exit::Broken
        }
    }

    /// Prints the report: JSON, or a few lines for people.
    pub fn print(&self, json: bool) {
        let mut out = std::io::stdout().lock();
        if json {
            let _ = writeln!(out, "{}", serde_json::to_string(self).unwrap_or_default());
            return;
        }
        let _ = writeln!(out, "group      {}", self.group);
        let _ = writeln!(
            out,
            "sent       {} (acked {}, p50 {} ms, p99 {} ms)",
            self.sent, self.acked, self.ack_ms.p50, self.ack_ms.p99
        );
        let _ = writeln!(
            out,
            "expected   {} by {} observers",
            self.expected, self.observers
        );
        let delivery = self.delivery_ms;
        let _ = writeln!(
            out,
            "delivered  {} (p50 {} ms, p99 {} ms)",
            self.delivered, delivery.p50, delivery.p99
        );
        let _ = writeln!(
            out,
            "lost {}, duplicated {}, reordered {}, holes {}",
            self.lost, self.duplicated, self.reordered, self.holes
        );
        for (kind, chaos) in &self.chaos {
            let Chaos {
                asked,
                done,
                inflight_hit,
                recovered_ms_max,
            } = chaos;
            let _ = writeln!(
                out,
                "{kind}: {done} of {asked}, {inflight_hit} with sends in flight, recovered within {recovered_ms_max} ms"
            );
        }
        if let Some(kicks) = self.kicks {
            let KickReport {
                asked,
                kicks,
                kicks_inflight,
                kicks_pending,
                fence_violations,
            } = kicks;
            let _ = writeln!(
                out,
                "kicks: {kicks} of {asked}, {kicks_inflight} with sends in flight, {kicks_pending} answered as pending, {fence_violations} violations"
            );
        }
        if let Some(changes) = self.changes {
            let _ = writeln!(out, "{}", changes.line());
        }
        let _ = writeln!(out, "resumes {}, {:.1} s", self.resumes, self.wall_s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            group: "g".to_owned(),
            sent: 2,
            acked: 2,
            ack_ms: Percentiles::default(),
            observers: 1,
            expected: 2,
            delivered: 2,
            lost: 0,
            duplicated: 0,
            reordered: 0,
            delivery_ms: Percentiles::default(),
            holes: 0,
            resumes: 0,
            chaos: BTreeMap::new(),
            kicks: None,
            changes: None,
            wall_s: 1.0,
        }
    }

    #[test]
    fn a_report_holds_only_if_every_figure_does() {
        assert_eq!(report().exit(), Exit::Holds);
        let broken: [fn(&mut Report); 7] = [
            |r| r.acked = 1,
            |r| r.delivered = 1,
            |r| r.lost = 1,
            |r| r.duplicated = 1,
            |r| r.reordered = 1,
            |r| r.holes = 1,
            |r| {
                let asked = Chaos {
                    asked: 1,
                    ..Chaos::default()
                };
                r.chaos.insert("client-drop".to_owned(), asked);
            },
        ];
        for (case, breakage) in broken.iter().enumerate() {
            let mut report = report();
            breakage(&mut report);
            assert_eq!(report.exit(), Exit::Broken, "case {case}");
        }
    }

    #[test]
    fn kicks_must_be_done_strike_sends_in_flight_and_break_nothing() {
        let kicks = KickReport {
            asked: 2,
            kicks: 2,
            kicks_inflight: 1,
            kicks_pending: 1,
            fence_violations: 0,
        };
        let exit = |kicks| {
            Report {
                kicks: Some(kicks),
                ..report()
            }
            .exit()
        };
        assert_eq!(exit(kicks), Exit::Holds);
        assert_eq!(exit(KickReport { kicks: 1, ..kicks }), Exit::Broken);
        assert_eq!(
            exit(KickReport {
                kicks_inflight: 0,
                ..kicks
            }),
            Exit::Broken
        );
        assert_eq!(
            exit(KickReport {
                fence_violations: 1,
                ..kicks
            }),
            Exit::Broken
        );
    }

    #[test]
    fn kills_that_found_nothing_in_flight_prove_nothing() {
        let mut report = report();
        let missed = Chaos {
            asked: 2,
            done: 2,
            inflight_hit: 0,
            recovered_ms_max: 0,
        };
        report.chaos.insert("leader-kill".to_owned(), missed);
        assert_eq!(report.exit(), Exit::Broken);
        report.chaos.insert(
            "leader-kill".to_owned(),
            Chaos {
                inflight_hit: 1,
                ..missed
            },
        );
        assert_eq!(report.exit(), Exit::Holds);
    }
}
