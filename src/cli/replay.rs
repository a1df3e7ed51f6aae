//! `throng replay`: plays a trace of real chat as one group through a running cluster, every user a
//! session of its own over QUIC, and audits every delivery to every observer.

mod audit;
mod changes;
mod chaos;
mod fences;
mod gate;
mod kicks;
mod members;
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
use throng_client::{Client, GroupId};
use tokio::task::JoinSet;

use self::audit::{ChannelTruth, Verdict, Watched};
use self::members::{Given, Member};
use self::observers::Seen;
use self::record::Record;
pub use self::record::hash;
use self::report::{KickReport, Percentiles, Report};
use self::stage::{Setting, Stage};
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
    /// Kick members while they send, and let them in again
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    kicks: usize,
    /// Behind each message, with this probability, somebody changes an earlier one
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.0, value_parser = probability, conflicts_with = "record")]
    changes: f64,
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

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(chance) if (0.0..=1.0).contains(&chance) => Ok(chance),
        _ => Err("a number from 0 to 1".to_owned()),
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
    let kick_places = kicks::places(args.kicks, trace.lines.len(), args.seed);
    let cast = set(&sdk, &trace, &group, &names, args).await?;
    let gate = gate::Gate::new(plan.places().first().copied());
    let kick_gate = gate::Gate::new(kick_places.first().copied());
    let setting = Setting {
        dir,
        admin: Admin::connect(&file).await?,
        app: file.app_id.clone(),
        trace,
        group,
        patience: args.patience,
        senders: cast.senders,
        members: cast.members,
        founder: cast.founder.clone(),
        changes: changes::Changes::new(args.changes, args.seed),
    };
    let stage = Arc::new(Stage::new(setting, gate, kick_gate));

    let mut watching = watch(&stage, &sdk, &names, &habits, record.as_ref()).await?;
    let members = watch_members(&stage, record.as_ref()).await?;
    let faults = tokio::spawn(chaos::run(stage.clone(), plan, args.seed));
    let kicking = kicks::run(
        stage.clone(),
        cast.founder,
        kick_places,
        args.seed,
        record.clone(),
    );
    let kicking = tokio::spawn(kicking);
    let bar = bar(stage.trace.lines.len() as u64);
    let ack_times = senders::run(stage.clone(), record.clone(), args.rate.0, bar.clone()).await?;
    bar.finish_and_clear();
    let chaos = faults.await.map_err(|error| died(&error))??;
    let kicked = kicking.await.map_err(|error| died(&error))??;
    stage.finish(stage.heads());

    let mut seen = Vec::new();
    while let Some(one) = watching.join_next().await {
        seen.push(one.map_err(|error| died(&error))??);
    }
    let given = members.finish().await?;
    if let Some(record) = &record {
        record.finish()?;
    }
    let mut report = summary(args, &stage, &seen, &given, &ack_times);
    report.chaos = chaos;
    if args.kicks > 0 {
        report.kicks = Some(judge_kicks(args, &stage, &kicked, &given).await?);
    }
    for client in stage.clients() {
        report.resumes += sdk::resumes(client);
    }
    stream::iter(stage.clients())
        .for_each_concurrent(SETTING_AT_ONCE, Client::close)
        .await;
    Ok(report)
}

/// Who plays.
struct Cast {
    founder: Client,
    senders: BTreeMap<String, Client>,
    members: BTreeMap<String, Arc<Member>>,
}

/// Connects everybody, makes the group and its channels, and makes everybody a member.
async fn set(
    sdk: &Sdk,
    trace: &Trace,
    group: &GroupId,
    observers: &[String],
    args: &ReplayArgs,
) -> Result<Cast, Failure> {
    let mut users = trace.users();
    // A trace has a message at least.
    let founder = users.keys().next().cloned().unwrap_or_default();
    let chosen = kicks::members(&users, &founder, args.kicks, args.seed);
    if args.kicks > 0 && chosen.is_empty() {
        let what = "there is nobody to kick: the founder of the group is the only user";
        return Err(Failure::usage(what, "--kicks", "give a trace with more users"));
    }
    users.retain(|user, _| !chosen.contains(user));
    let connect = |user: String| async move { Ok((user.clone(), sdk.connect(&user, "replay").await?)) };
    let clients: BTreeMap<String, Client> = stream::iter(users.into_keys())
        .map(connect)
        .buffer_unordered(SETTING_AT_ONCE)
        .try_collect()
        .await?;
    let founder = &clients[&founder];
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
    let member = |user: String| async move {
        let devices = [
            sdk.connect_at(0, &user, "device-1").await?,
            sdk.connect_at(1, &user, "device-2").await?,
        ];
        let joined = devices[0].join(group).await;
        joined.map_err(|error| refused("a user cannot join", &error))?;
        Ok::<_, Failure>((user.clone(), Arc::new(Member::new(user, devices))))
    };
    let members: BTreeMap<String, Arc<Member>> = stream::iter(chosen)
        .map(member)
        .buffer_unordered(SETTING_AT_ONCE)
        .try_collect()
        .await?;
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
    Ok(Cast {
        founder: founder.clone(),
        senders: clients,
        members,
    })
}

