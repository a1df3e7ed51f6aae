//! A trace of real chat: who spoke when, where, in reply to what, and how much.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use throng_client::ChannelId;

use crate::cli::failure::Failure;

/// One message of a trace; fields beyond these are not needed here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Line {
    /// Position in the trace; the message's `client_id`.
    pub n: u64,
    /// The channel.
    pub ch: ChannelId,
    /// The sender.
    pub u: String,
    /// Length of the body in bytes.
    pub len: usize,
    /// `n` of an earlier message that this one quotes.
    #[serde(default)]
    pub q: Option<u64>,
}

/// A trace, or its first part, with what must be acked before what.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// The messages, in order.
    pub lines: Vec<Line>,
    /// Per message: the place of the sender's previous message in the same channel.
    pub previous: Vec<Option<usize>>,
    /// Per message: the place of the message it quotes.
    pub quoted: Vec<Option<usize>>,
}

impl Trace {
    /// Reads a trace (JSON lines, gzip by its magic number), at most `limit` messages.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Self, Failure> {
        let open = || -> std::io::Result<Box<dyn BufRead>> {
            let mut file = BufReader::new(File::open(path)?);
            let zipped = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
            let reader: Box<dyn Read> = if zipped {
                Box::new(MultiGzDecoder::new(file))
            } else {
                Box::new(file)
            };
            Ok(Box::new(BufReader::new(reader)))
        };
        let reader = open().map_err(|error| Failure::io("reading the trace", path, &error))?;
        let mut lines = Vec::new();
        for (place, line) in reader.lines().take(limit.unwrap_or(usize::MAX)).enumerate() {
            let line = line.map_err(|error| Failure::io("reading the trace", path, &error))?;
            lines.push(serde_json::from_str(&line).map_err(|error| {
                Failure::usage(
                    format!("the trace has a line that is no message: {error}"),
                    format!("{}, line {}", path.display(), place + 1),
                    "a message has n, ch, u, len, and may have q (traces' README)",
                )
            })?);
        }
        if lines.is_empty() {
            let place = path.display().to_string();
            return Err(Failure::usage(
                "there is no message to play",
                place,
                "give a trace, and a --limit of 1 or more",
            ));
        }
        Ok(Self::new(lines))
    }

    /// Finds what must be acked before what.
    pub fn new(lines: Vec<Line>) -> Self {
        let mut last: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut place_of: BTreeMap<u64, usize> = BTreeMap::new();
        let (mut previous, mut quoted) = (Vec::with_capacity(lines.len()), Vec::with_capacity(lines.len()));
        for (place, line) in lines.iter().enumerate() {
            previous.push(last.insert((&line.u, line.ch.as_str()), place));
            // Only earlier messages of the part that is played can be waited for.
            quoted.push(line.q.and_then(|q| place_of.get(&q).copied()));
            place_of.insert(line.n, place);
        }
        Self {
            lines,
            previous,
            quoted,
        }
    }

    /// The channels, sorted.
    pub fn channels(&self) -> Vec<ChannelId> {
        let mut names: Vec<ChannelId> = self.lines.iter().map(|line| line.ch.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The senders, sorted, with how many messages each has.
    pub fn users(&self) -> BTreeMap<String, usize> {
        let mut users = BTreeMap::new();
        for line in &self.lines {
            *users.entry(line.u.clone()).or_default() += 1;
        }
        users
    }

    /// The place of every message, by its `n`.
    pub fn place_of(&self) -> Arc<BTreeMap<u64, usize>> {
        let places = self.lines.iter().enumerate();
        Arc::new(places.map(|(place, line)| (line.n, place)).collect())
    }
}

impl Line {
    /// The body: the message's own number, repeated to its length, so that no two long bodies are alike.
    pub fn body(&self) -> Vec<u8> {
        let unit = format!("{} ", self.n);
        unit.bytes().cycle().take(self.len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u64, ch: &str, u: &str, q: Option<u64>) -> Line {
        Line {
            n,
            ch: ChannelId::new(ch).expect("valid"),
            u: u.to_owned(),
            len: 5,
            q,
        }
    }

    #[test]
    fn a_message_waits_for_its_senders_last_in_the_channel_and_for_what_it_quotes() {
        let trace = Trace::new(vec![
            line(10, "a", "ann", None),
            line(11, "b", "ann", Some(10)),
            line(12, "a", "bob", Some(99)),
            line(13, "a", "ann", Some(12)),
        ]);
        assert_eq!(trace.previous, [None, None, None, Some(0)]);
        assert_eq!(trace.quoted, [None, Some(0), None, Some(2)]);
        assert_eq!(
            trace.channels().iter().map(ChannelId::as_str).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(
            trace.users(),
            [("ann".to_owned(), 3), ("bob".to_owned(), 1)].into()
        );
    }

    #[test]
    fn a_body_has_its_length_and_is_the_same_every_time() {
        let line = line(1234, "a", "ann", None);
        assert_eq!(line.body(), b"1234 ");
        assert_eq!(
            Line {
                len: 1,
                ..line.clone()
            }
            .body(),
            b"1"
        );
        assert_eq!(Line { len: 12, ..line }.body(), b"1234 1234 12");
    }

    #[test]
    fn a_broken_line_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("t.jsonl");
        std::fs::write(
            &path,
            "{\"n\":0,\"ch\":\"a\",\"u\":\"x\",\"len\":1,\"t\":5}\n{}\n",
        )
        .expect("written");
        assert_eq!(Trace::read(&path, Some(1)).map(|trace| trace.lines.len()), Ok(1));
        assert!(
            Trace::read(&path, None)
                .expect_err("broken")
                .place
                .ends_with("line 2")
        );
    }
}
