//! An edge on real links: clients over QUIC on one side, a stand-in for the core on the other.
//!
//! The stand-in speaks the real cluster wire over a real endpoint and keeps logs in memory; whole
//! systems with real core nodes are tested by `tests/cluster`.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod bad_input;
mod churn;
mod client;
mod delivery;
mod fences;
mod loris;
mod operations;
mod refusals;
mod rights;
mod stamps;
mod stand_in;
mod tokens;
mod workers;
