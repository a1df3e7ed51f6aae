//! One way the disk may look after the cut.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;

use super::{Change, Disk, Entry, Names, Node, PAGE, SECTOR};

/// What becomes of everything that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All of it is lost.
    Nothing,
    /// All of it is there, as after a kill of the process alone.
    Everything,
    /// What came first is there, up to a sector inside one write.
    Prefix,
    /// Each write is there or not, by itself.
    Subset,
    /// Each page or each sector of each write is there or not, by itself.
    Torn,
}

impl Fate {
    /// The fate of the nth try of one crash point: the two that need no luck first.
    pub fn of(variant: u64, random: &mut StdRng) -> Self {
        match variant {
            0 => Self::Nothing,
            _ => [
                Self::Everything,
                Self::Prefix,
                Self::Subset,
                Self::Torn,
                Self::Torn,
            ][random.random_range(0..5)],
        }
    }
}

/// A folder after the cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its folders, parents first, below the root.
    pub folders: Vec<PathBuf>,
    /// Its files.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Whether some write is there in part.
    pub torn: bool,
    /// Whether some write is there, whole or in part, and an earlier one is not or only in part.
    pub reordered: bool,
}

impl Image {
    /// Writes it into an empty folder.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        for folder in &self.folders {
            fs::create_dir(root.join(folder))?;
        }
        for (path, bytes) in &self.files {
            fs::write(root.join(path), bytes)?;
        }
        Ok(())
    }
}

impl Disk {
    /// The folder as it may be if the power is cut now.
    pub fn image(&self, fate: Fate, random: &mut StdRng) -> Image {
        let mut image = Image::default();
        let mut open = vec![(self.root, PathBuf::new())];
        while let Some((inode, path)) = open.pop() {
            match self.nodes.get(&inode) {
                Some(Node::Folder { durable, pending, .. }) => {
                    if inode != self.root {
                        image.folders.push(path.clone());
                    }
                    let names = names_after(durable, pending, fate, random);
                    open.extend(names.into_iter().map(|(name, inode)| (inode, path.join(name))));
                }
                Some(Node::File { durable, pending }) => {
                    let mut file = FileAfter::new(durable.clone(), random);
                    file.go_through(pending, fate, random);
                    image.torn |= file.torn;
                    image.reordered |= file.reordered;
                    image.files.push((path, file.bytes));
                }
                None => {}
            }
        }
        image.folders.sort();
        image
    }
}

fn names_after(durable: &Names, pending: &[Entry], fate: Fate, random: &mut StdRng) -> BTreeMap<String, u64> {
    let mut names = durable.clone();
    let cut = random.random_range(0..=pending.len());
    for (place, entry) in pending.iter().enumerate() {
        let there = match fate {
            Fate::Nothing => false,
            Fate::Everything => true,
            Fate::Prefix => place < cut,
            Fate::Subset | Fate::Torn => random.random(),
        };
        if !there {
            continue;
        }
        match entry {
            Entry::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Entry::Unlink { name } => {
                names.remove(name);
            }
            Entry::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
    names
}

/// A file while the fate of its writes is decided.
struct FileAfter {
    bytes: Vec<u8>,
    torn: bool,
    reordered: bool,
    /// Whether something before the write at hand is missing.
    missing: bool,
    /// Whether lengths may persist without what was written there: zeros are read then.
    long: bool,
}

impl FileAfter {
    fn new(bytes: Vec<u8>, random: &mut StdRng) -> Self {
        Self {
            bytes,
            torn: false,
            reordered: false,
            missing: false,
            long: random.random_ratio(1, 4),
        }
    }

    fn go_through(&mut self, pending: &[Change], fate: Fate, random: &mut StdRng) {
        let cut = random.random_range(0..=pending.len());
        for (place, change) in pending.iter().enumerate() {
            match fate {
                Fate::Nothing => return,
                Fate::Everything => self.whole(change),
                Fate::Prefix if place < cut => self.whole(change),
                Fate::Prefix if place == cut => self.cut(change, random),
                Fate::Prefix => return,
                Fate::Subset if random.random() => self.whole(change),
                Fate::Subset => self.lost(change),
                Fate::Torn => {
                    let block = if random.random() { PAGE } else { SECTOR };
                    self.blocks(change, block, |_| random.random());
                }
            }
        }
    }

    fn whole(&mut self, change: &Change) {
        self.reordered |= self.missing;
        apply(&mut self.bytes, change);
    }

    fn lost(&mut self, change: &Change) {
        self.missing = true;
        if let (true, Change::Write { offset, data }) = (self.long, change) {
            let end = usize::try_from(*offset).unwrap_or(usize::MAX) + data.len();
            let length = self.bytes.len().max(end);
            self.bytes.resize(length, 0);
        }
    }

    /// The sectors before some place.
    fn cut(&mut self, change: &Change, random: &mut StdRng) {
        let sectors = match change {
            Change::Write { data, .. } => data.len() as u64 / SECTOR,
            Change::Truncate { .. } => 0,
        };
        let keep = random.random_range(0..=sectors);
        self.blocks(change, SECTOR, |block| block < keep);
    }

    /// The blocks of a write that are there; blocks are those of the file, not of the write.
    fn blocks(&mut self, change: &Change, block: u64, mut there: impl FnMut(u64) -> bool) {
        let Change::Write { offset, data } = change else {
            return if there(0) {
                self.whole(change)
            } else {
                self.lost(change)
            };
        };
        let (mut kept, mut gone) = (false, false);
        let mut at = 0;
        let mut number = 0;
        while at < data.len() {
            let from = offset + at as u64;
            let left = usize::try_from(block - from % block).unwrap_or(usize::MAX);
            let end = data.len().min(at + left);
            if there(number) {
                kept = true;
                let part = Change::Write {
                    offset: from,
                    data: data.slice(at..end),
                };
                apply(&mut self.bytes, &part);
            } else {
                gone = true;
            }
            at = end;
            number += 1;
        }
        self.torn |= kept && gone;
        self.reordered |= kept && self.missing;
        if gone {
            self.lost(change);
        }
    }
}

/// Carries a change out.
pub(super) fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data } => {
            let from = usize::try_from(*offset).unwrap_or(usize::MAX);
            let end = from + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[from..end].copy_from_slice(data);
        }
        Change::Truncate { length } => {
            bytes.resize(usize::try_from(*length).unwrap_or(usize::MAX), 0);
        }
    }
}
