//! `throng chat`: a channel, line by line.

use std::path::PathBuf;
use std::time::Duration;

use throng_client::{ChannelId, Client, Direction, From, GroupId, Seq};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;

use super::cluster_file::ClusterFile;
use super::failure::{Exit, Failure};
use super::sdk::{self, Sdk};
use super::signals::Signals;
use super::tell;

/// Lines of history shown at the start: a terminal's worth.
const HISTORY: u32 = 20;

/// How long a line is retried before chat says that it was not sent.
const PATIENCE: Duration = Duration::from_secs(120);

/// The arguments of `throng chat`.
#[derive(Debug, Clone, clap::Args)]
pub struct ChatArgs {
    /// Folder of a running cluster
    #[arg(long)]
    cluster: PathBuf,
    /// Who speaks
    #[arg(long)]
    user: String,
    /// The group; made if it is not there
    #[arg(long)]
    group: String,
    /// The channel; made if it is not there
    #[arg(long)]
    channel: String,
    /// A token to use instead of one signed with the cluster's secret
    #[arg(long)]
    token: Option<String>,
}

/// Chats until the input ends or a signal comes.
pub async fn run(args: ChatArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::listen(false)?;
    let (group, channel) = (sdk::group(&args.group)?, sdk::channel(&args.channel)?);
    let sdk = Sdk::new(&ClusterFile::read(&args.cluster)?, PATIENCE)?;
    let client = match &args.token {
        Some(token) => sdk.connect_with_token(token, "chat").await?,
        None => sdk.connect(&args.user, "chat").await?,
    };
    sdk::found(&client, &group).await?;
    let made = client.create_channel(&group, &channel).await;
    made.map_err(|error| sdk::refused("the channel cannot be made", &args.channel, &error))?;
    let outcome = tokio::select! {
        outcome = converse(&client, &group, &channel) => outcome,
        () = signals.next() => Ok(()),
    };
    client.close().await;
    outcome.map(|()| Exit::Holds)
}

async fn converse(client: &Client, group: &GroupId, channel: &ChannelId) -> Result<(), Failure> {
    let failed = |error: &throng_client::RequestError| {
        sdk::refused("the channel cannot be read", channel.as_str(), error)
    };
    // Subscribed first, so that nothing falls between history and what comes live.
    let mut live = client
        .subscribe(group, channel, From::Head)
        .await
        .map_err(|error| failed(&error))?;
    let end = Seq(live.start().seq.0.saturating_add(1));
    let page = client
        .history(group, channel, end, Direction::Before, HISTORY)
        .await
        .map_err(|error| failed(&error))?;
    for entry in &page.entries {
        show(entry.seq, entry.sender.as_str(), &entry.body);
    }
    tell::note(format_args!(
        "{group}/{channel}: a line is a message, Ctrl-D ends"
    ));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut sends = JoinSet::new();
    loop {
        tokio::select! {
            delivery = live.recv() => match delivery {
                Some(delivery) => show(delivery.seq, delivery.sender.as_str(), &delivery.body),
                None => return Err(Failure::new("the session has ended", channel.as_str(), "start chat again")),
            },
            line = lines.next_line() => match line {
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => drop(sends.spawn(speak(client.clone(), group.clone(), channel.clone(), line))),
                // What was typed before the end is still sent.
                _ => break,
            },
            Some(_) = sends.join_next() => {}
        }
    }
    while sends.join_next().await.is_some() {}
    Ok(())
}

/// Sends a line beside the conversation; it shows up when it is delivered.
async fn speak(client: Client, group: GroupId, channel: ChannelId, line: String) {
    if let Err(error) = client.send(&group, &channel, line.clone()).await {
        tell::note(format_args!("not sent: {line}\n     why: {error}"));
    }
}

fn show(seq: Seq, sender: &str, body: &[u8]) {
    // A body is anybody's bytes; what could steer the terminal is shown, not obeyed.
    let text: String = String::from_utf8_lossy(body).chars().flat_map(visible).collect();
    tell::say(format_args!("{seq:>6}  {sender}: {text}"));
}

fn visible(c: char) -> Vec<char> {
    if c.is_control() {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_letters_stay() {
        let text: String = "a\u{1b}[2Jé".chars().flat_map(visible).collect();
        assert_eq!(text, "a\\u{1b}[2Jé");
    }
}
