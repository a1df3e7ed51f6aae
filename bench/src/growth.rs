//! `throng-bench growth`: how what a delivery costs grows with the audience, the groups and the rate.
//!
//! Points of different shape are measured in turns, a law of four figures is fitted to all but one of
//! them, and the one that was held out must cost what the law says. From the law follows what ten
//! million would need. It compares with nothing: that is what `fanout` is for.

mod law;
mod plot;

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;

use self::law::{Law, Load, TenMillion};
use crate::fanout::machine::Halves;
use crate::fanout::report::{Report, Row, Sample, spread};
use crate::fanout::scenario::Scenario;
use crate::fanout::systems::Kind;

/// Of its processors, what a load may use: above it the load is what is late, and its point is told but
/// no law is fitted to it.
const LOAD_SHARE_MAX: f64 = 0.9;
/// By how much the held-out point may differ from what the law says of it.
const ERROR_MAX: f64 = 0.15;
/// What a delivery to the largest audience may cost, beside one to the smallest.
const RATIO_MAX: f64 = 1.1;

/// A shape of load: `SUBSCRIBERS@RATE` or `SUBSCRIBERS@RATE/GROUPS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Point {
    subscribers: usize,
    /// Messages a second, of all groups together.
    rate: u32,
    groups: usize,
}

impl FromStr for Point {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || anyhow!("`{text}` is not SUBSCRIBERS@RATE or SUBSCRIBERS@RATE/GROUPS");
        let (subscribers, rest) = text.split_once('@').ok_or_else(wrong)?;
        let (rate, groups) = rest.split_once('/').unwrap_or((rest, "1"));
        let point = Self {
            subscribers: subscribers.parse().map_err(|_| wrong())?,
            rate: rate.parse().map_err(|_| wrong())?,
            groups: groups.parse().map_err(|_| wrong())?,
        };
        ensure!(
            point.subscribers > 0 && point.rate > 0 && point.groups > 0,
            "`{text}` has a 0 in it"
        );
        ensure!(
            point.subscribers.is_multiple_of(point.groups),
            "`{text}`: every group must have as many subscribers"
        );
        Ok(point)
    }
}

impl Point {
    fn scenario(self, size: usize, seconds: u32) -> Scenario {
        Scenario {
            publishers: 1,
            subscribers: self.subscribers,
            groups: self.groups,
            rate: self.rate,
            size,
            seconds,
        }
    }

    /// What a run of it asked for, over the time that it took: when messages are few, the last one is due
    /// well before the end, and deliveries that are late stretch it.
    fn load(self, seconds: f64, wall_s: f64) -> Load {
        Load {
            messages: f64::from(self.rate),
            subscribers: self.subscribers as f64,
            each: f64::from(self.rate) / self.groups as f64,
            pace: seconds / wall_s,
        }
    }
}

/// The arguments of `throng-bench growth`.
#[derive(Debug, clap::Args)]
pub struct GrowthArgs {
    /// What the law is fitted to
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "200@20,1000@1,1000@5,1000@20,5000@2,20000@1,1000@100/20,5000@100/500"
    )]
    points: Vec<Point>,
    /// What the law must predict
    #[arg(long, default_value = "10000@1")]
    hold_out: Point,
    /// Bytes of a body
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(12..=131_072))]
    size: u32,
    /// Seconds of each run for which messages are due
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Of the machine's processors, what others may take while a run counts
    #[arg(long, default_value_t = 0.2)]
    foreign_max: f64,
    /// Rounds; every other one takes the points in reverse order
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// The `throng` binary; the one beside this program if not given
    #[arg(long)]
    throng: Option<PathBuf>,
    /// Folder for the figures of every run (`growth.json`) and a page with plots (`growth.html`)
    #[arg(long)]
    out: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// A point and what it cost, medians of its runs.
#[derive(Debug, Serialize)]
struct Measured {
    point: Point,
    /// What of the processor time of a delivery the edge used.
    edge_us_per_delivery: f64,
    /// Processors that all servers kept busy.
    busy_cpus: f64,
    /// What the law says of that.
    predicted_cpus: f64,
    /// Of the load's processors, what it used.
    load_share: f64,
    #[serde(skip)]
    load: Load,
    #[serde(flatten)]
    row: Row,
}

