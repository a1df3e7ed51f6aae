//! `throng export`: the committed log of a channel, read from a quorum, as JSON lines in order.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use serde::Serialize;
use throng_protocol::ids::Seq;
use throng_protocol::limits::PAGE_ENTRIES_MAX;

use super::admin::Admin;
use super::cluster_file::ClusterFile;
use super::failure::{Exit, Failure};
use super::replay::hash;

/// The arguments of `throng export`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    /// Folder of a running cluster
    #[arg(long)]
    cluster: PathBuf,
    /// The group
    #[arg(long)]
    group: String,
    /// The channel
    #[arg(long)]
    channel: String,
}

/// One line. `target` is for changes, which name the entry they change.
#[derive(Debug, Serialize)]
struct Line<'a> {
    seq: u64,
    ts: u64,
    id: String,
    kind: &'a str,
    sender: &'a str,
    client_id: u64,
    target: Option<u64>,
    len: usize,
    hash: String,
}

/// Prints the log.
pub async fn run(args: ExportArgs) -> Result<Exit, Failure> {
    let file = ClusterFile::read(&args.cluster)?;
    let admin = Admin::connect(&file).await?;
    let info = admin.channel(&file.app_id, &args.group, &args.channel).await?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut position = Seq(0);
    loop {
        let page = admin
            .page(info.shard, info.number, position, PAGE_ENTRIES_MAX)
            .await?;
        for entry in &page.entries {
            let id = throng_protocol::ids::MessageId {
                channel: info.number,
                epoch: page.epoch,
                seq: entry.seq,
            };
            let line = Line {
                seq: entry.seq.0,
                ts: entry.ts.0,
                id: id.to_string(),
                kind: entry.kind.name(),
                sender: entry.sender.as_str(),
                client_id: entry.client_message_id.0,
                target: None,
                len: entry.body.len(),
                hash: hash(&entry.body),
            };
            let written = serde_json::to_writer(&mut out, &line).map_err(std::io::Error::from);
            written
                .and_then(|()| out.write_all(b"\n"))
                .map_err(|error| stdout(&error))?;
        }
        match page.entries.last() {
            Some(last) => position = last.seq,
            None => break,
        }
    }
    out.flush().map_err(|error| stdout(&error))?;
    Ok(Exit::Holds)
}

fn stdout(error: &std::io::Error) -> Failure {
    Failure::new(
        format!("the log cannot be printed: {error}"),
        "stdout",
        "give it somewhere to go",
    )
}
