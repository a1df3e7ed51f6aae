//! What a person is told when a command cannot go on: what happened, where, and what to do next.

use std::fmt;
use std::io;
use std::path::Path;

/// Exit codes of every command (design, command line).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything checked holds.
    Holds = 0,
    /// A checked promise does not hold.
    Broken = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The command could not run.
    CouldNotRun = 3,
}

/// A failure in three sentences. Printed on stderr; never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub what: String,
    /// Where: a file, an address, a line.
    pub place: String,
    /// What to do next.
    pub next: String,
    /// The exit code.
    pub exit: Exit,
}

impl Failure {
    /// A failure to run.
    pub fn new(what: impl Into<String>, place: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            place: place.into(),
            next: next.into(),
            exit: Exit::CouldNotRun,
        }
    }

    /// A mistake in the command line or the configuration.
    pub fn usage(what: impl Into<String>, place: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(what, place, next)
        }
    }

    /// Another process holds an address.
    pub fn port_in_use(addr: impl fmt::Display, key: &str) -> Self {
        Self::new(
            "the address is in use by another process",
            format!("{addr} ({key})"),
            "stop that process, or choose another address with the same key",
        )
    }

    /// A second process on one folder.
    pub fn locked(dir: &Path) -> Self {
        Self::new(
            "another throng process is running on this folder",
            dir.display().to_string(),
            "stop it first (Ctrl-C or SIGTERM drains it), or give this one a folder of its own with --dir",
        )
    }

    /// A folder written by a later version.
    pub fn newer_format(dir: &Path, found: u32, known: u32) -> Self {
        Self::new(
            format!("the folder is of format {found}, this build knows formats up to {known}"),
            dir.display().to_string(),
            "run the version that wrote it or a later one; nothing was changed",
        )
    }

    /// No room left.
    pub fn disk_full(place: &Path) -> Self {
        Self::new(
            "the disk is full; nothing that was not stored has been acknowledged",
            place.display().to_string(),
            "free space on that file system and start again; the data is intact",
        )
    }

    /// A certificate or key that cannot be used.
    pub fn certificate(path: &Path, why: impl fmt::Display) -> Self {
        Self::new(
            format!("the certificate or key cannot be read: {why}"),
            path.display().to_string(),
            "check that the file exists, is PEM, and is readable by this user (keys: mode 0600)",
        )
    }

    /// No cluster where one was named.
    pub fn no_cluster(dir: &Path) -> Self {
        Self::new(
            "there is no cluster at this folder",
            dir.join("cluster.json").display().to_string(),
            "start one with `throng up --dir DIR`, or name the folder of one that runs",
        )
    }

    /// A token the edge refused.
    pub fn token(expired: bool, edge: &str) -> Self {
        let what = if expired {
            "the token has expired"
        } else {
            "the token was refused"
        };
        Self::new(
            what,
            format!("edge {edge}"),
            "make a new one with `throng token --cluster DIR --user U`, with the app of this cluster",
        )
    }

    /// An operation on a file failed.
    pub fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull => Self::disk_full(path),
            io::ErrorKind::PermissionDenied => Self::new(
                format!("{doing} was refused"),
                path.display().to_string(),
                "check the owner and the mode of that path",
            ),
            _ => Self::new(
                format!("{doing} failed: {error}"),
                path.display().to_string(),
                "check the path and try again",
            ),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.what)?;
        writeln!(f, "   at: {}", self.place)?;
        write!(f, " next: {}", self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_texts_say_what_happened_where_and_what_to_do() {
        let dir = Path::new("throng-data");
        let cases = [
            (
                Failure::port_in_use("127.0.0.1:7101", "nodes.addr"),
                "error: the address is in use by another process\n   at: 127.0.0.1:7101 (nodes.addr)\n next: stop that \
                 process, or choose another address with the same key",
            ),
            (
                Failure::locked(dir),
                "error: another throng process is running on this folder\n   at: throng-data\n next: stop it first \
                 (Ctrl-C or SIGTERM drains it), or give this one a folder of its own with --dir",
            ),
            (
                Failure::newer_format(dir, 9, 1),
                "error: the folder is of format 9, this build knows formats up to 1\n   at: throng-data\n next: run \
                 the version that wrote it or a later one; nothing was changed",
            ),
            (
                Failure::io("writing", dir, &io::Error::from(io::ErrorKind::StorageFull)),
                "error: the disk is full; nothing that was not stored has been acknowledged\n   at: throng-data\n \
                 next: free space on that file system and start again; the data is intact",
            ),
            (
                Failure::certificate(Path::new("edge.pem"), "no certificate in it"),
                "error: the certificate or key cannot be read: no certificate in it\n   at: edge.pem\n next: check \
                 that the file exists, is PEM, and is readable by this user (keys: mode 0600)",
            ),
            (
                Failure::no_cluster(dir),
                "error: there is no cluster at this folder\n   at: throng-data/cluster.json\n next: start one with \
                 `throng up --dir DIR`, or name the folder of one that runs",
            ),
            (
                Failure::token(true, "127.0.0.1:7443"),
                "error: the token has expired\n   at: edge 127.0.0.1:7443\n next: make a new one with `throng token \
                 --cluster DIR --user U`, with the app of this cluster",
            ),
            (
                Failure::token(false, "127.0.0.1:7443"),
                "error: the token was refused\n   at: edge 127.0.0.1:7443\n next: make a new one with `throng token \
                 --cluster DIR --user U`, with the app of this cluster",
            ),
        ];
        for (failure, golden) in cases {
            assert_eq!(failure.to_string(), golden);
        }
    }
}
