//! The record of a run, as `interposer/capture.c` writes it.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes};

use crate::mark::Mark;

/// Bytes of a record before its names.
pub(crate) const HEAD: usize = 32;
/// The kind of a mark.
pub(crate) const MARK: u8 = 8;

/// Files in folders of this name are temporary: what becomes of them says nothing about the store.
const TEMPORARY: &str = "spool";

/// One step of the recorded process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file came to be.
    Create {
        /// Its inode.
        inode: u64,
        /// Its path below the root.
        path: String,
    },
    /// A folder came to be.
    MakeFolder {
        /// Its inode.
        inode: u64,
        /// Its path below the root.
        path: String,
    },
    /// Bytes were written.
    Write {
        /// Into which file.
        inode: u64,
        /// Where.
        offset: u64,
        /// What.
        data: Bytes,
        /// Whether the descriptor syncs each write (`O_DSYNC`).
        synchronous: bool,
    },
    /// A file got another length.
    Truncate {
        /// The file.
        inode: u64,
        /// Its length.
        length: u64,
    },
    /// A file or a folder was synced.
    Sync {
        /// Which.
        inode: u64,
    },
    /// An entry of a folder got another name.
    Rename {
        /// The path it had.
        from: String,
        /// The path it has.
        to: String,
    },
    /// An entry of a folder was removed.
    Unlink {
        /// The path it had.
        path: String,
    },
    /// The process said something about itself.
    Mark(Mark),
}

struct Raw {
    kind: u8,
    synchronous: bool,
    inode: u64,
    offset: u64,
    names: Bytes,
    data: Bytes,
}

fn raw(bytes: &mut Bytes) -> Result<Raw> {
    ensure!(bytes.len() >= HEAD, "the record ends inside a head");
    let kind = bytes.get_u8();
    let synchronous = bytes.get_u8() != 0;
    bytes.advance(2);
    let names = usize::try_from(bytes.get_u32_le())?;
    let (inode, offset) = (bytes.get_u64_le(), bytes.get_u64_le());
    let data = usize::try_from(bytes.get_u64_le())?;
    ensure!(
        names.checked_add(data).is_some_and(|sum| sum <= bytes.len()),
        "the record ends inside a step"
    );
    Ok(Raw {
        kind,
        synchronous,
        inode,
        offset,
        names: bytes.split_to(names),
        data: bytes.split_to(data),
    })
}

/// Reads a record of what happened below `root`; temporary files are left out.
pub fn parse(mut bytes: Bytes, root: &Path) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut temporary = BTreeSet::new();
    while !bytes.is_empty() {
        let raw = raw(&mut bytes)?;
        let step = step(raw, root).with_context(|| format!("step {}", steps.len()))?;
        if keep(&step, &mut temporary) {
            steps.push(step);
        }
    }
    Ok(steps)
}

fn step(raw: Raw, root: &Path) -> Result<Step> {
    let Raw { inode, offset, .. } = raw;
    let path = |bytes: &[u8]| -> Result<String> {
        let path = std::str::from_utf8(bytes)?;
        let below = Path::new(path)
            .strip_prefix(root)
            .with_context(|| path.to_owned())?;
        Ok(below.to_str().context("a path")?.to_owned())
    };
    Ok(match raw.kind {
        1 => Step::Create {
            inode,
            path: path(&raw.names)?,
        },
        2 => Step::Write {
            inode,
            offset,
            data: raw.data,
            synchronous: raw.synchronous,
        },
        3 => Step::Truncate {
            inode,
            length: offset,
        },
        4 => Step::Sync { inode },
        5 => {
            let mut names = raw.names.split(|byte| *byte == 0);
            let (from, to) = (names.next().context("a name")?, names.next().context("a name")?);
            Step::Rename {
                from: path(from)?,
                to: path(to)?,
            }
        }
        6 => Step::Unlink {
            path: path(&raw.names)?,
        },
        7 => Step::MakeFolder {
            inode,
            path: path(&raw.names)?,
        },
        MARK => Step::Mark(postcard::from_bytes(&raw.data)?),
        other => bail!(
            "kind {other} ({}) cannot be replayed",
            String::from_utf8_lossy(&raw.names)
        ),
    })
}

/// Whether a step concerns what stays. Inodes are used again, so a file's stay in `temporary` ends
/// when its number comes to be something else.
fn keep(step: &Step, temporary: &mut BTreeSet<u64>) -> bool {
    match step {
        Step::Create { inode, path } | Step::MakeFolder { inode, path } => {
            let inside = Path::new(path)
                .components()
                .any(|part| part == Component::Normal(TEMPORARY.as_ref()));
            if inside {
                temporary.insert(*inode);
            } else {
                temporary.remove(inode);
            }
            !inside
        }
        Step::Write { inode, .. } | Step::Truncate { inode, .. } | Step::Sync { inode } => {
            !temporary.contains(inode)
        }
        Step::Unlink { path } => !Path::new(path)
            .components()
            .any(|part| part == Component::Normal(TEMPORARY.as_ref())),
        Step::Rename { .. } | Step::Mark(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw_step(kind: u8, inode: u64, offset: u64, names: &[u8], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend((names.len() as u32).to_le_bytes());
        bytes.extend(inode.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend((data.len() as u64).to_le_bytes());
        bytes.extend(names);
        bytes.extend(data);
        bytes
    }

    #[test]
    fn a_record_is_read_back_without_what_is_temporary() {
        let mut bytes = raw_step(1, 7, 0, b"/r/a", b"");
        bytes.extend(raw_step(1, 8, 0, b"/r/spool/b", b""));
        bytes.extend(raw_step(2, 8, 0, b"", b"gone"));
        bytes.extend(raw_step(2, 7, 512, b"", b"kept"));
        bytes.extend(raw_step(5, 0, 0, b"/r/a\0/r/c", b""));
        let steps = parse(Bytes::from(bytes.clone()), Path::new("/r")).expect("a record");
        assert_eq!(
            steps,
            [
                Step::Create {
                    inode: 7,
                    path: "a".to_owned()
                },
                Step::Write {
                    inode: 7,
                    offset: 512,
                    data: Bytes::from_static(b"kept"),
                    synchronous: false
                },
                Step::Rename {
                    from: "a".to_owned(),
                    to: "c".to_owned()
                },
            ]
        );
        bytes.pop();
        assert!(
            parse(Bytes::from(bytes), Path::new("/r")).is_err(),
            "a cut record"
        );
    }

    #[test]
    fn a_step_that_cannot_be_replayed_is_refused() {
        let bytes = raw_step(9, 0, 0, b"msync", b"");
        assert!(parse(Bytes::from(bytes), Path::new("/r")).is_err());
    }
}
