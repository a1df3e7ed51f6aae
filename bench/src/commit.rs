//! Acked messages a second, interleaved with raw appends of the same size, each synced.
//!
//! The ratio says how much group commit gives: one client is bound by round trips and syncs, many
//! share them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use throng_client::{
    ChannelId, Client, ClientConfig, ClientEndpoint, ClientMessageId, DeviceId, Direction, GroupId, Seq,
    StaticToken, Trust,
};

/// The arguments of `throng-bench commit`.
#[derive(Debug, clap::Args)]
pub struct CommitArgs {
    /// Folder of a running cluster; the baseline writes a file there too
    #[arg(long)]
    cluster: PathBuf,
    /// A token of the cluster (`throng token`)
    #[arg(long)]
    token: String,
    /// Senders at once, each in a channel of its own
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Bytes of a body
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Seconds of each half of a round
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds; the halves swap their order in every other one
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    clients: usize,
    size: usize,
    acked_per_s: Spread,
    synced_appends_per_s: Spread,
    ratio: Spread,
    acked: u64,
    stored: u64,
    wall_s: f64,
}

struct Load {
    client: Client,
    group: GroupId,
    channels: Vec<ChannelId>,
    next_id: u64,
}

/// Measures, checks that all is stored, reports.
pub async fn run(args: CommitArgs) -> Result<()> {
    let began = Instant::now();
    let mut load = connect(&args).await?;
    let before = stored(&load).await?;
    let (mut ours, mut raw, mut ratios, mut acked) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 0..args.rounds {
        let swap = round % 2 == 1;
        let mut appends = 0.0;
        if !swap {
            appends = synced_appends(&args)?;
        }
        let count = send(&mut load, &args).await?;
        if swap {
            appends = synced_appends(&args)?;
        }
        acked += count;
        let rate = count as f64 / args.seconds as f64;
        ours.push(rate);
        raw.push(appends);
        ratios.push(rate / appends.max(1.0));
    }
    let stored = stored(&load).await? - before;
    ensure!(
        stored == acked,
        "{acked} messages were acked and {stored} are stored: the run is void"
    );
    let report = Report {
        clients: args.clients,
        size: args.size,
        acked_per_s: spread(ours),
        synced_appends_per_s: spread(raw),
        ratio: spread(ratios),
        acked,
        stored,
        wall_s: began.elapsed().as_secs_f64(),
    };
    load.client.close().await;
    print(&report, args.json)
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string(report)?).context("printing");
    }
    let line = |spread: Spread| format!("{:.1} ({:.1} to {:.1})", spread.median, spread.min, spread.max);
    writeln!(out, "acked messages/s    {}", line(report.acked_per_s))?;
    writeln!(out, "synced appends/s    {}", line(report.synced_appends_per_s))?;
    writeln!(out, "ratio               {}", line(report.ratio)).context("printing")
}

async fn connect(args: &CommitArgs) -> Result<Load> {
    let file = std::fs::read(args.cluster.join("cluster.json")).context("reading cluster.json")?;
    let file: serde_json::Value = serde_json::from_slice(&file)?;
    let edges = file["edges"]
        .as_array()
        .context("edges")?
        .iter()
        .filter_map(|edge| edge.as_str());
    let edges = edges.map(str::to_owned).collect();
    let trust = Trust::ca_file(Path::new(file["ca_cert"].as_str().context("ca_cert")?))?;
    let tokens = Arc::new(StaticToken(args.token.clone()));
    let config = ClientConfig {
        endpoint: Some(Arc::new(ClientEndpoint::new(&trust)?)),
        ..ClientConfig::new(edges, trust, tokens, DeviceId::new("bench")?)
    };
    let client = Client::connect(config).await?;
    let nonce = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_nanos();
    let group = GroupId::new(&format!("bench-{nonce}"))?;
    client.create_group(&group).await?;
    let mut channels = Vec::new();
    for n in 0..args.clients {
        let channel = ChannelId::new(&format!("channel-{n}"))?;
        client.create_channel(&group, &channel).await?;
        channels.push(channel);
    }
    Ok(Load {
        client,
        group,
        channels,
        next_id: 0,
    })
}

/// Sends for a while from all channels at once; gives how many were acked.
async fn send(load: &mut Load, args: &CommitArgs) -> Result<u64> {
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let body = bytes::Bytes::from(vec![b'x'; args.size]);
    let mut senders = tokio::task::JoinSet::new();
    for (place, channel) in load.channels.iter().enumerate() {
        let (client, group, channel, body) = (
            load.client.clone(),
            load.group.clone(),
            channel.clone(),
            body.clone(),
        );
        let mut id = load.next_id + ((place as u64) << 32);
        senders.spawn(async move {
            let mut acked = 0;
            while Instant::now() < until {
                client
                    .send_with_id(&group, &channel, ClientMessageId(id), body.clone())
                    .await?;
                id += 1;
                acked += 1;
            }
            anyhow::Ok(acked)
        });
    }
    let mut acked = 0;
    while let Some(sender) = senders.join_next().await {
        acked += sender??;
    }
    // A sender cannot have used more ids than all of them together.
    load.next_id += acked;
    Ok(acked)
}

async fn stored(load: &Load) -> Result<u64> {
    let mut stored = 0;
    for channel in &load.channels {
        stored += load
            .client
            .history(&load.group, channel, Seq(0), Direction::Before, 1)
            .await?
            .head
            .0;
    }
    Ok(stored)
}

/// Appends with a sync each, as many as the time allows; a second.
fn synced_appends(args: &CommitArgs) -> Result<f64> {
    let path = args.cluster.join("bench.tmp");
    let mut file = File::create(&path).context("making the baseline's file")?;
    let body = vec![b'x'; args.size];
    let (began, length) = (Instant::now(), Duration::from_secs(args.seconds));
    let mut count = 0u64;
    while began.elapsed() < length {
        file.write_all(&body)?;
        file.sync_data()?;
        count += 1;
    }
    std::fs::remove_file(&path)?;
    Ok(count as f64 / args.seconds as f64)
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(min), Some(median), Some(max)) => Spread {
            median: *median,
            min: *min,
            max: *max,
        },
        _ => Spread::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_median_and_ends() {
        let spread = spread(vec![3.0, 1.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
    }
}
