//! The load: all publishers and subscribers of a run, in a process of its own.
//!
//! It connects, sends for a second what does not count, says `ready`, waits for `go`, sends every
//! message when it is due, and says what arrived. The clients of peers are written here, down to what a
//! subscriber needs: a library for each would bring its own buffering and its own cost to the side that
//! must not be what is measured.

mod centrifugo;
mod mqtt;
mod nats;
pub mod quic;
pub mod throng;
mod tls;
pub mod wire;

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::meter::{Meter, Seen};
use super::scenario::Scenario;

/// How long deliveries may take after the last message was due.
const GRACE: Duration = Duration::from_secs(15);

/// How long everybody may take to connect and to get the first messages: very many handshakes take
/// their time.
const READY_TIMEOUT: Duration = Duration::from_secs(300);

/// Handshakes at a time: as many as a server answers without a Retry.
pub const CONNECTING_MAX: usize = 32;

/// The topic or subject of everything, and what the names of groups begin with.
pub const TOPIC: &str = "fanout";

/// Where the load goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Target {
    Throng { cluster: PathBuf },
    Quinn { addr: SocketAddr, ca: PathBuf },
    Mqtt { addr: SocketAddr, ca: PathBuf, qos: u8 },
    Nats { addr: SocketAddr, ca: PathBuf },
    Centrifugo { addr: SocketAddr, ca: PathBuf },
}

/// A whole order for a load process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub scenario: Scenario,
    pub target: Target,
}

/// The arguments of the load process.
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// What to do, as JSON
    order: String,
}

/// Who sends.
enum Publisher {
    Throng(throng::Publisher),
    Quinn(quic::Publisher),
    Mqtt(mqtt::Publisher),
    Nats(Box<nats::Publisher>),
    Centrifugo(Box<centrifugo::Publisher>),
}

impl Publisher {
    async fn publish(&mut self, group: usize, body: Bytes) -> Result<()> {
        match self {
            Self::Throng(publisher) => publisher.publish(group, body),
            Self::Quinn(publisher) => publisher.publish(body).await,
            Self::Mqtt(publisher) => publisher.publish(&body).await,
            Self::Nats(publisher) => publisher.publish(&body).await,
            Self::Centrifugo(publisher) => publisher.publish(&body).await,
        }
    }

    /// Fails if something that was published was not taken.
    async fn finish(self) -> Result<()> {
        match self {
            Self::Throng(publisher) => publisher.finish().await,
            Self::Quinn(_) | Self::Mqtt(_) | Self::Nats(_) | Self::Centrifugo(_) => Ok(()),
        }
    }
}

/// Runs the load. One thread: what it costs stays on the processors it was started on.
pub fn run(args: &LoadArgs) -> Result<()> {
    let order: Order = serde_json::from_str(&args.order).context("reading the order")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let meter = Meter::new(order.scenario)?;
        let connected = tokio::time::timeout(READY_TIMEOUT, ready(&order, &meter)).await;
        let mut publishers = connected.context("not everybody got the first messages in time")??;
        say("ready")?;
        // Nothing else goes on meanwhile.
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        ensure!(line.trim() == "go", "whoever started this load is gone");
        let seen = measure(&order.scenario, &meter, &mut publishers).await?;
        for publisher in publishers {
            publisher.finish().await?;
        }
        say(&serde_json::to_string(&seen)?)
    })
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("writing")
}

async fn ready(order: &Order, meter: &Arc<Meter>) -> Result<Vec<Publisher>> {
    let scenario = &order.scenario;
    let mut publishers: Vec<Publisher> = match &order.target {
        Target::Throng { cluster } => throng::connect(scenario, cluster, meter)
            .await?
            .into_iter()
            .map(Publisher::Throng)
            .collect(),
        Target::Quinn { addr, ca } => quic::connect(scenario, *addr, ca, meter)
            .await?
            .into_iter()
            .map(Publisher::Quinn)
            .collect(),
        Target::Mqtt { addr, ca, qos } => mqtt::connect(scenario, *addr, ca, *qos, meter)
            .await?
            .into_iter()
            .map(Publisher::Mqtt)
            .collect(),
        Target::Nats { addr, ca } => nats::connect(scenario, *addr, ca, meter)
            .await?
            .into_iter()
            .map(|publisher| Publisher::Nats(Box::new(publisher)))
            .collect(),
        Target::Centrifugo { addr, ca } => centrifugo::connect(scenario, *addr, ca, meter)
            .await?
            .into_iter()
            .map(|publisher| Publisher::Centrifugo(Box::new(publisher)))
            .collect(),
    };
    let (count, began) = (scenario.rate.max(u32::try_from(scenario.groups)?), Instant::now());
    for message in 0..count {
        tokio::time::sleep_until((began + scenario.due(message)).into()).await;
        let turn = message as usize % publishers.len();
        let group = scenario.group_of(message as usize);
        publishers[turn].publish(group, meter.warm_up(message)).await?;
    }
    meter.warmed(count).await;
    Ok(publishers)
}

async fn measure(scenario: &Scenario, meter: &Meter, publishers: &mut [Publisher]) -> Result<Seen> {
    let began = meter.begin();
    for message in 0..scenario.messages() {
        tokio::time::sleep_until((began + scenario.due(message)).into()).await;
        let turn = message as usize % publishers.len();
        let group = scenario.group_of(message as usize);
        publishers[turn].publish(group, meter.body(message)).await?;
    }
    // What is missing then is missing; the figures say so.
    let _ = tokio::time::timeout(GRACE, meter.complete()).await;
    Ok(meter.seen())
}

/// Connects many, some at a time; what is made is in the order of the numbers.
pub async fn in_turns<T, F>(count: usize, mut connect: impl FnMut(usize) -> F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (mut running, mut made) = (tokio::task::JoinSet::new(), Vec::with_capacity(count));
    for number in 0..count {
        if running.len() >= CONNECTING_MAX
            && let Some(one) = running.join_next().await
        {
            made.push(one??);
        }
        let connecting = connect(number);
        running.spawn(async move { Ok::<_, anyhow::Error>((number, connecting.await?)) });
    }
    while let Some(one) = running.join_next().await {
        made.push(one??);
    }
    made.sort_by_key(|(number, _)| *number);
    Ok(made.into_iter().map(|(_, one)| one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_made_is_in_order_although_the_last_is_ready_first() {
        let made = in_turns(100, |number| async move {
            for _ in number..100 {
                tokio::task::yield_now().await;
            }
            Ok(number)
        });
        assert_eq!(made.await.unwrap(), (0..100).collect::<Vec<_>>());
    }
}
