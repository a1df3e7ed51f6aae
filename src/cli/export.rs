//! `throng export`: the committed log of a channel, read from a quorum, as JSON lines in order.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use serde::Serialize;
use throng_protocol::cluster::{ChannelInfo, Entry, FenceAt, Hole, Page};
use throng_protocol::ids::{MessageId, Seq, Ts, UserNumber};

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

/// A line of an entry. `target` is for changes, which name the entry they change; `len` and `hash` are of the body
/// that is shown now, which of a change is its target's.
#[derive(Debug, Serialize)]
struct EntryLine<'a> {
    seq: u64,
    ts: u64,
    id: String,
    kind: &'a str,
    /// None for the app itself, whose name a user may have as well.
    sender: Option<&'a str>,
    client_id: u64,
    target: Option<u64>,
    version: u64,
    hole: Option<&'a str>,
    len: usize,
    hash: String,
}

/// A line of a fence. It has no position of its own: `seq` and `ts` are those of the entry it stands
/// behind (0 before the first), `target` is whom it touches.
#[derive(Debug, Serialize)]
struct FenceLine<'a> {
    seq: u64,
    ts: u64,
    id: Option<&'a str>,
    kind: &'a str,
    sender: Option<&'a str>,
    client_id: Option<u64>,
    target: &'a str,
    len: usize,
    hash: Option<&'a str>,
    fence: u64,
    fence_kind: &'a str,
    at_ms: u64,
}

/// Prints the log.
pub async fn run(args: ExportArgs) -> Result<Exit, Failure> {
    let file = ClusterFile::read(&args.cluster)?;
    let admin = Admin::connect(&file).await?;
    let info = admin.channel(&file.app_id, &args.group, &args.channel).await?;
    let mut printer = Printer {
        out: BufWriter::new(std::io::stdout().lock()),
        info: &info,
        last_ts: Ts(0),
    };
    admin
        .read_log(&info, |page| printer.page(page).map_err(|error| stdout(&error)))
        .await?;
    printer.out.flush().map_err(|error| stdout(&error))?;
    Ok(Exit::Holds)
}

/// Prints pages as they come.
struct Printer<'a, W: Write> {
    out: W,
    info: &'a ChannelInfo,
    /// The time stamp of the last entry printed.
    last_ts: Ts,
}

impl<W: Write> Printer<'_, W> {
    fn page(&mut self, page: &Page) -> std::io::Result<()> {
        let mut fences = page.fences.iter().peekable();
        let mut last = page.prev;
        for entry in &page.entries {
            while let Some(fence) = fences.next_if(|fence| fence.after < entry.seq) {
                self.fence(fence, last)?;
            }
            self.entry(page, entry)?;
            last = entry.seq;
        }
        fences.try_for_each(|fence| self.fence(fence, last))
    }

    fn entry(&mut self, page: &Page, entry: &Entry) -> std::io::Result<()> {
        self.last_ts = entry.ts;
        let id = MessageId {
            channel: self.info.number,
            epoch: page.epoch,
            seq: entry.seq,
        };
        self.line(&EntryLine {
            seq: entry.seq.0,
            ts: entry.ts.0,
            id: id.to_string(),
            kind: entry.kind.name(),
            sender: (entry.sender_number != UserNumber(0)).then(|| entry.sender.as_str()),
            client_id: entry.client_message_id.0,
            target: (entry.target != Seq(0)).then_some(entry.target.0),
            version: entry.version.0,
            hole: (entry.hole != Hole::None).then_some(entry.hole.name()),
            len: entry.body.len(),
            hash: hash(&entry.body),
        })
    }

    fn fence(&mut self, fence: &FenceAt, last: Seq) -> std::io::Result<()> {
        debug_assert_eq!(fence.after, last, "fences come in order, at their places");
        self.line(&FenceLine {
            seq: fence.after.0,
            ts: self.last_ts.0,
            id: None,
            kind: "fence",
            sender: None,
            client_id: None,
            target: fence.user.as_str(),
            len: 0,
            hash: None,
            fence: fence.version,
            fence_kind: fence.kind.name(),
            at_ms: fence.at_ms,
        })
    }

    fn line(&mut self, line: &impl Serialize) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }
}

fn stdout(error: &std::io::Error) -> Failure {
    Failure::new(
        format!("the log cannot be printed: {error}"),
        "stdout",
        "give it somewhere to go",
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use throng_protocol::cluster::{EntryKind, FenceKind};
    use throng_protocol::ids::{
        AppId, ChannelId, ChannelNumber, ClientMessageId, Epoch, GroupId, ShardId, UserId, UserNumber,
    };

    use super::*;

    fn entry(seq: u64) -> Entry {
        Entry {
            seq: Seq(seq),
            ts: Ts(seq * 10),
            kind: EntryKind::Message,
            sender_number: UserNumber(1),
            sender: UserId::new("ann").expect("valid"),
            client_message_id: ClientMessageId(seq),
            body: Bytes::from_static(b"abc"),
            target: Seq(0),
            version: Seq(0),
            hole: Hole::None,
            expansion: Vec::new(),
            removed: Vec::new(),
            keys_elsewhere: false,
        }
    }

    fn fence(after: u64, version: u64) -> FenceAt {
        FenceAt {
            after: Seq(after),
            version,
            number: UserNumber(2),
            user: UserId::new("bob").expect("valid"),
            kind: FenceKind::Kick,
            at_ms: 5,
        }
    }

    #[test]
    fn fences_stand_behind_the_entries_they_follow() {
        let info = ChannelInfo {
            app: AppId::new("a").expect("valid"),
            group: GroupId::new("g").expect("valid"),
            channel: ChannelId::new("c").expect("valid"),
            number: ChannelNumber(7),
            shard: ShardId(101),
        };
        let mut printer = Printer {
            out: Vec::new(),
            info: &info,
            last_ts: Ts(0),
        };
        let page = |prev, entries: Vec<Entry>, fences| Page {
            epoch: Epoch(1),
            prev: Seq(prev),
            entries,
            head: Seq(3),
            fenced: 9,
            fences,
        };
        let first = page(0, vec![entry(1), entry(2)], vec![fence(0, 4), fence(1, 5)]);
        let by_app = Entry {
            sender_number: UserNumber(0),
            ..entry(3)
        };
        let last = page(2, vec![by_app], vec![fence(2, 6), fence(3, 7), fence(3, 8)]);
        printer.page(&first).expect("written");
        printer.page(&last).expect("written");
        let text = String::from_utf8(printer.out).expect("text");
        let shown: Vec<(u64, u64, u64)> = text
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).expect("json");
                let number = |field: &str| line[field].as_u64().unwrap_or_default();
                (number("seq"), number("ts"), number("fence"))
            })
            .collect();
        let expected = [
            (0, 0, 4),
            (1, 10, 0),
            (1, 10, 5),
            (2, 20, 0),
            (2, 20, 6),
            (3, 30, 0),
            (3, 30, 7),
            (3, 30, 8),
        ];
        assert_eq!(shown, expected);
        // The app has a name as users have, and is none of them.
        let senders: Vec<&str> = text.lines().filter(|line| !line.contains("fence_kind")).collect();
        assert!(senders[0].contains(r#""sender":"ann""#) && senders[2].contains(r#""sender":null"#));
    }
}
