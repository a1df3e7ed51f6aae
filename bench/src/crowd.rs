//! Very many connections on one cluster: what an idle one costs, and that all of them stay.
//!
//! Clients speak the protocol without the SDK and share UDP sockets, so that one process has room for
//! tens of thousands beside the servers. They come from networks of their own, as an edge's bounds on
//! the handshakes of one network ask of any crowd.

pub mod hold;
pub mod idle;
mod member;

use std::path::PathBuf;

use anyhow::{Context, Result};
use throng_client::{ChannelId, GroupId};

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
        let program = match &self.throng {
            Some(path) => path.clone(),
            None => crate::fanout::beside_me("throng")?,
        };
        let program = Kind::Throng.program(&program).map_err(anyhow::Error::msg)?;
        Server::start(Kind::Throng, &program, &crate::fanout::machine::all()?)
    }
}

/// Makes groups with one channel each, and tells their names.
async fn groups(factory: &Factory, count: usize) -> Result<Vec<String>> {
    let owner = factory.client("owner").await?;
    let names: Vec<String> = (0..count).map(|number| format!("{GROUP}-{number}")).collect();
    crate::fanout::load::in_turns(count, |number| {
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
