//! The bodies of the fuzz targets: bytes in, a panic where a promise is broken.
//!
//! `fuzz/` builds one program of each for libFuzzer; the test of this package replays the committed
//! corpora through the same functions with the stable toolchain, so that what a fuzzer once found
//! is tested for ever. A target is a function of its bytes alone: no clock, no randomness, no file.

#![expect(
    clippy::unwrap_used,
    reason = "a target says that a promise is broken by panicking"
)]

pub mod base64;
pub mod cluster;
pub mod frame;
pub mod message;
pub mod record;

pub mod session;
pub mod token;

/// A fuzz target: its name, which is that of its corpus, and its body.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// The body.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frame",
        run: frame::run,
    },
    Target {
        name: "message",
        run: message::run,
    },
    Target {
        name: "session",
        run: session::run,
    },
    Target {
        name: "token",
        run: token::run,
    },
    Target {
        name: "record",
        run: record::run,
    },
    Target {
        name: "cluster",
        run: cluster::run,
    },
];
