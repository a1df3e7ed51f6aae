//! A disk as it may be after a power cut: what was synced, and some of what was not.
//!
//! Stricter than file systems are: without a sync of its folder a new name may be missing however
//! often the file was synced, a synchronous write carries no other write with it, and what was not
//! synced persists in any order. Kinder in one thing, as disks are: a sector is written whole or not
//! at all.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use crate::record::Step;

mod image;

pub use image::{Fate, Image};

/// Bytes that are written whole or not at all.
pub const SECTOR: u64 = 512;
/// Bytes a file system writes at a time.
pub const PAGE: u64 = 4_096;

/// A change of a file that no sync has covered yet.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, data: Bytes },
    Truncate { length: u64 },
}

/// A change of a folder that no sync has covered yet.
#[derive(Debug, Clone)]
enum Entry {
    Link { name: String, inode: u64 },
    Unlink { name: String },
    Rename { from: String, to: String, inode: u64 },
}

type Names = BTreeMap<String, u64>;

#[derive(Debug, Clone)]
enum Node {
    File {
        durable: Vec<u8>,
        pending: Vec<Change>,
    },
    Folder {
        durable: Names,
        live: Names,
        pending: Vec<Entry>,
    },
}

impl Node {
    fn file() -> Self {
        Self::File {
            durable: Vec::new(),
            pending: Vec::new(),
        }
    }

    fn folder() -> Self {
        Self::Folder {
            durable: Names::new(),
            live: Names::new(),
            pending: Vec::new(),
        }
    }
}

/// The state of the disk at a step of a record.
#[derive(Debug, Clone)]
pub struct Disk {
    root: u64,
    nodes: BTreeMap<u64, Node>,
    /// A write whose own sync comes when it is done.
    synchronous: Option<(u64, u64, Bytes)>,
    /// Whether syncs do what they say. A disk that lies shows that the check can fail.
    honest: bool,
}

impl Disk {
    /// An empty folder, durable, under its inode.
    pub fn new(root: u64, honest: bool) -> Self {
        Self {
            root,
            nodes: BTreeMap::from([(root, Node::folder())]),
            synchronous: None,
            honest,
        }
    }

