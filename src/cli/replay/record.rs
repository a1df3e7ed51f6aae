//! `--record DIR`: what crossed the SDK's delivery boundary, as JSON lines that a checker outside
//! this project can judge from the trace and the export alone.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cli::failure::Failure;

/// Bytes gathered before a write; a record of a year has gigabytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// The folder of a record.
#[derive(Debug)]
pub struct Record {
    dir: PathBuf,
    joins: Mutex<BufWriter<File>>,
    sends: Mutex<BufWriter<File>>,
    kicks: Mutex<BufWriter<File>>,
}

/// One line of `clients/NAME.jsonl`.
#[derive(Debug, Serialize)]
pub struct DeliveryLine<'a> {
    /// The observer.
    pub client: &'a str,
    /// Its device.
    pub device: &'a str,
    /// The edge it was connected to.
    pub edge: &'a str,
    /// The how-manieth connection of the client.
    pub conn: u64,
    /// The channel.
    pub ch: &'a str,
    /// Position.
    pub seq: u64,
    /// The position before it, for this subscription.
    pub prev: u64,
    /// Time stamp.
    pub ts: u64,
    /// The message's unique value.
    pub id: &'a str,
    /// The sender.
    pub sender: &'a str,
    /// The sender's key.
    pub client_id: u64,
    /// Bytes of the body.
    pub len: usize,
    /// SHA-256 of the body.
    pub hash: &'a str,
    /// When it was given to the application, Unix microseconds.
    pub t_us: u64,
}

/// One line of `joins.jsonl`.
#[derive(Debug, Serialize)]
pub struct JoinLine<'a> {
    /// The observer.
    pub client: &'a str,
    /// The channel.
    pub ch: &'a str,
    /// The position it is entitled from: everything behind it.
    pub from_seq: u64,
}

/// One line of `sends.jsonl`.
#[derive(Debug, Serialize)]
pub struct SendLine<'a> {
    /// The sender's key.
    pub client_id: u64,
    /// The sender.
    pub sender: &'a str,
    /// The channel.
    pub ch: &'a str,
    /// Position.
    pub seq: u64,
    /// Time stamp.
    pub ts: u64,
    /// The message's unique value.
    pub id: &'a str,
    /// Whether an earlier attempt had stored it.
    pub repeat: bool,
    /// When the ack was given to the application, Unix microseconds.
    pub t_us: u64,
}

/// One line of `kicks.jsonl`. Where the fence lies in each channel, the exports say by its version.
#[derive(Debug, Serialize)]
pub struct KickLine<'a> {
    /// Who was kicked. Its devices are the clients `USER.1` and `USER.2`.
    pub user: &'a str,
    /// The fence's version.
    pub version: u64,
    /// Sends of the user in flight when the kick was asked for.
    pub inflight: usize,
    /// Whether every shard had the fence when the kick was answered.
    pub done: bool,
    /// When the kick was asked for, Unix microseconds.
    pub asked_us: u64,
    /// When it was answered.
    pub done_us: u64,
    /// When the user asked to come back.
    pub back_us: u64,
}

impl Record {
    /// Makes the folder and its files; what an earlier record left is replaced.
    pub fn create(dir: &Path) -> Result<Self, Failure> {
        let clients = dir.join("clients");
        if clients.exists() {
            fs::remove_dir_all(&clients).map_err(|error| Failure::io("removing", &clients, &error))?;
        }
        fs::create_dir_all(&clients).map_err(|error| Failure::io("making the folder", &clients, &error))?;
        let file = |name: &str| Ok::<_, Failure>(Mutex::new(open(&dir.join(name))?));
        Ok(Self {
            dir: dir.to_owned(),
            joins: file("joins.jsonl")?,
            sends: file("sends.jsonl")?,
            kicks: file("kicks.jsonl")?,
        })
    }

    /// The file of one observer.
    pub fn client(&self, name: &str) -> Result<BufWriter<File>, Failure> {
        open(&self.dir.join("clients").join(format!("{name}.jsonl")))
    }

    /// Notes a join.
    pub fn join(&self, line: &JoinLine<'_>) -> Result<(), Failure> {
        self.written(write_line(&mut *self.joins.lock(), line))
    }

    /// Notes an acked send.
    pub fn send(&self, line: &SendLine<'_>) -> Result<(), Failure> {
        self.written(write_line(&mut *self.sends.lock(), line))
    }

    /// Notes a kick and the return behind it.
    pub fn kick(&self, line: &KickLine<'_>) -> Result<(), Failure> {
        self.written(write_line(&mut *self.kicks.lock(), line))
    }

    /// Writes out what is gathered.
    pub fn finish(&self) -> Result<(), Failure> {
        self.written(self.joins.lock().flush())?;
        self.written(self.sends.lock().flush())?;
        self.written(self.kicks.lock().flush())
    }

    /// Turns a failed write into what a person is told.
    pub fn written(&self, outcome: io::Result<()>) -> Result<(), Failure> {
        outcome.map_err(|error| Failure::io("writing the record", &self.dir, &error))
    }
}

fn open(path: &Path) -> Result<BufWriter<File>, Failure> {
    let file = File::create(path).map_err(|error| Failure::io("making the file", path, &error))?;
    Ok(BufWriter::with_capacity(BUFFER_BYTES, file))
}

/// Writes one JSON line.
pub fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Lower-case hexadecimal SHA-256, as exports and records write it.
pub fn hash(body: &[u8]) -> String {
    Sha256::digest(body)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
            text
        })
}

/// Unix microseconds now.
pub fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_lower_case_hexadecimal_sha_256() {
        assert_eq!(
            hash(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn lines_land_in_their_files_and_a_new_record_replaces_the_old() {
        let dir = tempfile::tempdir().expect("a folder");
        for _ in 0..2 {
            let record = Record::create(dir.path()).expect("made");
            record
                .join(&JoinLine {
                    client: "o1",
                    ch: "a",
                    from_seq: 4,
                })
                .expect("written");
            let mut client = record.client("o1").expect("made");
            write_line(
                &mut client,
                &JoinLine {
                    client: "o1",
                    ch: "a",
                    from_seq: 4,
                },
            )
            .expect("written");
            client.flush().expect("flushed");
            record.finish().expect("flushed");
        }
        let joins = fs::read_to_string(dir.path().join("joins.jsonl")).expect("there");
        assert_eq!(joins, "{\"client\":\"o1\",\"ch\":\"a\",\"from_seq\":4}\n");
        assert!(dir.path().join("clients/o1.jsonl").exists());
    }
}
