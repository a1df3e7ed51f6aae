//! `throng-bench idle`: the memory of a connection that does nothing, as the slope between crowds.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::member::{Heard, Member};
use super::{Program, gather, groups};
use crate::fanout::load::throng::Factory;
use crate::fanout::machine;

/// How long a crowd rests before memory is read: until keys of handshakes are thrown away and the
/// allocator has given back what handshakes used.
const REST: Duration = Duration::from_secs(10);

/// The arguments of `throng-bench idle`.
#[derive(Debug, clap::Args)]
pub struct IdleArgs {
    /// Sizes of the crowd at which memory is read, ascending
    #[arg(long, value_delimiter = ',', default_value = "1000,5000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: Vec<u32>,
    /// Groups each of them has subscribed to
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    groups: u32,
    #[command(flatten)]
    program: Program,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    connections: usize,
    edge_rss_bytes: u64,
    core_rss_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    groups: u32,
    rows: Vec<Row>,
    /// Resident bytes of the edge for each further connection.
    bytes_per_connection: f64,
    /// Resident bytes of all core nodes for each further member, pages of their store included.
    core_bytes_per_connection: f64,
}

/// Measures and reports.
pub async fn run(args: IdleArgs) -> Result<()> {
    let sizes: Vec<usize> = args.connections.iter().map(|size| *size as usize).collect();
    ensure!(
        sizes.len() >= 2 && sizes.is_sorted_by(|one, other| one < other),
        "--connections needs two sizes at least, ascending"
    );
    let server = args.program.start()?;
    let most = sizes.last().copied().unwrap_or_default();
    let factory = std::sync::Arc::new(Factory::of(server.target(), most)?);
    let names = std::sync::Arc::new(groups(&factory, args.groups as usize).await?);
    let heard = Heard::new(1)?;
    let (mut crowd, mut rows): (Vec<Member>, Vec<Row>) = (Vec::new(), Vec::new());
    for size in sizes {
        gather(&mut crowd, size, |number| {
            let (factory, names, heard) = (factory.clone(), names.clone(), heard.clone());
            async move { Member::connect(&factory, number, &names, 0, &heard).await }
        })
        .await?;
        tokio::time::sleep(REST).await;
        for member in &mut crowd {
            member.ping().await?;
        }
        tokio::time::sleep(REST).await;
        ensure!(crowd.iter().all(Member::lives), "a connection did not stay");
        let (edges, cores) = server.parts()?;
        rows.push(Row {
            connections: size,
            edge_rss_bytes: machine::rss(&edges)?,
            core_rss_bytes: machine::rss(&cores)?,
        });
    }
    let slope = |bytes: fn(&Row) -> u64| match (rows.first(), rows.last()) {
        (Some(first), Some(last)) => {
            (bytes(last) as f64 - bytes(first) as f64) / (last.connections - first.connections) as f64
        }
        _ => 0.0,
    };
    let report = Report {
        groups: args.groups,
        bytes_per_connection: slope(|row| row.edge_rss_bytes),
        core_bytes_per_connection: slope(|row| row.core_rss_bytes),
        rows,
    };
    print(&report, args.json)
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string(report)?).context("printing");
    }
    for row in &report.rows {
        writeln!(
            out,
            "{:>7} connections: edge {:.1} MiB, core nodes {:.1} MiB",
            row.connections,
            row.edge_rss_bytes as f64 / 1_048_576.0,
            row.core_rss_bytes as f64 / 1_048_576.0
        )?;
    }
    writeln!(
        out,
        "{:.1} KiB a connection at the edge, {:.1} KiB at all core nodes",
        report.bytes_per_connection / 1_024.0,
        report.core_bytes_per_connection / 1_024.0
    )
    .context("printing")
}
