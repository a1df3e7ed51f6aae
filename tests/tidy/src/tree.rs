//! The files of the checkout, read once and handed to every rule.
//!
//! In a git checkout these are the files git knows or would add; elsewhere, all files outside
//! build folders. Files that are not UTF-8 carry no text and no rule reads them.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// Folders that hold no source, wherever they are.
const NOT_SOURCE: &[&str] = &["target", ".git", "node_modules", ".venv", "__pycache__", "data"];

/// One file: its path from the root of the checkout, with `/`, and its text.
#[derive(Debug, Clone)]
pub struct File {
    /// The path from the root, such as `core/src/lib.rs`.
    pub path: String,
    /// The content, empty for files that are not UTF-8.
    pub text: String,
}

impl File {
    /// A file made up by a test or read from disk.
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Whether the path ends in `.` and `extension`.
    #[must_use]
    pub fn is(&self, extension: &str) -> bool {
        self.path
            .rsplit_once('.')
            .is_some_and(|(_, end)| end == extension)
    }

    /// Whether a program wrote this file.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        self.path.ends_with("_generated.rs")
    }

    /// Whether the whole file is test code.
    #[must_use]
    pub fn is_test(&self) -> bool {
        self.path
            .split('/')
            .any(|part| matches!(part, "tests" | "tests.rs" | "benches"))
            || self.path.ends_with("_test.rs")
    }
}

/// All files of the checkout.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Sorted by path.
    pub files: Vec<File>,
}

impl Tree {
    /// A tree made up by a test: pairs of path and text.
    #[must_use]
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self {
            files: files.iter().map(|(path, text)| File::new(path, text)).collect(),
        }
    }

    /// Reads the checkout that holds this package.
    ///
    /// # Errors
    /// When a listed file cannot be read.
    pub fn read() -> anyhow::Result<Self> {
        let root = root();
        let mut paths = listed_by_git(&root).map_or_else(|| walked(&root), Ok)?;
        paths.sort();
        paths.dedup();
        let mut files = Vec::new();
        for path in paths {
            let full = root.join(&path);
            // Listed but deleted in the work tree, or a link to a folder.
            if !full.is_file() {
                continue;
            }
            let bytes = std::fs::read(&full).with_context(|| format!("reading {path}"))?;
            files.push(File {
                path,
                text: String::from_utf8(bytes).unwrap_or_default(),
            });
        }
        Ok(Self { files })
    }

    /// The text of the file at `path`.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|file| file.path == path)
            .map(|file| file.text.as_str())
    }

    /// The Rust files that people write.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files
            .iter()
            .filter(|file| file.is("rs") && !file.is_generated())
    }
}

/// The root of the checkout.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .map_or_else(|| here.to_path_buf(), Path::to_path_buf)
}

/// The files git knows or would add; nothing when the root is not the top of a git checkout.
fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(arguments)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).ok())
            .flatten()
    };
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if std::fs::canonicalize(top.trim()).ok()? != std::fs::canonicalize(root).ok()? {
        return None;
    }
    let list = git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    Some(
        list.split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

fn walked(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            if NOT_SOURCE.iter().any(|skipped| name == **skipped) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if let Ok(path) = entry.path().strip_prefix(root) {
                found.push(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walking_finds_this_file_and_no_build_output() {
        let found = walked(&root()).unwrap();
        assert!(found.iter().any(|path| path == "tests/tidy/src/tree.rs"));
        assert!(!found.iter().any(|path| path.starts_with("target/")));
    }

    #[test]
    fn reading_finds_the_same_sources_as_walking() {
        let read = Tree::read().unwrap();
        assert!(
            read.text("tests/tidy/src/tree.rs")
                .is_some_and(|text| text.contains("fn walked"))
        );
        assert!(
            read.text("Cargo.toml")
                .is_some_and(|text| text.contains("[workspace]"))
        );
    }

    #[test]
    fn test_files_are_told_by_their_place() {
        assert!(File::new("core/tests/election.rs", "").is_test());
        assert!(File::new("protocol/src/message/tests.rs", "").is_test());
        assert!(!File::new("core/src/feed.rs", "").is_test());
    }
}
