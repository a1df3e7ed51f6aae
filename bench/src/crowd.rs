//! Very many connections on one cluster: what an idle one costs, and that all of them stay.
//!
//! Clients speak the protocol without the SDK and share UDP sockets, so that one process has room for
//! tens of thousands beside the servers. They come from networks of their own, as an edge's bounds on
//! the handshakes of one network ask of any crowd.

pub mod hold;
pub mod idle;
mod member;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use member::Member;
use throng_client::{ChannelId, GroupId};

use crate::fanout::load::in_turns;
use crate::fanout::load::throng::Factory;
use crate::fanout::systems::{Kind, Server};

/// The names of a crowd's groups begin with it.
const GROUP: &str = "crowd";
/// The one channel of each group.
const CHANNEL: &str = "general";

/// Where the cluster's program is.
#[derive(Debug, clap::Args)]
pub struct Program {
    /// The `throng` binary; the one beside this program if not given
    #[arg(long)]
    throng: Option<PathBuf>,
}

impl Program {
    /// Starts a cluster on all processors.
    fn start(&self) -> Result<Server> {
        let program = crate::fanout::throng(self.throng.as_deref())?;
        let program = Kind::Throng.program(&program).map_err(anyhow::Error::msg)?;
        Server::start(Kind::Throng, &program, &crate::fanout::machine::all()?)
    }
}

/// Members that connect before some of the others ping.
const CHUNK: usize = 200;
/// Members that connect between two words about it.
const TOLD_EVERY: usize = 10_000;
/// Between two pings of a member that waits for others to connect: well below what an edge takes for
/// silence.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Connects members until there are so many. Those who are there stay so, however long it takes: they
/// ping in turns, as people do who came at different times.
async fn gather<F>(crowd: &mut Vec<Member>, count: usize, mut connect: impl FnMut(usize) -> F) -> Result<()>
where
    F: Future<Output = Result<Member>> + Send + 'static,
{
    let (mut looked, mut turn) = (Instant::now(), 0);
    while crowd.len() < count {
        let begin = crowd.len();
        let more = in_turns(CHUNK.min(count - begin), |number| connect(begin + number)).await?;
        crowd.extend(more);
        let share = looked.elapsed().div_duration_f64(PING_EVERY).min(1.0);
        looked = Instant::now();
        for _ in 0..(crowd.len() as f64 * share).ceil() as usize {
            turn = (turn + 1) % crowd.len();
            crowd[turn].ping().await?;
        }
        if crowd.len().is_multiple_of(TOLD_EVERY) {
            eprintln!("{} connected", crowd.len());
        }
    }
    Ok(())
}

/// Makes groups with one channel each, and tells their names.
async fn groups(factory: &Factory, count: usize) -> Result<Vec<String>> {
    let owner = factory.client("owner").await?;
    let names: Vec<String> = (0..count).map(|number| format!("{GROUP}-{number}")).collect();
    in_turns(count, |number| {
        let (owner, name) = (owner.clone(), names[number].clone());
        async move {
            let (group, channel) = (GroupId::new(&name)?, ChannelId::new(CHANNEL)?);
            owner.create_group(&group).await?;
            owner
                .create_channel(&group, &channel)
                .await
                .context("making a channel")?;
            Ok(())
        }
    })
    .await?;
    Ok(names)
}