#[derive(Debug, Serialize)]
struct Growth {
    points: Vec<Measured>,
    held_out: Measured,
    law: Law,
    /// Measured over predicted for the held-out point, less one.
    held_out_error: f64,
    /// Processor time of a delivery to the largest audience of one group over the smallest's.
    growth_ratio: f64,
    /// The edge's part of it, the largest audience over the smallest one that gets as many messages each:
    /// without what a message and an idle core cost.
    edge_growth_ratio: f64,
    ten_million: Vec<TenMillion>,
    failures: Vec<String>,
}

/// Measures and reports; `false` if something does not hold.
pub fn run(args: &GrowthArgs) -> Result<bool> {
    let throng = crate::fanout::throng(args.throng.as_deref())?;
    let program = Kind::Throng.program(&throng).map_err(anyhow::Error::msg)?;
    let halves = Halves::of_this_machine()?;
    let points: Vec<Point> = args.points.iter().copied().chain([args.hold_out]).collect();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); points.len()];
    let mut void_runs = 0;
    for round in 0..args.rounds as usize {
        for turn in crate::fanout::turns(round, points.len()) {
            let scenario = points[turn].scenario(args.size as usize, args.seconds);
            let run = || crate::fanout::measure(Kind::Throng, &program, &scenario, round, &halves);
            let sample = crate::fanout::undisturbed(run, args.foreign_max, &mut void_runs)?;
            eprintln!(
                "round {round}, {} in {} groups at {} a second: {:.2} us of processor a delivery, last {:.1} ms",
                scenario.subscribers,
                scenario.groups,
                scenario.rate,
                sample.cpu_us_per_delivery,
                sample.seen.last_ms
            );
            samples[turn].push(sample);
        }
    }
    let growth = judge(args, &points, &samples)?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let whole = serde_json::json!({ "growth": growth, "samples": samples });
        std::fs::write(folder.join("growth.json"), serde_json::to_vec_pretty(&whole)?)?;
        std::fs::write(folder.join("growth.html"), plot::page(&growth))?;
    }
    print(&growth, args.json)?;
    Ok(growth.failures.is_empty())
}

fn judge(args: &GrowthArgs, points: &[Point], samples: &[Vec<Sample>]) -> Result<Growth> {
    let mut failures = Vec::new();
    let mut measured = Vec::new();
    for (&point, samples) in points.iter().zip(samples) {
        let scenario = point.scenario(args.size as usize, args.seconds);
        let report = Report::new(&scenario, &[Kind::Throng], samples);
        failures.extend(report.failures);
        let row = report
            .rows
            .into_iter()
            .next()
            .context("every point has a run at least")?;
        let wall_s = median(samples, |sample| sample.wall_s);
        measured.push(Measured {
            point,
            edge_us_per_delivery: row.cpu_us_per_delivery - row.core_us_per_delivery,
            busy_cpus: median(samples, |sample| sample.busy_cpus),
            predicted_cpus: 0.0,
            load_share: median(samples, |sample| sample.load_share),
            load: point.load(f64::from(args.seconds), wall_s),
            row,
        });
    }
    let held_out = measured.pop().context("a point is held out")?;
    let known: Vec<(Load, f64)> = measured
        .iter()
        .filter(|one| one.load_share <= LOAD_SHARE_MAX)
        .map(|one| (one.load, one.busy_cpus))
        .collect();
    let law = Law::fit(&known).context("the points are too much alike for a law")?;
    let predicted = |one: Measured| Measured {
        predicted_cpus: law.cpus(&one.load),
        ..one
    };
    let (measured, held_out): (Vec<_>, _) =
        (measured.into_iter().map(predicted).collect(), predicted(held_out));
    let held_out_error = held_out.busy_cpus / held_out.predicted_cpus - 1.0;
    if held_out_error.abs() > ERROR_MAX {
        failures.push(format!(
            "the held-out point costs {:.0} % other than the law says",
            100.0 * held_out_error
        ));
    }
    let growth_ratio = growth_ratio(&measured);
    if growth_ratio > RATIO_MAX {
        failures.push(format!(
            "a delivery to the largest audience costs {growth_ratio:.2} of one to the smallest"
        ));
    }
    let bytes_per_connection = measured
        .iter()
        .max_by_key(|one| one.point.subscribers)
        .map_or(0.0, |one| one.row.rss_per_conn);
    let edge_growth_ratio = edge_growth_ratio(&measured, &held_out);
    Ok(Growth {
        ten_million: TenMillion::table(&law, bytes_per_connection, f64::from(args.size)),
        points: measured,
        held_out,
        law,
        held_out_error,
        growth_ratio,
        edge_growth_ratio,
        failures,
    })
}

