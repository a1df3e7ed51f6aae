//! `throng replay`: plays a trace of real chat as one group through a running cluster, every user a
//! session of its own over QUIC, and audits every delivery to every observer.

mod audit;
mod chaos;
mod gate;
mod observers;
mod record;
mod report;
mod senders;
mod stage;
mod system;
mod trace;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use throng_client::{ChannelId, Client, GroupId};
use tokio::task::JoinSet;

use self::audit::{ChannelTruth, Verdict, Watched};
use self::observers::Seen;
use self::record::Record;
pub use self::record::hash;
use self::report::{Percentiles, Report};
use self::stage::Stage;
use self::system::System;
use self::trace::Trace;
use super::admin::Admin;
use super::cluster_file::ClusterFile;
use super::failure::{Exit, Failure};
use super::sdk::{self, Sdk};

/// Clients that connect or ask at once while the stage is set.
const SETTING_AT_ONCE: usize = 64;

/// The arguments of `throng replay`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayArgs {
    /// The trace: JSON lines, gzip or plain
    trace: PathBuf,
    /// Folder of a running cluster
    #[arg(long, conflicts_with = "embedded", required_unless_present = "embedded")]
    cluster: Option<PathBuf>,
    /// Start a system for this replay, and stop it behind it
    #[arg(long)]
    embedded: bool,
    /// Edges of an embedded system
    #[arg(long, default_value_t = 2, requires = "embedded", value_parser = clap::value_parser!(u8).range(1..=16))]
    edges: u8,
    /// Relays of an embedded system; this version runs none
    #[arg(long, default_value_t = 0, requires = "embedded", value_parser = clap::value_parser!(u8).range(0..=0))]
    relays: u8,
    /// Play only so many messages
    #[arg(long)]
    limit: Option<usize>,
    /// Messages a second, or max
    #[arg(long, default_value = "max", value_parser = rate)]
    rate: Rate,
    /// Clients that watch all channels
    #[arg(long, default_value_t = 10)]
    observers: usize,
    /// Chooses habits of observers and times of faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write what crossed the SDK's delivery boundary into this folder
    #[arg(long)]
    record: Option<PathBuf>,
    /// How long one send, or the last deliveries, may take: 120s, 2m, 1500ms
    #[arg(long, default_value = "120s", value_parser = duration)]
    patience: Duration,
    /// Faults: leader-kill, edge-kill, core-restart, client-drop, client-rebind, client-freeze
    #[arg(long, value_name = "KIND=COUNT")]
    chaos: Vec<chaos::Order>,
    /// The group to play into
    #[arg(long, default_value = "community")]
    group: String,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
struct Rate(Option<u32>);

fn rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" => Ok(Rate(None)),
        other => match other.parse::<u32>() {
            Ok(rate) if rate > 0 => Ok(Rate(Some(rate))),
            _ => Err("messages a second, or max".to_owned()),
        },
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split]
        .parse()
        .map_err(|_| "a number and ms, s or m".to_owned())?;
    match &text[split..] {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err("a number and ms, s or m".to_owned()),
    }
}

/// Plays, audits, reports.
pub async fn run(args: ReplayArgs) -> Result<Exit, Failure> {
    let began = Instant::now();
    let trace = Trace::read(&args.trace, args.limit)?;
    let system = match &args.cluster {
        Some(dir) => System::Running(dir.clone()),
        None => System::embedded(args.edges).await?,
    };
    let outcome = play(&args, trace, system.dir().to_owned()).await;
    system.stop().await;
    let mut report = outcome?;
    report.wall_s = began.elapsed().as_secs_f64();
    report.print(args.json);
    Ok(report.exit())
}

async fn play(args: &ReplayArgs, trace: Trace, dir: PathBuf) -> Result<Report, Failure> {
    let file = ClusterFile::read(&dir)?;
    let sdk = Arc::new(Sdk::new(&file, args.patience)?);
    let record = args
        .record
        .as_deref()
        .map(Record::create)
        .transpose()?
        .map(Arc::new);
    let plan = chaos::Plan::new(&args.chaos, trace.lines.len(), args.seed);
    let habits = observers::habits(args.observers, trace.lines.len(), args.seed);
    let names: Vec<String> = (1..=args.observers).map(|n| format!("observer-{n:03}")).collect();
    let group = sdk::group(&args.group)?;
    let senders = set(&sdk, &trace, &group, &names).await?;
    let gate = gate::Gate::new(plan.places().first().copied());
    let admin = Admin::connect(&file).await?;
    let stage = Stage::new(dir, admin, trace, group, args.patience, gate, senders);
    let stage = Arc::new(stage);

    let mut watching = watch(&stage, &sdk, &names, &habits, record.as_ref()).await?;
    let faults = tokio::spawn(chaos::run(stage.clone(), plan, args.seed));
    let bar = bar(stage.trace.lines.len() as u64);
    let ack_times = senders::run(stage.clone(), record.clone(), args.rate.0, bar.clone()).await?;
    bar.finish_and_clear();
    let chaos = faults.await.map_err(|error| died(&error))??;
    stage.finish(heads(&stage));

    let mut seen = Vec::new();
    while let Some(one) = watching.join_next().await {
        seen.push(one.map_err(|error| died(&error))??);
    }
    if let Some(record) = &record {
        record.finish()?;
    }
    let mut report = summary(args, &stage, &seen, &ack_times);
    report.chaos = chaos;
    for client in stage.senders.values() {
        report.resumes += sdk::resumes(client);
    }
    stream::iter(stage.senders.values())
        .for_each_concurrent(SETTING_AT_ONCE, Client::close)
        .await;
    Ok(report)
}

