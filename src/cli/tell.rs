//! Lines for people, on stderr or stdout. A line that cannot be written is dropped: a log on a full
//! disk, or a reader that has gone, must not end a process that serves.

use std::fmt;
use std::io::Write;

/// A line on stderr.
pub fn note(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A line on stdout, at once.
pub fn say(line: impl fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