    /// A step begins: what it writes may be on the disk from now on. Nothing it syncs is there for
    /// sure before [`finish`](Self::finish).
    pub fn begin(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Create { inode, path } => self.link(path, *inode, Node::file()),
            Step::MakeFolder { inode, path } => self.link(path, *inode, Node::folder()),
            Step::Write {
                inode,
                offset,
                data,
                synchronous,
            } => {
                let change = Change::Write {
                    offset: *offset,
                    data: data.clone(),
                };
                self.change(*inode, change)?;
                if *synchronous {
                    self.synchronous = Some((*inode, *offset, data.clone()));
                }
                Ok(())
            }
            Step::Truncate { inode, length } => self.change(*inode, Change::Truncate { length: *length }),
            Step::Rename { from, to } => self.rename(from, to),
            Step::Unlink { path } => self.unlink(path),
            Step::Sync { .. } | Step::Mark(_) => Ok(()),
        }
    }

    /// A step is done: what it synced is durable.
    pub fn finish(&mut self, step: &Step) -> Result<()> {
        if !self.honest {
            self.synchronous = None;
            return Ok(());
        }
        if let Step::Sync { inode } = step {
            self.sync(*inode)?;
        }
        if let Some((inode, offset, data)) = self.synchronous.take() {
            self.sync_write(inode, offset, &data)?;
        }
        Ok(())
    }

    fn change(&mut self, inode: u64, change: Change) -> Result<()> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File { pending, .. }) => {
                pending.push(change);
                Ok(())
            }
            _ => anyhow::bail!("inode {inode} is written and is no file"),
        }
    }

    fn link(&mut self, path: &str, inode: u64, node: Node) -> Result<()> {
        self.nodes.insert(inode, node);
        let (live, pending, name) = self.folder_of(path)?;
        live.insert(name.clone(), inode);
        pending.push(Entry::Link { name, inode });
        Ok(())
    }

    fn unlink(&mut self, path: &str) -> Result<()> {
        let (live, pending, name) = self.folder_of(path)?;
        live.remove(&name)
            .with_context(|| format!("{path} was removed"))?;
        pending.push(Entry::Unlink { name });
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        ensure!(
            Path::new(from).parent() == Path::new(to).parent(),
            "{from} was moved to another folder, {to}: that is not modelled"
        );
        let to = Path::new(to)
            .file_name()
            .and_then(|name| name.to_str())
            .context("a name")?
            .to_owned();
        let (live, pending, from) = self.folder_of(from)?;
        let inode = live
            .remove(&from)
            .with_context(|| format!("{from} was renamed"))?;
        live.insert(to.clone(), inode);
        pending.push(Entry::Rename { from, to, inode });
        Ok(())
    }

    /// The folder that holds a path, and the path's last name.
    fn folder_of(&mut self, path: &str) -> Result<(&mut Names, &mut Vec<Entry>, String)> {
        let mut at = self.root;
        let mut parts: Vec<&str> = path.split('/').collect();
        let name = parts.pop().context("a path")?.to_owned();
        for part in parts {
            let Some(Node::Folder { live, .. }) = self.nodes.get(&at) else {
                anyhow::bail!("{path}: a part of it is no folder");
            };
            at = *live.get(part).with_context(|| format!("{path}: no {part}"))?;
        }
        match self.nodes.get_mut(&at) {
            Some(Node::Folder { live, pending, .. }) => Ok((live, pending, name)),
            _ => anyhow::bail!("{path}: its parent is no folder"),
        }
    }

    fn sync(&mut self, inode: u64) -> Result<()> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File { durable, pending }) => {
                for change in pending.drain(..) {
                    image::apply(durable, &change);
                }
            }
            Some(Node::Folder {
                durable,
                live,
                pending,
            }) => {
                durable.clone_from(live);
                pending.clear();
            }
            None => anyhow::bail!("inode {inode} was synced and is not known"),
        }
        Ok(())
    }

    /// A synchronous write is durable with every sector it touched; other writes of the file are not.
    fn sync_write(&mut self, inode: u64, offset: u64, data: &Bytes) -> Result<()> {
        let Some(Node::File { durable, pending }) = self.nodes.get_mut(&inode) else {
            anyhow::bail!("inode {inode} was written and is no file");
        };
        // It was pushed last. What it wrote over stays in the list and may still persist or not, but
        // never over this write: what is pending there now is in the same pages and goes with it.
        pending.pop();
        let change = Change::Write {
            offset,
            data: data.clone(),
        };
        image::apply(durable, &change);
        let end = offset + data.len() as u64;
        let covered = |other: &Change| matches!(other, Change::Write { offset: from, data } if *from < end && offset < *from + data.len() as u64);
        ensure!(
            !pending.iter().any(covered),
            "a synchronous write overlaps one that was not synced: that is not modelled"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const ROOT: u64 = 1;

    fn create(inode: u64, path: &str) -> Step {
        Step::Create {
            inode,
            path: path.to_owned(),
        }
    }

    fn write(inode: u64, offset: u64, data: &[u8], synchronous: bool) -> Step {
        Step::Write {
            inode,
            offset,
            data: Bytes::copy_from_slice(data),
            synchronous,
        }
    }

    fn disk(steps: &[Step]) -> Disk {
        let mut disk = Disk::new(ROOT, true);
        for step in steps {
            disk.begin(step).expect("a step");
            disk.finish(step).expect("a step");
        }
        disk
    }

    fn content(image: &Image, path: &str) -> Option<Vec<u8>> {
        let found = image.files.iter().find(|(name, _)| name == Path::new(path));
        found.map(|(_, bytes)| bytes.clone())
    }

    fn image(disk: &Disk, fate: Fate, seed: u64) -> Image {
        disk.image(fate, &mut StdRng::seed_from_u64(seed))
    }

    #[test]
    fn what_was_synced_is_always_there_and_the_rest_sometimes() {
        let disk = disk(&[
            create(2, "a"),
            Step::Sync { inode: ROOT },
            write(2, 0, b"one", false),
            Step::Sync { inode: 2 },
            write(2, 3, b"two", false),
        ]);
        assert_eq!(
            content(&image(&disk, Fate::Nothing, 0), "a"),
            Some(b"one".to_vec())
        );
        assert_eq!(
            content(&image(&disk, Fate::Everything, 0), "a"),
            Some(b"onetwo".to_vec())
        );
        let some: std::collections::BTreeSet<_> = (0..100)
            .map(|seed| content(&image(&disk, Fate::Subset, seed), "a"))
            .collect();
        assert!(some.len() > 1 && some.iter().flatten().all(|bytes| bytes.starts_with(b"one")));
    }

    #[test]
    fn a_name_is_there_for_sure_only_after_its_folder_was_synced() {
        let steps = [
            create(2, "a"),
            write(2, 0, b"one", false),
            Step::Sync { inode: 2 },
        ];
        assert_eq!(content(&image(&disk(&steps), Fate::Nothing, 0), "a"), None);
        let mut synced = steps.to_vec();
        synced.push(Step::Sync { inode: ROOT });
        assert_eq!(
            content(&image(&disk(&synced), Fate::Nothing, 0), "a"),
            Some(b"one".to_vec())
        );
    }

    #[test]
    fn a_synchronous_write_is_durable_alone() {
        let disk = disk(&[
            create(2, "a"),
            Step::Sync { inode: ROOT },
            write(2, 0, &[1; 512], false),
            write(2, 512, &[2; 512], true),
        ]);
        let found = content(&image(&disk, Fate::Nothing, 0), "a").expect("there");
        assert_eq!(found, [vec![0; 512], vec![2; 512]].concat());
    }

    #[test]
    fn torn_writes_are_torn_between_sectors() {
        let disk = disk(&[
            create(2, "a"),
            Step::Sync { inode: ROOT },
            write(2, 256, &[1; 4096], false),
        ]);
        let mut torn = 0;
        for seed in 0..200 {
            let image = image(&disk, Fate::Torn, seed);
            torn += u32::from(image.torn);
            let Some(bytes) = content(&image, "a") else {
                continue;
            };
            for sector in bytes.chunks(SECTOR as usize).skip(1) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
            }
        }
        assert!(torn > 50);
    }

    #[test]
    fn a_rename_replaces_whole_or_not_at_all() {
        let disk = disk(&[
            create(2, "a"),
            write(2, 0, b"old", false),
            Step::Sync { inode: 2 },
            Step::Sync { inode: ROOT },
            create(3, "a.new"),
            write(3, 0, b"new", false),
            Step::Sync { inode: 3 },
            Step::Rename {
                from: "a.new".to_owned(),
                to: "a".to_owned(),
            },
        ]);
        for seed in 0..50 {
            let found = content(&image(&disk, Fate::Subset, seed), "a").expect("one of them");
            assert!(found == b"old" || found == b"new");
        }
    }

    #[test]
    fn a_disk_that_lies_keeps_nothing() {
        let mut disk = Disk::new(ROOT, false);
        for step in [
            create(2, "a"),
            write(2, 0, b"one", true),
            Step::Sync { inode: 2 },
            Step::Sync { inode: ROOT },
        ] {
            disk.begin(&step).expect("a step");
            disk.finish(&step).expect("a step");
        }
        assert_eq!(image(&disk, Fate::Nothing, 0).files, []);
    }
}