/// Connects everybody, makes the group and its channels, and makes everybody a member.
async fn set(
    sdk: &Sdk,
    trace: &Trace,
    group: &GroupId,
    observers: &[String],
) -> Result<BTreeMap<String, Client>, Failure> {
    let users = trace.users();
    let connect = |user: String| async move { Ok((user.clone(), sdk.connect(&user, "replay").await?)) };
    let clients: BTreeMap<String, Client> = stream::iter(users)
        .map(connect)
        .buffer_unordered(SETTING_AT_ONCE)
        .try_collect()
        .await?;
    let Some(founder) = clients.values().next() else {
        return Ok(clients);
    };
    let refused = |what: &str, error: &throng_client::RequestError| sdk::refused(what, group.as_str(), error);
    sdk::found(founder, group).await?;
    for channel in trace.channels() {
        founder
            .create_channel(group, &channel)
            .await
            .map_err(|error| refused("a channel cannot be made", &error))?;
    }
    stream::iter(clients.values())
        .map(|client| async move { client.join(group).await })
        .buffer_unordered(SETTING_AT_ONCE)
        .try_collect::<Vec<()>>()
        .await
        .map_err(|error| refused("a user cannot join", &error))?;
    let enrol = |user: &String| {
        let user = user.clone();
        async move {
            let client = sdk.connect(&user, "enrolment").await?;
            let joined = client.join(group).await;
            client.close().await;
            joined.map_err(|error| refused("an observer cannot join", &error))
        }
    };
    stream::iter(observers)
        .map(enrol)
        .buffer_unordered(SETTING_AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(clients)
}

/// Starts the observers and waits until those that are there from the start have subscribed.
async fn watch(
    stage: &Arc<Stage>,
    sdk: &Arc<Sdk>,
    names: &[String],
    habits: &[observers::Habit],
    record: Option<&Arc<Record>>,
) -> Result<JoinSet<Result<Seen, Failure>>, Failure> {
    let places = stage
        .trace
        .lines
        .iter()
        .enumerate()
        .map(|(place, line)| (line.n, place));
    let place_of: Arc<BTreeMap<u64, usize>> = Arc::new(places.collect());
    let mut watching = JoinSet::new();
    let mut joins = Vec::new();
    for (name, habit) in names.iter().zip(habits) {
        let (joined, has_joined) = tokio::sync::oneshot::channel();
        joins.push(has_joined);
        let (stage, sdk, place_of) = (stage.clone(), sdk.clone(), place_of.clone());
        let (name, habit, record) = (name.clone(), *habit, record.cloned());
        watching.spawn(observers::watch(
            stage, sdk, name, habit, record, place_of, joined,
        ));
    }
    for join in joins {
        if join.await.is_err() {
            // The observer failed before it stood; its own failure says why.
            if let Some(ended) = watching.join_next().await {
                ended.map_err(|error| died(&error))??;
            }
        }
    }
    Ok(watching)
}

/// The last position of every channel, from the acks.
fn heads(stage: &Stage) -> BTreeMap<ChannelId, u64> {
    let mut heads = BTreeMap::new();
    for (place, line) in stage.trace.lines.iter().enumerate() {
        if let Some(ack) = stage.ack(place) {
            let head = heads.entry(line.ch.clone()).or_default();
            *head = ack.seq.max(*head);
        }
    }
    heads
}

fn summary(
    args: &ReplayArgs,
    stage: &Stage,
    seen: &[Seen],
    ack_times: &hdrhistogram::Histogram<u64>,
) -> Report {
    let mut times = senders::histogram();
    let mut verdict = Verdict::default();
    for seen in seen {
        // Both histograms have the same bounds.
        let _ = times.add(&seen.times);
    }
    for channel in stage.trace.channels() {
        let mut truth = ChannelTruth::default();
        for (place, line) in stage
            .trace
            .lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.ch == channel)
        {
            truth.messages.push((line.n, &line.u, stage.ack(place)));
        }
        let watched: Vec<&Watched> = seen
            .iter()
            .filter_map(|seen| seen.channels.get(&channel))
            .collect();
        verdict += audit::judge(&truth, &watched);
    }
    let acked = (0..stage.trace.lines.len())
        .filter(|place| stage.ack(*place).is_some())
        .count() as u64;
    let mut report = Report {
        group: args.group.clone(),
        sent: stage.trace.lines.len() as u64,
        acked,
        ack_ms: Percentiles::of(ack_times),
        observers: seen.len(),
        expected: 0,
        delivered: 0,
        lost: 0,
        duplicated: 0,
        reordered: 0,
        delivery_ms: Percentiles::of(&times),
        holes: seen.iter().map(|seen| seen.behind).sum(),
        resumes: seen.iter().map(|seen| seen.resumes).sum(),
        chaos: BTreeMap::new(),
        wall_s: 0.0,
    };
    report.judge(verdict);
    report
}

fn died(error: &tokio::task::JoinError) -> Failure {
    Failure::new(
        format!("a part of the replay died: {error}"),
        "replay",
        "report it with the lines above",
    )
}

/// Progress on stderr, when somebody looks.
fn bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} acked, {per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_durations_are_read_as_people_write_them() {
        assert_eq!(rate("max").map(|rate| rate.0), Ok(None));
        assert_eq!(rate("50").map(|rate| rate.0), Ok(Some(50)));
        assert!(rate("0").is_err() && rate("fast").is_err());
        assert_eq!(duration("120s"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1_500)));
        assert!(duration("soon").is_err() && duration("3 h").is_err());
    }
}
