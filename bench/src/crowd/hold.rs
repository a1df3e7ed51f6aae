//! `throng-bench hold`: very many connections live at once, each with something to say now and then.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::Serialize;
use throng_protocol::limits::PING_INTERVAL_MS;
use throng_protocol::session::client::ACK_DELAY_MS;

use super::member::{Heard, Member};
use super::{Program, gather, groups};
use crate::fanout::load::throng::Factory;
use crate::fanout::machine;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_millis(10);
/// How long acks and deliveries may take after the last message.
const GRACE: Duration = Duration::from_secs(30);

/// The arguments of `throng-bench hold`.
#[derive(Debug, clap::Args)]
pub struct HoldArgs {
    /// Connections that are live at once
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Members of a group, all of which get what each of them sends
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    members: u32,
    /// Minutes for which each of them sends a message a minute
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    minutes: u32,
    /// Bytes of a body
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=131_072))]
    size: u32,
    #[command(flatten)]
    program: Program,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    connections: usize,
    /// Those that still stood at the end.
    live: usize,
    groups: usize,
    minutes: u32,
    connected_s: f64,
    sent: u64,
    acked: u64,
    refused: u64,
    expected: u64,
    delivered: u64,
    /// Sends without an answer, and deliveries that an acked message owes.
    lost: u64,
    duplicated: u64,
    reordered: u64,
    delivery_p50_ms: f64,
    delivery_p99_ms: f64,
    edge_rss_bytes: u64,
    edge_cpu_s: f64,
    core_cpu_s: f64,
}

/// Holds and reports; `false` if something was lost, doubled or disordered, or a connection was.
pub async fn run(args: HoldArgs) -> Result<bool> {
    let server = args.program.start()?;
    let (count, members) = (args.connections as usize, args.members as usize);
    let factory = Arc::new(Factory::of(server.target(), count)?);
    let names = Arc::new(groups(&factory, count.div_ceil(members)).await?);
    let heard = Heard::new(names.len())?;
    let began = Instant::now();
    let mut crowd = Vec::with_capacity(count);
    gather(&mut crowd, count, |number| {
        let (factory, names, heard) = (factory.clone(), names.clone(), heard.clone());
        async move {
            let group = number / members;
            Member::connect(&factory, number, &names[group..=group], group, &heard).await
        }
    })
    .await?;
    let connected_s = began.elapsed().as_secs_f64();
    eprintln!("{count} connected after {connected_s:.0} s");
    let (edges, cores) = server.parts()?;
    let before = (machine::cpu_s(&edges)?, machine::cpu_s(&cores)?);
    let sent = load(&args, &mut crowd, &heard).await?;
    let size_of = |group: usize| members.min(count - group * members) as u64;
    let expected = || -> u64 {
        let groups = heard.acked.iter().enumerate();
        groups
            .map(|(group, acked)| acked.load(Ordering::Relaxed) * size_of(group))
            .sum()
    };
    let delivered = || heard.delivered.load(Ordering::Relaxed);
    let until = Instant::now() + GRACE;
    while Instant::now() < until && (heard.acked() < sent || delivered() < expected()) {
        tokio::time::sleep(LOOK).await;
    }
    let late = heard.late_us.lock().clone();
    let ms = |quantile| late.value_at_quantile(quantile) as f64 / 1_000.0;
    let (acked, refused) = (heard.acked(), heard.refused.load(Ordering::Relaxed));
    let report = Report {
        connections: count,
        live: crowd.iter().filter(|member| member.lives()).count(),
        groups: names.len(),
        minutes: args.minutes,
        connected_s,
        sent,
        acked,
        refused,
        expected: expected(),
        delivered: delivered(),
        lost: sent.saturating_sub(acked + refused) + expected().saturating_sub(delivered()),
        duplicated: heard.repeated.load(Ordering::Relaxed),
        reordered: heard.gaps.load(Ordering::Relaxed),
        delivery_p50_ms: ms(0.5),
        delivery_p99_ms: ms(0.99),
        edge_rss_bytes: machine::rss(&edges)?,
        edge_cpu_s: machine::cpu_s(&edges)? - before.0,
        core_cpu_s: machine::cpu_s(&cores)? - before.1,
    };
    print(&report, args.json)?;
    let clean = report.lost + report.refused + report.duplicated + report.reordered == 0;
    Ok(clean && report.live == count)
}

/// Sends, pings and acks by the clock, an open loop; tells how many messages were sent.
async fn load(args: &HoldArgs, crowd: &mut [Member], heard: &Heard) -> Result<u64> {
    let count = crowd.len() as u64;
    let minute = Duration::from_secs(60);
    let of_a_minute = |number: u64| minute.mul_f64(number as f64 / count as f64);
    let ping_every = Duration::from_millis(u64::from(PING_INTERVAL_MS)).div_f64(count as f64);
    let total = count * u64::from(args.minutes);
    let began = Instant::now();
    let (mut sent, mut pinged, mut acks) = (0, 0_u32, Vec::new());
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        while sent < total && began + of_a_minute(sent) <= Instant::now() {
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
            let body = heard.body(began + of_a_minute(sent), args.size as usize);
            let member = &mut crowd[usize::try_from(sent % count)?];
            member.send(sent, u64::try_from(now_ms)?, body).await?;
            sent += 1;
        }
        while began + ping_every * pinged <= Instant::now() {
            crowd[pinged as usize % crowd.len()].ping().await?;
            pinged += 1;
        }
        acks.append(&mut heard.unacked.lock());
        let due = Instant::now();
        let is_due =
            |(since, _): &(Instant, usize)| due - *since >= Duration::from_millis(ACK_DELAY_MS) - 5 * LOOK;
        let first = acks.partition_point(is_due);
        for (_, number) in acks.drain(..first) {
            crowd[number].ack().await?;
        }
        if sent == total && began + of_a_minute(total) <= Instant::now() {
            return Ok(sent);
        }
    }
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string(report)?).context("printing");
    }
    writeln!(
        out,
        "{} of {} connections live after {} min, {} groups",
        report.live, report.connections, report.minutes, report.groups
    )?;
    writeln!(
        out,
        "{} sent, {} acked, {} refused; {} of {} deliveries; lost {}, duplicated {}, reordered {}",
        report.sent,
        report.acked,
        report.refused,
        report.delivered,
        report.expected,
        report.lost,
        report.duplicated,
        report.reordered
    )?;
    writeln!(
        out,
        "deliveries p50 {:.1} ms, p99 {:.1} ms; edge {:.0} MiB and {:.0} s of processor, core nodes {:.0} s",
        report.delivery_p50_ms,
        report.delivery_p99_ms,
        report.edge_rss_bytes as f64 / 1_048_576.0,
        report.edge_cpu_s,
        report.core_cpu_s
    )
    .context("printing")
}
