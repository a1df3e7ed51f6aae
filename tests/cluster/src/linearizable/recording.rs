//! What happened in a round, as it was recorded: who asked for what, when and with which answer, the
//! faults, and the logs at the end. In a file it is JSON lines, so that it can be judged again.
//!
//! Times are microseconds of one monotonic clock since the round began.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

/// A user, by number; user 0 made the group and is a member throughout.
pub type UserIndex = usize;

/// A whole round.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recording {
    /// What it was.
    pub head: Head,
    /// What was asked, in the order of asking.
    pub asked: Vec<Asked>,
    /// Leaders that were killed.
    pub kills: Vec<Kill>,
    /// Other faults.
    pub faults: Vec<Fault>,
    /// The logs when all was over, by channel.
    pub logs: Vec<Vec<Stored>>,
}

/// What a round was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    /// The seed of every choice.
    pub seed: u64,
    /// How many users there were.
    pub users: usize,
    /// The channels' names.
    pub channels: Vec<String>,
    /// What kept the round from its end, if something did.
    pub stopped: Option<String>,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Who asked.
    pub user: UserIndex,
    /// Through which edge, from 0.
    pub edge: usize,
    /// When.
    pub from_us: u64,
    /// When it was answered; nothing if it never was.
    pub to_us: Option<u64>,
    /// What for.
    pub ask: Ask,
    /// The answer.
    pub answer: Answer,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// To store a message.
    Send {
        /// The channel, by place.
        channel: usize,
        /// The sender's key.
        key: u64,
        /// The hash of the body.
        body: u64,
    },
    /// To show a page of a log.
    Read {
        /// The channel, by place.
        channel: usize,
        /// The entry behind which the page begins; the newest page otherwise.
        behind: Option<u64>,
    },
    /// To become a member.
    Join,
    /// To be a member no more.
    Leave,
    /// To remove a member.
    Kick {
        /// Whom.
        user: UserIndex,
    },
}

impl Ask {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Send { .. } => "send",
            Self::Read { .. } => "read",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Kick { .. } => "kick",
        }
    }

    /// The channel it is about, if it is about one alone.
    pub fn channel(&self) -> Option<usize> {
        match self {
            Self::Send { channel, .. } | Self::Read { channel, .. } => Some(*channel),
            Self::Join | Self::Leave | Self::Kick { .. } => None,
        }
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The message is stored.
    Sent {
        /// Where.
        seq: u64,
    },
    /// A page of the log.
    Page {
        /// The last entry of the log.
        head: u64,
        /// The entries shown.
        shown: Vec<Stored>,
    },
    /// The membership is as it was asked for.
    Done,
    /// The member is removed.
    Kicked {
        /// Channels that do not know yet.
        pending: Vec<String>,
        /// How many more.
        more: u32,
    },
    /// Refused: the user is no member.
    NotMember,
    /// Refused for another reason, and not carried out.
    Refused {
        /// The protocol's code.
        code: u16,
    },
    /// Nobody knows.
    Unknown {
        /// What the client was told.
        text: String,
    },
}

impl Answer {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sent { .. } | Self::Page { .. } | Self::Done | Self::Kicked { .. } => "done",
            Self::NotMember => "not_member",
            Self::Refused { .. } => "refused",
            Self::Unknown { .. } => "unknown",
        }
    }
}

/// An entry of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its position.
    pub seq: u64,
    /// Who sent it; nobody if the name is none of the round's users.
    pub user: Option<UserIndex>,
    /// The sender's key.
    pub key: u64,
    /// The hash of the body.
    pub body: u64,
}

/// A leader that was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// The node.
    pub node: u64,
    /// Before the signal.
    pub at_us: u64,
    /// When the process was gone.
    pub gone_us: u64,
    /// What it led.
    pub led: Vec<Led>,
}

/// A channel whose shard a node led.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    /// The channel, by place.
    pub channel: usize,
    /// The term it led in.
    pub term: u64,
    /// The term when the shard was served again.
    pub term_after: u64,
}

/// Another fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its kind.
    pub kind: String,
    /// When it began.
    pub at_us: u64,
    /// When it was mended.
    pub to_us: u64,
}

/// A line of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Round(Head),
    Asked(Asked),
    Kill(Kill),
    Fault(Fault),
    Log(Vec<Stored>),
}

impl Recording {
    /// Writes it to a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut out = BufWriter::new(file);
        let lines = std::iter::once(Line::Round(self.head.clone()))
            .chain(self.asked.iter().cloned().map(Line::Asked))
            .chain(self.kills.iter().cloned().map(Line::Kill))
            .chain(self.faults.iter().cloned().map(Line::Fault))
            .chain(self.logs.iter().cloned().map(Line::Log));
        for line in lines {
            serde_json::to_writer(&mut out, &line).context("writing a history")?;
            out.write_all(b"\n").context("writing a history")?;
        }
        out.flush().context("writing a history")
    }

    /// Reads what [`Self::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let mut recording = Self::default();
        let mut head = None;
        for (line, number) in BufReader::new(file).lines().zip(1..) {
            let line = line.context("reading a history")?;
            let line =
                serde_json::from_str(&line).with_context(|| format!("line {number} of the history"))?;
            match line {
                Line::Round(round) => head = Some(round),
                Line::Asked(asked) => recording.asked.push(asked),
                Line::Kill(kill) => recording.kills.push(kill),
                Line::Fault(fault) => recording.faults.push(fault),
                Line::Log(log) => recording.logs.push(log),
            }
        }
        recording.head = head.ok_or_else(|| anyhow!("the history does not say which round it is of"))?;
        ensure!(
            recording.logs.len() == recording.head.channels.len(),
            "the history has the logs of {} of {} channels",
            recording.logs.len(),
            recording.head.channels.len()
        );
        Ok(recording)
    }
}
