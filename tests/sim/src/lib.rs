//! Deterministic simulation of whole clusters: one seed decides everything that happens in a run.
//!
//! ```text
//!  runner ──► one process per seed ──► cluster: hosts (core nodes, edges, clients), faults
//!                                        │ carrier, clock, store
//!                                        ▼
//!                                     net, disk ──► history ──► invariants ──► summary
//! ```
//!
//! Raft, the state machines, sessions of both sides, the edge and the SDK are the real ones; only
//! QUIC and LMDB are replaced, by a network and a disk that lose, delay and tear what the seed says.
//! The package refuses to hold logic of the product, and to know what a correct answer is anywhere
//! but in its invariants.

pub mod carrier;
pub mod changes;
pub mod cli;
pub mod clients;
pub mod cluster;
pub mod dumps;
pub mod entropy;
pub mod faults;
pub mod history;
pub mod host;
pub mod hunt;
pub mod invariants;
pub mod logs;
pub mod net;
pub mod planted;
pub mod recorder;
pub mod rng;
pub mod run;
pub mod runner;
pub mod scan;
pub mod setup;
pub mod simulation;
pub mod summary;
pub mod token;
pub mod workload;
pub mod world;