/// Starts the observers and waits until those that are there from the start have subscribed.
async fn watch(
    stage: &Arc<Stage>,
    sdk: &Arc<Sdk>,
    names: &[String],
    habits: &[observers::Habit],
    record: Option<&Arc<Record>>,
) -> Result<JoinSet<Result<Seen, Failure>>, Failure> {
    let place_of = stage.trace.place_of();
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

/// The members' devices at work.
struct Watchers(Vec<(String, tokio::task::JoinHandle<Result<Given, Failure>>)>);

/// Starts the members' devices and waits until all have subscribed.
async fn watch_members(stage: &Arc<Stage>, record: Option<&Arc<Record>>) -> Result<Watchers, Failure> {
    let place_of = stage.trace.place_of();
    let mut tasks = Vec::new();
    for member in stage.members.values() {
        for device in 0..members::DEVICES {
            let (stage, record) = (stage.clone(), record.cloned());
            let watching = members::watch(stage, member.clone(), device, record, place_of.clone());
            tasks.push((member.user.clone(), tokio::spawn(watching)));
        }
    }
    let standing = futures_util::future::join_all(stage.members.values().map(|member| member.standing()));
    if tokio::time::timeout(stage.patience, standing).await.is_err() {
        // A device that failed says why.
        for (_, task) in tasks.into_iter().filter(|(_, task)| task.is_finished()) {
            task.await.map_err(|error| died(&error))??;
        }
        let what = "the devices of members could not subscribe in time";
        return Err(Failure::new(what, "replay", "look into the edges' logs"));
    }
    Ok(Watchers(tasks))
}

impl Watchers {
    /// What each member's devices were given.
    async fn finish(self) -> Result<BTreeMap<String, Vec<Given>>, Failure> {
        let mut given: BTreeMap<String, Vec<Given>> = BTreeMap::new();
        for (user, task) in self.0 {
            let one = task.await.map_err(|error| died(&error))??;
            given.entry(user).or_default().push(one);
        }
        Ok(given)
    }
}

/// The verdict over all kicks, against the fences that the committed logs have.
async fn judge_kicks(
    args: &ReplayArgs,
    stage: &Stage,
    kicked: &kicks::Outcome,
    given: &BTreeMap<String, Vec<Given>>,
) -> Result<KickReport, Failure> {
    let places = kicks::exported(stage).await?;
    let mut violations = 0;
    for (user, kicks) in &kicked.kicks {
        let of = |(_, line): &(usize, &trace::Line)| line.u == *user;
        let messages = stage.trace.lines.iter().enumerate().filter(of);
        let stored = messages.filter_map(|(place, line)| {
            Some(fences::Stored {
                channel: line.ch.clone(),
                seq: stage.ack(place)?.seq,
                acked_us: stage.acked_us(place),
            })
        });
        let stored: Vec<fences::Stored> = stored.collect();
        let devices = given.get(user).map(Vec::as_slice).unwrap_or_default();
        let stays: Vec<&[fences::Stay]> = devices.iter().map(|device| device.stays.as_slice()).collect();
        violations += fences::violations(kicks, &places, &stored, &stays);
    }
    Ok(KickReport {
        asked: args.kicks as u64,
        kicks: kicked.count(),
        kicks_inflight: kicked.inflight,
        kicks_pending: kicked.pending,
        fence_violations: violations,
    })
}

fn summary(
    args: &ReplayArgs,
    stage: &Stage,
    seen: &[Seen],
    given: &BTreeMap<String, Vec<Given>>,
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
        truth.changes = stage.changes.in_channel(&channel);
        let stays = given.values().flatten().flat_map(|device| &device.stays);
        let watched: Vec<&Watched> = seen
            .iter()
            .map(|seen| &seen.channels)
            .chain(stays)
            .filter_map(|channels| channels.get(&channel))
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
        holes: seen.iter().map(|seen| seen.behind).sum::<u64>()
            + given.values().flatten().map(|device| device.behind).sum::<u64>(),
        resumes: seen.iter().map(|seen| seen.resumes).sum(),
        chaos: BTreeMap::new(),
        kicks: None,
        changes: stage.changes.any().then(|| stage.changes.judge(stage, seen)),
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
        assert_eq!(probability("0.2"), Ok(0.2));
        assert!(probability("1.1").is_err() && probability("often").is_err());
        assert!(rate("0").is_err() && rate("fast").is_err());
        assert_eq!(duration("120s"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1_500)));
        assert!(duration("soon").is_err() && duration("3 h").is_err());
    }
}