/// Of the points with one group, the largest audience's cost over the smallest audience's.
fn growth_ratio(points: &[Measured]) -> f64 {
    let of_one_group = || points.iter().filter(|one| one.point.groups == 1);
    let smallest = of_one_group().min_by_key(|one| (one.point.subscribers, one.point.rate));
    let largest = of_one_group().max_by_key(|one| one.point.subscribers);
    match (smallest, largest) {
        (Some(smallest), Some(largest)) => largest.row.cpu_us_per_delivery / smallest.row.cpu_us_per_delivery,
        _ => 1.0,
    }
}

/// Of the points with one group at the largest audience's rate, the largest's cost at the edge over the
/// smallest's.
fn edge_growth_ratio(points: &[Measured], held_out: &Measured) -> f64 {
    let of_one_group = || {
        points
            .iter()
            .chain([held_out])
            .filter(|one| one.point.groups == 1)
    };
    let Some(largest) = of_one_group().max_by_key(|one| one.point.subscribers) else {
        return 1.0;
    };
    let smallest = of_one_group()
        .filter(|one| one.point.rate == largest.point.rate)
        .min_by_key(|one| one.point.subscribers);
    smallest.map_or(1.0, |smallest| {
        largest.edge_us_per_delivery / smallest.edge_us_per_delivery
    })
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    spread(samples.iter().map(of).collect()).map_or(0.0, |(_, median, _)| median)
}

fn print(growth: &Growth, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string(growth)?).context("printing");
    }
    for one in growth.points.iter().chain([&growth.held_out]) {
        writeln!(
            out,
            "{:>6} subscribers, {:>3} groups, {:>3}/s: {:>6.2} us a delivery (edge {:.2}), last {:>6.1} ms, \
             {:.2} packets, {:.3} processors ({:.3} predicted), load {:.0} % busy",
            one.point.subscribers,
            one.point.groups,
            one.point.rate,
            one.row.cpu_us_per_delivery,
            one.edge_us_per_delivery,
            one.row.delivery_ms.last,
            one.row.packets_per_delivery,
            one.busy_cpus,
            one.predicted_cpus,
            100.0 * one.load_share
        )?;
    }
    writeln!(out, "{}", growth.law)?;
    writeln!(
        out,
        "held out: {:+.1} %; largest audience beside smallest: {:.2}, at the edge and one rate: {:.2}",
        100.0 * growth.held_out_error,
        growth.growth_ratio,
        growth.edge_growth_ratio
    )?;
    for one in &growth.ten_million {
        writeln!(
            out,
            "ten million at {:.1} messages/s each: {:.0} edges of {} connections, {:.0} processors at \
             the edges, {:.0} GiB, {:.2} MB/s out of the core",
            one.messages_per_s,
            one.edges,
            law::EDGE_CONNECTIONS,
            one.edge_cpus,
            one.gib,
            one.core_egress_bytes_per_s / 1e6
        )?;
    }
    for failure in &growth.failures {
        writeln!(out, "FAILED: {failure}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_and_what_is_none_is_refused() {
        let point: Point = "5000@100/500".parse().unwrap();
        assert_eq!((point.subscribers, point.rate, point.groups), (5_000, 100, 500));
        assert_eq!("200@20".parse::<Point>().unwrap().groups, 1);
        for wrong in [
            "", "200", "200@", "@20", "200@0", "0@1", "10@1/3", "10@1/0", "a@b/c",
        ] {
            assert!(wrong.parse::<Point>().is_err(), "{wrong}");
        }
    }
}
